"""Kinds in time: what a tensor's time axis holds, and how a node runs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.graph.record import InTime
from pconv_onnx.neuron.coding import CODINGS, Coding
from pconv_onnx.neuron.parallel import MAX_LEVELS, ParallelNeuron, train_decoder
from pconv_onnx.neuron.widening import widened


@dataclass(frozen=True)
class Static:
    """`[B, …]`: no time axis; the value is the same at each step, or time was decoded."""

    steps: int = 1


@dataclass(frozen=True, eq=False)
class Spikes:
    """`[T·B, …]`: spike trains.

    Attributes:
        coding: how they carry spike counts.
        levels: `[R, S+1]`, the value of each spike count; for serial neurons `[R, 2]`, the values of silence and a
            spike.
        channel_axis: the axis that the rows of `levels` belong to; None for R = 1.
    """

    coding: Coding
    levels: Array
    channel_axis: int | None

    @property
    def steps(self) -> int:
        """T."""
        return self.coding.steps

    @property
    def silent(self) -> Array:
        """`[R]`, what a silent neuron emits."""
        return self.levels[:, self.coding.zero]

    def encoder(self) -> ParallelNeuron:
        """The neuron that encodes values, which must be levels, as these trains."""
        return ParallelNeuron(self.levels[:, 1:], self.levels, self.channel_axis, self.coding)

    def widened(self, zero: int, highest: int) -> Spikes | None:
        """The same trains with levels added at both ends.

        Returns:
            None if a silent neuron does not emit zero, or trains could not carry the new levels.
        """
        if self.silent.any() or highest > MAX_LEVELS or self.steps > MAX_STEPS:
            return None
        if (self.coding.zero, self.levels.shape[1] - 1) == (zero, highest):
            return self
        levels = widened(self.levels, zero, highest)
        if levels is None:
            return None
        found = replace(self, coding=type(self.coding)(self.steps, zero), levels=levels)
        return None if found.encoder().why_not_carried else found

    def recoder(self, coding: Coding) -> ParallelNeuron:
        """The neuron that turns these trains into trains of the same counts in another coding."""
        return replace(train_decoder(self.levels, self.channel_axis), coding=coding)

    @property
    def uniform(self) -> bool:
        """Whether every neuron has the same levels."""
        return self.channel_axis is None


@dataclass(frozen=True)
class Current:
    """`[T·B, …]`: a linear image of spikes; only its temporal mean has meaning."""

    steps: int


Kind = Static | Spikes | Current
# The most values of a table; no network has more.
_LARGEST = 1 << 26
STATIC = Static()


@dataclass(frozen=True, eq=False)
class Passage:
    """How a node runs on tensors in time.

    Attributes:
        kinds: kind of each output.
        lifted: inputs without a time axis that are repeated for each time-step, since their rows match rows in time.
        held: inputs in time that are decoded first, and then have no time axis.
        constants: inputs that are replaced by constants, since the source's value counts rows; None drops an input.
        recoded: inputs whose trains are recoded first, with their new coding.
        runs_as: the operator with one input that does on trains what this one does on levels; empty if it is the same.
        encodes: whether the node runs on decoded inputs and its output, which has the levels of its kind, is encoded
            again.
    """

    kinds: tuple[Kind, ...]
    lifted: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    constants: Mapping[int, Array | None] = field(default_factory=dict)
    recoded: Mapping[int, Coding] = field(default_factory=dict)
    runs_as: str = ""
    encodes: bool = False


class RecordedLevels:
    """The levels of a network's neurons, to which records refer by name."""

    def __init__(self, tables: Mapping[str, Array]) -> None:
        """Take levels `[R, S+1]` by the names of neurons."""
        self._tables = tables
        self._names = {id(levels): name for name, levels in tables.items()}
        self._runs: dict[int, tuple[list[tuple[str, int, int]], int | None]] = {}
        self._places: dict[tuple[int, int] | None, dict[bytes, list[tuple[str, int]]]] = {}

    def write(self, kind: Kind) -> InTime:
        """A kind other than Static, as an entry of a record."""
        if not isinstance(kind, Spikes):
            return InTime(kind.steps)
        name = self._names.get(id(kind.levels))
        levels, highest = (name, None) if name is not None else self._put_together(kind)
        return InTime(kind.steps, levels, kind.channel_axis, kind.coding.name, kind.coding.zero, highest)

    def read(self, entry: InTime) -> Spikes | Current:
        """The kind of an entry of a record.

        Raises:
            KeyError: there is no such neuron.
            ValueError: its levels are not those of such trains.
        """
        if entry.levels is None:
            return Current(entry.steps)
        if isinstance(entry.levels, str):
            levels = self._tables[entry.levels]
        else:
            width = max((self._tables[name].shape[1] for name, _, _ in entry.levels), default=1)
            highest = entry.highest or width - 1
            if highest > MAX_LEVELS or sum(run[2] for run in entry.levels) * (highest + 1) > _LARGEST:
                raise ValueError("levels of more rows than a network has")
            wanted = None if entry.highest is None else (entry.zero, entry.highest)
            levels = np.concatenate([self._rows(*run, wanted) for run in entry.levels])
        if entry.channel_axis is None and len(levels) != 1:
            raise ValueError(f"levels of shape {levels.shape} are not those of {entry}")
        coding = CODINGS[entry.coding](entry.steps, entry.zero)
        coding.require(levels)
        return Spikes(coding, levels, entry.channel_axis)

    def _rows(self, name: str, first: int, count: int, wanted: tuple[int, int] | None) -> Array:
        table = self._tables[name]
        rows = table if len(table) == 1 else table[first : first + count]
        if len(table) > 1 and len(rows) < count:
            raise ValueError(f"'{name}' has {len(table)} rows of levels, not {first + count}")
        if wanted is not None:
            found = widened(rows, *wanted)
            if found is None:
                raise ValueError(f"the levels of '{name}' do not go on to counts from 0 to {wanted[1]}")
            rows = found
        return np.broadcast_to(rows, (count, rows.shape[1]))

    def _put_together(self, kind: Spikes) -> tuple[list[tuple[str, int, int]], int | None]:
        """Which rows of which neurons make up a table, and how far it is widened, if it is.

        A Concat joins rows of several neurons, a Split takes some.
        """
        levels = kind.levels
        if id(levels) not in self._runs:
            rows = [row.tobytes() for row in levels]
            as_they_are = self._where(None).keys() >= set(rows)
            highest = None if as_they_are else levels.shape[1] - 1
            found = self._where(None if highest is None else (kind.coding.zero, highest))
            runs: list[tuple[str, int, int]] = []
            for row in rows:
                places = found[row]
                if runs and (runs[-1][0], self._next(*runs[-1])) in places:
                    name, first, count = runs.pop()
                    runs.append((name, first, count + 1))
                else:
                    runs.append((*places[0], 1))
            self._runs[id(levels)] = runs, highest
        return self._runs[id(levels)]

    def _next(self, name: str, first: int, count: int) -> int:
        return first + count if len(self._tables[name]) > 1 else 0

    def _where(self, wanted: tuple[int, int] | None) -> dict[bytes, list[tuple[str, int]]]:
        """Where rows with those values are, unchanged or widened."""
        if wanted not in self._places:
            places = self._places[wanted] = {}
            for name, table in self._tables.items():
                rows = table if wanted is None else widened(table, *wanted)
                for index, row in enumerate(rows if rows is not None else ()):
                    places.setdefault(row.tobytes(), []).append((name, index))
        return self._places[wanted]
