"""Levels of neurons whose counts reach differently far, brought to one width: trains side by side have one table."""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array


def widened(levels: Array, zero: int, highest: int) -> Array | None:
    """Levels with others at both ends, which nothing reaches, so that `zero` is the count whose level is zero.

    Where one side has a level and the other has none so far from zero, its negative is added: what a spike is worth by
    the one it goes on being worth by the other (`Coding.values`). Farther off it is a multiple of that beside zero, so
    that levels widened twice are those widened once.

    Args:
        levels: `[R, S+1]`, ascending.
        zero: k₀ of the result.
        highest: S of the result.

    Returns:
        `[R, highest + 1]`; None where no count has a level of zero in each row, counts reach farther than that, or what
        comes about does not ascend or is not finite.
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
