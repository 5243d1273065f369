"""Samples for a model: read, checked against its inputs, handed out in batches."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from pconv_onnx.errors import PconvError
from pconv_onnx.neuron import Array
from pconv_onnx.sources import LABELS, Given, Part, parts_of

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

    def part(self, rows: slice) -> Samples:
        """Some of them."""
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        return Samples(arrays, None if self.labels is None else self.labels[rows], self.fixed_batch)


class Input(NamedTuple):
    """An input of a session, as onnxruntime tells it."""

    name: str
    type: str
    shape: Sequence[Any]


class SampleReader:
    """Samples that are read when they are asked for. One that is pickled takes along where they lie, not what was read.

    Attributes:
        fixed_batch: the batch size that the model insists on, or None.
    """

    def __init__(self, parts: Sequence[Part], inputs: Sequence[Input], fixed_batch: int | None) -> None:
        self.fixed_batch = fixed_batch
        self._parts, self._inputs = parts, inputs
        self._ends: list[int] = []
        self._last: tuple[int, dict[str, Array]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read."""
        return {**self.__dict__, "_last": None}

    def __len__(self) -> int:
        """Number of samples, which the headers of files tell.

        Raises:
            PconvError: they cannot be read, or have no arrays for the model.
        """
        if not self._ends:
            lengths = [part.lengths() for part in self._parts]
            for part, held in zip(self._parts, lengths, strict=True):
                for entry in self._inputs:
                    _require(part.where, held, entry.name)
            self._require_labels_throughout(lengths)
            ends = list(accumulate(held[self._inputs[0].name] for held in lengths))
            _require_number(ends[-1] if ends else 0, self.fixed_batch)
            self._ends = ends
        return self._ends[-1]

    def part(self, rows: slice) -> Samples:
        """Some of the samples.

        Raises:
            PconvError: they cannot be read, or do not fit.
        """
        assert 0 <= rows.start < rows.stop <= len(self)
        pieces = []
        for index in range(bisect_right(self._ends, rows.start), bisect_right(self._ends, rows.stop - 1) + 1):
            start = self._ends[index - 1] if index else 0
            inside = slice(max(rows.start - start, 0), rows.stop - start)
            pieces.append({name: array[inside] for name, array in self._read(index).items()})
        return self._joined(pieces)

    def everything(self) -> Samples:
        """All samples.

        Raises:
            PconvError: they cannot be read, or do not fit.
        """
        samples = self._joined([_fitted_part(part, self._inputs) for part in self._parts])
        _require_number(len(samples), self.fixed_batch)
        return samples

    def _read(self, index: int) -> dict[str, Array]:
        """A part of the data; it stays in memory until another is read, as several shards may lie in it."""
        if self._last is None or self._last[0] != index:
            self._last = None
            self._last = index, _fitted_part(self._parts[index], self._inputs)
        return self._last[1]

    def _joined(self, parts: Sequence[dict[str, Array]]) -> Samples:
        self._require_labels_throughout(parts)
        joined = {name: _joined(name, [part[name] for part in parts]) for name in (parts[0] if parts else {})}
        labels = (
            joined.pop(LABELS) if LABELS in joined and LABELS not in {entry.name for entry in self._inputs} else None
        )
        if not joined:
            raise PconvError("the data hold no samples")
        return Samples(joined, labels, self.fixed_batch)

    def _require_labels_throughout(self, parts: Sequence[Collection[str]]) -> None:
        if len({LABELS in part for part in parts}) > 1:
            raise PconvError("some parts of the data have labels and others have none", "give labels to all or to none")


def open_samples(source: DataSource, session: Any) -> SampleReader:
    """Samples for the inputs of an onnxruntime session, of which nothing is read yet.

    Args:
        source: an `.npz` whose arrays are named as the inputs (first axis = samples; `labels` optional), a Parquet file
            with such columns, a directory of files of either kind, a `sources.Recipe` for pictures as a `.json` file, a
            mapping of arrays, or an object with onnxruntime's `get_next()`.
        session: the onnxruntime session whose inputs the samples are for.

    Raises:
        PconvError: there are no such files, or samples fit no such inputs.
    """
    return SampleReader(_parts(source), *_inputs(session))


def load_samples(source: DataSource, session: Any) -> Samples:
    """Samples for the inputs of an onnxruntime session, all of them in memory.

    Args:
        source: as `open_samples` takes it.
        session: the onnxruntime session whose inputs the samples are for.

    Raises:
        PconvError: the file cannot be read, or names, ranks, shapes, types, numbers of samples or values do not fit.
    """
    return open_samples(source, session).everything()


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
        values = generator.standard_normal(shape) if "float" in dtype else generator.integers(0, 2, shape)
        arrays[entry.name] = values.astype(dtype)
    return Samples(arrays, None, fixed_batch)


def _inputs(session: Any) -> tuple[Sequence[Input], int | None]:
    """The inputs of a session, each with an axis for samples, and the batch size that they insist on."""
    inputs = [Input(entry.name, entry.type, entry.shape) for entry in session.get_inputs()]
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


def _parts(source: DataSource) -> Sequence[Part]:
    if isinstance(source, Mapping):
        return [Given("the data", source)]
    if hasattr(source, "get_next"):
        return [Given(f"batch {index} of the data", batch) for index, batch in enumerate(iter(source.get_next, None))]
    return parts_of(source)


def _require(where: str, held: Collection[str], name: str) -> None:
    if name not in held:
        told = ", ".join(f"'{other}'" for other in held) or "none"
        raise PconvError(
            f"{where} has no array '{name}', which is an input of the model; it has {told}",
            "name the arrays as the model's inputs (examples/prepare_images.py does so for images)",
        )


def _require_number(samples: int, fixed_batch: int | None) -> None:
    if not samples:
        raise PconvError("the data hold no samples")
    if fixed_batch and samples % fixed_batch:
        raise PconvError(
            f"the model takes batches of {fixed_batch}, and {samples} samples are not a multiple of that",
            "leave some out, or export the model with an open batch size",
        )


def _fitted_part(source: Part, inputs: Sequence[Input]) -> dict[str, Array]:
    """One part of the data: an array for each input, and labels if it has any."""
    where = source.where
    arrays = source.read({LABELS, *(entry.name for entry in inputs)})
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


def _fitted(where: str, arrays: Mapping[str, Any], entry: Input) -> Array:
    _require(where, arrays, entry.name)
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
