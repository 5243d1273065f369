"""Units: what 1 is worth in a tensor of integers. They are known for codes, and for sums once weights have scales.

The value of a tensor is `unit · integer`, with one unit for all, or one for each channel. The unit of a layer's output
is the scale of its weights, which can be chosen. Terms of a sum must share a unit, which an `Accumulator` decides. So
units are known only once the whole network has been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.view import Node
from pconv_onnx.integer.scales import Scales, of_added, of_weights


class Unit:
    """The worth of 1, `[1]` or `[C]`: positive numbers in float64.

    Attributes:
        size: 1 or C.
        reach: the number of different integers, if known, as it is for codes.
        in_time: whether spikes may carry the integers; those of the network's inputs are never carried by spikes.
    """

    size: int
    in_time: bool = True
    reach: int = 1 << 16

    def values(self) -> Array:
        """The numbers; they ask for the scales of the weights that they depend on."""
        raise NotImplementedError

    def span(self) -> Array:
        """An estimate of the largest absolute value, `[1]` or `[C]`."""
        return self.values() * self.reach

    def accumulators(self) -> Iterator[Accumulator]:
        """The accumulators that must be decided first."""
        return iter(())

    def key(self, channel: int) -> object:
        """What is equal for two channels, of this unit or of another, only where they are worth the same."""
        return id(self), channel


class Fixed(Unit):
    """A unit that is known: the spacing of levels."""

    def __init__(self, values: Array, reach: int, *, in_time: bool = True) -> None:
        """`[1]` or `[C]`, how many integers there are, and whether spikes may carry these."""
        self._values = values.astype(np.float64).reshape(-1)
        self.size, self.reach, self.in_time = self._values.size, reach, in_time

    def values(self) -> Array:
        """These numbers."""
        return self._values

    def key(self, channel: int) -> object:
        """The number."""
        return float(self._values[channel])


@dataclass(eq=False)
class Open(Unit):
    """The unit of sums, which an accumulator decides."""

    accumulator: Accumulator

    @property
    def size(self) -> int:  # type: ignore[override]
        """How many channels there are."""
        return self.accumulator.root.channels

    def span(self) -> Array:
        """What sums of the accumulator reach."""
        return self.accumulator.root.largest

    def values(self) -> Array:
        """What the accumulator decides."""
        return self.accumulator.root.unit

    def accumulators(self) -> Iterator[Accumulator]:
        """That one."""
        yield self.accumulator.root

    def key(self, channel: int) -> object:
        """The channel of the accumulator."""
        return id(self.accumulator.root), channel


class Scaled(Unit):
    """A multiple of another unit: of averages, which are kept as sums, and behind factors."""

    def __init__(self, unit: Unit, factor: Array) -> None:
        """The factor is `[1]` or `[C]`."""
        self._unit, self._factor = unit, factor
        self.size, self.reach = max(unit.size, factor.size), unit.reach

    def values(self) -> Array:
        """The multiple."""
        return self._unit.values() * self._factor

    def span(self) -> Array:
        """Likewise."""
        return self._unit.span() * self._factor

    def accumulators(self) -> Iterator[Accumulator]:
        """Those of the other."""
        return self._unit.accumulators()


class Product(Unit):
    """The unit of products of two tensors, each with one unit for all channels."""

    size = 1

    def __init__(self, left: Unit, right: Unit) -> None:
        """Both are `[1]` once they are decided."""
        self._factors = (left, right)

    def values(self) -> Array:
        """The product."""
        left, right = (factor.values()[:1] for factor in self._factors)
        return left * right

    def accumulators(self) -> Iterator[Accumulator]:
        """Those of both."""
        for factor in self._factors:
            yield from factor.accumulators()


class Picked(Unit):
    """Channels of other units, in any order."""

    _channels: Sequence[tuple[Unit, int]]

    def __init__(self, channels: Sequence[tuple[Unit, int]]) -> None:
        """Of each channel the unit that it is of, and which of its channels it is there."""
        # Those of what was picked before are told by where they are from, or each pick would walk all before it.
        self._channels = [
            unit._channels[channel] if isinstance(unit, Picked) else (unit, channel) for unit, channel in channels
        ]
        self._units = list({id(unit): unit for unit, _ in self._channels}.values())
        self.size, self.reach = len(channels), max(unit.reach for unit in self._units)

    def values(self) -> Array:
        """Those of these channels."""
        return self._picked({id(unit): unit.values() for unit in self._units})

    def span(self) -> Array:
        """Likewise."""
        return self._picked({id(unit): unit.span() for unit in self._units})

    def _picked(self, tables: Mapping[int, Array]) -> Array:
        return np.array([tables[id(unit)][channel] for unit, channel in self._channels])

    def accumulators(self) -> Iterator[Accumulator]:
        """Those of all of them."""
        for unit in self._units:
            yield from unit.accumulators()


@dataclass(frozen=True, eq=False)
class Whole:
    """A tensor of integers.

    Attributes:
        unit: the worth of 1.
        axis: that channels of the unit run along; None where it is one for all.
    """

    unit: Unit
    axis: int | None


@dataclass(eq=False)
class Layer:
    """A convolution or matrix product with weights, and the factors and offsets that were merged into them.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        input: what it reads.
        shape: of the weights as the node takes them.
        weights: `[C, n]` in float64, a row an output channel.
        bias: `[C]`.
        contracted: `[C, n]`, or `[1, n]`: the input channel of each weight.
        output: name of the tensor that it gives.
        accumulator: what decides its scale.
        gain: `[C]` or `[1]`, the factor that was merged into the weights.
        shift: `[C]` or `[1]`, the offset that was merged into the bias.
    """

    node: Node
    input: Whole
    shape: tuple[int, ...]
    weights: Array
    bias: Array
    contracted: Array
    output: str
    accumulator: Accumulator
    gain: Array = field(default_factory=lambda: np.ones(1))
    shift: Array = field(default_factory=lambda: np.zeros(1))

    def take(self, factor: Array, offset: Array) -> None:
        """Merge a factor and an offset behind it, numbers `[1]` or `[C]`."""
        self.weights, self.bias = self.weights * factor.reshape(-1, 1), self.bias * factor + offset
        self.gain, self.shift = self.gain * factor, self.shift * factor + offset

    @property
    def input_unit(self) -> Array:
        """What the integer that each weight multiplies is worth, in a shape that broadcasts against the weights."""
        return self.of_input(self.input.unit.values())

    def of_input(self, values: Array) -> Array:
        """Numbers of channels of the input, `[1]` or `[C]`, as numbers of weights."""
        return values[self.contracted] if values.size > 1 else values.reshape(1, 1)

    @property
    def in_units(self) -> Array:
        """Its weights `[C, n]` for integers in the place of values."""
        return self.weights * self.input_unit

    @property
    def scale(self) -> Array:
        """`[C]`, what a rounded weight of one is worth, in a sum of products by integers."""
        return self.accumulator.root.scales.scale(self._place)

    @property
    def factor(self) -> Array:
        """`[C]`, how many units of the accumulator that is."""
        return self.accumulator.root.scales.factors[self._place]

    @property
    def _place(self) -> int:
        return next(index for index, layer in enumerate(self.accumulator.root.layers) if layer is self)


@dataclass(eq=False)
class Accumulator:
    """Layers whose results are summed, and other terms of the sum: all share one unit for each channel.

    Attributes:
        channels: how many there are.
        layers: in topological order.
        added: units of the other terms; each becomes a whole number of the common unit.
        uniform: whether all channels must share one unit.
        offsets: constants that are added, `[1]` or `[C]` in values, which the unit has to suit too.
        bits: of a weight.
        alike: whether all channels meet the same thresholds.
        steps: distances between thresholds, `[1]` or `[C]`, for each layer of neurons that reads the sum.
        summed: whether its sums are summed again, for which finer units would leave less room.
    """

    channels: int
    bits: int
    layers: list[Layer] = field(default_factory=list)
    added: list[Unit] = field(default_factory=list)
    uniform: bool = False
    offsets: list[Array] = field(default_factory=list)
    alike: bool = False
    steps: list[Array] = field(default_factory=list)
    summed: bool = False
    _merged: Accumulator | None = None
    _scales: Scales | None = None
    _largest: Array | None = None

    @property
    def root(self) -> Accumulator:
        """The one that it was merged into, or itself."""
        found = self
        while found._merged is not None:
            found = found._merged
        if found is not self:
            self._merged = found  # shortens the path for later calls
        return found

    def merge(self, other: Accumulator) -> None:
        """Merge another accumulator into this one, so that they decide together."""
        mine, others = self.root, other.root
        if mine is others:
            return
        mine.layers += others.layers
        mine.added += others.added
        mine.uniform |= others.uniform
        mine.alike |= others.alike
        mine.steps += others.steps
        mine.summed |= others.summed
        mine.offsets += others.offsets
        others._merged = mine

    def needs(self) -> set[int]:
        """By `id` the accumulators that have to be decided before this one."""
        found: set[int] = set()
        waiting = [self.root]
        while waiting:
            one = waiting.pop()
            units = [*(layer.input.unit for layer in one.layers), *one.added]
            for needed in (accumulator for unit in units for accumulator in unit.accumulators()):
                if id(needed) not in found:
                    found.add(id(needed))
                    waiting.append(needed)
        return found

    @property
    def scales(self) -> Scales:
        """The unit and the scales of the weights, decided once."""
        if self._scales is None:
            added = [unit.values() for unit in self.added]
            if self.layers:
                weights = [layer.in_units for layer in self.layers]
                offsets = [*(layer.bias for layer in self.layers), *self.offsets]
                # Codes that are added tell how large numbers of a channel are.
                settled = all(not any(unit.accumulators()) for unit in self.added)
                alike = not self.summed and (settled if added else self.alike)
                in_time = any(layer.input.unit.in_time for layer in self.layers)
                step = self.steps[0] if len(self.steps) == 1 else None
                self._scales = of_weights(
                    weights, added, offsets, self.bits,
                    uniform=self.uniform, alike=alike, step=step, in_time=in_time, largest=self.largest,
                )  # fmt: skip
            else:
                reach = max(unit.reach for unit in self.added)
                self._scales = of_added(added, self.offsets, self.channels, reach, uniform=self.uniform)
        return self._scales

    @property
    def largest(self) -> Array:
        """`[C]`, an estimate of the largest sum, in values."""
        if self._largest is None:
            layers = (
                _on_one_side(layer.weights * layer.of_input(layer.input.unit.span())) + abs(layer.bias)
                for layer in self.layers
            )
            added = (unit.span() for unit in self.added)
            self._largest = sum((*layers, *added, *map(abs, self.offsets)), np.zeros(self.channels))
        return self._largest

    @property
    def unit(self) -> Array:
        """`[C]`."""
        return self.scales.unit


def _on_one_side(weights: Array) -> Array:
    """`[C]`, the larger of the sums of what is above zero and of what is below, of weights `[C, n]`."""
    return np.maximum(np.maximum(weights, 0).sum(axis=1), np.maximum(-weights, 0).sum(axis=1))
