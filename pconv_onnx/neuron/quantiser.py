"""Quantisers, as the float operations of their source, and the spiking neurons compiled from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.neuron.coding import Coding, Rate, reach_of
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.neuron.serial import SerialNeuron
from pconv_onnx.neuron.theory import counts_beside, rms_error, shift_of
from pconv_onnx.neuron.thresholds import smallest_float

# The operators that quantisers are made of. Each is monotone in its first operand as long as factors
# are positive, in floats as well as in reals.
_FLOAT_OPERATIONS: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    # To integers away from zero, towards it, and to the nearest with halves away from zero or towards it.
    "RoundUp": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "RoundDown": np.trunc,
    "RoundHalfUp": lambda x: np.sign(x) * np.floor(np.abs(x) + x.dtype.type(0.5)),
    "RoundHalfDown": lambda x: np.sign(x) * np.ceil(np.abs(x) - x.dtype.type(0.5)),
    "Clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "Sign": np.sign,
    # The first or second value, for a count of 0 or 1.
    "Where": lambda x, low, high: np.asarray(np.where(x >= 1, high, low)),
    # The number of thresholds of its row that each value reaches.
    "MultiThreshold": lambda x, thresholds: _reached(x, thresholds),
}


def _reached(x: Array, thresholds: Array) -> Array:
    rows = max(len(x), len(thresholds))
    x, thresholds = (np.broadcast_to(table, (rows, table.shape[1])) for table in (x, thresholds))
    return np.array([np.searchsorted(row, values, side="right") for row, values in zip(thresholds, x, strict=True)])


@dataclass(frozen=True, eq=False)
class FloatOperation:
    """One ONNX operator of a quantiser, with its constant operands.

    Attributes:
        op_type: a key of the semantics table: `Add`, `Sub`, `Mul`, `Div`, `Clip`, a rounding (`Floor`, `Ceil`, `Round`,
            `RoundUp`, `RoundDown`, `RoundHalfUp`, `RoundHalfDown`), `Sign`, `MultiThreshold`, `Where` or `Cast`.
        constants: the operands after the first, each of shape `[1]` or `[C]`; thresholds `[1, L]` or `[C, L]`.
        dtype: the float type that a Cast converts to; other operators keep the type of their input.
    """

    op_type: str
    constants: tuple[Array, ...] = ()
    dtype: np.dtype[Any] | None = None

    def __call__(self, x: Array) -> Array:
        """Apply the operator to `x` of shape `[R, n]`; the result is rounded to the type of `x`, or that of a Cast."""
        if self.dtype is not None:
            with np.errstate(over="ignore"):
                return x.astype(self.dtype)
        operands = [c.reshape(len(c), -1).astype(x.dtype) for c in self.constants]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            return np.asarray(_FLOAT_OPERATIONS[self.op_type](x, *operands), dtype=x.dtype)


def apply(operations: Iterable[FloatOperation], x: Array) -> Array:
    """Apply operations one after another to `x` of shape `[R, n]`."""
    for operation in operations:
        x = operation(x)
    return x


@dataclass(frozen=True, eq=False)
class QuantizerSpec:
    """A quantised activation, as a recogniser read it from a graph: the exact operations of the source.

    The source computes `tail(round(head(x)))`. Its integer code `round(head(x))` counts spikes, from `lowest` for none
    to `lowest + levels`; codes outside that range are clipped, by the head or by the tail.

    Attributes:
        dtype: the float type of the source's input and output; with casts it may compute in another type.
        head: operations before the rounding.
        rounding: the operation that makes the code an integer.
        tail: operations after it.
        levels: L, the highest spike count.
        threshold: θ of the source, `[1]` or `[C]`: the input distance that raises the count from 0 to L; None if
            the source's thresholds are not evenly spaced.
        shift: b, the initial membrane potential of the neuron with T = L, `[1]` or `[C]`.
        bias: ψ, which the source adds to its input, and the neuron to the current of each step, `[1]` or `[C]`.
        channel_axis: the axis of per-channel constants; None if all are scalar.
        lowest: the code of a silent neuron, `[1]` or `[C]`; below zero if values are signed.
    """

    dtype: np.dtype[Any]
    head: tuple[FloatOperation, ...]
    rounding: FloatOperation
    tail: tuple[FloatOperation, ...]
    levels: int
    threshold: Array | None
    shift: Array
    bias: Array
    channel_axis: int | None = None
    lowest: Array = field(default_factory=lambda: np.zeros(1))

    @property
    def rows(self) -> int:
        """R: 1 if every constant is scalar, otherwise the number of channels."""
        operations = (*self.head, self.rounding, *self.tail)
        return max((len(self.lowest), *(len(c) for operation in operations for c in operation.constants)))

    @property
    def silent(self) -> Array:
        """The value of a neuron that never fires, `[1]` or `[C]`."""
        return self._value(0)

    @property
    def amplitude(self) -> Array:
        """The difference between the highest value and that of a silent neuron, `[1]` or `[C]` in float64."""
        return self._value(self.levels).astype(np.float64) - self.silent.astype(np.float64)

    def _value(self, count: int) -> Array:
        return apply(self.tail, (self.lowest + count).astype(self._code_dtype).reshape(-1, 1)).reshape(-1)

    @property
    def _code_dtype(self) -> np.dtype[Any]:
        """The float type that codes are computed in."""
        casts = [operation.dtype for operation in self.head if operation.dtype is not None]
        return casts[-1] if casts else self.dtype

    def code(self, x: Array) -> Array:
        """The integer code of `x` `[R, n]`, before any clipping that the tail does."""
        return self.rounding(apply(self.head, x))

    def __call__(self, x: Array) -> Array:
        """The source's own value for `x` of shape `[R, n]` (or `[1, n]`), rounded operator by operator."""
        return apply(self.tail, self.code(np.asarray(x, dtype=self.dtype)))

    @cached_property
    def zero(self) -> int:
        """k₀ of signed trains: the count whose level is zero in every channel; 0 if there is none."""
        found = np.flatnonzero((self._values == 0).all(axis=0))
        return int(found[0]) if found.size else 0

    def neuron(self, steps: int | None = None, coding: type[Coding] = Rate, zero: int = 0) -> ParallelNeuron:
        """The parallel neuron of this quantiser.

        In `rate` with as many steps as the levels need (the default), and in other codings with at least as many as
        they need, the neuron is compiled from the source's operations and gives the source's value for every float
        (Theorem 4.1, made exact for floats). In `rate` with another number of steps there is no source value to be
        equal to: thresholds are `(t·θ − b')/T − ψ` and levels `v_0 + a·k/T`, rounded once, with the optimal shift b'.
        In signed trains the level of a silent neuron stays zero, and the farther side has T levels.

        Args:
            steps: number of time-steps T; None for as many as the levels need.
            coding: coding of the spike trains.
            zero: k₀ of the trains, 0 or `self.zero`.

        Raises:
            ValueError: the operations are not a bounded ascending staircase, `steps` is out of range or too small for
                the coding, or it differs from the number of levels and the source's thresholds are not evenly spaced.
        """
        reach = reach_of(self.levels, zero)
        needed = coding.steps_for(reach)
        steps = needed if steps is None else steps
        if coding is not Rate and steps < needed:
            raise ValueError(
                f"it has {self.levels} levels, for which coding '{coding.name}' takes {needed} time-steps, not {steps}"
            )
        if coding is not Rate or steps == needed:
            return replace(self._exact, coding=coding(steps, zero))
        return self._respaced(steps, zero)

    def _respaced(self, steps: int, zero: int) -> ParallelNeuron:
        """The neuron in `rate` with another number of time-steps than the levels need."""
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"{steps} time-steps; 1 to {MAX_STEPS} are possible")
        if self.threshold is None:
            if self.levels == 1:
                raise ValueError("it has one level, so it has no neuron but that of T = 1; leave `steps=` out")
            raise ValueError(f"its thresholds are not evenly spaced, so it has no neuron but that of T = {self.levels}")
        threshold, shift, bias, silent, amplitude = (
            np.broadcast_to(v.astype(np.float64), (self.rows,))
            for v in (self.threshold, self.shift, self.bias, self.silent, self.amplitude)
        )
        reach = reach_of(self.levels, zero)
        below, above = counts_beside(self.levels, steps, zero)
        highest = below + above
        # The part of the source's range that the counts cover; all of it if a silent neuron has the lowest value.
        taken = reach * highest / (steps * self.levels)
        share = shift_of(reach, steps, shift / threshold)
        charge = (share + below) * (threshold * taken) - highest * threshold / self.levels * zero + highest * bias
        even = ParallelNeuron.even(highest, threshold * taken, charge, amplitude * taken, self.channel_axis)
        levels = even.levels - even.levels[:, [below]] if zero else silent[:, np.newaxis] + even.levels
        return ParallelNeuron(
            self._above(even.thresholds.astype(self.dtype)),
            levels.astype(self.dtype),
            self.channel_axis,
            Rate(max(below, above), below),
        )

    def _above(self, thresholds: Array) -> Array:
        """Thresholds that inputs must reach: the next floats if, as with Ceil, the source rounds up only above them."""
        strict = self.rounding.op_type in ("Ceil", "RoundUp")
        return np.nextafter(thresholds, self.dtype.type(np.inf)) if strict else thresholds

    def serial_neuron(self, steps: int | None = None) -> SerialNeuron:
        """The integrate-and-fire neuron of this quantiser, for runs of `steps` time-steps (default: `levels`).

        Raises:
            ValueError: the source's thresholds are not evenly spaced, or its operations are not a bounded staircase.
        """
        if self.threshold is None:
            raise ValueError(
                "its thresholds are not evenly spaced, and a soft reset takes the same from each potential"
            )
        steps = steps or self.levels
        threshold = self.threshold.astype(np.float64)
        shift = shift_of(self.levels, steps, self.shift / threshold) * threshold
        bias, fires_at, reset = (
            np.broadcast_to(table, (self.rows,)).astype(self.dtype)
            for table in (self.bias, threshold - shift, threshold)
        )
        levels = self.neuron(steps).levels[:, [0, -1]]
        return SerialNeuron(steps, bias, self._above(fires_at), reset, levels, self.channel_axis)

    def rms_error(self, neuron: Neuron) -> float | None:
        """What a neuron of other steps costs, as the function `rms_error` has it; None where thresholds are uneven."""
        if self.threshold is None:
            return None
        # In trains with an offset a silent neuron has another value.
        zero = 0 if neuron.levels[:, neuron.coding.zero].any() else self.zero
        if neuron.coding.weighted or neuron.steps == reach_of(self.levels, zero):
            return 0.0
        share = np.broadcast_to(self.shift / self.threshold, (self.rows,))
        return max(rms_error(self.levels, neuron.steps, float(value), zero) for value in np.unique(share))

    @cached_property
    def _codes(self) -> Array:
        counts = np.arange(self.levels + 1) + np.broadcast_to(self.lowest, (self.rows,)).reshape(-1, 1)
        return counts.astype(self._code_dtype)

    @cached_property
    def _values(self) -> Array:
        return np.broadcast_to(apply(self.tail, self._codes), self._codes.shape).copy()

    @cached_property
    def _exact(self) -> ParallelNeuron:
        codes, levels = self._codes, self._values
        if not np.isfinite(levels).all() or (levels[:, 1:] <= levels[:, :-1]).any():
            raise ValueError("its levels are not finite and ascending")
        ends = self(np.array([[-np.inf, np.inf]]))
        if (ends[:, 0] != levels[:, 0]).any() or (ends[:, 1] != levels[:, -1]).any():
            raise ValueError(f"its output does not stay between the values of counts 0 and {self.levels}")
        thresholds = smallest_float(
            lambda x: self.code(x) >= codes[:, 1:], codes[:, 1:].shape, self.dtype, self._thresholds_in_reals()
        )
        return ParallelNeuron(thresholds, levels, self.channel_axis)

    def _thresholds_in_reals(self) -> Array | None:
        """Thresholds without rounding, `[R, L]` in float64; None if they are not evenly spaced."""
        if self.threshold is None:
            return None
        threshold, shift, bias = (
            np.broadcast_to(v.astype(np.float64), (self.rows,)).reshape(-1, 1)
            for v in (self.threshold, self.shift, self.bias)
        )
        return np.asarray((np.arange(1, self.levels + 1) * threshold - shift) / self.levels - bias)


# What a quantiser compiles to.
Neuron = ParallelNeuron | SerialNeuron
