"""What calibration counts: sums over samples, which parts of the data computed apart add up to."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pconv_onnx.basics.arrays import Array

_BINS = 4096


@dataclass(eq=False)
class Moments:
    """Per channel: how many values, their sum and their maximum.

    Attributes:
        count: number of values of a channel.
        total: `[C]` in float64.
        maximum: `[C]`.
    """

    count: int = 0
    total: Array = field(default_factory=lambda: np.zeros(1))
    maximum: Array = field(default_factory=lambda: np.full(1, -np.inf))

    def add(self, values: Array) -> None:
        """Take in values `[C, n]`."""
        self.count += values.shape[1]
        self.total = self.total + values.sum(axis=1, dtype=np.float64)
        self.maximum = np.maximum(self.maximum, values.max(axis=1, initial=-np.inf))

    def __add__(self, other: Moments) -> Moments:
        """Those of both parts."""
        maximum = np.maximum(self.maximum, other.maximum)
        return Moments(self.count + other.count, self.total + other.total, maximum)

    @property
    def mean(self) -> Array:
        """`[C]`."""
        return self.total / max(self.count, 1)


class PairHistogram:
    """Per channel a histogram of pre-activations, and in each bin the sum of the outputs that they ought to have.

    Of any staircase with thresholds on the edges of bins this gives the squared error, without the data.

    Attributes:
        low: `[C]`, where the first bin begins; what is below is counted in it.
        high: `[C]`, where the last bin ends; what is above is counted in it.
        counts: `[C, bins]`.
        sums: `[C, bins]`, of the outputs.
        squares: `[C]`, of the outputs.
    """

    def __init__(self, low: Array, high: Array, bins: int = _BINS) -> None:
        """An empty one over fixed ranges, so that parts can be added."""
        self.low, self.high = low.astype(np.float64), high.astype(np.float64)
        self.counts, self.sums = np.zeros((len(low), bins)), np.zeros((len(low), bins))
        self.squares = np.zeros(len(low))

    @property
    def bins(self) -> int:
        """Number of bins."""
        return int(self.counts.shape[1])

    @property
    def width(self) -> Array:
        """`[C]`, of a bin."""
        return (self.high - self.low) / self.bins

    def add(self, values: Array, outputs: Array) -> None:
        """Take in pre-activations and their outputs, `[C, n]` each."""
        channels, bins = self.counts.shape
        column = [bound.astype(np.float32).reshape(-1, 1) for bound in (self.low, 1 / self.width)]
        index = np.clip((values - column[0]) * column[1], 0, bins - 1).astype(np.int64)
        index += bins * np.arange(channels).reshape(-1, 1)
        flat = index.reshape(-1)
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)
        self.sums += np.bincount(flat, outputs.reshape(-1), minlength=self.counts.size).reshape(self.counts.shape)
        self.squares += np.square(outputs, dtype=np.float64).sum(axis=1)

    def __add__(self, other: PairHistogram) -> PairHistogram:
        """That of both parts.

        Raises:
            ValueError: they have other ranges.
        """
        if not (np.array_equal(self.low, other.low) and np.array_equal(self.high, other.high)):
            raise ValueError("histograms over unequal ranges do not add up")
        result = PairHistogram(self.low, self.high, self.bins)
        for name in ("counts", "sums", "squares"):
            setattr(result, name, getattr(self, name) + getattr(other, name))
        return result

    def part(self, channels: slice) -> PairHistogram:
        """That of some channels."""
        result = PairHistogram(self.low[channels], self.high[channels], self.bins)
        for name in ("counts", "sums", "squares"):
            setattr(result, name, getattr(self, name)[channels])
        return result

    def above(self) -> tuple[Array, Array]:
        """`[C, bins + 1]` each: how many values lie at or above each edge, and the sum of their outputs."""
        ends = np.zeros((len(self.counts), 1))
        return tuple(  # type: ignore[return-value]
            np.concatenate([np.cumsum(table[:, ::-1], axis=1)[:, ::-1], ends], axis=1)
            for table in (self.counts, self.sums)
        )


@dataclass(eq=False)
class NormalEquations:
    """Those of G linear layers `w·u + b` that are to have other outputs: `(Σ u uᵀ) Δ = Σ u rᵀ`.

    Attributes:
        gram: `[G, n, n]`, Σ u uᵀ of inputs, the last of which is 1.
        moment: `[G, n, C]`, Σ u rᵀ with the residuals of the outputs.
        count: number of terms.
    """

    gram: Array
    moment: Array
    count: int = 0

    @classmethod
    def empty(cls, groups: int, inputs: int, outputs: int) -> NormalEquations:
        """Of layers with so many inputs, the constant one included, and so many outputs."""
        return cls(np.zeros((groups, inputs, inputs)), np.zeros((groups, inputs, outputs)))

    def add(self, inputs: Array, residuals: Array, *, with_gram: bool = True) -> None:
        """Take in inputs `[G, n, m]` and residuals `[G, C, m]`; without the gram matrix where that is known already."""
        if with_gram:
            self.gram += inputs @ inputs.swapaxes(1, 2)
        self.moment += inputs @ residuals.swapaxes(1, 2)
        self.count += inputs.shape[2]

    def __add__(self, other: NormalEquations) -> NormalEquations:
        """Those of both parts."""
        return NormalEquations(self.gram + other.gram, self.moment + other.moment, self.count + other.count)

    def held_back(self, ridge: float) -> Array:
        """`[G, 1]`: what a ridge in units of the mean square of an input adds to each square."""
        squares = self.gram[:, :-1, :-1].diagonal(axis1=1, axis2=2) / self.count
        return np.asarray(ridge * squares.sum(axis=1, keepdims=True) / max(squares.shape[1], 1)) + np.finfo(float).tiny

    def solve(self, ridge: float) -> Array:
        """Δ `[G, n, C]` that minimises the mean squared residual and `ridge` times the size of Δ without its last row.

        The size is measured in units of the mean square of an input.
        """
        gram, moment = self.gram / self.count, self.moment / self.count
        weights = np.arange(gram.shape[1] - 1)
        gram[:, weights, weights] += self.held_back(ridge)
        return np.linalg.solve(gram, moment)

    def around(self, inputs: Array, outputs: Array) -> tuple[Array, Array]:
        """Σ (u − i)(u − i)ᵀ `[G, n − 1, n − 1]` and Σ (u − i)(r − o)ᵀ, without the constant input.

        Args:
            inputs: i, `[G, n − 1]`.
            outputs: o, `[G, C]`.
        """
        column, row = inputs[:, :, np.newaxis], outputs[:, np.newaxis, :]
        total = self.gram[:, :-1, -1:]
        crossed = total @ column.swapaxes(1, 2)
        gram = self.gram[:, :-1, :-1] - crossed - crossed.swapaxes(1, 2) + self.count * column @ column.swapaxes(1, 2)
        return gram, self.moment[:, :-1] - total @ row - column @ (self.moment[:, -1:] - self.count * row)


def cross_validated(folds: Sequence[NormalEquations], ridges: Sequence[float]) -> Array:
    """Δ `[G, n, C]` of all folds, with the ridge with which those of the other folds serve each fold best.

    Where there are fewer terms than weights the smallest ridge fits noise. Without terms in every fold nothing tells,
    and Δ is 0.
    """
    if not all(fold.count for fold in folds):
        return np.zeros_like(folds[0].moment)
    others = ((fold, [other for other in folds if other is not fold]) for fold in folds)
    gains = sum(_gains(functools.reduce(operator.add, rest), fold, ridges) for fold, rest in others)
    return functools.reduce(operator.add, folds).solve(ridges[int(np.argmax(gains))])


def _gains(some: NormalEquations, others: NormalEquations, ridges: Sequence[float]) -> Array:
    """By how much what solves some lowers the sum of the squared residuals of others, but for a constant; a ridge each.

    Around the means of some, where the constant input has no part, and along the axes of their inputs, Δ is
    `p/(λ + ridge)`: with one factorisation the gain is a quadratic form in `1/(λ + ridge)`.
    """
    inputs, outputs = some.gram[:, :-1, -1] / some.count, some.moment[:, -1] / some.count
    (gram, moment), (others_gram, others_moment) = (part.around(inputs, outputs) for part in (some, others))
    lengths, axes = np.linalg.eigh(gram / some.count)
    across = axes.swapaxes(1, 2)
    found, wanted = across @ moment / some.count, across @ others_moment
    linear, square = 2 * (found * wanted).sum(axis=2), (across @ others_gram @ axes) * (found @ found.swapaxes(1, 2))
    gains = []
    for ridge in ridges:
        shares = 1 / (np.maximum(lengths, 0) + some.held_back(ridge))
        gains.append((shares * (linear - (square @ shares[:, :, np.newaxis])[:, :, 0])).sum())
    return np.array(gains)
