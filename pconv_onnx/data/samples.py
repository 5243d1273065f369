"""Checked samples of a model, and the axes along which they lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np

from pconv_onnx.basics.arrays import Array


class CalibrationDataReader(Protocol):
    """onnxruntime's interface for streams of batches."""

    def get_next(self) -> dict[str, Array] | None:
        """The next batch by input name, None at the end."""


# Along which axis of a model's inputs samples lie: of all of them, or by name, where the empty name stands for the
# others (without it, 0). None is an input without such an axis. Outputs may be named as well.
BatchAxis = int | None | Mapping[str, int | None]
# What labels may be: the fields of `Samples` that hold them.
LabelKind = Literal["labels", "token_labels", "targets"]
LABEL_KINDS: tuple[LabelKind, ...] = get_args(LabelKind)


@dataclass(frozen=True, eq=False)
class Samples:
    """Checked samples, one or more.

    Attributes:
        arrays: by input name; the first axis counts samples, wherever the model has them.
        labels: class of each sample, or None.
        model_batch: the batch size that the model insists on, or None.
        axes: along which axis of each input samples lie in the model, and of each output of which that was told; None
            where along none. What is not here has them along its first.
        alone: whether a run is of one sample, since an input without an axis for them has other values for each.
        targets: what an output should be for each sample, floats `[N]` or `[N, …]`, or None.
        token_labels: class of each token of each sample, integers `[N, tokens]`, negative where a token has none; or
            None.
    """

    arrays: dict[str, Array]
    labels: Array | None
    model_batch: int | None
    axes: Mapping[str, int | None] = field(default_factory=dict)
    alone: bool = False
    targets: Array | None = None
    token_labels: Array | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.arrays.values())))

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that every run has, or None."""
        return 1 if self.alone else self.model_batch

    @property
    def labelled(self) -> LabelKind | None:
        """Which kind of labels they have, or None."""
        return next((kind for kind in LABEL_KINDS if getattr(self, kind) is not None), None)

    @property
    def first_everywhere(self) -> bool:
        """Whether samples lie along the first axis in the model as well."""
        return not any(axis != 0 for axis in self.axes.values())

    @property
    def one_by_one(self) -> bool:
        """Whether no input has an axis for samples, so that a run is of one."""
        return all(self.axes.get(name, 0) is None for name in self.arrays)

    def feed(self, chosen: slice | Array) -> dict[str, Array]:
        """Some of the samples, chosen as NumPy does, as the model takes them."""
        return {name: from_first(array[chosen], self.axes.get(name, 0)) for name, array in self.arrays.items()}

    def batches(self, size: int) -> Iterator[tuple[slice, dict[str, Array]]]:
        """Feeds of up to `size` samples (of the fixed batch, if there is one) and where they come from."""
        size = self.fixed_batch or size
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.feed(part)

    def part(self, rows: slice | Array) -> Samples:
        """Some of them, chosen as NumPy does."""
        arrays = {name: array[rows] for name, array in self.arrays.items()}
        labels: dict[str, Any] = {kind: getattr(self, kind)[rows] for kind in LABEL_KINDS if kind == self.labelled}
        return replace(self, arrays=arrays, **labels)


def from_first(values: Array, axis: int | None) -> Array:
    """Values of samples, which count along the first axis, with that axis elsewhere; without it, those of the first."""
    if axis is None:
        return np.asarray(values[0])
    return np.ascontiguousarray(np.moveaxis(values, 0, axis)) if axis else values


def to_first(values: Array, axis: int | None) -> Array:
    """The way back: values with samples along that axis, or of one sample without such an axis, with it in front."""
    return values[np.newaxis] if axis is None else np.moveaxis(values, axis, 0)


class Input(NamedTuple):
    """An input of a session, as onnxruntime tells it."""

    name: str
    type: str
    shape: Sequence[Any]


class Data(Protocol):
    """Samples, in memory or not; it can be pickled."""

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that every run has, or None."""

    def __len__(self) -> int:
        """Number of samples."""

    def part(self, rows: slice) -> Samples:
        """Some of them."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Some samples of others, without their labels.

    Attributes:
        data: the others.
        rows: which of them, ascending; one or more.
    """

    data: Data
    rows: Array

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that every run has, or None."""
        return self.data.fixed_batch

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def part(self, rows: slice) -> Samples:
        """Some of them."""
        chosen = self.rows[rows]
        # Neighbours are read at once, and nothing between them and the next.
        ends = np.flatnonzero(np.diff(chosen) != 1) + 1
        runs = [self.data.part(slice(int(run[0]), int(run[-1]) + 1)) for run in np.split(chosen, ends)]
        arrays = {name: np.concatenate([run.arrays[name] for run in runs]) for name in runs[0].arrays}
        return replace(runs[0], arrays=arrays, labels=None, token_labels=None, targets=None)


# A path, arrays by name, or what `given_parts` takes.
Unchecked = str | os.PathLike[str] | Mapping[str, Array] | CalibrationDataReader | Array | Iterable[Any]
DataSource = Unchecked | Samples
