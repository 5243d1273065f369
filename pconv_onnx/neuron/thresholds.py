"""Thresholds that are exact for floats: the smallest float for which a monotone predicate holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array

# By how many floats a threshold is expected to differ at most from its value in real numbers.
_ROUNDED = 16


def smallest_float(
    holds: Callable[[Array], Array], shape: tuple[int, ...], dtype: np.dtype[Any], near: Array | None = None
) -> Array:
    """For each element the smallest float for which a monotone predicate holds; NaN if it holds for none.

    It bisects over the ordered floats, -inf and +inf included, as sign-magnitude integers. A guess, `near`, makes it
    faster and does not change the result.
    """
    integer = np.dtype(f"i{dtype.itemsize}").type
    magnitude = np.iinfo(integer).max

    def ordered(value: Any) -> Any:
        bits = np.array(value, dtype=dtype).view(integer)
        return np.where(bits >= 0, bits, bits ^ magnitude).astype(integer)

    def floats(keys: Array) -> Array:
        return np.where(keys >= 0, keys, keys ^ magnitude).astype(integer).view(dtype)

    low = np.full(shape, ordered(-np.inf), dtype=integer)
    high = np.full(shape, ordered(np.inf), dtype=integer)
    reached = holds(floats(high))
    probes = []
    if near is not None:
        with np.errstate(over="ignore"):
            expected = np.clip(ordered(near.astype(dtype)), low + _ROUNDED, high - _ROUNDED)
        probes = [expected + _ROUNDED, expected - _ROUNDED]
    while (low < high).any():
        # The floor of the average, without overflow.
        middle = np.clip(probes.pop(), low, high) if probes else (low & high) + ((low ^ high) >> 1)
        below = holds(floats(middle))
        high = np.where(below, middle, high)
        low = np.where(below | (low >= high), low, middle + 1)
    # -0 and +0 are equal; +0 keeps files readable.
    return np.where(reached, floats(high) + dtype.type(0), dtype.type(np.nan))
