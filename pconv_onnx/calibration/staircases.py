"""Staircases for activations without levels: how many thresholds, where, and what a spike is worth.

Every method gives `y = a/T · clip(⌊(x + ψ)·T/θ + 1/2⌋, 0, T)` per channel, from sums alone; where values may be below
zero `y = a/T · (clip(⌊(x + ψ)·T/θ + 1/2⌋, 0, T) − k₀)`. T is the number of levels here, whatever the coding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.statistics import Moments, PairHistogram
from pconv_onnx.neuron.coding import Coding, reach_of

# Share of the outputs that `percentile` does not cut off.
_PERCENTILE = 0.999
# Thresholds that `mse` tries, in units of the maximum.
_SHARES = np.linspace(0.005, 1.2, 240)
# `fit`: points in each of the two directions of the first grid, and of each finer one around its best; channels that
# are searched at a time.
_GRIDS, _BLOCK = (33, *[9] * 13), 64
# How near to the ends of its level zero may lie, in spacings: on an end rounding would tell.
_NEAR = 1 / 32
# Levels up to which what is counted at each is summed up; of more it is integrated.
_SUMMED = 64
# How many times fewer are searched over first where there are that many.
_FEWER = 4
# How far apart thresholds are in a channel that never fires, where there are levels below silence.
_NEVER = 2.0**110


@dataclass(frozen=True, eq=False)
class Staircase:
    """Parameters of a quantised activation, `[C]` each.

    Attributes:
        threshold: θ.
        shift: ψ, added to the input; −∞ in a channel that never fires.
        amplitude: a, the output of the highest level.
        steps: T.
        zero: k₀, the count whose output is zero.
    """

    threshold: Array
    shift: Array
    amplitude: Array
    steps: int
    zero: int = 0

    @property
    def silent(self) -> Array:
        """Which channels never fire."""
        return np.isneginf(self.shift)

    def constants(self) -> tuple[Array, Array, Array]:
        """ψ, the step θ/T and the level a/T as float32, `[C]` each: what the quantised network computes with."""
        step, level = self.threshold / self.steps, self.amplitude / self.steps
        # Silence is the lowest level, below which all values are, or k₀ spikes. What is not finite no neuron takes in.
        never = (self.zero * _NEVER, _NEVER) if self.zero else (-float(np.finfo(np.float32).max), 1.0)
        shift, step = np.where(self.silent, never[0], self.shift), np.where(self.silent, never[1], step)
        bits = np.finfo(np.float32).nmant + 1 - self.steps.bit_length()
        if self.zero and bits > self.steps.bit_length():
            # So few bits that all its multiples are exact, and yet so many that the farthest is off by less than half a
            # level: of rounded multiples, less an offset, little is left near zero.
            mantissa, exponent = np.frexp(level)
            level = np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)
        return shift.astype(np.float32), step.astype(np.float32), level.astype(np.float32)

    @property
    def offset(self) -> Array:
        """What is added to a/T·k, `[C]`: −1 times its value at k₀ in float32, so that the sum there is exactly zero."""
        return np.float32(0) - np.float32(self.zero) * self.constants()[2]

    def codes(self, values: Array) -> Array:
        """Spike counts of pre-activations `[C, n]`, as the quantised network computes them."""
        shift, step, _ = (constant.reshape(-1, 1) for constant in self.constants())
        return np.clip(np.floor((values + shift) / step + np.float32(0.5)), 0, self.steps)


def with_silent(staircase: Staircase, silent: Array) -> Staircase:
    """The staircase with some channels that never fire."""
    threshold, amplitude = (np.where(silent, 1.0, v) for v in (staircase.threshold, staircase.amplitude))
    shift = np.where(silent, -np.inf, staircase.shift)
    return replace(staircase, threshold=threshold, shift=shift, amplitude=amplitude)


def with_shift(staircase: Staircase, shift: Array) -> Staircase:
    """The staircase with so much more added to its input."""
    return replace(staircase, shift=staircase.shift + shift)


def repeated(staircase: Staircase, count: int) -> Staircase:
    """That of one channel in so many."""
    threshold, shift, amplitude = (
        np.repeat(table, count) for table in (staircase.threshold, staircase.shift, staircase.amplitude)
    )
    return Staircase(threshold, shift, amplitude, staircase.steps, staircase.zero)


def mirrored(staircase: Staircase) -> Staircase:
    """The staircase with as many levels below zero, as far apart."""
    threshold, amplitude, steps = 2 * staircase.threshold, 2 * staircase.amplitude, 2 * staircase.steps
    return Staircase(threshold, staircase.shift + staircase.threshold, amplitude, steps, staircase.steps)


def trimmed(staircase: Staircase, lowest: Array, highest: Array, coding: type[Coding]) -> Staircase:
    """The staircase without levels that no channel reaches, whose inputs are from `lowest` to `highest`, `[C]` each.

    Those stay that the coding needs for its trains to have as many time-steps.
    """
    codes, zero = staircase.codes(np.stack([lowest, highest], axis=1)), staircase.zero
    below, above = max(zero - int(codes.min()), 0), max(int(codes.max()) - zero, 1)
    least = coding.most(coding.steps_for(reach_of(staircase.steps, zero)) - 1) + 1
    below, above = (max(below, least), above) if below > above else (below, max(above, least))
    first, last = zero - below, zero + above
    share = (last - first) / staircase.steps
    shift = staircase.shift - first * staircase.threshold / staircase.steps
    return Staircase(share * staircase.threshold, shift, share * staircase.amplitude, last - first, below)


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
    thresholds = maximum[:, np.newaxis] * _SHARES
    level, low, width = thresholds / steps, outputs.low[:, np.newaxis], outputs.width[:, np.newaxis]
    total, _, squares = _sums(*outputs.above(), (level / 2 - low) / width, level / width, steps)
    best = (level**2 * squares - 2 * level * total).argmin(axis=1)
    return by_maximum(thresholds[np.arange(len(best)), best], steps)


def with_shifts(staircase: Staircase, reference: Moments, values: Moments) -> Staircase:
    """`da-qcfs`, first half: ψ is the mean error of the inputs. Source: Hao et al. (ICML 2025), with plain means."""
    return with_shift(staircase, reference.mean - values.mean)


def with_amplitudes(staircase: Staircase, outputs: Moments, codes: Moments) -> Staircase:
    """`da-qcfs`, second half: φ is the mean error of the outputs.

    The authors average `y_ref − (θ + φ)·k/T` while φ changes; this is where that comes to rest.
    """
    share = (codes.mean - staircase.zero) / staircase.steps
    correction = (outputs.mean - staircase.threshold * share) / (1 + share)
    amplitude = np.maximum(staircase.threshold + correction, staircase.threshold / 100)
    return replace(staircase, amplitude=amplitude)


def by_fit(pairs: PairHistogram, steps: int, *, centred: bool, zero: int = 0) -> Staircase:
    """`fit`: first threshold and spacing that explain most of the reference output, with the amplitude for it.

    The squared error of a staircase over quantised inputs is `Σy² − 2c·ΣS_t + c²·Σ(2t − 1)·N_t` for a level `c = a/T`,
    N_t values at or above threshold t and S_t the sum of their outputs: best for `c = ΣS_t / Σ(2t − 1)·N_t`. Where k
    counts are worth k − k₀ the same sums give Σy·(k − k₀) and Σ(k − k₀)². What is left is searched over a grid that is
    refined.

    Args:
        pairs: pre-activations of the quantised network, with outputs of the reference.
        steps: T.
        centred: whether an error that is the same for all values does not count, because a later layer corrects it.
        zero: k₀.

    Returns:
        The staircase; channels of which nothing can be explained are silent.
    """
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(pairs.low), _BLOCK)]
    parts = [
        np.concatenate(part)
        for part in zip(*(_search(pairs.part(block), steps, centred, zero) for block in blocks), strict=True)
    ]
    first, spacing, level, gain = parts
    threshold = steps * spacing * pairs.width
    shift = (zero + 0.5) * spacing * pairs.width - (pairs.low + first * pairs.width)
    staircase = with_silent(Staircase(threshold, shift, level * steps, steps, zero), gain <= 0)
    # A channel that is constant has nothing but its mean, which no later layer makes up for at padded borders.
    constant = staircase.silent & (pairs.sums.sum(axis=1) != 0)
    if not centred or not constant.any():
        return staircase
    plain = by_fit(pairs, steps, centred=False, zero=zero)
    return replace(
        staircase,
        **{
            name: np.where(constant, getattr(plain, name), getattr(staircase, name))
            for name in ("threshold", "shift", "amplitude")
        },
    )


def _search(pairs: PairHistogram, steps: int, centred: bool, zero: int) -> tuple[Array, Array, Array, Array]:
    """First threshold above k₀ and spacing in bins, level, and what that explains, `[C]` each."""
    counts, sums = pairs.above()
    origin = -pairs.low / pairs.width
    span, above = pairs.bins - origin, steps - zero
    # A lone spike may be worth most far up; of many the first is near zero.
    places = np.stack([origin - 0.3 * span, origin + (0.7 if above < 4 else 0.35) * span])
    spacings = np.stack([0.02 * span, 1.3 * span]) / above
    if above > _SUMMED:
        # Where fewer begin and end these do, but for some of their spacing.
        few = -(-above // _FEWER)
        start, wide, *_ = _search(pairs, few + bool(zero) * few, centred, bool(zero) * few)
        narrow = wide * few / above
        places = start - wide / 2 + narrow / 2 + np.stack([-wide, wide]) / 2
        spacings = np.stack([0.9 * narrow, 1.3 * narrow])
    if zero:
        # What is zero is to be silent: it lies below the first threshold by a share of the spacing.
        places = np.stack([np.full_like(origin, _NEAR), np.full_like(origin, 1 - _NEAR)])
    rows = np.arange(len(origin))
    best = (np.zeros_like(origin), np.zeros_like(origin), np.zeros_like(origin), np.full_like(origin, -np.inf))

    def first(place: Array, spacing: Array) -> Array:
        return origin.reshape(-1, *[1] * (place.ndim - 1)) + place * spacing if zero else place

    for points in _GRIDS:
        share = np.linspace(0, 1, points)
        place, spacing = (
            ends[0][:, np.newaxis] + (ends[1] - ends[0])[:, np.newaxis] * share for ends in (places, spacings)
        )
        grid = np.broadcast_arrays(place[:, :, np.newaxis], spacing[:, np.newaxis, :])
        level, gain = _explained(counts, sums, first(*grid), grid[1], steps, centred, zero)
        flat = gain.reshape(len(rows), -1).argmax(axis=1)
        here = [table.reshape(len(rows), -1)[rows, flat] for table in (*grid, level, gain)]
        better = here[3] > best[3]
        best = tuple(np.where(better, new, old) for new, old in zip(here, best, strict=True))  # type: ignore[assignment]
        reach = [2 * (ends[1] - ends[0]) / points for ends in (places, spacings)]
        places = np.stack([best[0] - reach[0], best[0] + reach[0]])
        places = np.clip(places, _NEAR, 1 - _NEAR) if zero else places
        spacings = np.stack([np.maximum(best[1] - reach[1], 1e-3), best[1] + reach[1]])
    return first(*best[:2]), *best[1:]


def _explained(
    counts: Array, sums: Array, first: Array, spacing: Array, steps: int, centred: bool, zero: int
) -> tuple[Array, Array]:
    """The best level of each staircase, and how much of the squares of the outputs it explains; `[C, …]` each."""
    total, codes, squares = _sums(counts, sums, first - zero * spacing, spacing, steps)
    everything, outputs = (table[:, 0].reshape(-1, *[1] * (first.ndim - 1)) for table in (counts, sums))
    total, squares = total - zero * outputs, squares - 2 * zero * codes + zero * zero * everything
    codes = codes - zero * everything
    if centred:
        everything = np.maximum(everything, 1)
        total = total - outputs * codes / everything
        squares = squares - codes * codes / everything
    useful = (squares > 1e-9) & (total > 0)
    level = np.where(useful, total / np.where(useful, squares, 1), 0)
    return level, np.where(useful, level * total, 0)


def _sums(counts: Array, sums: Array, start: Array, spacing: Array, steps: int) -> tuple[Array, Array, Array]:
    """Of staircases with thresholds from `start` on, `[C, …]` each: Σy·k of outputs y at spike counts k, Σk and Σk².

    They are Σ S_t, Σ N_t and Σ (2t − 1)·N_t. Of many levels these are integrals: the midpoint rule, and with the last
    what Euler and Maclaurin add to it, the 1/12 that rounding leaves of each value between the ends.
    """
    if steps > _SUMMED:
        low, high = start - spacing / 2, start + (steps - 0.5) * spacing
        (number, moment), (outputs, _) = (_integrals(table, low, high) for table in (counts, sums))
        between = _at([counts], low)[0] - _at([counts], high)[0]
        squares = (2 * (moment - start * number) / spacing + number) / spacing + between / 12
        return outputs / spacing, number / spacing, squares
    total = codes = squares = np.zeros(start.shape)
    for t in range(steps):
        number, outputs = _at([counts, sums], start + t * spacing)
        total, codes, squares = total + outputs, codes + number, squares + (2 * t + 1) * number
    return total, codes, squares


def _integrals(table: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """∫f and ∫z·f(z) from edges to others, `[C, …]` each, of a table as `_at` has it."""
    left, right, bins = table[:, :-1], table[:, 1:], np.arange(table.shape[1] - 1)
    parts = (left + right) / 2, bins * (left + right) / 2 + left / 6 + right / 3
    before = [np.pad(np.cumsum(part, axis=1), ((0, 0), (1, 0))) for part in parts]
    rows = np.arange(len(table)).reshape(-1, *[1] * (low.ndim - 1))

    def up_to(edges: Array) -> tuple[Array, Array]:
        inside = np.clip(edges, 0, len(bins))
        below = np.minimum(inside.astype(np.int64), len(bins) - 1)
        share, value = inside - below, table[rows, below]
        rise = table[rows, below + 1] - value
        area = value * share + rise * share**2 / 2
        moment = below * area + value * share**2 / 2 + rise * share**3 / 3
        # Beyond its ends a table is as there.
        beyond, end = edges - inside, np.where(edges < 0, table[rows, 0], table[rows, -1])
        return (
            before[0][rows, below] + area + end * beyond,
            before[1][rows, below] + moment + end * beyond * (edges + inside) / 2,
        )

    (number, first), (every, second) = up_to(low), up_to(high)
    return every - number, second - first


def _at(tables: Sequence[Array], edges: Array) -> list[Array]:
    """Tables `[C, bins + 1]` at edges `[C, …]` that lie between those of the bins."""
    channels, size = tables[0].shape
    edges = np.clip(edges, 0, size - 1)
    below = np.minimum(edges.astype(np.int64), size - 2)
    share = edges - below
    below += size * np.arange(channels).reshape(-1, *[1] * (edges.ndim - 1))
    found = []
    for table in tables:
        values = table.reshape(-1).take(below)
        found.append(values + share * (table.reshape(-1).take(below + 1) - values))
    return found
