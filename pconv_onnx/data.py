"""Samples for a model: read, checked against its inputs, handed out in batches."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pconv_onnx.archives import read_npz
from pconv_onnx.errors import PconvError
from pconv_onnx.neuron import Array

LABELS = "labels"
_RANDOM_SAMPLES = 32
# Values of one input; what claims more is refused before it takes memory.
_MOST_RANDOM = 1 << 30


class CalibrationDataReader(Protocol):
    """onnxruntime's interface for streams of batches."""

    def get_next(self) -> dict[str, Array] | None:
        """The next batch by input name, None at the end."""


DataSource = str | os.PathLike[str] | Mapping[str, Array] | CalibrationDataReader

# What onnxruntime calls the element types of inputs.
_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True, eq=False)
class Samples:
    """Checked samples, one or more.

    Attributes:
        arrays: by input name; the first axis counts samples.
        labels: class of each sample, or None.
        fixed_batch: the batch size that the model insists on, or None.
    """

    arrays: dict[str, Array]
    labels: Array | None
    fixed_batch: int | None

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.arrays.values())))

    def batches(self, size: int) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Feeds of up to `size` samples (of the model's own batch size, if it has one) and where they come from."""
        size = self.fixed_batch or size
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, {name: array[part] for name, array in self.arrays.items()}


def load_samples(source: DataSource, session: Any) -> Samples:
    """Samples for the inputs of an onnxruntime session.

    Args:
        source: an `.npz` whose arrays are named as the inputs (first axis = samples; `labels` optional), a directory
            of such files, a mapping of arrays, or an object with onnxruntime's `get_next()`.
        session: the onnxruntime session whose inputs the samples are for.

    Raises:
        PconvError: the file cannot be read, or names, ranks, shapes, types, numbers of samples or values do not fit.
    """
    inputs, fixed_batch = _inputs(session)
    parts = [_fitted_part(where, arrays, inputs) for where, arrays in _read(source)]
    if len({LABELS in part for part in parts}) > 1:
        raise PconvError("some parts of the data have labels and others have none", "give labels to all or to none")
    joined = {name: _joined(name, [part[name] for part in parts]) for name in (parts[0] if parts else {})}
    labels = joined.pop(LABELS) if LABELS in joined and LABELS not in {entry.name for entry in inputs} else None
    if not joined or not len(next(iter(joined.values()))):
        raise PconvError("the data hold no samples")
    samples = Samples(joined, labels, fixed_batch)
    if fixed_batch and len(samples) % fixed_batch:
        raise PconvError(
            f"the model takes batches of {fixed_batch}, and {len(samples)} samples are not a multiple of that",
            "leave some out, or export the model with an open batch size",
        )
    return samples


def random_samples(session: Any, seed: int = 0) -> Samples:
    """Seeded inputs: floats standard normal, integers 0 or 1.

    Raises:
        PconvError: an input has an open dimension besides the batch, or a type that cannot be drawn.
    """
    inputs, fixed_batch = _inputs(session)
    generator = np.random.default_rng(seed)
    arrays = {}
    for entry in inputs:
        dtype = _TYPES.get(entry.type)
        if dtype is None or not all(isinstance(size, int) for size in entry.shape[1:]):
            raise PconvError(
                f"no random values can be drawn for input '{entry.name}' of type {entry.type}, shape {entry.shape}",
                "pass --data",
            )
        shape = [fixed_batch or _RANDOM_SAMPLES, *entry.shape[1:]]
        if math.prod(shape) > _MOST_RANDOM:
            raise PconvError(
                f"random values for input '{entry.name}' of shape {entry.shape} are too many", "pass --data"
            )
        values = generator.standard_normal(shape) if "float" in dtype else generator.integers(0, 2, shape)
        arrays[entry.name] = values.astype(dtype)
    return Samples(arrays, None, fixed_batch)


def _inputs(session: Any) -> tuple[Sequence[Any], int | None]:
    """The inputs of a session, each with an axis for samples, and the batch size that they insist on."""
    inputs = session.get_inputs()
    if not inputs:
        raise PconvError("the model has no inputs, so there are no samples to run it on")
    for entry in inputs:
        if not entry.type.startswith("tensor(") or not entry.shape:
            raise PconvError(
                f"input '{entry.name}' of type {entry.type} has no known first axis, which samples would run along"
            )
    sizes = {entry.name: entry.shape[0] for entry in inputs if isinstance(entry.shape[0], int)}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        told = ", ".join(f"'{name}' {size}" for name, size in sizes.items())
        raise PconvError(f"the model's inputs do not take one number of samples: {told}")
    return inputs, next(iter(sizes.values()), None)


def _read(source: DataSource) -> list[tuple[str, Mapping[str, Any]]]:
    """The parts of the data, and how to call each in messages."""
    if isinstance(source, Mapping):
        return [("the data", source)]
    if hasattr(source, "get_next"):
        return [(f"batch {index} of the data", batch) for index, batch in enumerate(iter(source.get_next, None))]
    path = Path(source)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise PconvError(f"'{path}' holds no .npz files", "write them with numpy.savez")
    return [(f"'{file}'", _read_file(file)) for file in files]


def _read_file(path: Path) -> dict[str, Array]:
    try:
        return read_npz(path)
    except (OSError, MemoryError) as error:
        raise PconvError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}", "check it") from error
    except ValueError as error:
        raise PconvError(f"'{path}' is not an .npz of plain arrays: {error}", "write it with numpy.savez") from error


def _fitted_part(where: str, arrays: Mapping[str, Any], inputs: Sequence[Any]) -> dict[str, Array]:
    """One part of the data: an array for each input, and labels if it has any."""
    part = {entry.name: _fitted(where, arrays, entry) for entry in inputs}
    if LABELS in arrays and LABELS not in part:
        labels = np.asarray(arrays[LABELS])
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise PconvError(
                f"'{LABELS}' in {where} is {labels.dtype} of shape {list(labels.shape)}",
                "a label is the number of a class, one for each sample",
            )
        part[LABELS] = labels
    if len({len(array) for array in part.values()}) > 1:
        told = ", ".join(f"'{name}' {len(array)}" for name, array in part.items())
        raise PconvError(f"the arrays of {where} have unequal numbers of samples: {told}")
    return part


def _fitted(where: str, arrays: Mapping[str, Any], entry: Any) -> Array:
    if entry.name not in arrays:
        held = ", ".join(f"'{name}'" for name in arrays) or "none"
        raise PconvError(
            f"{where} has no array '{entry.name}', which is an input of the model; it has {held}",
            "name the arrays as the model's inputs (examples/prepare_images.py does so for images)",
        )
    array = np.asarray(arrays[entry.name])
    expected = _TYPES.get(entry.type)
    if expected is not None and array.dtype != expected:
        raise PconvError(f"'{entry.name}' in {where} is {array.dtype}; the model takes {expected}", "convert it")
    sizes = zip(array.shape[1:], entry.shape[1:], strict=False)
    if array.ndim != len(entry.shape) or any(isinstance(size, int) and size != given for given, size in sizes):
        raise PconvError(f"'{entry.name}' in {where} has shape {list(array.shape)}; the model takes {entry.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        sample = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise PconvError(f"'{entry.name}' in {where} has a NaN or an infinity, first in sample {sample}")
    return array


def _joined(name: str, parts: Sequence[Array]) -> Array:
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise PconvError(f"the parts of '{name}' do not fit together: {error}") from error
