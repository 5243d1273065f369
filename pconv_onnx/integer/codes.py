"""The codes of activations: levels as whole numbers of their spacing, and thresholds for integers."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.neuron.parallel import ParallelNeuron

# How far thresholds may lie off even spacing, as a share of a step, because they are rounded.
_EVEN = 1e-4
# The most thresholds that are written one by one, since each value is compared with each of them.
_MOST_THRESHOLDS = 256


@dataclass(frozen=True, eq=False)
class Codes:
    """An activation whose levels are multiples of a spacing, with a row `[R]` for each channel or one for all.

    Attributes:
        spacing: `[R]`, the distance between levels.
        lowest: the code of the lowest level, zero or below.
        highest: the code of the highest level.
        thresholds: `[R, S]` in float64, the values from which on a level is reached.
        step: `[R]`, the distance between thresholds (any if none is reached); None if they are not evenly spaced.
        axis: the axis that the rows belong to; None for R = 1.
    """

    spacing: Array
    lowest: int
    highest: int
    thresholds: Array
    step: Array | None
    axis: int | None


def codes_of(neuron: ParallelNeuron) -> Codes:
    """The codes of a neuron's levels.

    Raises:
        ValueError: its levels cannot be codes; the text says why.
    """
    levels, thresholds = neuron.levels.astype(np.float64), neuron.thresholds.astype(np.float64)
    highest = levels.shape[1] - 1
    spacing = (levels[:, -1] - levels[:, 0]) / highest
    even = levels[:, :1] + spacing.reshape(-1, 1) * np.arange(highest + 1)
    rounding = 4 * float(ml_dtypes.finfo(neuron.levels.dtype).eps)
    if (abs(levels - even) > rounding * abs(levels).max(axis=1, keepdims=True)).any():
        raise ValueError("its levels are not evenly spaced")
    silent = np.flatnonzero((levels == 0).all(axis=0))
    if not silent.size:
        raise ValueError("none of its levels is zero in all channels")
    lowest = -int(silent[0])
    step = _step(thresholds, spacing)
    if step is None and highest > _MOST_THRESHOLDS:
        raise ValueError(f"its {highest} thresholds are not evenly spaced; up to {_MOST_THRESHOLDS} are written")
    axis = neuron.channel_axis if len(levels) > 1 else None
    return Codes(spacing, lowest, lowest + highest, thresholds, step, axis)


def _step(thresholds: Array, spacing: Array) -> Array | None:
    """`[R]`, the distance between thresholds `[R, S]`; None if they are not evenly spaced.

    A row without thresholds that are reached, or with only one, has the distance between its levels.
    """
    never = ~np.isfinite(thresholds).any(axis=1) & ~(thresholds == -np.inf).any(axis=1)
    if not np.isfinite(thresholds[~never]).all():
        return None
    counts = np.arange(thresholds.shape[1])
    if counts[-1] == 0:
        return spacing
    known = np.where(never.reshape(-1, 1), spacing.reshape(-1, 1) * counts, thresholds)
    step = (known[:, -1] - known[:, 0]) / counts[-1]
    off = abs(known[:, :1] + step.reshape(-1, 1) * counts - known)
    return step if (step > 0).all() and (off <= _EVEN * step.reshape(-1, 1)).all() else None
