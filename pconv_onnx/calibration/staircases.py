"""Staircases for activations without levels: how many thresholds, where, and what a spike is worth.

Every method gives `y = a/T · clip(⌊(x + ψ)·T/θ + 1/2⌋, 0, T)` per channel, from sums alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.statistics import Moments, PairHistogram

# Share of the outputs that `percentile` does not cut off.
_PERCENTILE = 0.999
# Thresholds that `mse` tries, in units of the maximum.
_SHARES = np.linspace(0.005, 1.2, 240)
# `fit`: points of the grid in each of its two directions, how often it is refined, and channels searched at a time.
_GRID, _REFINEMENTS, _BLOCK = 33, 6, 16


@dataclass(frozen=True, eq=False)
class Staircase:
    """Parameters of a quantised activation, `[C]` each.

    Attributes:
        threshold: θ.
        shift: ψ, added to the input; −∞ in a channel that never fires, whatever its input.
        amplitude: a, the output of the highest level.
        steps: T.
    """

    threshold: Array
    shift: Array
    amplitude: Array
    steps: int

    @property
    def silent(self) -> Array:
        """Which channels never fire."""
        return np.isneginf(self.shift)

    def constants(self) -> tuple[Array, Array, Array]:
        """ψ, the step θ/T and the level a/T as float32, `[C]` each: what the quantised network computes with."""
        step, level = self.threshold / self.steps, self.amplitude / self.steps
        return self.shift.astype(np.float32), step.astype(np.float32), level.astype(np.float32)

    def codes(self, values: Array) -> Array:
        """Spike counts of pre-activations `[C, n]`, as the quantised network computes them."""
        shift, step, _ = (constant.reshape(-1, 1) for constant in self.constants())
        return np.clip(np.floor((values + shift) / step + np.float32(0.5)), 0, self.steps)


def with_silent(staircase: Staircase, silent: Array) -> Staircase:
    """The staircase with some channels that never fire."""
    threshold, amplitude = (np.where(silent, 1.0, v) for v in (staircase.threshold, staircase.amplitude))
    return Staircase(threshold, np.where(silent, -np.inf, staircase.shift), amplitude, staircase.steps)


def with_shift(staircase: Staircase, shift: Array) -> Staircase:
    """The staircase with so much more added to its input."""
    return Staircase(staircase.threshold, staircase.shift + shift, staircase.amplitude, staircase.steps)


def by_maximum(maximum: Array, steps: int) -> Staircase:
    """`max`: θ is the largest output; ψ is 0 and a is θ. Source: RecReLU thresholds of Hao et al. (ICML 2025)."""
    return Staircase(maximum, np.zeros_like(maximum), maximum, steps)


def by_levels(unit: Array, maximum: Array, steps: int) -> Staircase | None:
    """The levels that an activation has itself, T of them; None where it reaches more.

    Args:
        unit: what one adds to its output, `[1]` or `[C]`.
        maximum: the largest output above the lowest.
        steps: T.
    """
    threshold = np.broadcast_to(steps * unit, maximum.shape).astype(np.float64)
    # Levels are as far apart as that but for rounding.
    return None if (maximum > threshold + unit / 2).any() else by_maximum(threshold, steps)


def by_percentile(outputs: PairHistogram, maximum: Array, steps: int) -> Staircase:
    """`percentile`: θ is what 99.9 % of all outputs stay below; zeros count. Source: Rueckauer et al. (2017).

    Args:
        outputs: histogram of reference outputs.
        maximum: the largest output, taken where that share is zero.
        steps: T.
    """
    share = np.cumsum(outputs.counts, axis=1) / np.maximum(outputs.counts.sum(axis=1, keepdims=True), 1)
    edge = outputs.low + ((share < _PERCENTILE).sum(axis=1) + 1) * outputs.width
    return by_maximum(np.where(edge > outputs.width, np.minimum(edge, maximum), maximum), steps)


def by_squared_error(outputs: PairHistogram, maximum: Array, steps: int) -> Staircase:
    """`mse`: θ minimises the squared error of the outputs' own quantisation, over a grid; ψ is 0 and a is θ.

    Args:
        outputs: histogram of reference outputs, with themselves as outputs.
        maximum: the largest output.
        steps: T.
    """
    counts, sums = outputs.above()
    best, found = np.full(len(maximum), np.inf), maximum.copy()
    t = np.arange(1, steps + 1)
    for share in _SHARES:
        threshold = maximum * share
        edges = ((t - 0.5) * threshold[:, np.newaxis] / steps - outputs.low[:, np.newaxis]) / outputs.width[
            :, np.newaxis
        ]
        number, total = _at(counts, edges), _at(sums, edges)
        level = threshold / steps
        error = level**2 * ((2 * t - 1) * number).sum(axis=1) - 2 * level * total.sum(axis=1)
        better = error < best
        best, found = np.where(better, error, best), np.where(better, threshold, found)
    return by_maximum(found, steps)


def with_shifts(staircase: Staircase, reference: Moments, values: Moments) -> Staircase:
    """`da-qcfs`, first half: ψ is the mean error of the inputs. Source: Hao et al. (ICML 2025), with plain means."""
    return Staircase(staircase.threshold, reference.mean - values.mean, staircase.amplitude, staircase.steps)


def with_amplitudes(staircase: Staircase, outputs: Moments, codes: Moments) -> Staircase:
    """`da-qcfs`, second half: φ is the mean error of the outputs.

    The authors average `y_ref − (θ + φ)·k/T` while φ changes; this is where that comes to rest.
    """
    share = codes.mean / staircase.steps
    correction = (outputs.mean - staircase.threshold * share) / (1 + share)
    amplitude = np.maximum(staircase.threshold + correction, staircase.threshold / 100)
    return Staircase(staircase.threshold, staircase.shift, amplitude, staircase.steps)


def by_fit(pairs: PairHistogram, steps: int, *, centred: bool) -> Staircase:
    """`fit`: first threshold and spacing that explain most of the reference output, with the amplitude for it.

    The squared error of a staircase over quantised inputs is `Σy² − 2c·ΣS_t + c²·Σ(2t − 1)·N_t` for a level `c = a/T`,
    N_t values at or above threshold t and S_t the sum of their outputs: best for `c = ΣS_t / Σ(2t − 1)·N_t`. What is
    left is searched over a grid that is refined.

    Args:
        pairs: pre-activations of the quantised network, with outputs of the reference.
        steps: T.
        centred: whether an error that is the same for all values does not count, because a later layer corrects it.

    Returns:
        The staircase; channels of which nothing can be explained are silent.
    """
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(pairs.low), _BLOCK)]
    parts = [
        np.concatenate(part) for part in zip(*(_search(pairs, block, steps, centred) for block in blocks), strict=True)
    ]
    first, spacing, level, gain = parts
    threshold = steps * spacing * pairs.width
    shift = spacing * pairs.width / 2 - (pairs.low + first * pairs.width)
    staircase = with_silent(Staircase(threshold, shift, level * steps, steps), gain <= 0)
    # A channel that is constant has nothing but its mean, which no later layer makes up for at padded borders.
    constant = staircase.silent & (pairs.sums.sum(axis=1) > 0)
    if not centred or not constant.any():
        return staircase
    plain = by_fit(pairs, steps, centred=False)
    return Staircase(
        np.where(constant, plain.threshold, staircase.threshold),
        np.where(constant, plain.shift, staircase.shift),
        np.where(constant, plain.amplitude, staircase.amplitude),
        steps,
    )


def _search(pairs: PairHistogram, block: slice, steps: int, centred: bool) -> tuple[Array, Array, Array, Array]:
    """First threshold and spacing in bins, level, and what that explains, `[channels of the block]` each."""
    counts, sums = (table[block] for table in pairs.above())
    zero = (-pairs.low / pairs.width)[block]
    span = pairs.bins - zero
    # A lone spike may be worth most far up; of many the first is near zero.
    starts = np.stack([zero - 0.3 * span, zero + (0.7 if steps < 4 else 0.35) * span])
    spacings = np.stack([0.02 * span, 1.3 * span]) / steps
    rows = np.arange(len(zero))
    best = (np.zeros_like(zero), np.zeros_like(zero), np.zeros_like(zero), np.full_like(zero, -np.inf))
    for _ in range(_REFINEMENTS):
        share = np.linspace(0, 1, _GRID)
        start, spacing = (
            ends[0][:, np.newaxis] + (ends[1] - ends[0])[:, np.newaxis] * share for ends in (starts, spacings)
        )
        grid = np.broadcast_arrays(start[:, :, np.newaxis], spacing[:, np.newaxis, :])
        level, gain = _explained(counts, sums, grid[0], grid[1], steps, centred)
        flat = gain.reshape(len(zero), -1).argmax(axis=1)
        here = [table.reshape(len(zero), -1)[rows, flat] for table in (*grid, level, gain)]
        better = here[3] > best[3]
        best = tuple(np.where(better, new, old) for new, old in zip(here, best, strict=True))  # type: ignore[assignment]
        reach = [2 * (ends[1] - ends[0]) / _GRID for ends in (starts, spacings)]
        starts = np.stack([best[0] - reach[0], best[0] + reach[0]])
        spacings = np.stack([np.maximum(best[1] - reach[1], 1e-3), best[1] + reach[1]])
    return best


def _explained(
    counts: Array, sums: Array, start: Array, spacing: Array, steps: int, centred: bool
) -> tuple[Array, Array]:
    """The best level of each staircase, and how much of the squares of the outputs it explains; `[C, …]` each."""
    total = codes = squares = np.zeros(start.shape)
    for t in range(steps):
        edges = start + t * spacing
        number, outputs = _at(counts, edges), _at(sums, edges)
        total, codes, squares = total + outputs, codes + number, squares + (2 * t + 1) * number
    if centred:
        everything = np.maximum(counts[:, 0], 1).reshape(-1, *[1] * (start.ndim - 1))
        total = total - sums[:, 0].reshape(everything.shape) * codes / everything
        squares = squares - codes * codes / everything
    useful = (squares > 1e-9) & (total > 0)
    level = np.where(useful, total / np.where(useful, squares, 1), 0)
    return level, np.where(useful, level * total, 0)


def _at(table: Array, edges: Array) -> Array:
    """A table `[C, bins + 1]` at edges `[C, …]` that lie between those of the bins."""
    edges = np.clip(edges, 0, table.shape[1] - 1)
    below = np.minimum(edges.astype(np.int64), table.shape[1] - 2)
    share = edges - below
    rows = np.arange(len(table)).reshape(-1, *[1] * (edges.ndim - 1))
    return np.asarray(table[rows, below] * (1 - share) + table[rows, below + 1] * share)
