"""The parallel spiking neuron: a staircase of thresholds and levels, and a coding of its trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.neuron.coding import Coding, Rate
from pconv_onnx.neuron.theory import temporal_mean

# The highest spike count.
MAX_LEVELS = 65535
# Means `rate` with as many time-steps as a neuron has levels.
_BY_LEVELS: Coding = Rate(0)
# The number of values of trains that are computed at a time when it is proved that they carry the levels.
_AT_ONCE = 1 << 22


def along_channels(table: Array, channel_axis: int | None, rank: int) -> Array:
    """A table `[R, n]` as `[n, …]`, ready to broadcast against arrays of that rank; the axis is None for R = 1."""
    shape = [1] * rank
    if channel_axis is not None:
        shape[channel_axis] = table.shape[0]
    return table.T.reshape([table.shape[1], *shape])


@dataclass(frozen=True, eq=False)
class ParallelNeuron:
    """A layer of parallel spiking neurons as a staircase: count `k = #{t : τ_t ≤ x̄}`, value `v_k`.

    The general form of Hao et al.'s neuron: any ascending thresholds and levels. The paper's neuron, evenly spaced, is
    `even()`. Two of the four equal forms live here (`threshold_form`, `search_form`); the matrix form and the closed
    form are functions of the even neuron's parameters.

    Attributes:
        thresholds: τ, `[R, S]`, ascending along S; NaN (never reached) last.
        levels: v, `[R, S+1]`, ascending.
        channel_axis: the axis of the input that the rows belong to; None for R = 1.
        coding: how its trains carry the count; by default `rate` with T = S.
    """

    thresholds: Array
    levels: Array
    channel_axis: int | None = None
    coding: Coding = _BY_LEVELS

    def __post_init__(self) -> None:
        """Raise for tables that no kernel could run."""
        rows, highest = self.thresholds.shape
        if not 1 <= highest <= MAX_LEVELS:
            raise ValueError(f"{highest} levels; 1 to {MAX_LEVELS} are possible")
        if self.levels.shape != (rows, highest + 1):
            raise ValueError(f"levels of shape {self.levels.shape} for thresholds of shape {self.thresholds.shape}")
        if rows > 1 and self.channel_axis is None:
            raise ValueError(f"{rows} rows and no channel axis")
        if self.coding is _BY_LEVELS:
            object.__setattr__(self, "coding", Rate(highest))
        self.coding.require(self.levels)

    @classmethod
    def even(
        cls, steps: int, threshold: Array, shift: Array, amplitude: Array, channel_axis: int | None = None
    ) -> ParallelNeuron:
        """The paper's neuron: `τ_t = (t·θ − b)/T`, `v_k = a·k/T`, in the number type of the arguments (`[R]` each)."""
        if not 1 <= steps <= 2 * MAX_STEPS:
            raise ValueError(f"{steps} levels; 1 to {2 * MAX_STEPS} are possible")
        t = np.arange(steps + 1)
        threshold, shift, amplitude = (np.asarray(v).reshape(-1, 1) for v in (threshold, shift, amplitude))
        return cls((t[1:] * threshold - shift) / steps, amplitude * t / steps, channel_axis)

    def astype(self, dtype: np.dtype[Any]) -> ParallelNeuron:
        """The neuron in a narrower type: the same count for every input of that type, with levels rounded to it.

        Raises:
            ValueError: two levels are equal in that type, or a level leaves its range.
        """
        with np.errstate(over="ignore"):
            thresholds, levels = self.thresholds.astype(dtype), self.levels.astype(dtype)
        # A threshold is rounded up to the next value of the type, so that the same inputs reach it.
        below = thresholds.astype(self.thresholds.dtype) < self.thresholds
        thresholds = np.where(below, np.nextafter(thresholds, dtype.type(np.inf)), thresholds)
        if not np.isfinite(levels).all() or (levels[:, 1:] <= levels[:, :-1]).any():
            raise ValueError(f"its levels are not finite and ascending in {dtype}")
        return replace(self, thresholds=thresholds, levels=levels)

    @property
    def steps(self) -> int:
        """T, the number of time-steps of its trains."""
        return self.coding.steps

    @property
    def highest(self) -> int:
        """S, the highest spike count."""
        return int(self.thresholds.shape[1])

    @property
    def why_not_carried(self) -> str:
        """Why its trains do not carry its levels; empty if they do, which is proved for every count.

        Levels must be evenly spaced up to the rounding of their type (and of the silent value, which is part of every
        mean), and a decoder must be able to tell the means of trains apart.
        """
        levels = self.levels.astype(np.float64)
        counts = np.arange(self.highest + 1)
        even = (levels[:, :1] * (self.highest - counts) + levels[:, -1:] * counts) / self.highest
        rounding = 4 * float(ml_dtypes.finfo(self.levels.dtype).eps) * np.maximum(abs(even), abs(levels[:, :1]))
        if not (abs(levels - even) <= rounding).all():
            return f"its levels are not evenly spaced in {self.levels.dtype}, so no train of spikes carries them"
        if not all(np.isfinite(table).all() for table in self.coding.values(self.levels)):
            return f"its spikes are beyond the range of {self.levels.dtype} in coding '{self.coding.name}'"
        if not self._decodes():
            return (
                f"the means of its trains cannot be told apart in {self.levels.dtype}, in coding '{self.coding.name}' "
                f"with {self.steps} time-steps"
            )
        return ""

    def _decodes(self) -> bool:
        """Whether a decoder gets every count back from its train."""
        at_once = max(1, _AT_ONCE // (self.steps * (self.highest + 1)))
        for first in range(0, len(self.levels), at_once):
            rows = slice(first, first + at_once)
            part = ParallelNeuron(self.thresholds[rows], self.levels[rows], 1, self.coding)
            counts = np.repeat(np.arange(self.highest + 1)[:, np.newaxis], len(part.levels), axis=1)
            means = temporal_mean(part.emitted(counts))
            if (train_decoder(part.levels, 1).search_form(means) != counts).any():
                return False
        return True

    def along_channels(self, table: Array, rank: int) -> Array:
        """A table `[R, n]` as `[n, …]`, ready to broadcast against inputs of that rank."""
        return along_channels(table, self.channel_axis, rank)

    def threshold_form(self, mean: Array) -> Array:
        """Form 2: `s_t = [x̄ ≥ τ_t]`. Mean `[B, …]` to booleans `[T, B, …]`."""
        return np.asarray(mean[np.newaxis] >= self.along_channels(self.thresholds, mean.ndim), dtype=bool)

    def search_form(self, mean: Array) -> Array:
        """Form 3: the spike count by binary search, O(log T) compares. Mean `[B, …]` to counts `[B, …]`."""
        rows = self._rows(mean.ndim)
        count = np.zeros(mean.shape, dtype=np.int64)
        stride = 1 << (self.highest.bit_length() - 1)
        while stride:
            probe = count + stride
            reached = mean >= self.thresholds[rows, np.minimum(probe, self.highest) - 1]
            count = np.where((probe <= self.highest) & reached.astype(bool), probe, count)
            stride >>= 1
        return count

    def value(self, count: Array) -> Array:
        """The temporal mean `v_k` of spike counts `[B, …]`."""
        return self.looked_up(self.levels, count)

    def looked_up(self, table: Array, count: Array) -> Array:
        """The entries of a table `[R, S+1]` for spike counts `[B, …]`."""
        return np.asarray(table[self._rows(count.ndim), count])

    def trains(self, mean: Array) -> Array:
        """The spike trains `[T, B, …]` for means `[B, …]`, as they flow in a spiking network."""
        return self.emitted(self.search_form(mean))

    def emitted(self, count: Array) -> Array:
        """The spike trains `[T, B, …]` that carry spike counts `[B, …]`."""
        return np.stack(list(self.emitted_in_turn(count)))

    def emitted_in_turn(self, count: Array) -> Iterator[Array]:
        """The same step by step, `[B, …]` each."""
        silent, firing = (self.along_channels(table, count.ndim) for table in self.coding.values(self.levels))
        for digits, worth in zip(self.coding.digits(np.arange(self.highest + 1)), firing, strict=True):
            digit = digits[count]
            yield np.where(digit > 0, worth, np.where(digit < 0, -worth, silent[0]))

    def _rows(self, rank: int) -> Array:
        rows = np.arange(len(self.thresholds)).reshape(-1, 1)
        return np.asarray(self.along_channels(rows, rank)[0])


def train_decoder(levels: Array, channel_axis: int | None) -> ParallelNeuron:
    """The neuron that turns the temporal mean of spike trains back into the levels `[R, S+1]` they carry, exactly.

    The mean of a train is `v_0 + (v_S − v_0)·k/S` up to rounding, so it may differ from `v_k` in its last bits.
    Thresholds halfway between neighbouring means tell the counts apart.
    """
    highest = levels.shape[1] - 1
    lowest, top = (levels[:, [k]].astype(np.float64) for k in (0, -1))
    between = lowest + (top - lowest) * (np.arange(highest) + 0.5) / highest
    return ParallelNeuron(between.astype(levels.dtype), levels, channel_axis)
