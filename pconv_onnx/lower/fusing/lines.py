"""Thresholds that lie on a line: a spike count without comparisons, for runtimes without the kernel."""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array

# Steps of a golden-section search; float32 does not distinguish more slopes.
_SECTIONS = 60
_GOLDEN = (np.sqrt(5) - 1) / 2
# Below all sums.
_LOW = -(2.0**40)


def lines(thresholds: Array, reach: Array) -> Array:
    """Offsets and spacings `[R, 2]`, float32, by which `round((sum − offset) / spacing)` clipped to 0 … S is the count.

    Each operation is one of float32, and halves are rounded to even, as QuantizeLinear rounds. None of it falls as the
    sum rises, so that it is right for every sum if it is at each threshold, one below, and at both ends.

    Args:
        thresholds: `[R, S]`, ascending integers.
        reach: `[R, 2]`, the least and the largest sum that there can be.

    Returns:
        Zeros in all rows if one of them has no such line.
    """
    table, (least, most) = thresholds.astype(np.float64), reach.T.astype(np.float64)
    highest = table.shape[1]
    crossed = (table > least[:, np.newaxis]) & (table <= most[:, np.newaxis])
    first = np.where(crossed.any(axis=1), crossed.argmax(axis=1), (table <= least[:, np.newaxis]).sum(axis=1))
    last = np.where(crossed.any(axis=1), highest - 1 - crossed[:, ::-1].argmax(axis=1), first)
    places = np.arange(highest) - first[:, np.newaxis]

    def ends(spacing: Array) -> tuple[Array, Array]:
        """The lower and upper bound of the offset of a line with this spacing that meets every threshold."""
        start = table - spacing[:, np.newaxis] * places
        above, below = (np.where(crossed, end, other) for end, other in ((start - 1, _LOW), (start, -_LOW)))
        return above.max(axis=1), below.min(axis=1)

    at_ends = np.take_along_axis(table, np.minimum(np.stack([first, last], axis=1), highest - 1), axis=1)
    span = at_ends[:, 1] - at_ends[:, 0]
    steps = np.maximum(last - first, 1)
    low, high = np.maximum(span - 1, 2.0**-20) / steps, (span + 1) / steps
    for _ in range(_SECTIONS):
        inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        room = [np.subtract(*ends(spacing)[::-1]) for spacing in (inner, outer)]
        low, high = np.where(room[0] > room[1], low, inner), np.where(room[0] > room[1], outer, high)
    spacing = np.where(last > first, (low + high) / 2, 2 * (most - least + 1))
    above, below = ends(spacing)
    # If no threshold is crossed, the count stays as at one end.
    middle = np.where(crossed.any(axis=1), (above + below) / 2, most + 1)
    offset = middle - spacing * (first + 0.5)
    found = np.stack([offset, spacing], axis=1).astype(np.float32)
    return found if _holds(found, thresholds, reach) else np.zeros_like(found)


def _holds(found: Array, thresholds: Array, reach: Array) -> bool:
    """Whether counts by lines equal those by thresholds."""
    highest = thresholds.shape[1]
    sums = np.concatenate([thresholds, thresholds - 1, reach], axis=1)
    expected = (thresholds[:, np.newaxis] <= sums[..., np.newaxis]).sum(axis=2)
    possible = (sums >= reach[:, :1]) & (sums <= reach[:, 1:])
    given = counts(found, sums, highest)
    return bool(((given == expected) | ~possible).all() and (np.diff(thresholds, axis=1) >= 0).all())


def counts(found: Array, sums: Array, highest: int) -> Array:
    """The counts of sums `[R, K]` by lines `[R, 2]`."""
    offset, spacing = found.T[..., np.newaxis]
    return np.clip(np.rint((sums.astype(np.float32) - offset) / spacing), 0, highest).astype(np.int64)
