"""The parallel spiking neuron: a staircase of thresholds and levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS

# The highest spike count; of so many steps only the temporal mean is ever computed.
MAX_LEVELS = 65535


def along_channels(table: Array, channel_axis: int | None, rank: int) -> Array:
    """A table `[R, n]` as `[n, …]`, ready to broadcast against arrays of that rank; None stands for R = 1."""
    shape = [1] * rank
    if channel_axis is not None:
        shape[channel_axis] = table.shape[0]
    return table.T.reshape([table.shape[1], *shape])


@dataclass(frozen=True, eq=False)
class ParallelNeuron:
    """A layer of parallel spiking neurons as a staircase: count `k = #{t : τ_t ≤ x̄}`, value `v_k`.

    The general form of Hao et al.'s neuron: any ascending thresholds and levels. The paper's neuron, evenly spaced, is
    `even()`. Two of the four equal forms live here (`threshold_form`, `search_form`); `matrix_form` and `closed_form`
    are functions of the even neuron's parameters.

    Attributes:
        thresholds: τ, `[R, T]`, ascending along T; NaN (never reached) last.
        levels: v, `[R, T+1]`, ascending.
        channel_axis: the axis of the input that rows run along; None where R = 1.
    """

    thresholds: Array
    levels: Array
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Refuse tables that no kernel could run."""
        rows, steps = self.thresholds.shape
        if not 1 <= steps <= MAX_LEVELS:
            raise ValueError(f"{steps} levels; 1 to {MAX_LEVELS} are possible")
        if self.levels.shape != (rows, steps + 1):
            raise ValueError(f"levels of shape {self.levels.shape} for thresholds of shape {self.thresholds.shape}")
        if rows > 1 and self.channel_axis is None:
            raise ValueError(f"{rows} rows and no channel axis")

    @classmethod
    def even(
        cls, steps: int, threshold: Array, shift: Array, amplitude: Array, channel_axis: int | None = None
    ) -> ParallelNeuron:
        """The paper's neuron: `τ_t = (t·θ − b)/T`, `v_k = a·k/T`, in the number type of the arguments (`[R]` each)."""
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"{steps} time-steps; 1 to {MAX_STEPS} are possible")
        t = np.arange(steps + 1)
        threshold, shift, amplitude = (np.asarray(v).reshape(-1, 1) for v in (threshold, shift, amplitude))
        return cls((t[1:] * threshold - shift) / steps, amplitude * t / steps, channel_axis)

    def astype(self, dtype: np.dtype[Any]) -> ParallelNeuron:
        """The neuron in a narrower type: the same count for every input of that type, levels rounded to it.

        Raises:
            ValueError: its levels are not told apart in that type, or leave its range.
        """
        with np.errstate(over="ignore"):
            thresholds, levels = self.thresholds.astype(dtype), self.levels.astype(dtype)
        # A threshold becomes the next value of the type, so that the same values reach it.
        below = thresholds.astype(self.thresholds.dtype) < self.thresholds
        thresholds = np.where(below, np.nextafter(thresholds, dtype.type(np.inf)), thresholds)
        if not np.isfinite(levels).all() or (levels[:, 1:] <= levels[:, :-1]).any():
            raise ValueError(f"its levels are not finite and ascending in {dtype}")
        return ParallelNeuron(thresholds, levels, self.channel_axis)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.thresholds.shape[1])

    @property
    def carried_by_trains(self) -> bool:
        """Whether trains of equal spikes carry the levels.

        They do where levels are evenly spaced, to the rounding of their type (that of the silent value included, which
        is in every mean), and far enough apart for `train_decoder` to tell the means of trains from each other.
        """
        levels = self.levels.astype(np.float64)
        counts = np.arange(self.steps + 1)
        means = (levels[:, :1] * (self.steps - counts) + levels[:, -1:] * counts) / self.steps
        rounding = 4 * float(ml_dtypes.finfo(self.levels.dtype).eps) * np.maximum(abs(means), abs(levels[:, :1]))
        even = (abs(levels - means) <= rounding).all()
        told_apart = train_decoder(self.levels, self.channel_axis).thresholds.astype(np.float64)
        means = means.astype(self.levels.dtype).astype(np.float64)
        return bool(even and (means[:, :-1] < told_apart).all() and (told_apart <= means[:, 1:]).all())

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
        stride = 1 << (self.steps.bit_length() - 1)
        while stride:
            probe = count + stride
            reached = mean >= self.thresholds[rows, np.minimum(probe, self.steps) - 1]
            count = np.where((probe <= self.steps) & reached.astype(bool), probe, count)
            stride >>= 1
        return count

    def value(self, count: Array) -> Array:
        """The temporal mean `v_k` of spike counts `[B, …]`."""
        return np.asarray(self.levels[self._rows(count.ndim), count])

    def trains(self, mean: Array) -> Array:
        """What flows in a spiking network: `[T, B, …]`, `v_T` where the neuron fires and `v_0` where it is silent."""
        silent, firing = (self.along_channels(self.levels[:, [k]], mean.ndim) for k in (0, -1))
        return np.where(self.threshold_form(mean), firing, silent)

    def _rows(self, rank: int) -> Array:
        rows = np.arange(len(self.thresholds)).reshape(-1, 1)
        return np.asarray(self.along_channels(rows, rank)[0])


def train_decoder(levels: Array, channel_axis: int | None) -> ParallelNeuron:
    """The neuron that turns the temporal mean of spike trains back into the levels `[R, T+1]` they stand for, exactly.

    The mean of a train, `v_0 + (v_T − v_0)·k/T` in floats, may differ from `v_k` in its last bit; thresholds half a
    spike away from each such mean tell the counts apart.
    """
    steps = levels.shape[1] - 1
    silent, firing = (levels[:, [k]].astype(np.float64) for k in (0, -1))
    between = silent + (firing - silent) * (np.arange(steps) + 0.5) / steps
    return ParallelNeuron(between.astype(levels.dtype), levels, channel_axis)
