"""Formulas: sums over time, the two forms that only evenly spaced neurons have, and the error for T other than L."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.neuron.coding import reach_of

# The types in which neurons compute, each with the type in which currents are summed over time. That is wide enough
# that the mean of T equal currents is exactly that current.
SUM_TYPES: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.float64),
    np.dtype(np.float16): np.dtype(np.float32),
    np.dtype(ml_dtypes.bfloat16): np.dtype(np.float32),
}


def shift_of(levels: int, steps: int, shift: Any = 0.5) -> Any:
    """The shift for T steps with a mean error of zero, if the neuron with T = L has `shift`; in units of θ.

    For inputs spread evenly over `[0, θ]` the mean of a staircase of n steps is `θ·(1/2 + (b − 1/2)/n)`, as long as its
    thresholds lie within that range; for T > L they do if b is 1/2.
    """
    return 0.5 + (shift - 0.5) * steps / levels


def counts_beside(levels: int, steps: int, zero: int) -> tuple[int, int]:
    """How many counts lie below and above k₀ if trains of `rate` have T steps for L levels.

    The farther side has T counts. If k₀ is 0 that is all; in signed trains the other side has its share.
    """
    reach = reach_of(levels, zero)
    return round(zero * steps / reach), round((levels - zero) * steps / reach)


def rms_error(levels: int, steps: int, shift: float = 0.5, zero: int = 0) -> float:
    """Root mean square error of a neuron in `rate` with another number of time-steps than its levels need.

    It is for inputs spread evenly over `[0, θ]`, in units of θ. The mean error is zero for T ≤ L (Theorem 4.1;
    `shift_of`). Both functions are staircases, so the integral is a sum.

    Args:
        levels: L.
        steps: T.
        shift: b of the neuron with T = L, in units of θ.
        zero: k₀, the count of a silent neuron.
    """
    reach = reach_of(levels, zero)
    below, above = counts_beside(levels, steps, zero)
    spacing, own_shift = reach / steps, shift_of(reach, steps, shift)
    edges = [
        np.arange(1, levels + 1) - shift,
        (np.arange(1 - below, above + 1) - own_shift) * spacing + zero,
    ]
    cuts = np.unique(np.clip(np.concatenate([[0, levels], *edges]), 0, levels))
    middle = (cuts[:-1] + cuts[1:]) / 2
    ann, count = (np.searchsorted(edge, middle, side="right") for edge in edges)
    snn = (count - below) * spacing + zero
    return float(np.sqrt((np.diff(cuts) / levels * ((snn - ann) / levels) ** 2).sum()))


def temporal_mean(current: Array) -> Array:
    """`(1/T)·Σ_t I_t` of currents `[T, …]`: summed in order in the type of `SUM_TYPES`, divided there, rounded once.

    So the mean of equal currents is exactly their value, which a sum in their own type would not give.
    """
    wide = SUM_TYPES[current.dtype]
    total = current[0].astype(wide)
    with np.errstate(over="ignore", invalid="ignore"):
        for step in current[1:]:
            total = total + step.astype(wide)
        return np.asarray(total / wide.type(len(current))).astype(current.dtype)


def matrix_form(current: Array, threshold: Any, shift: Any) -> Array:
    """Form 1, the definition: `s = H(Λ I + β − θ)`, `Λ[t, j] = 1/t`, `β_t = b/t`.

    Args:
        current: `[T, …]`, rational numbers (`fractions.Fraction`).
        threshold: θ, rational.
        shift: b, rational.

    Returns:
        Booleans `[T, …]`.
    """
    steps = len(current)
    inverse = np.array([Fraction(1, t) for t in range(1, steps + 1)], dtype=object)
    conversion = np.repeat(inverse[:, np.newaxis], steps, axis=1)
    bias = (inverse * shift).reshape(-1, *[1] * (current.ndim - 1))
    return np.asarray(np.tensordot(conversion, current, axes=1) + bias - threshold >= 0, dtype=bool)


def closed_form(mean: Array, steps: int, threshold: Any, shift: Any) -> Array:
    """Form 4: `k = clip(⌊(T·x̄ + b)/θ⌋, 0, T)`, O(1). Mean `[…]` in an exact number type to counts `[…]`."""
    return np.clip(np.floor((steps * mean + shift) / threshold), 0, steps).astype(np.int64)
