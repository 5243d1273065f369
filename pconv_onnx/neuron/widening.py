"""Brings the levels of several neurons to the same counts, since trains side by side need one table."""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array


def widened(levels: Array, zero: int, highest: int) -> Array | None:
    """Levels extended at both ends by levels that no input reaches, so that count `zero` has the level zero.

    If one side of zero has a level at some distance and the other side has none, its negative is added, so that spikes
    are worth the same on both sides (`Coding.values`). Farther off, added levels are multiples of the level next to
    zero, so widening twice gives the same as widening once.

    Args:
        levels: `[R, S+1]`, ascending.
        zero: k₀ of the result, the count whose level is zero.
        highest: S of the result, the highest count.

    Returns:
        `[R, highest + 1]`; None if no count has the level zero in every row, counts do not fit, or the extended levels
        do not ascend or are not finite.
    """
    silent = np.flatnonzero((levels == 0).all(axis=0))
    if not silent.size or levels.shape[1] < 2:
        return None
    # By their distance from zero.
    below, above = levels[:, silent[0] :: -1], levels[:, silent[0] :]
    if zero + 1 < below.shape[1] or highest - zero + 1 < above.shape[1]:
        return None
    longer = above if above.shape[1] > below.shape[1] else -below
    beside = above[:, [1]] if above.shape[1] > 1 else -below[:, [1]]
    with np.errstate(over="ignore"):
        far = (beside.astype(np.float64) * np.arange(max(zero, highest - zero) + 1)).astype(levels.dtype)
    far[:, : longer.shape[1]] = longer
    lower, upper = -far, far
    lower[:, : below.shape[1]], upper[:, : above.shape[1]] = below, above
    found = np.concatenate([lower[:, zero:0:-1], upper[:, : highest - zero + 1]], axis=1)
    return found if np.isfinite(found).all() and (found[:, 1:] > found[:, :-1]).all() else None
