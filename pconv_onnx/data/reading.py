"""Samples for a model: read, checked against its inputs, and given in batches."""

from __future__ import annotations

import math
import operator
import os
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError, listed
from pconv_onnx.data.given import given_parts
from pconv_onnx.data.labels import Labelled, warn_of_unused
from pconv_onnx.data.parts import LABELS, WHAT_LABELS_ARE, Part, as_array
from pconv_onnx.data.samples import LABEL_KINDS, BatchAxis, Data, DataSource, Input, LabelKind, Samples, Unchecked
from pconv_onnx.data.sources import parts_of

_RANDOM_SAMPLES = 32
_ELSEWHERE = "where samples lie along another axis than the first, give it as `batch_axis=`"
# Values of one input; what claims more is refused before it takes memory.
_MOST_RANDOM = 1 << 30


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


class SampleReader:
    """Samples that are read when they are asked for. One that is pickled takes along where they lie, not what was read.

    Attributes:
        fixed_batch: the batch size that the model insists on, or None.
    """

    def __init__(
        self, parts: Sequence[Part], inputs: Sequence[Input], axes: Mapping[str, int | None], fixed_batch: int | None
    ) -> None:
        """Of parts whose arrays have an axis for samples each."""
        self.fixed_batch = fixed_batch
        self._parts, self._inputs, self._axes = parts, inputs, axes
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
            names = _asked(self._inputs)
            lengths = [part.lengths(names) for part in self._parts]
            for part, held in zip(self._parts, lengths, strict=True):
                for entry in self._inputs:
                    _require(part.where, held, entry.name)
            _require_labels_throughout(lengths)
            # Of an input without values there are as many samples as of the others.
            ends = list(accumulate(max(held[entry.name] for entry in self._inputs) for held in lengths))
            total = ends[-1] if ends else 0
            if not total:
                # Of arrays that do not fit, that is what is wrong.
                for part in self._parts:
                    _fitted_part(part, self._inputs, self._axes)
            _require_number(total, self.fixed_batch)
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
        return _joined_parts(pieces, self._inputs, self._axes, self.fixed_batch)

    def _read(self, index: int) -> dict[str, Array]:
        """A part of the data; it stays in memory until another is read, as several shards may lie in it."""
        if self._last is None or self._last[0] != index:
            self._last = None
            self._last = index, _fitted_part(self._parts[index], self._inputs, self._axes)
        return self._last[1]


def open_samples(source: DataSource, session: Any, batch_axis: BatchAxis = 0) -> Data:
    """Samples for the inputs of an onnxruntime session, which are read when they are asked for.

    Where an input has no axis for samples they are read at once, for it depends on all what its arrays are.

    Args:
        source: an `.npz` whose arrays are named as the inputs (first axis = samples; labels optional: integers `[N]`
            are classes, integers `[N, tokens]` classes of tokens, floats `[N]` or `[N, …]` targets of an output), a
            Parquet file with such columns, a directory of files of either kind, a `sources.Recipe` for pictures as a
            `.json` file; or what `given_parts` takes. Samples that were loaded already stay as they are, whatever
            `batch_axis` is.
        session: the onnxruntime session whose inputs the samples are for.
        batch_axis: along which axis of the inputs samples lie in the model, a number for all or a mapping by name, in
            which the empty name stands for those that it does not name (without it, 0). None is an input without such
            an axis: its array holds one value for all samples, or has samples first as any other, and a run is of one
            sample. Outputs may be named as well, for `sample_axes`.

    Raises:
        PconvError: there are no such files, or samples fit no such inputs, or the inputs have no such axis.
    """
    if isinstance(source, Samples):
        return source
    inputs, axes, model_batch = _inputs(session, batch_axis)
    if any(axes[entry.name] is None for entry in inputs):
        return load_samples(source, session, batch_axis)
    return SampleReader(_parts(source, inputs), inputs, axes, model_batch)


def load_samples(source: DataSource, session: Any, batch_axis: BatchAxis = 0) -> Samples:
    """Samples for the inputs of an onnxruntime session, all of them in memory.

    Args:
        source: as `open_samples` takes it.
        session: the onnxruntime session whose inputs the samples are for.
        batch_axis: as `open_samples` takes it.

    Raises:
        PconvError: the file cannot be read, or names, ranks, shapes, types, numbers of samples or values do not fit, or
            the inputs have no such axis.
    """
    if isinstance(source, Samples):
        return source
    inputs, axes, model_batch = _inputs(session, batch_axis)
    parts = [_fitted_part(part, inputs, axes) for part in _parts(source, inputs)]
    samples = _joined_parts(parts, inputs, axes, model_batch)
    _require_number(len(samples), model_batch)
    return samples


def _joined_parts(
    parts: Sequence[dict[str, Array]], inputs: Sequence[Input], axes: Mapping[str, int | None], model_batch: int | None
) -> Samples:
    """The samples of parts that `_fitted_part` made.

    Raises:
        PconvError: they do not fit together, or hold no samples.
    """
    _require_labels_throughout(parts)
    is_label = LABELS not in {entry.name for entry in inputs}
    kinds = {_kind(part[LABELS]) for part in parts if is_label and LABELS in part}
    if len(kinds) > 1:
        raise mixed_labels(kinds)
    shared = {
        entry.name: _one_value(entry.name, [part.pop(entry.name) for part in parts])
        for entry in inputs
        if parts and all(_is_shared(entry, part[entry.name], axes) for part in parts)
    }
    joined = {name: _joined(name, [part[name] for part in parts]) for name in (parts[0] if parts else {})}
    labels: dict[str, Any] = {kind: joined.pop(LABELS) for kind in kinds}
    if not joined and shared:
        raise PconvError(
            "no array of the data counts samples: each has the shape of its input",
            "put an axis for samples in front of the arrays that differ from sample to sample",
        )
    if not joined or not len(next(iter(joined.values()))):
        raise PconvError("the data hold no samples")
    alone = next((name for name in joined if axes[name] is None), None)
    if alone is not None and model_batch not in (None, 1):
        raise PconvError(
            f"'{alone}' differs from sample to sample and has no axis for them, and the model takes batches of "
            f"{model_batch}",
            "give one value for all samples",
        )
    count = len(next(iter(joined.values())))
    every = {name: np.broadcast_to(value, (count, *value.shape)) for name, value in shared.items()}
    arrays = {entry.name: (joined | every)[entry.name] for entry in inputs}
    return replace(Samples(arrays, None, model_batch, axes, alone is not None), **labels)


def random_samples(session: Any, seed: int = 0, batch_axis: BatchAxis = 0) -> Samples:
    """Seeded inputs: floats standard normal, integers 0 or 1; one value for all samples where no axis counts them.

    Raises:
        PconvError: an input has an open dimension besides the batch, or a type that cannot be drawn, or no such axis.
    """
    inputs, axes, model_batch = _inputs(session, batch_axis)
    alone = all(axes[entry.name] is None for entry in inputs)
    count = model_batch or _RANDOM_SAMPLES
    generator = np.random.default_rng(seed)
    arrays = {}
    for entry in inputs:
        dtype, sizes = _TYPES.get(entry.type), _of_a_sample(entry, axes[entry.name])
        still_open = [size for size in sizes if not isinstance(size, int)]
        if dtype is None or still_open:
            why = f"type {entry.type}" if dtype is None else f"which dimension '{still_open[0]}' is open"
            raise PconvError(
                f"no random values can be drawn for input '{entry.name}' of {why}, shape {entry.shape}", "pass `data=`"
            )
        shape = [1 if axes[entry.name] is None and not alone else count, *sizes]
        # NumPy counts so as well: sizes of 0 do not make others small.
        if math.prod(max(size, 1) for size in shape) > _MOST_RANDOM:
            raise PconvError(
                f"random values for input '{entry.name}' of shape {entry.shape} are too many", "pass `data=`"
            )
        with _in_memory(f"random values for input '{entry.name}' of shape {entry.shape}"):
            values = generator.standard_normal(shape) if "float" in dtype else generator.integers(0, 2, shape)
            arrays[entry.name] = np.broadcast_to(values.astype(dtype), (count, *sizes))
    return Samples(arrays, None, model_batch, axes, alone)


def _inputs(session: Any, batch_axis: BatchAxis) -> tuple[Sequence[Input], dict[str, int | None], int | None]:
    """The inputs of a session, along which axis of each samples lie, and the batch size that they insist on."""
    inputs = [Input(entry.name, entry.type, entry.shape) for entry in session.get_inputs()]
    if not inputs:
        raise PconvError("the model has no inputs, so there are no samples to run it on")
    axes = _axes(session, batch_axis)
    sizes = {
        entry.name: entry.shape[axis]
        for entry in inputs
        if (axis := axes[entry.name]) is not None and isinstance(entry.shape[axis], int)
    }
    for name in (name for name, size in sizes.items() if size == 0):
        raise PconvError(
            f"the input '{name}' is declared to take 0 samples", "leave its batch open, or declare it as 1"
        )
    if len(set(sizes.values())) > 1:
        told = listed([f"'{name}' {size}" for name, size in sizes.items()])
        raise PconvError(f"the model's inputs take different numbers of samples: {told}", _ELSEWHERE)
    return inputs, axes, next(iter(sizes.values()), None)


def _axes(session: Any, batch_axis: BatchAxis) -> dict[str, int | None]:
    """Along which axis samples lie, of each input, and of each output of which it was told."""
    told = dict(batch_axis) if isinstance(batch_axis, Mapping) else {"": batch_axis}
    others = told.pop("", 0)
    inputs = {entry.name: entry for entry in session.get_inputs()}
    entries = {entry.name: entry for entry in session.get_outputs()} | inputs
    for name in told.keys() - entries.keys():
        known = listed([f"'{entry}'" for entry in inputs])
        raise PconvError(f"a batch axis is given for '{name}', which is not an input or output", f"inputs are {known}")
    return {name: _axis(entries[name], axis) for name, axis in (dict.fromkeys(inputs, others) | told).items()}


def _axis(entry: Any, axis: int | None) -> int | None:
    """The axis of an input or output, counted from the front."""
    is_tensor = entry.type.startswith("tensor(")
    if axis is None and is_tensor:
        return None
    if axis is not None:
        try:
            axis = operator.index(axis)
        except TypeError as error:
            raise PconvError(f"{axis!r} is not an axis", "choose a number, or None where there is none") from error
    rank = len(entry.shape)
    if not is_tensor or (not axis and not rank):
        raise PconvError(
            f"input '{entry.name}' of type {entry.type} has no known first axis, which samples would run along",
            "where it needs none, give it as `batch_axis=None`" if is_tensor else "",
        )
    assert axis is not None
    if not -rank <= axis < rank:
        raise PconvError(f"'{entry.name}' of shape {entry.shape} has no axis {axis}, which samples would run along")
    return axis % rank


def _of_a_sample(entry: Input, axis: int | None) -> list[Any]:
    """The shape of one sample of an input."""
    return [size for index, size in enumerate(entry.shape) if index != axis]


def _is_shared(entry: Input, array: Array, axes: Mapping[str, int | None]) -> bool:
    """Whether an array is one value for all samples: its input has no axis for them, nor has it one in front."""
    return axes[entry.name] is None and array.ndim == len(entry.shape)


def _parts(source: Unchecked, inputs: Sequence[Input]) -> Sequence[Part]:
    names = [entry.name for entry in inputs]
    parts = parts_of(source) if isinstance(source, str | os.PathLike) else given_parts(source, names)
    labelled = [Labelled(part, names) for part in parts]
    # Of many parts the first tells: a name is wrong in all of them.
    held = labelled[0].lengths(()) if labelled else {}
    if all(name in held for name in names):
        warn_of_unused(labelled[0].where, held, names)
    return labelled


def _require(where: str, held: Collection[str], name: str) -> None:
    if name not in held:
        told = listed([f"'{other}'" for other in held]) or "none"
        raise PconvError(
            f"{where} has no array '{name}', which is an input of the model; it has {told}",
            "name the arrays as the model's inputs (examples/prepare_images.py does so for images)",
        )


def _require_labels_throughout(parts: Sequence[Collection[str]]) -> None:
    if len({LABELS in part for part in parts}) > 1:
        raise PconvError("some parts of the data have labels and others have none", "give labels to all or to none")


def _require_number(samples: int, model_batch: int | None) -> None:
    if not samples:
        raise PconvError("the data hold no samples")
    if model_batch and samples % model_batch:
        raise PconvError(
            f"the model takes batches of {model_batch}, and {samples} samples are not a multiple of that",
            f"leave some out, or export the model with an open batch size; {_ELSEWHERE}",
        )


def _asked(inputs: Sequence[Input]) -> set[str]:
    """The names of the arrays that are read."""
    return {LABELS, *(entry.name for entry in inputs)}


def _fitted_part(source: Part, inputs: Sequence[Input], axes: Mapping[str, int | None]) -> dict[str, Array]:
    """One part of the data: an array for each input, and labels if it has any."""
    where = source.where
    with _in_memory(f"the samples of {where}"):
        arrays = source.read(_asked(inputs))
    missing = {entry.name: None for entry in inputs if entry.name not in arrays}
    for name in missing:
        _require(where, [held for held in source.lengths(()) if held not in missing], name)
    part = {entry.name: _fitted(where, arrays, entry, axes) for entry in inputs}
    if LABELS in arrays and LABELS not in part:
        part[LABELS] = _fitted_labels(where, as_array(where, LABELS, arrays[LABELS]))
    shared = {entry.name for entry in inputs if _is_shared(entry, part[entry.name], axes)}
    counted = {name: len(array) for name, array in part.items() if name not in shared}
    if len(set(counted.values())) > 1:
        told = listed([f"'{name}' {count}" for name, count in counted.items()])
        raise PconvError(f"the arrays of {where} have unequal numbers of samples: {told}")
    if any(counted.values()) and not any(part[entry.name].size for entry in inputs):
        shapes = listed([f"'{entry.name}' {list(part[entry.name].shape)}" for entry in inputs])
        raise PconvError(f"the samples of {where} hold no values: {shapes}")
    return part


def _fitted(where: str, arrays: Mapping[str, Any], entry: Input, axes: Mapping[str, int | None]) -> Array:
    array = as_array(where, entry.name, arrays[entry.name])
    expected = _TYPES.get(entry.type)
    if expected is not None and array.dtype != expected:
        raise PconvError(f"'{entry.name}' in {where} is {array.dtype}; the model takes {expected}", "convert it")
    axis, shared = axes[entry.name], _is_shared(entry, array, axes)
    given, sizes = array.shape if shared else array.shape[1:], _of_a_sample(entry, axis)
    fits = len(given) == len(sizes) and (shared or array.ndim)
    if not fits or any(isinstance(size, int) and size != own for own, size in zip(given, sizes, strict=True)):
        lie = {0: "", None: ", with no axis for samples"}.get(axis, f", with samples along axis {axis}")
        raise PconvError(
            f"'{entry.name}' in {where} has shape {list(array.shape)}; the model takes {entry.shape}{lie}",
            "" if axis == 0 else "in the data the first axis counts samples",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        first = "" if shared else f", first in sample {_first_not_finite(array)}"
        raise PconvError(f"'{entry.name}' in {where} has a NaN or an infinity{first}")
    return array


def _fitted_labels(where: str, labels: Array) -> Array:
    is_target = labels.dtype.kind == "f" and labels.ndim > 0
    is_class = labels.dtype.kind in "iu" and (labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1]))
    if not is_target and not is_class:
        raise PconvError(
            f"'{LABELS}' in {where} is {labels.dtype} of shape {list(labels.shape)}",
            WHAT_LABELS_ARE,
        )
    if len(labels) and not labels.size:
        raise PconvError(f"'{LABELS}' in {where} is of shape {list(labels.shape)}: targets without values")
    if is_target and not np.isfinite(labels).all():
        raise PconvError(
            f"'{LABELS}' in {where} has a NaN or an infinity, first in sample {_first_not_finite(labels)}",
            "leave such samples out",
        )
    return labels


def _kind(labels: Array) -> LabelKind:
    if labels.dtype.kind == "f":
        return "targets"
    return "labels" if labels.ndim == 1 else "token_labels"


def mixed_labels(kinds: Collection[LabelKind | None]) -> PconvError:
    """What to raise where the labels of some parts are of another kind than those of others."""
    told = {"labels": "integers", "token_labels": "integers for each token", "targets": "floats"}
    some, others = [told[kind] for kind in LABEL_KINDS if kind in kinds][:2]
    return PconvError(
        f"'{LABELS}' are {some} in some parts of the data and {others} in others",
        "give classes of samples, classes of tokens or targets in all of them",
    )


def _first_not_finite(array: Array) -> int:
    return int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])


def _joined(name: str, parts: Sequence[Array]) -> Array:
    try:
        with _in_memory(f"the parts of '{name}' together"):
            return np.concatenate(parts)
    except ValueError as error:
        raise PconvError(f"the parts of '{name}' do not fit together: {error}") from error


@contextmanager
def _in_memory(what: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise PconvError(f"{what} do not fit in memory", "give fewer, or in smaller files") from error


def _one_value(name: str, parts: Sequence[Array]) -> Array:
    if not all(np.array_equal(part, parts[0]) for part in parts):
        raise PconvError(
            f"the parts of '{name}' do not fit together: it has no axis for samples, and its one value differs",
            "give the same in each, or one for each sample, with an axis for samples in front",
        )
    return parts[0]
