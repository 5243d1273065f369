"""Codings: how the spike train of a neuron carries its spike count. One class a coding.

A train of T time-steps carries any number whose *temporal mean* it has: all of what is linear sees no more of it. That
the first k steps fire is one way (`rate`, the paper's); binary digits are another (`radix`: Kim et al. 2018, weighted
spikes; Wang et al. 2021, radix encoding), in which T steps have 2^T values. Either may be signed, silent at a count in
the middle: the digits of the distance from it, with its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS


def reach_of(highest: int, zero: int) -> int:
    """How far from that of silence, k₀, counts up to S are."""
    return max(zero, highest - zero)


@dataclass(frozen=True)
class Coding:
    """A table of trains: for each spike count k the signed digit of each time-step.

    A digit is that of the distance |k − k₀|, and has the sign of k − k₀. Where it is zero a neuron emits the level of
    k₀, and where it is not as much more, or less, as a spike of that time-step is worth.

    Attributes:
        steps: T.
        zero: k₀, the count of a silent neuron: 0, or, where trains are signed, the count whose level is zero.
    """

    steps: int
    zero: int = 0

    # What users call it, and what the attribute `coding` of the operator has for it.
    name: ClassVar[str]
    number: ClassVar[int]
    # Whether spikes of one train are worth different amounts.
    weighted: ClassVar[bool]
    # Whether each digit ascends with the count, so that the maximum of trains is the train of the maximum.
    ascending: ClassVar[bool]

    @classmethod
    def steps_for(cls, reach: int) -> int:
        """The fewest time-steps for counts up to so far from that of silence."""
        raise NotImplementedError

    @classmethod
    def most(cls, steps: int) -> int:
        """How far from that of silence a count may be in so many time-steps."""
        raise NotImplementedError

    @property
    def signed(self) -> bool:
        """Whether there are counts below that of silence."""
        return self.zero > 0

    @property
    def distances(self) -> Array:
        """`[T]`: of each time-step a distance from k₀ by whose level its spikes are told (`factor`)."""
        raise NotImplementedError

    @property
    def factor(self) -> int:
        """How many times what lies between that level and the silent one a spike is worth."""
        raise NotImplementedError

    def digits(self, counts: Array) -> Array:
        """The digits of spike counts `[…]`: −1, 0 or 1, int8 `[T, …]`."""
        offset = counts.astype(np.int64) - self.zero
        return np.asarray(self._fires(abs(offset)) * np.sign(offset), dtype=np.int8)

    def require(self, levels: Array) -> None:
        """Raise where trains cannot carry the counts of levels `[R, S+1]`.

        Raises:
            ValueError: there are too many for T or, of trains of equal spikes, not as many; or silence is not zero.
        """
        highest = levels.shape[1] - 1
        if not 0 <= self.zero <= highest:
            raise ValueError(f"the count {self.zero} of silence is none of 0 to {highest}")
        if self.signed and levels[:, self.zero].any():
            raise ValueError("trains are signed, and the level of silence is not zero")
        reach = reach_of(highest, self.zero)
        if not self._holds(reach):
            raise ValueError(f"{self.steps} time-steps in coding '{self.name}' for counts up to {reach} from silence")

    def operations(self, counts: Array) -> Array:
        """How many digits of the trains of spike counts `[…]` are not zero."""
        return np.asarray(self._fires(abs(counts.astype(np.int64) - self.zero)).sum(axis=0))

    def values(self, levels: Array) -> tuple[Array, Array]:
        """What neurons with levels `[R, S+1]` emit: where silent `[R, 1]`, and where a digit is one `[R, T]`.

        A digit of −1 emits the negative of the latter; silence is then zero. Computed in float32, operation by
        operation, and rounded to the type of the levels.
        """
        above = levels.shape[1] - 1 - self.zero
        distances = np.where(self.distances <= max(above, self.zero), self.distances, 0)
        mirrored = distances > above
        reached = levels[:, np.where(mirrored, self.zero - distances, self.zero + distances)].astype(np.float32)
        silent = levels[:, [self.zero]].astype(np.float32)
        with np.errstate(over="ignore"):
            worth = np.where(mirrored, -reached, reached)
            if self.factor != 1:
                worth = silent + np.float32(self.factor) * (worth - silent)
            return levels[:, [self.zero]], worth.astype(levels.dtype)

    def _holds(self, reach: int) -> bool:
        """Whether these time-steps carry counts up to so far from silence, and spikes are worth what these need."""
        raise NotImplementedError

    def _fires(self, distance: Array) -> Array:
        """Whether counts at distances `[…]` from k₀ have a digit that is not zero: booleans `[T, …]`."""
        raise NotImplementedError

    def _along_steps(self, values: Array, rank: int) -> Array:
        return values.reshape(-1, *[1] * rank)


class Rate(Coding):
    """Sorted trains: the first |k − k₀| steps fire, and all spikes are worth the same."""

    name, number, weighted, ascending = "rate", 0, False, True

    @classmethod
    def steps_for(cls, reach: int) -> int:
        """As many."""
        return reach

    @classmethod
    def most(cls, steps: int) -> int:
        """As far."""
        return steps

    @property
    def distances(self) -> Array:
        """T everywhere: every spike is worth what T of them carry, since their mean is divided by T."""
        return np.full(self.steps, self.steps)

    @property
    def factor(self) -> int:
        """That level itself."""
        return 1

    def _holds(self, reach: int) -> bool:
        return self.steps == reach

    def _fires(self, distance: Array) -> Array:
        return np.asarray(self._along_steps(np.arange(self.steps), distance.ndim) < distance)


class Radix(Coding):
    """Binary digits of |k − k₀|, the most significant first: a spike is worth twice that of the next step."""

    name, number, weighted, ascending = "radix", 1, True, False

    @classmethod
    def steps_for(cls, reach: int) -> int:
        """⌈log₂(reach + 1)⌉."""
        return reach.bit_length()

    @classmethod
    def most(cls, steps: int) -> int:
        """2^T − 1."""
        return int((1 << steps) - 1)

    @property
    def distances(self) -> Array:
        """The weights 2^(T−t)."""
        return np.asarray(1 << self._places)

    @property
    def factor(self) -> int:
        """T, by which the mean is divided."""
        return self.steps

    @property
    def _places(self) -> Array:
        # No count is so high that digits farther up could be set.
        return np.minimum(np.arange(self.steps, dtype=np.int64)[::-1], 32)

    def _holds(self, reach: int) -> bool:
        return self.steps_for(reach) <= self.steps <= MAX_STEPS

    def _fires(self, distance: Array) -> Array:
        return np.asarray((distance >> self._along_steps(self._places, distance.ndim)) & 1, dtype=bool)


# One row a coding, by the name that users have for it.
CODINGS: dict[str, type[Coding]] = {coding.name: coding for coding in (Rate, Radix)}
