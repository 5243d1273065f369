"""Codings: how the spike train of a neuron carries its spike count. One class a coding.

Linear operators see only the *temporal mean* of a train, so any train with the right mean will do. In `rate`, the
paper's coding, the first k of T steps fire. In `radix` the spikes are the binary digits of k (Kim et al. 2018, weighted
spikes; Wang et al. 2021, radix encoding), so T steps have 2^T values. Both may be signed: a neuron is then silent at a
count k₀ in the middle, and its train has the digits of the distance from k₀, with the sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS


def reach_of(highest: int, zero: int) -> int:
    """The largest distance of a count from 0 to S from k₀, the count of a silent neuron."""
    return max(zero, highest - zero)


@dataclass(frozen=True)
class Coding:
    """For each spike count k the train that carries it: a digit −1, 0 or 1 for each time-step.

    The digits are those of the distance |k − k₀|, with the sign of k − k₀. At a digit of zero the neuron emits the
    level of k₀. At a digit of 1 or −1 it emits that plus or minus what a spike of this time-step is worth.

    Attributes:
        steps: T.
        zero: k₀, the count of a silent neuron: 0, or, where trains are signed, the count whose level is zero.
    """

    steps: int
    zero: int = 0

    # Its name for users, and its number in the operator's attribute `coding`.
    name: ClassVar[str]
    number: ClassVar[int]
    # Whether spikes of one train are worth different amounts.
    weighted: ClassVar[bool]
    # Whether no digit falls as the count rises, so that the maximum of trains is the train of the maximum.
    ascending: ClassVar[bool]

    @classmethod
    def steps_for(cls, reach: int) -> int:
        """The fewest time-steps that carry counts up to this distance from k₀."""
        raise NotImplementedError

    @classmethod
    def most(cls, steps: int) -> int:
        """The largest distance from k₀ that a count may have with this number of time-steps."""
        raise NotImplementedError

    @property
    def signed(self) -> bool:
        """Whether there are counts below k₀, that of a silent neuron."""
        return self.zero > 0

    @property
    def distances(self) -> Array:
        """`[T]`: for each time-step the distance from k₀ whose level says what a spike is worth (with `factor`)."""
        raise NotImplementedError

    @property
    def factor(self) -> int:
        """A spike is worth this many times the difference between that level and the silent one."""
        raise NotImplementedError

    def digits(self, counts: Array) -> Array:
        """The digits of spike counts `[…]`: −1, 0 or 1, int8 `[T, …]`."""
        offset = counts.astype(np.int64) - self.zero
        return np.asarray(self._fires(abs(offset)) * np.sign(offset), dtype=np.int8)

    def require(self, levels: Array) -> None:
        """Raise if trains cannot carry the counts of levels `[R, S+1]`.

        Raises:
            ValueError: the counts do not fit T time-steps, or the level of a silent neuron in signed trains is not
                zero.
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
        """How many digits are not zero in the trains of spike counts `[…]`."""
        return np.asarray(self._fires(abs(counts.astype(np.int64) - self.zero)).sum(axis=0))

    def values(self, levels: Array) -> tuple[Array, Array]:
        """What neurons with levels `[R, S+1]` emit: if silent `[R, 1]`, and at a digit of 1 `[R, T]`.

        A digit of −1 emits the negative of the latter; a silent neuron then emits zero. Computed in float32, operation
        by operation, and rounded to the type of the levels.
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
        """Whether these time-steps carry counts up to this distance from k₀, with spikes worth what they need."""
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
        """As many as the distance."""
        return reach

    @classmethod
    def most(cls, steps: int) -> int:
        """T itself."""
        return steps

    @property
    def distances(self) -> Array:
        """T everywhere: a spike is worth the level of T spikes, since the mean divides by T."""
        return np.full(self.steps, self.steps)

    @property
    def factor(self) -> int:
        """One."""
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
        """T, since the mean divides by T."""
        return self.steps

    @property
    def _places(self) -> Array:
        # Higher digits are zero, since no count is so high.
        return np.minimum(np.arange(self.steps, dtype=np.int64)[::-1], 32)

    def _holds(self, reach: int) -> bool:
        return self.steps_for(reach) <= self.steps <= MAX_STEPS

    def _fires(self, distance: Array) -> Array:
        return np.asarray((distance >> self._along_steps(self._places, distance.ndim)) & 1, dtype=bool)


# One row a coding, by the name that users have for it.
CODINGS: dict[str, type[Coding]] = {coding.name: coding for coding in (Rate, Radix)}
