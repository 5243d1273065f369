"""Measures of answers, each with what chance may have done to it: a standard error, or Wilson's interval."""

from __future__ import annotations

import math

import numpy as np

# The quantile of the normal distribution that 95 % lie within, on both sides.
_Z = 1.959963984540054


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many independent samples.

    It is sound near 0 and 1 as well, where the standard error vanishes (E. B. Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22, 1927).
    """
    share, spread = successes / count, _Z**2 / count
    centre = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low, high = ((centre + sign * half) / (1 + spread) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def proportion(name: str, hits: np.ndarray) -> dict[str, float | list[float]]:
    """The share of the booleans `[N]` that hold, under that name, and its interval."""
    return {name: float(hits.mean()), f"{name}_interval": list(wilson(int(hits.sum()), len(hits)))}


def mean(values: np.ndarray) -> tuple[float, float]:
    """And its standard error."""
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def ratio(part: np.ndarray, whole: np.ndarray) -> tuple[float | None, float | None]:
    """Of two counts in each sample the ratio of all, and its standard error: what one sample has is not independent."""
    total = whole.sum()
    if not total:
        return None, None
    share = part.sum() / total
    return float(share), float(np.sqrt(np.sum((part - share * whole) ** 2)) / total)


def edit_distance(some: str, other: str) -> int:
    """The fewest characters to put in, leave out or replace that make one of the other (V. Levenshtein, 1966)."""
    row = [*range(len(other) + 1)]
    for index, character in enumerate(some, 1):
        diagonal, row[0] = row[0], index
        for column, wanted in enumerate(other, 1):
            least = min(row[column] + 1, row[column - 1] + 1, diagonal + (character != wanted))
            diagonal, row[column] = row[column], least
    return row[-1]


def cents(frequency: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The interval between two frequencies, in hundredths of a semitone."""
    return 1200 * np.log2(frequency / reference)
