"""The mathematics: a quantiser as its float operations, and the parallel spiking neuron compiled from it.

NumPy only. Everything that runs elsewhere (kernel, function body) is tested against this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS

# Types that neurons compute in, each with the type in which its currents are summed over time: wide enough that T
# equal currents have exactly that current as their mean.
SUM_TYPES: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.float64),
    np.dtype(np.float16): np.dtype(np.float32),
    np.dtype(ml_dtypes.bfloat16): np.dtype(np.float32),
}

# The highest spike count; of so many steps only the temporal mean is ever computed.
MAX_LEVELS = 65535

# By how many floats a threshold is expected to differ from that in real numbers, at most.
_ROUNDED = 16

# Semantics of the operators that quantisers are made of; each is monotone in its first operand as long as the factors
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
    # How many of the thresholds of its row each value reaches.
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
            `RoundUp`, `RoundDown`, `RoundHalfUp`, `RoundHalfDown`) or `MultiThreshold`.
        constants: the operands after the first, each of shape `[1]` or `[C]`; thresholds `[1, L]` or `[C, L]`.
    """

    op_type: str
    constants: tuple[Array, ...] = ()

    def __call__(self, x: Array) -> Array:
        """Apply the operator to `x` of shape `[R, n]`; the result is rounded to the type of `x`."""
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
    """What a recogniser read from a graph: a quantised activation as the exact operations of its source.

    The source computes `tail(round(head(x)))`. Its integer code `round(head(x))` counts spikes, from `lowest` for none
    to `lowest + levels`; codes outside that range are clipped, by the head or by the tail.

    Attributes:
        dtype: the float type that the source computes in.
        head: operations before the rounding.
        rounding: the operation that makes the code an integer.
        tail: operations after it.
        levels: L, the highest spike count.
        threshold: θ of the source, `[1]` or `[C]`: the input distance that raises the count from 0 to L; None where
            the source's thresholds are not evenly spaced.
        shift: b, the charge that the neuron with T = L holds before the first step, `[1]` or `[C]`.
        bias: ψ, what the source adds to its input, and the neuron therefore to the current of each step.
        channel_axis: the axis that per-channel constants run along; None where all are scalar.
        lowest: the code of a silent neuron, `[1]` or `[C]`; below zero where values are signed.
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
        """R: 1 where every constant is scalar, otherwise the number of channels."""
        operations = (*self.head, self.rounding, *self.tail)
        return max((len(self.lowest), *(len(c) for operation in operations for c in operation.constants)))

    @property
    def silent(self) -> Array:
        """The value of a neuron that never fires, `[1]` or `[C]`."""
        return self._value(0)

    @property
    def amplitude(self) -> Array:
        """What all spikes of a train add to that, `[1]` or `[C]` in float64."""
        return self._value(self.levels).astype(np.float64) - self.silent.astype(np.float64)

    def _value(self, count: int) -> Array:
        return apply(self.tail, (self.lowest + count).astype(self.dtype).reshape(-1, 1)).reshape(-1)

    def code(self, x: Array) -> Array:
        """The integer code of `x` `[R, n]`, before any clipping that the tail does."""
        return self.rounding(apply(self.head, x))

    def __call__(self, x: Array) -> Array:
        """The source's own value for `x` of shape `[R, n]` (or `[1, n]`), rounded operator by operator."""
        return apply(self.tail, self.code(np.asarray(x, dtype=self.dtype)))

    def neuron(self, steps: int | None = None) -> ParallelNeuron:
        """The parallel neuron of this quantiser.

        With `steps` equal to `levels` (the default) it is compiled from the source's operations and gives the
        source's value for every float (Theorem 4.1, made exact for floats). With another number of steps there is no
        source value to be equal to: thresholds are `(t·θ − b')/T − ψ`, levels `v_0 + a·k/T`, rounded once, with the
        shift b' of `shift_of`.

        Raises:
            ValueError: the operations are not a bounded ascending staircase, `steps` is out of range, or it is not
                `levels` and the source's thresholds are not evenly spaced.
        """
        if steps is None or steps == self.levels:
            return self._exact
        if self.threshold is None:
            raise ValueError(f"its thresholds are not evenly spaced, so it has no neuron but that of T = {self.levels}")
        threshold, shift, bias, silent, amplitude = (
            np.broadcast_to(v.astype(np.float64), (self.rows,))
            for v in (self.threshold, self.shift, self.bias, self.silent, self.amplitude)
        )
        share = shift_of(self.levels, steps, shift / threshold)
        even = ParallelNeuron.even(steps, threshold, share * threshold + steps * bias, amplitude, self.channel_axis)
        levels = silent[:, np.newaxis] + even.levels
        return ParallelNeuron(even.thresholds.astype(self.dtype), levels.astype(self.dtype), self.channel_axis)

    def serial_neuron(self, steps: int | None = None) -> SerialNeuron:
        """The integrate-and-fire neuron of this quantiser, for runs of that many time-steps (default: `levels`).

        Raises:
            ValueError: the source's thresholds are not evenly spaced, or its operations are no bounded staircase.
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
        return SerialNeuron(steps, bias, fires_at, reset, levels, self.channel_axis)

    def rms_error(self, steps: int) -> float | None:
        """What that number of steps costs, as the function `rms_error` has it; None where thresholds are uneven."""
        if self.threshold is None:
            return None
        share = np.broadcast_to(self.shift / self.threshold, (self.rows,))
        return max(rms_error(self.levels, steps, float(value)) for value in np.unique(share))

    @cached_property
    def _exact(self) -> ParallelNeuron:
        counts = np.arange(self.levels + 1) + np.broadcast_to(self.lowest, (self.rows,)).reshape(-1, 1)
        codes = counts.astype(self.dtype)
        levels = np.broadcast_to(apply(self.tail, codes), codes.shape).copy()
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
        """`[R, L]` in float64, what thresholds would be without rounding; None where they are not evenly spaced."""
        if self.threshold is None:
            return None
        threshold, shift, bias = (
            np.broadcast_to(v.astype(np.float64), (self.rows,)).reshape(-1, 1)
            for v in (self.threshold, self.shift, self.bias)
        )
        return np.asarray((np.arange(1, self.levels + 1) * threshold - shift) / self.levels - bias)


def smallest_float(
    holds: Callable[[Array], Array], shape: tuple[int, ...], dtype: np.dtype[Any], near: Array | None = None
) -> Array:
    """Elementwise the smallest float for which a monotone predicate holds; NaN where it holds for none.

    Bisects over the floats in order, -inf and +inf included, as sign-magnitude integers. Where it is expected, `near`,
    makes that faster and changes nothing else.
    """
    integer = np.dtype(f"i{dtype.itemsize}").type
    magnitude = np.iinfo(integer).max

    def ordered(value: Any) -> Any:
        bits = np.array(value, dtype=dtype).view(integer)
        return np.where(bits >= 0, bits, bits ^ magnitude).astype(integer)

    def floats(keys: Array) -> Array:
        return np.where(keys >= 0, keys, keys ^ magnitude).astype(integer).view(dtype)

    low = np.full(shape, ordered(-np.inf), dtype=integer)
    high = np.full(shape, ordered(np.inf), dtype=integer)
    reached = holds(floats(high))
    probes = []
    if near is not None:
        with np.errstate(over="ignore"):
            expected = np.clip(ordered(near.astype(dtype)), low + _ROUNDED, high - _ROUNDED)
        probes = [expected + _ROUNDED, expected - _ROUNDED]
    while (low < high).any():
        # The floor of the average, without overflow.
        middle = np.clip(probes.pop(), low, high) if probes else (low & high) + ((low ^ high) >> 1)
        below = holds(floats(middle))
        high = np.where(below, middle, high)
        low = np.where(below | (low >= high), low, middle + 1)
    # -0 and +0 are one number; the canonical one keeps files readable.
    return np.where(reached, floats(high) + dtype.type(0), dtype.type(np.nan))


def along_channels(table: Array, channel_axis: int | None, rank: int) -> Array:
    """A table `[R, n]` as `[n, …]`, ready to broadcast against arrays of that rank; None stands for R = 1."""
    shape = [1] * rank
    if channel_axis is not None:
        shape[channel_axis] = table.shape[0]
    return table.T.reshape([table.shape[1], *shape])


@dataclass(frozen=True, eq=False)
class ParallelNeuron:
    """A layer of parallel spiking neurons as a staircase: count `k = #{t : τ_t ≤ x̄}`, value `v_k`.

    The general form of Hao et al.'s neuron: any ascending thresholds and levels. The paper's neuron, evenly spaced, is
    `even()`. Two of the four equal forms live here (`threshold_form`, `search_form`); `matrix_form` and `closed_form`
    are functions of the even neuron's parameters.

    Attributes:
        thresholds: τ, `[R, T]`, ascending along T; NaN (never reached) last.
        levels: v, `[R, T+1]`, ascending.
        channel_axis: the axis of the input that rows run along; None where R = 1.
    """

    thresholds: Array
    levels: Array
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Refuse tables that no kernel could run."""
        rows, steps = self.thresholds.shape
        if not 1 <= steps <= MAX_LEVELS:
            raise ValueError(f"{steps} levels; 1 to {MAX_LEVELS} are possible")
        if self.levels.shape != (rows, steps + 1):
            raise ValueError(f"levels of shape {self.levels.shape} for thresholds of shape {self.thresholds.shape}")
        if rows > 1 and self.channel_axis is None:
            raise ValueError(f"{rows} rows and no channel axis")

    @classmethod
    def even(
        cls, steps: int, threshold: Array, shift: Array, amplitude: Array, channel_axis: int | None = None
    ) -> ParallelNeuron:
        """The paper's neuron: `τ_t = (t·θ − b)/T`, `v_k = a·k/T`, in the number type of the arguments (`[R]` each)."""
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"{steps} time-steps; 1 to {MAX_STEPS} are possible")
        t = np.arange(steps + 1)
        threshold, shift, amplitude = (np.asarray(v).reshape(-1, 1) for v in (threshold, shift, amplitude))
        return cls((t[1:] * threshold - shift) / steps, amplitude * t / steps, channel_axis)

    def astype(self, dtype: np.dtype[Any]) -> ParallelNeuron:
        """The neuron in a narrower type: the same count for every input of that type, levels rounded to it.

        Raises:
            ValueError: its levels are not told apart in that type, or leave its range.
        """
        with np.errstate(over="ignore"):
            thresholds, levels = self.thresholds.astype(dtype), self.levels.astype(dtype)
        # A threshold becomes the next value of the type, so that the same values reach it.
        below = thresholds.astype(self.thresholds.dtype) < self.thresholds
        thresholds = np.where(below, np.nextafter(thresholds, dtype.type(np.inf)), thresholds)
        if not np.isfinite(levels).all() or (levels[:, 1:] <= levels[:, :-1]).any():
            raise ValueError(f"its levels are not finite and ascending in {dtype}")
        return ParallelNeuron(thresholds, levels, self.channel_axis)

    @property
    def steps(self) -> int:
        """T."""
        return int(self.thresholds.shape[1])

    @property
    def carried_by_trains(self) -> bool:
        """Whether trains of equal spikes carry the levels.

        They do where levels are evenly spaced, to the rounding of their type (that of the silent value included, which
        is in every mean), and far enough apart for `train_decoder` to tell the means of trains from each other.
        """
        levels = self.levels.astype(np.float64)
        counts = np.arange(self.steps + 1)
        means = (levels[:, :1] * (self.steps - counts) + levels[:, -1:] * counts) / self.steps
        rounding = 4 * float(ml_dtypes.finfo(self.levels.dtype).eps) * np.maximum(abs(means), abs(levels[:, :1]))
        even = (abs(levels - means) <= rounding).all()
        told_apart = train_decoder(self.levels, self.channel_axis).thresholds.astype(np.float64)
        means = means.astype(self.levels.dtype).astype(np.float64)
        return bool(even and (means[:, :-1] < told_apart).all() and (told_apart <= means[:, 1:]).all())

    def along_channels(self, table: Array, rank: int) -> Array:
        """A table `[R, n]` as `[n, …]`, ready to broadcast against inputs of that rank."""
        return along_channels(table, self.channel_axis, rank)

    def threshold_form(self, mean: Array) -> Array:
        """Form 2: `s_t = [x̄ ≥ τ_t]`. Mean `[B, …]` to booleans `[T, B, …]`."""
        return np.asarray(mean[np.newaxis] >= self.along_channels(self.thresholds, mean.ndim), dtype=bool)

    def search_form(self, mean: Array) -> Array:
        """Form 3: the spike count by binary search, O(log T) compares. Mean `[B, …]` to counts `[B, …]`."""
        rows = self._rows(mean.ndim)
        count = np.zeros(mean.shape, dtype=np.int64)
        stride = 1 << (self.steps.bit_length() - 1)
        while stride:
            probe = count + stride
            reached = mean >= self.thresholds[rows, np.minimum(probe, self.steps) - 1]
            count = np.where((probe <= self.steps) & reached.astype(bool), probe, count)
            stride >>= 1
        return count

    def value(self, count: Array) -> Array:
        """The temporal mean `v_k` of spike counts `[B, …]`."""
        return np.asarray(self.levels[self._rows(count.ndim), count])

    def trains(self, mean: Array) -> Array:
        """What flows in a spiking network: `[T, B, …]`, `v_T` where the neuron fires and `v_0` where it is silent."""
        silent, firing = (self.along_channels(self.levels[:, [k]], mean.ndim) for k in (0, -1))
        return np.where(self.threshold_form(mean), firing, silent)

    def _rows(self, rank: int) -> Array:
        rows = np.arange(len(self.thresholds)).reshape(-1, 1)
        return np.asarray(self.along_channels(rows, rank)[0])


@dataclass(frozen=True, eq=False)
class SerialNeuron:
    """A layer of integrate-and-fire neurons with soft reset, run one time-step at a time.

    Potentials are counted from the initial charge b, so that they begin at zero: a neuron fires where its potential
    reaches θ − b.

    Attributes:
        steps: T, for which the initial charge was chosen.
        bias: ψ, what is added to the current of each step, `[R]`.
        threshold: θ − b, the potential at which it fires, `[R]`.
        reset: θ, what a spike takes from the potential, `[R]`.
        levels: what it emits where silent and where it fires, `[R, 2]`.
        channel_axis: the axis of the current that rows run along; None where R = 1.
    """

    steps: int
    bias: Array
    threshold: Array
    reset: Array
    levels: Array
    channel_axis: int | None = None

    def astype(self, dtype: np.dtype[Any]) -> SerialNeuron:
        """The neuron with its tables rounded to another type."""
        bias, threshold, reset, levels = (
            table.astype(dtype) for table in (self.bias, self.threshold, self.reset, self.levels)
        )
        return SerialNeuron(self.steps, bias, threshold, reset, levels, self.channel_axis)


Neuron = ParallelNeuron | SerialNeuron


def train_decoder(levels: Array, channel_axis: int | None) -> ParallelNeuron:
    """The neuron that turns the temporal mean of spike trains back into the levels `[R, T+1]` they stand for, exactly.

    The mean of a train, `v_0 + (v_T − v_0)·k/T` in floats, may differ from `v_k` in its last bit; thresholds half a
    spike away from each such mean tell the counts apart.
    """
    steps = levels.shape[1] - 1
    silent, firing = (levels[:, [k]].astype(np.float64) for k in (0, -1))
    between = silent + (firing - silent) * (np.arange(steps) + 0.5) / steps
    return ParallelNeuron(between.astype(levels.dtype), levels, channel_axis)


def shift_of(levels: int, steps: int, shift: Any = 0.5) -> Any:
    """The shift of a neuron with T steps whose mean error is zero where that with T = L has `shift`, in units of θ.

    Of inputs spread evenly over `[0, θ]` a staircase of n steps has the mean `θ·(1/2 + (b − 1/2)/n)`, as long as its
    thresholds lie within that range; those of T > L do where b is 1/2.
    """
    return 0.5 + (shift - 0.5) * steps / levels


def rms_error(levels: int, steps: int, shift: float = 0.5) -> float:
    """Root mean square of what T ≠ L costs a neuron, for inputs spread evenly over `[0, θ]`.

    In units of θ, as is `shift`, that of the neuron with T = L; the mean is zero for T ≤ L (Theorem 4.1; `shift_of`).
    Both values are steps, so that the integral is a sum.
    """
    shifts = {levels: shift, steps: shift_of(levels, steps, shift)}
    edges = np.concatenate([[0, 1], *((np.arange(1, n + 1) - b) / n for n, b in shifts.items())])
    edges = np.unique(np.clip(edges, 0, 1))
    middle = (edges[:-1] + edges[1:]) / 2
    ann, snn = (np.clip(np.floor(middle * n + shifts[n]), 0, n) / n for n in (levels, steps))
    return float(np.sqrt((np.diff(edges) * (snn - ann) ** 2).sum()))


def temporal_mean(current: Array) -> Array:
    """`(1/T)·Σ_t I_t` of currents `[T, …]`: summed in order in the type of `SUM_TYPES`, divided there, rounded once.

    Equal currents have exactly their own value as mean, which a sum in their own type does not give.
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
