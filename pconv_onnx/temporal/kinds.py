"""Kinds in time: what a tensor is along the time axis, and how a node runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.record import InTime


@dataclass(frozen=True)
class Static:
    """`[B, …]`: no time axis; the value is the same at each step, or time was decoded."""

    steps: int = 1


@dataclass(frozen=True, eq=False)
class Spikes:
    """`[T·B, …]`: sorted spike trains, `levels[:, T]` where a neuron fires and `levels[:, 0]` where it is silent.

    Attributes:
        steps: T.
        levels: `[R, T+1]`, the value that each spike count stands for; of serial neurons `[R, 2]`, silent and spike.
        channel_axis: the axis along which the rows of `levels` run; None where R = 1.
    """

    steps: int
    levels: Array
    channel_axis: int | None

    @property
    def uniform(self) -> bool:
        """Whether every neuron has the same levels."""
        return self.channel_axis is None


@dataclass(frozen=True)
class Current:
    """`[T·B, …]`: a linear image of spikes; only its temporal mean has meaning."""

    steps: int


Kind = Static | Spikes | Current
STATIC = Static()


@dataclass(frozen=True, eq=False)
class Passage:
    """How a node runs on tensors in time.

    Attributes:
        kinds: kind of each output.
        lifted: inputs without a time axis that are repeated for each time-step, since their rows go with rows in time.
        constants: inputs that become constants, where the source's own value counts its rows; None leaves an input out.
    """

    kinds: tuple[Kind, ...]
    lifted: tuple[int, ...] = ()
    constants: Mapping[int, Array | None] = field(default_factory=dict)


def to_record(kind: Kind, tables: Mapping[int, str]) -> InTime:
    """A kind in time as a record has it.

    Args:
        kind: not Static.
        tables: the neurons that levels are of, by the identity of these.
    """
    if not isinstance(kind, Spikes):
        return InTime(kind.steps)
    # What is put together of the levels of several neurons is written out.
    levels = tables.get(id(kind.levels)) or kind.levels.astype(np.float64).tolist()
    return InTime(kind.steps, levels, kind.channel_axis)


def of_record(entry: InTime, tables: Mapping[str, Array]) -> Spikes | Current:
    """The way back.

    Args:
        entry: of a tensor in time.
        tables: levels by the names of neurons; one or more.

    Raises:
        KeyError: there is no such neuron.
        ValueError: the levels are no table.
    """
    if entry.levels is None:
        return Current(entry.steps)
    if isinstance(entry.levels, str):
        levels = tables[entry.levels]
    else:
        levels = np.array(entry.levels, next(iter(tables.values())).dtype)
    if levels.ndim != 2 or levels.shape[1] != entry.steps + 1:
        raise ValueError(f"levels of shape {levels.shape} are not those of {entry.steps} time-steps")
    if (entry.channel_axis is None) != (len(levels) == 1):
        raise ValueError(f"{len(levels)} rows of levels have the channel axis {entry.channel_axis}")
    return Spikes(entry.steps, levels, entry.channel_axis)
