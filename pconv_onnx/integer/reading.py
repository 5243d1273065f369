"""Finds which tensors of a network can be integers, and the steps that compute them.

It is one walk in topological order, which decides no number. Sums of layers, and other terms added to them, share one
accumulator. Operators that move values keep units, by the rules for kinds in time: what passes trains on passes
integers on. Operators without a rule here compute on floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.view import Node, Tensor, key_of, node_name
from pconv_onnx.integer.codes import Codes, codes_of
from pconv_onnx.integer.units import Accumulator, Fixed, Layer, Open, Picked, Product, Scaled, Unit, Whole
from pconv_onnx.neuron.coding import Rate
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.plan.plan import Plan, Planned
from pconv_onnx.runtime.computed import computed_constants
from pconv_onnx.temporal.kinds import STATIC, Kind, Spikes
from pconv_onnx.temporal.rules import transfer
from pconv_onnx.temporal.site import Site, reduced


@dataclass(frozen=True, eq=False)
class InputCodes:
    """An input of the network is quantised: codes from `lowest` to `highest`, each worth `step`."""

    name: str
    step: float
    lowest: int
    highest: int


@dataclass(frozen=True, eq=False)
class Copied:
    """An unchanged node, on floats."""

    node: Node


@dataclass(frozen=True, eq=False)
class Moved:
    """An unchanged node, on integers."""

    node: Node


@dataclass(frozen=True, eq=False)
class Negated:
    """A tensor times `signs`, 1, −1 or 0 for each channel, `[1]` or `[C]`."""

    name: str
    signs: Array
    output: str


@dataclass(frozen=True, eq=False)
class Added:
    """A sum in one unit.

    Attributes:
        operands: names of tensors of integers, each with its sign.
        offset: a constant that is added, `[1]` or `[C]` in values.
        output: name of the sum.
    """

    operands: Sequence[tuple[str, int]]
    offset: Array
    output: str


@dataclass(frozen=True, eq=False)
class Summed:
    """An average, kept as a sum: over `axes`, or over the windows of a pool."""

    node: Node
    axes: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class Quantised:
    """An activation that gives codes."""

    activation: Planned
    codes: Codes


Step = InputCodes | Copied | Moved | Negated | Added | Summed | Quantised | Layer


@dataclass(eq=False)
class Reading:
    """Which tensors of a network are integers.

    Attributes:
        steps: the steps that compute them, in topological order.
        whole: tensors of integers by their names in the source.
        stays: why products, sums and activations compute on floats, by the name of the node.
    """

    steps: list[Step] = field(default_factory=list)
    whole: dict[str, Whole] = field(default_factory=dict)
    stays: dict[str, str] = field(default_factory=dict)


class _Stays(Exception):
    """A node computes on floats; the text says why, for users."""


def read(plan: Plan, inputs: Sequence[InputCodes], bits: int) -> Reading:
    """Find which tensors of a plan's network can be integers.

    Args:
        plan: of the network as it is quantised.
        inputs: codes of those of its inputs that are quantised.
        bits: of a weight.
    """
    return _Reader(plan, inputs, bits).found


class _Reader:
    """State of the walk."""

    def __init__(self, plan: Plan, inputs: Sequence[InputCodes], bits: int) -> None:
        self.network, self.bits, self.found = plan.network, bits, Reading()
        self.whole, self.steps = self.found.whole, self.found.steps
        self._computed = computed_constants(self.network)
        # Of tensors of floats, why the first before them are floats.
        self._why: dict[str, str] = {}
        for codes in inputs:
            unit = Fixed(np.array([codes.step]), codes.highest - codes.lowest, in_time=False)
            self.whole[codes.name] = Whole(unit, None)
            self.steps.append(codes)
        ends, inside = self._activations(plan)
        for node in self.network.nodes:
            key = key_of(node)
            if key in ends:
                self._quantised(*ends[key])
            elif key not in inside:
                self._node(node)

    def _activations(self, plan: Plan) -> tuple[dict[str, tuple[Planned, Codes]], set[str]]:
        """The activations that give codes by their last node, and all of their nodes."""
        ends: dict[str, tuple[Planned, Codes]] = {}
        inside: set[str] = set()
        mains = {key_of(node) for node in self.network.nodes}
        for activation in plan.activations:
            if activation.name not in plan.neurons:
                continue
            try:
                neuron = plan.neurons[activation.name]
                assert isinstance(neuron, ParallelNeuron)  # mode serial has no integers
                codes = codes_of(neuron)
                if not mains.issuperset(activation.nodes):
                    raise ValueError("it is in a body")
            except ValueError as reason:
                self.found.stays[activation.name] = self._why[activation.output] = str(reason)
                continue
            ends[activation.nodes[-1]] = activation, codes
            inside.update(activation.nodes)
        return ends, inside

    def _quantised(self, activation: Planned, codes: Codes) -> None:
        given = self.whole.get(activation.input)
        if given is not None and isinstance(given.unit, Open):
            accumulator = given.unit.accumulator.root
            accumulator.alike |= codes.axis is None
            if codes.step is not None and codes.axis in (None, given.axis):
                accumulator.steps.append(codes.step)
        self.steps.append(Quantised(activation, codes))
        self.whole[activation.output] = Whole(Fixed(codes.spacing, codes.highest - codes.lowest), codes.axis)

    def _node(self, node: Node) -> None:
        rule, why = _RULES.get(node.op) if is_standard(node) else None, ""
        if rule is not None and (node.op in _LAYERS or any(tensor.name in self.whole for tensor in node.inputs)):
            try:
                rule(self, node)
                return
            except _Stays as reason:
                why = self.found.stays[node_name(node)] = str(reason)
        self.steps.append(Copied(node))
        why = next((self._why[tensor.name] for tensor in node.inputs if tensor.name in self._why), why)
        for tensor in node.outputs if why else ():
            self._why.setdefault(tensor.name, why)

    def constant(self, tensor: Tensor) -> Array | None:
        """The value of a tensor that does not depend on the network's inputs."""
        value = constant(tensor)
        return value if value is not None else self._computed.get(tensor.name)

    def given(self, node: Node, index: int = 0) -> Whole:
        """What a node is given there.

        Raises:
            _Stays: that are floats.
        """
        name = node.inputs[index].name
        if name not in self.whole:
            raise _Stays(self._floats("reads", name))
        return self.whole[name]

    def _floats(self, does: str, name: str) -> str:
        why = f": {self._why[name]}" if name in self._why else ""
        return f"it {does} '{name}', which are floats{why}"

    def gives(self, node: Node, whole: Whole, step: Step) -> None:
        """A step with the first output of a node."""
        self.steps.append(step)
        self.whole[node.outputs[0].name] = whole

    # Layers

    def layer(self, node: Node) -> None:
        """Conv, ConvTranspose, Gemm, MatMul by constants; a product of two tensors of integers."""
        whole, weights = self.given(node), self.constant(node.inputs[1])
        if weights is None:
            self.product(node)
            return
        rows, contracted, axis = _rows(self.network, node, weights.astype(np.float64), whole)
        bias = np.zeros(len(rows))
        if len(node.inputs) > 2 and node.inputs[2].name:
            value = self.constant(node.inputs[2])
            if value is None:
                raise _Stays("its bias is computed")
            if value.size not in (1, len(rows)) or (value.ndim > 1 and value.shape[-1] != value.size):
                raise _Stays("its bias is not one number for each channel")
            bias = bias + value.astype(np.float64).reshape(-1) * float(node.attrs.get("beta", 1.0))
        if not (np.isfinite(rows).all() and np.isfinite(bias).all()):
            raise _Stays("its weights are not finite")
        rows = rows * float(node.attrs.get("alpha", 1.0))
        if not rows.size:
            raise _Stays("it has no weights")
        self._sums_again(whole)
        accumulator = Accumulator(len(rows), self.bits)
        layer = Layer(node, whole, weights.shape, rows, bias, contracted, node.outputs[0].name, accumulator)
        accumulator.layers.append(layer)
        self.gives(node, Whole(Open(accumulator), axis), layer)

    def _sums_again(self, whole: Whole) -> None:
        for accumulator in whole.unit.accumulators():
            accumulator.summed = True

    def product(self, node: Node) -> None:
        """MatMul or Mul of two tensors of integers, each with one unit for all."""
        if node.op not in ("MatMul", "Mul"):
            raise _Stays("its weights are computed")
        left, right = (self.given(node, index) for index in (0, 1))
        units = [self._for_all(side.unit) for side in (left, right)]
        self.gives(node, Whole(Product(*units), None), Moved(node))

    def _for_all(self, unit: Unit) -> Unit:
        """A unit that is one for all channels.

        Raises:
            _Stays: it is not.
        """
        if isinstance(unit, Open):
            unit.accumulator.root.uniform = True
        elif unit.size > 1:
            raise _Stays("a level is worth different amounts in different channels of its operands")
        return unit

    # Sums

    def add(self, node: Node) -> None:
        """Add, Sub, Sum: of tensors of integers and of constants."""
        operands: list[tuple[Tensor, int]] = []
        offsets: list[tuple[Tensor, int]] = []
        for index, tensor in enumerate(node.inputs):
            sign = -1 if node.op == "Sub" and index else 1
            (operands if self.constant(tensor) is None else offsets).append((tensor, sign))
        for tensor, _ in operands:
            if tensor.name not in self.whole:
                raise _Stays(self._floats("adds", tensor.name))
        wholes = [self.whole[tensor.name] for tensor, _ in operands]
        axis, channels = self._common(operands, wholes, node.outputs[0])
        for tensor, _ in operands if offsets else ():
            self._require_rank(tensor, node.outputs[0])
        offset = np.zeros(1)
        for tensor, sign in offsets:
            value = self.constant(tensor)
            assert value is not None
            met = Whole(Fixed(np.ones(max(channels, offset.size)), 1), axis)
            found, axis = self._by_channel(value, met, node.outputs[0])
            offset = offset + sign * found
        if len(operands) == 1 and operands[0][1] == 1:
            layer = self._absorbing(operands[0][0], node, offset.size)
            if layer is not None:
                layer.take(np.ones(1), offset)
                self._renamed(layer, operands[0][0], node)
                return
        accumulator = self._accumulated(wholes, max(channels, offset.size))
        accumulator.offsets.append(offset)
        step = Added([(tensor.name, sign) for tensor, sign in operands], offset, node.outputs[0].name)
        self.gives(node, Whole(Open(accumulator), axis), step)

    def _common(
        self, operands: Sequence[tuple[Tensor, int]], wholes: Sequence[Whole], output: Tensor
    ) -> tuple[int | None, int]:
        """The axis that channels of all operands run along, and how many there are."""
        ranks = {len(self.network.shapes.get(tensor.name, ())) for tensor, _ in operands}
        axes = {whole.axis for whole in wholes if whole.axis is not None}
        sizes = {whole.unit.size for whole in wholes} - {1}
        rank = len(self.network.shapes.get(output.name, ()))
        if len(axes) > 1 or len(sizes) > 1 or (axes and ranks != {rank}):
            raise _Stays("its operands have channels along different axes")
        return (axes.pop() if axes else None), (sizes.pop() if sizes else 1)

    def _accumulated(self, wholes: Sequence[Whole], channels: int) -> Accumulator:
        """The accumulator that decides the unit of a sum."""
        roots = [whole.unit.accumulator.root for whole in wholes if isinstance(whole.unit, Open)]
        free = list({id(root): root for root in roots}.values())
        # What another depends on is decided before it, and added as it then is; so is what has one channel for all.
        needed = set().union(*(one.needs() for one in free))
        for whole in wholes:
            if not isinstance(whole.unit, Open):
                needed = needed.union(*({id(one), *one.needs()} for one in whole.unit.accumulators()))
        joined = [one for one in free if id(one) not in needed and one.channels == channels]
        accumulator = Accumulator(channels, self.bits)
        for whole in wholes:
            if not (isinstance(whole.unit, Open) and whole.unit.accumulator.root in joined):
                accumulator.added.append(whole.unit)
        if joined:
            joined[0].merge(accumulator)
            accumulator = joined[0]
            for one in joined[1:]:
                accumulator.merge(one)
        return accumulator.root

    def _absorbing(self, tensor: Tensor, node: Node, size: int) -> Layer | None:
        """The layer that gives a tensor for this node alone, and nothing else is summed with."""
        unit = self.whole[tensor.name].unit
        if not isinstance(unit, Open) or len(tensor.outputs) != 1 or self.network.is_output(tensor):
            return None
        layers = unit.accumulator.root.layers
        if len(layers) != 1 or layers[0].output != tensor.name or size not in (1, unit.size):
            return None
        return layers[0]

    def _renamed(self, layer: Layer, tensor: Tensor, node: Node) -> None:
        """Have a layer give what a node made of it."""
        layer.output = node.outputs[0].name
        self.whole[layer.output] = self.whole.pop(tensor.name)

    def _by_channel(self, value: Array, whole: Whole, output: Tensor) -> tuple[Array, int | None]:
        """A constant as `[1]`, or as `[C]` with the axis of what it is combined with that its numbers run along.

        Raises:
            _Stays: they run along several, along samples, or along another than the channels that are there.
        """
        value = value.astype(np.float64)
        rank = len(self.network.shapes.get(output.name, ()))
        if value.size == 1 and value.ndim <= rank:
            return value.reshape(1), whole.axis
        sizes = [1] * (rank - value.ndim) + list(value.shape)
        along = [axis for axis, size in enumerate(sizes) if size > 1]
        apart = whole.axis if whole.unit.size > 1 else None
        if value.ndim > rank or len(along) > 1 or along[0] == 0 or apart not in (None, along[0]):
            raise _Stays("its constant is not one number a channel")
        if apart is not None and value.size != whole.unit.size:
            raise _Stays("its constant is not one number a channel")
        return value.reshape(-1), along[0]

    def _require_rank(self, tensor: Tensor, output: Tensor) -> None:
        """Raise where a constant gives what it is combined with more axes.

        Raises:
            _Stays: it does.
        """
        if len(self.network.shapes.get(tensor.name, ())) != len(self.network.shapes.get(output.name, ())):
            raise _Stays("its constant has more axes than its other operand")

    # Factors

    def scale(self, node: Node) -> None:
        """Mul or Div by a constant; a product of two tensors of integers."""
        values = [self.constant(tensor) for tensor in node.inputs[:2]]
        if values[0] is None and values[1] is None:
            self.product(node)
            return
        index = 0 if values[0] is None else 1
        if node.op == "Div" and index:
            raise _Stays("it divides by a computed tensor")
        whole, value = self.given(node, index), values[1 - index]
        assert value is not None
        found, axis = self._by_channel(value, whole, node.outputs[0])
        with np.errstate(divide="ignore"):
            self._affine(node, node.inputs[index], 1 / found if node.op == "Div" else found, np.zeros(1), axis)

    def normalise(self, node: Node) -> None:
        """BatchNormalization with the statistics of the training set."""
        scale, bias, mean, variance = (self.constant(tensor) for tensor in node.inputs[1:5])
        if node.attrs.get("training_mode", 0) or any(v is None for v in (scale, bias, mean, variance)):
            raise _Stays("its statistics are computed")
        assert scale is not None and bias is not None and mean is not None and variance is not None
        whole = self.given(node)
        if whole.unit.size > 1 and whole.axis != 1:
            raise _Stays("it normalises other channels than those that differ in what a level is worth")
        with np.errstate(all="ignore"):  # what is not finite then is told below
            factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + node.attrs.get("epsilon", 1e-5))
            offset = bias.astype(np.float64) - factor * mean.astype(np.float64)
        self._affine(node, node.inputs[0], factor, offset, 1)

    def negate(self, node: Node) -> None:
        """Neg."""
        self._affine(node, node.inputs[0], -np.ones(1), np.zeros(1), self.given(node).axis)

    def _affine(self, node: Node, tensor: Tensor, factor: Array, offset: Array, axis: int | None) -> None:
        """A factor and an offset a channel, taken into the layer before where there is one for them alone."""
        whole, size = self.whole[tensor.name], max(factor.size, offset.size)
        if not (np.isfinite(factor).all() and np.isfinite(offset).all()):
            raise _Stays("its factors are not finite")
        self._require_rank(tensor, node.outputs[0])
        layer = self._absorbing(tensor, node, size)
        if layer is not None:
            layer.take(factor, offset)
            self._renamed(layer, tensor, node)
            return
        output = node.outputs[0].name
        # What is zero is so in any unit.
        scaled = Whole(Scaled(whole.unit, np.where(factor, abs(factor), 1)), axis)
        self.steps.append(Negated(tensor.name, np.sign(factor), output))
        self.whole[output] = scaled
        if offset.any():
            # The sum has the name, what is summed another.
            inner = f"{output}/scaled"
            self.steps[-1] = Negated(tensor.name, np.sign(factor), inner)
            self.whole[inner] = scaled
            accumulator = self._accumulated([scaled], max(scaled.unit.size, offset.size))
            accumulator.offsets.append(offset)
            self.gives(node, Whole(Open(accumulator), axis), Added([(inner, 1)], offset, output))

    # Averages

    def average(self, node: Node) -> None:
        """GlobalAveragePool, ReduceMean, ReduceSum: the sum is kept."""
        whole, shape = self.given(node), self.network.shapes.get(node.inputs[0].name)
        if shape is None:
            raise _Stays("the shape of its input is not known")
        if node.op == "GlobalAveragePool":
            axes = set(range(2, len(shape)))
        else:
            axes = reduced(Site(self.network, node, [STATIC] * len(node.inputs))) or set()
        sizes = [shape[axis] for axis in sorted(axes)]
        if not axes or not all(isinstance(size, int) and size > 0 for size in sizes) or whole.axis in axes:
            raise _Stays("how many values it averages is not known, or they differ in what a level is worth")
        self._sums_again(whole)
        count = math.prod(size for size in sizes if isinstance(size, int))
        keeps = node.op == "GlobalAveragePool" or node.attrs.get("keepdims", 1)
        axis = whole.axis
        if axis is not None and not keeps:
            axis -= sum(reduced_axis < axis for reduced_axis in axes)
        factor = np.ones(1) if node.op == "ReduceSum" else np.full(1, 1 / count)
        self.gives(node, Whole(Scaled(whole.unit, factor), axis), Summed(node, sorted(axes)))

    def average_pool(self, node: Node) -> None:
        """AveragePool whose windows all have one divisor: a convolution with ones."""
        whole, shape = self.given(node), self.network.shapes.get(node.inputs[0].name)
        padded = any(node.attrs.get("pads", ())) or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        if (padded and not node.attrs.get("count_include_pad", 0)) or node.attrs.get("ceil_mode", 0):
            raise _Stays("its divisor differs at the border")
        if shape is None or len(shape) < 3 or not isinstance(shape[1], int) or whole.axis not in (None, 1):
            raise _Stays("it is not known how many channels it averages")
        self._sums_again(whole)
        kernel = list(node.attrs["kernel_shape"])
        average = Whole(Scaled(whole.unit, np.full(1, 1 / math.prod(kernel))), whole.axis)
        everything = not padded and list(shape[2:]) == kernel
        self.gives(node, average, Summed(node, range(2, len(shape)) if everything else ()))

    # Moves

    def move(self, node: Node) -> None:
        """What hands trains on hands integers on: each result is of one tensor's, or several tensors', channels."""
        keys: dict[object, int] = {}
        origins: list[tuple[Unit, int]] = []
        kinds: list[Kind] = []
        for tensor in node.inputs:
            whole = self.whole.get(tensor.name)
            if whole is None:
                kinds.append(STATIC)
                continue
            table = []
            for channel in range(whole.unit.size):
                key = whole.unit.key(channel)
                if key not in keys:
                    keys[key] = len(origins)
                    origins.append((whole.unit, channel))
                table.append([0.0, keys[key] + 1.0])
            kinds.append(Spikes(Rate(1), np.array(table), whole.axis if whole.unit.size > 1 else None))
        site = Site(self.network, node, kinds)
        found: Sequence[Kind]
        apart = kinds[0] if isinstance(kinds[0], Spikes) and kinds[0].channel_axis is not None else None
        taken = self._taken(node, kinds[0]) if isinstance(kinds[0], Spikes) else None
        if node.op in _RESHAPES and apart is not None:
            found = (_reshaped(self.network, node, apart) or STATIC,)
        elif node.op == "Pad" and apart is not None:
            found = (_padded(site, apart) or transfer(site).kinds[0],)
        elif taken is not None:
            found = taken
        else:
            passage = transfer(site)
            found = (STATIC,) if passage.lifted or passage.held or passage.recoded else passage.kinds
        units = []
        for kind in found:
            if not isinstance(kind, Spikes):
                raise _Stays("what its channels are worth cannot be followed through it")
            if not len(kind.levels):
                raise _Stays("its output has no channel")
            units.append(Whole(_unit(kind, origins), kind.channel_axis))
        self.steps.append(Moved(node))
        self.whole |= {tensor.name: unit for tensor, unit in zip(node.outputs, units, strict=False) if tensor.name}

    def _taken(self, node: Node, kind: Spikes) -> Sequence[Kind] | None:
        """Kinds of what takes some of the channels; None of what does not."""
        rank, axis = len(self.network.shapes.get(node.inputs[0].name, ())), kind.channel_axis
        if axis is None or not rank:
            return None
        channels = np.arange(len(kind.levels))
        if node.op == "Slice":
            bounds = [self.constant(tensor) if tensor.name else None for tensor in node.inputs[1:]]
            cuts = _cuts([None if bound is None else bound.tolist() for bound in bounds], rank)
            return [replace(kind, levels=kind.levels[channels[cuts[axis]]])] if axis in cuts else None
        if node.op not in ("Gather", "Split") or node.attrs.get("axis", 0) % rank != axis:
            return None
        if node.op == "Gather":
            indices = self.constant(node.inputs[1])
            return None if indices is None or indices.ndim != 1 else [replace(kind, levels=kind.levels[indices])]
        sizes = [self.network.shapes.get(tensor.name, (None,) * rank)[axis] for tensor in node.outputs]
        if not all(isinstance(size, int) for size in sizes):
            return None
        ends = np.cumsum([size for size in sizes if isinstance(size, int)])[:-1]
        return [replace(kind, levels=kind.levels[part]) for part in np.split(channels, ends)]


def _cuts(bounds: Sequence[list[int] | None], rank: int) -> dict[int, slice]:
    """By axis what a Slice takes, of its inputs: starts, ends, and axes and steps where they are given."""
    starts, ends, axes, steps = (*bounds, None, None)[:4]
    if starts is None or ends is None:
        return {}
    axes = list(range(len(starts))) if axes is None else [axis % rank for axis in axes]
    steps = [1] * len(starts) if steps is None else steps
    return {axis: slice(*cut) for axis, *cut in zip(axes, starts, ends, steps, strict=True)}


def _unit(kind: Spikes, origins: Sequence[tuple[Unit, int]]) -> Unit:
    """The unit of what trains with such levels stand for."""
    channels = [origins[int(level) - 1] for level in kind.levels[:, 1]]
    (first, _) = channels[0]
    same = all(unit is first and channel == index for index, (unit, channel) in enumerate(channels))
    return first if same and first.size == len(channels) else Picked(channels)


def _reshaped(network: Network, node: Node, kind: Spikes) -> Spikes | None:
    """Channels behind a change of shape; None where they lie along no one axis."""
    before, after = (network.shapes.get(tensor.name, ()) for tensor in (node.inputs[0], node.outputs[0]))
    axis = kind.channel_axis
    assert axis is not None
    if axis == len(before) - 1 and after and after[-1] == before[-1]:
        return replace(kind, channel_axis=len(after) - 1)
    inner, outer = ([size for size in shape[1:] if isinstance(size, int)] for shape in (before, after))
    if len(inner) != len(before) - 1 or len(outer) != len(after) - 1 or math.prod(inner) != math.prod(outer):
        return None
    shape = [1] * len(inner)
    shape[axis - 1] = len(kind.levels)
    rows = np.broadcast_to(np.arange(len(kind.levels)).reshape(shape), inner).reshape(outer)
    for place in range(len(outer)):
        first = rows[tuple(slice(None) if index == place else slice(0, 1) for index in range(len(outer)))]
        if (rows == first).all():
            return replace(kind, levels=kind.levels[first.reshape(-1)], channel_axis=place + 1)
    return None


def _padded(site: Site, kind: Spikes) -> Spikes | None:
    """Channels with more of them beside: these are zeros, of any unit; None where it pads something else."""
    pads, rank, axis = site.constant(1), site.rank(0), kind.channel_axis
    fill = site.constant(2) if site.given(2) else np.zeros(1)
    plain = site.attribute("mode", "constant") == "constant" and not site.given(3) and fill is not None
    if pads is None or rank is None or axis is None or not plain or len(pads) != 2 * rank:
        return None
    if fill is None or fill.any() or pads[0] or pads[rank]:
        return None
    channels = len(kind.levels)
    rows = np.clip(np.arange(-pads[axis], channels + pads[axis + rank]), 0, channels - 1)
    return replace(kind, levels=kind.levels[rows])


def _rows(network: Network, node: Node, weights: Array, whole: Whole) -> tuple[Array, Array, int]:
    """Weights as `[C, n]`, which channel of the input each is for, and the axis of the channels of the output.

    Raises:
        _Stays: channels of the input are along another axis than what is summed over.
    """
    rank = len(network.shapes.get(node.inputs[0].name, ()))
    if rank < 2:
        raise _Stays("its input has one axis, or an unknown number of axes")
    if node.op in ("Conv", "ConvTranspose"):
        groups = int(node.attrs.get("group", 1))
        if node.op == "ConvTranspose":
            weights = weights.reshape(groups, -1, *weights.shape[1:]).swapaxes(1, 2)
            weights = weights.reshape(-1, *weights.shape[2:])
        along, axis, inputs = 1, 1, weights.shape[1]
        own = np.arange(len(weights)) // max(1, len(weights) // groups) * inputs
        channel = own.reshape(-1, 1) + np.arange(inputs)
        contracted = np.repeat(channel, math.prod(weights.shape[2:]), axis=1)
    else:
        if weights.ndim != 2:
            raise _Stays("its weights are a stack of matrices")
        if node.attrs.get("transA", 0):
            raise _Stays("its input is transposed")
        weights = weights if node.attrs.get("transB", 0) else weights.T
        along, axis = rank - 1, rank - 1
        contracted = np.arange(weights.shape[1]).reshape(1, -1)
    if whole.axis not in (None, along):
        raise _Stays("channels of what it reads differ in what a level is worth, and it does not sum over them")
    return weights.reshape(len(weights), -1), contracted, axis


_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_MOVES = ("Cast", "Concat", "DepthToSpace", "Dropout", "Expand", "Gather", "GlobalMaxPool", "Identity", "MaxPool",
          "Pad", "ReduceMax", "ReduceMin", "Relu", "Resize", "Slice", "SpaceToDepth", "Split", "Tile",
          "Transpose", *_RESHAPES)  # fmt: skip
_RULES: Mapping[str, Callable[[_Reader, Node], None]] = {
    **dict.fromkeys(_LAYERS, _Reader.layer),
    **{op: _Reader.add for op in ("Add", "Sub", "Sum")},
    **{op: _Reader.scale for op in ("Mul", "Div")},
    **{op: _Reader.average for op in ("GlobalAveragePool", "ReduceMean", "ReduceSum")},
    **dict.fromkeys(_MOVES, _Reader.move),
    "AveragePool": _Reader.average_pool,
    "BatchNormalization": _Reader.normalise,
    "Neg": _Reader.negate,
}
