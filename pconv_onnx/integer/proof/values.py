"""What is known of a tensor: integers within bounds, floats that have the same bits everywhere, or other floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import reduce
from typing import TypeAlias

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.view import Node

# Above this int64 has no room.
_LARGEST = 2.0**62


def common(*grains: Fraction) -> Fraction:
    """The largest number that all are multiples of; 0 of zeros."""
    return reduce(_common, grains, Fraction(0))


def _common(left: Fraction, right: Fraction) -> Fraction:
    shared = left.denominator * right.denominator
    return Fraction(math.gcd(left.numerator * right.denominator, right.numerator * left.denominator), shared)


@dataclass(frozen=True, eq=False)
class Span:
    """Integer multiples of a grain between two bounds.

    Attributes:
        low: the least, float64 that broadcasts against the tensor: `[]` for one bound, `[C, 1, 1]` for one a channel.
        high: the largest, likewise; both infinite where nothing bounds them.
        grain: what all are multiples of, 0 where all are zero. Not only a power of two: the mean of T multiples of 3·T
            is known to be one of 3.
    """

    low: Array
    high: Array
    grain: Fraction = Fraction(1)

    @classmethod
    def of(cls, values: Array) -> Span | None:
        """That of constants; None where one is no integer."""
        wide = np.asarray(values, dtype=np.float64)
        if not (np.isfinite(wide) & (wide == np.floor(wide)) & (abs(wide) < _LARGEST)).all():
            return None
        return cls(wide, wide, Fraction(int(np.gcd.reduce(abs(wide).astype(np.int64), axis=None))))

    @classmethod
    def joined(cls, spans: Sequence[Span]) -> Span:
        """Of what comes from any of several."""
        low, high = reduce(np.minimum, (s.low for s in spans)), reduce(np.maximum, (s.high for s in spans))
        return cls(low, high, common(*(span.grain for span in spans)))

    @property
    def unit(self) -> Fraction:
        """The largest power of two that divides the grain: a float type holds so many multiples of that exactly."""
        top = self.grain.numerator or 1
        return Fraction(top & -top, self.grain.denominator)

    @property
    def even(self) -> bool:
        """Whether multiples of the grain are floats at all, which a third is not."""
        return self.grain.denominator & (self.grain.denominator - 1) == 0

    @property
    def bounded(self) -> bool:
        """Whether there are bounds."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    @property
    def in_units(self) -> float:
        """The largest absolute value, in units."""
        return max(float(abs(bound).max(initial=0)) for bound in (self.low, self.high)) / float(self.unit)

    @property
    def with_zero(self) -> Span:
        """Zero as well."""
        return Span(np.minimum(self.low, 0), np.maximum(self.high, 0), self.grain)

    def through(self, ascending: Callable[[Array], Array]) -> Span:
        """What an ascending function makes of them that keeps multiples of the grain."""
        return Span(ascending(self.low), ascending(self.high), self.grain)

    def times(self, other: Span) -> Span:
        """Products of two."""
        ends = [product(mine, its) for mine in (self.low, self.high) for its in (other.low, other.high)]
        return Span(reduce(np.minimum, ends), reduce(np.maximum, ends), self.grain * other.grain)

    def plus(self, other: Span) -> Span:
        """Sums of two."""
        return Span(self.low + other.low, self.high + other.high, common(self.grain, other.grain))

    def repeated(self, count: int) -> Span:
        """Sums of so many."""
        return self.through(lambda bound: product(bound, np.asarray(float(count))))

    def over(self, count: int) -> Span:
        """What is left once they are divided by so many."""
        return Span(self.low / count, self.high / count, self.grain / count)

    def negated(self) -> Span:
        """Their negatives."""
        return Span(-self.high, -self.low, self.grain)

    def along(self, axis: int) -> Span:
        """With bounds `[C]` along an axis counted from the end; `[1]` where they have none there."""
        low, high = (
            pick(bound, axis=tuple(other for other in range(-bound.ndim, 0) if other != axis)).reshape(-1)
            for pick, bound in ((np.min, self.low), (np.max, self.high))
        )
        return Span(low, high, self.grain)

    def by_channel(self, rank: int | None) -> Span:
        """With bounds for axis 1 of a tensor of that rank alone; with one for all where it is not known."""
        if rank is None or rank < 2:
            return self.as_one()
        return self.along(1 - rank).reshaped(-1, *[1] * (rank - 2))

    def as_one(self) -> Span:
        """With one interval for all."""
        return Span(np.asarray(self.low.min()), np.asarray(self.high.max()), self.grain)

    def reshaped(self, *sizes: int) -> Span:
        """With bounds of that shape."""
        return Span(self.low.reshape(sizes), self.high.reshape(sizes), self.grain)

    def transposed(self, axes: Sequence[int]) -> Span:
        """Once the axes of the tensor are in another order."""
        padded = self.reshaped(*[1] * (len(axes) - self.low.ndim), *self.low.shape)
        return Span(padded.low.transpose(axes), padded.high.transpose(axes), self.grain)


def product(left: Array, right: Array) -> Array:
    """The product, zero where one is zero: bounds may be infinite, what is within them is not."""
    with np.errstate(invalid="ignore"):
        return np.where((left == 0) | (right == 0), 0, left * right)


# Zeros alone are multiples of anything.
ZERO = Span(np.zeros(()), np.zeros(()), Fraction(0))
UNBOUNDED = Span(np.asarray(-np.inf), np.asarray(np.inf))


@dataclass(frozen=True, eq=False)
class Whole:
    """Integers, as multiples of a grain.

    Attributes:
        rows: of each time-step; of a tensor without a time axis its values.
        mean: the means over time. What is linear acts on these as on rows, and while the rows of a train are far apart,
            their means are levels. The same as `rows` without a time axis.
        reach: from all that is below zero to all that is above in the sum that gives a row: partial sums lie between.
        product: the sum of products, into which onnxruntime may fold what follows.
    """

    rows: Span
    mean: Span
    reach: Span
    product: Node | None = None

    @classmethod
    def of(cls, rows: Span, steps: int = 1) -> Whole:
        """Of rows alone, of whose means nothing else is known: T multiples of g have a multiple of g/T as mean."""
        return cls(rows, Span(rows.low, rows.high, rows.grain / steps), rows.with_zero)

    def mapped(self, change: Callable[[Span], Span], product: Node | None = None) -> Whole:
        """What acts on means, and on what sums come to, as it does on rows."""
        return Whole(change(self.rows), change(self.mean), change(self.reach), product)

    def plus(self, other: Whole, product: Node | None = None) -> Whole:
        """The sum of two."""
        return Whole(self.rows.plus(other.rows), self.mean.plus(other.mean), self.reach.plus(other.reach), product)


class Float(Enum):
    """Floats: computed from others operation by operation, each rounded as IEEE 754 says, or not."""

    FIXED = "fixed"
    LOOSE = "loose"


Value: TypeAlias = Whole | Float
