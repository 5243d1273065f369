"""The uncertainty of a proportion of samples, also of few."""

from __future__ import annotations

import math

# Standard normal quantile of 97.5 %: 95 % lie within as many standard errors of the middle.
Z95 = 1.959963984540054


def wilson(right: int, samples: int, z: float) -> tuple[float, float]:
    """Wilson's score interval: the shares from which the observed one is at most `z` of their standard errors away.

    It lies within 0 and 1, and has a width where all are right or none. Source: E. B. Wilson, "Probable inference, the
    law of succession, and statistical inference" (JASA 1927).

    Args:
        right: number of samples that count, such as right answers.
        samples: number of all samples, one or more.
        z: half the width, in standard errors.
    """
    share, spread = right / samples, z * z / samples
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / samples + spread / (4 * samples)) / (1 + spread)
    # By rounding it may miss the share itself, where that is an end.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def standard_error(right: int, samples: int) -> float:
    """Half of that interval at one standard error: √(p(1 − p)/n) of many samples, and more than nothing of few."""
    low, high = wilson(right, samples, 1.0)
    return (high - low) / 2
