"""Samples for a model: read, checked against its inputs, handed out in batches."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pconv_onnx.errors import PconvError
from pconv_onnx.neuron import Array

LABELS = "labels"
_RANDOM_SAMPLES = 32


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
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True, eq=False)
class Samples:
    """Checked samples.

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
    where, arrays = _read(source)
    labels = arrays.pop(LABELS, None) if LABELS not in {entry.name for entry in session.get_inputs()} else None
    fitted = {entry.name: _fitted(where, arrays, entry) for entry in session.get_inputs()}
    counts = {name: len(array) for name, array in fitted.items()}
    if labels is not None:
        counts[LABELS] = len(labels)
    if len(set(counts.values())) > 1:
        told = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise PconvError(f"arrays of {where} have unequal numbers of samples: {told}", "")
    if not counts or not next(iter(counts.values())):
        raise PconvError(f"{where} has no samples", "")
    return _sampled(fitted, labels, session)


def random_samples(session: Any, seed: int = 0) -> Samples:
    """Seeded inputs: floats standard normal, integers 0 or 1.

    Raises:
        PconvError: an input has an open dimension besides the batch, or a type that cannot be drawn.
    """
    generator = np.random.default_rng(seed)
    arrays = {}
    for entry in session.get_inputs():
        dtype = _TYPES.get(entry.type)
        if dtype is None or not entry.shape or not all(isinstance(size, int) for size in entry.shape[1:]):
            raise PconvError(
                f"no random values can be drawn for input '{entry.name}' of type {entry.type}, shape {entry.shape}",
                "pass --data",
            )
        batch = entry.shape[0] if isinstance(entry.shape[0], int) else _RANDOM_SAMPLES
        shape = [batch, *entry.shape[1:]]
        values = generator.standard_normal(shape) if "float" in dtype else generator.integers(0, 2, shape)
        arrays[entry.name] = values.astype(dtype)
    return _sampled(arrays, None, session)


def _sampled(arrays: dict[str, Array], labels: Array | None, session: Any) -> Samples:
    fixed = {entry.shape[0] for entry in session.get_inputs() if entry.shape and isinstance(entry.shape[0], int)}
    samples = Samples(arrays, labels, fixed.pop() if len(fixed) == 1 else None)
    if samples.fixed_batch and len(samples) % samples.fixed_batch:
        raise PconvError(
            f"the model takes batches of {samples.fixed_batch}, and {len(samples)} samples are not a multiple of that", ""
        )
    return samples


def _read(source: DataSource) -> tuple[str, dict[str, Array]]:
    if isinstance(source, Mapping):
        return "the data", {name: np.asarray(array) for name, array in source.items()}
    if hasattr(source, "get_next"):
        parts = list(iter(source.get_next, None))
        return "the data", _joined("the data", [dict(part) for part in parts])
    path = Path(source)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise PconvError(f"'{path}' holds no .npz files", "")
    return f"'{path}'", _joined(f"'{path}'", [_read_file(file) for file in files])


def _joined(where: str, parts: list[dict[str, Array]]) -> dict[str, Array]:
    if len({frozenset(part) for part in parts}) > 1:
        raise PconvError(f"the parts of {where} do not hold the same arrays", "")
    try:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    except ValueError as error:
        raise PconvError(f"the parts of {where} do not fit together: {error}", "") from error


def _read_file(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise PconvError(f"'{path}' holds one unnamed array", "save it by name with numpy.savez")
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise PconvError(f"cannot read '{path}': {error.strerror or error}", "check the path") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PconvError(f"'{path}' is not an .npz of plain arrays: {error}", "write it with numpy.savez") from error


def _fitted(where: str, arrays: dict[str, Array], entry: Any) -> Array:
    if entry.name not in arrays:
        held = ", ".join(f"'{name}'" for name in arrays) or "none"
        raise PconvError(
            f"{where} has no array '{entry.name}', which is an input of the model; it has {held}",
            "name the arrays as the model's inputs (examples/prepare_images.py does so for images)",
        )
    array = arrays[entry.name]
    expected = _TYPES.get(entry.type)
    if expected is not None and array.dtype != expected:
        raise PconvError(f"'{entry.name}' in {where} is {array.dtype}; the model takes {expected}", "convert it")
    sizes = zip(array.shape[1:], entry.shape[1:], strict=False)
    if array.ndim != len(entry.shape) or any(isinstance(size, int) and size != given for given, size in sizes):
        raise PconvError(f"'{entry.name}' in {where} has shape {list(array.shape)}; the model takes {entry.shape}", "")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        sample = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise PconvError(f"'{entry.name}' in {where} has a NaN or an infinity, first in sample {sample}", "")
    return array
