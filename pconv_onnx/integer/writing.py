"""Writes the integer form of a network in standard operators, from what was read and the rounded weights.

A tensor of integers is called `<name>/integer`. Its values keep the name of the source, and are written only if
something reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import singledispatchmethod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.checking import check
from pconv_onnx.graph.nesting import captured, drop_unread, drop_unread_constants, unused
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.products import OF_SHAPES
from pconv_onnx.graph.record import name_activation
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION
from pconv_onnx.graph.view import Node, key_of, node_name
from pconv_onnx.integer.codes import Codes
from pconv_onnx.integer.reading import Added, Copied, InputCodes, Moved, Negated, Quantised, Reading, Step, Summed
from pconv_onnx.integer.shortcuts import multiples
from pconv_onnx.integer.units import Layer

# Of a layer its weights `[C, n]` and biases `[C]` as integers of its accumulator's unit.
Rounding = Callable[[Layer], tuple[Array, Array]]


def written(network: Network, reading: Reading, rounding: Rounding) -> tuple[onnx.ModelProto, set[str]]:
    """The network in integers.

    Returns:
        It, and the first tensors of nodes that round and are no activation's: they give codes of inputs, or keep
        onnxruntime from folding.
    """
    writer = _Writer(network, reading, rounding)
    return writer.model(), writer.no_activations


class _Writer:
    """The state: nodes and constants written so far."""

    def __init__(self, network: Network, reading: Reading, rounding: Rounding) -> None:
        self.network, self.whole, self.rounding = network, reading.whole, rounding
        self.steps, self.multiples = reading.steps, multiples(network, reading)
        self.used = set(network.names)
        self.protos = dict(zip(map(id, network.nodes), network.proto.graph.node, strict=True))
        self.inputs = {info.name for info in network.proto.graph.input}
        self.integers: dict[str, str] = {}
        self.values: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.no_activations: set[str] = set()

    def model(self) -> onnx.ModelProto:
        """What is written."""
        for step in self.steps:
            self.write(step)
        for output in self.network.proto.graph.output:
            self.value(output.name)
        model = onnx.ModelProto()
        model.CopyFrom(self.network.proto)
        model.ir_version = max(model.ir_version, INITIALIZERS_IR_VERSION)
        del model.graph.node[:]
        del model.graph.value_info[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.constants)
        drop_unread(model.graph, self.network.proto.graph)
        drop_unread_constants(model.graph, self.network.proto.graph)
        check(model)
        return model

    @singledispatchmethod
    def write(self, step: Step) -> None:
        """The nodes of a step."""
        raise TypeError(f"no step is {step!r}")

    @write.register
    def _(self, step: InputCodes) -> None:
        steps: Sequence[tuple[str, Sequence[Any]]] = (
            ("Div", [step.step]), ("Round", []), ("Clip", [step.lowest, step.highest]),
        )  # fmt: skip
        first = len(self.nodes)
        self._chain(step.name, step.name, step.name, steps)
        self.no_activations.update(key_of(node) for node in self.nodes[first:])

    @write.register
    def _(self, step: Copied) -> None:
        node = self._copy(step.node)
        for index, name in enumerate(node.input):
            if name in self.whole and step.node.op in OF_SHAPES:
                node.input[index] = self.integer(name)
            elif name in self.whole:
                self.value(name)
        for name in sorted(captured(node)):
            if name in self.whole:
                self.value(name)
        self.nodes.append(node)

    @write.register
    def _(self, step: Moved) -> None:
        node = self._copy(step.node)
        node.input[:] = [self.integer(name) if name in self.whole else name for name in node.input]
        node.output[:] = [self._named(name) if name in self.whole else name for name in node.output]
        self.nodes.append(node)

    @write.register
    def _(self, step: Negated) -> None:
        given, axis = self.integer(step.name), self.whole[step.output].axis
        shape = self.network.shapes[step.name]
        if (step.signs > 0).all() and (step.signs.size == 1 or axis is None or shape[axis] == step.signs.size):
            self.integers[step.output] = given
            return
        signs = self._spread(step.output, step.signs, step.name)
        self._node("Mul", [given, self._constant(f"{step.output}/signs", signs, step.name)], step.output)

    @write.register
    def _(self, step: Added) -> None:
        unit = self._unit(step.output)
        total, negative = "", False
        terms = [(self._in_units(name, unit, step.output), sign < 0) for name, sign in step.operands]
        offset = np.rint(step.offset / unit)
        # One channel may become several by it.
        if offset.any() or step.offset.size > 1:
            terms.append(
                (self._constant(f"{step.output}/offset", self._spread(step.output, offset), step.output), False)
            )
        # What is added stands before what is taken away.
        for term, negative in sorted(terms, key=lambda entry: entry[1]):
            if not total and negative:
                total = self._inner("Neg", [term], step.output)
            elif not total:
                total = term
            else:
                total = self._inner("Sub" if negative else "Add", [total, term], step.output)
        if total in (term for term, _ in terms):
            total = self._inner("Identity", [total], step.output)
        self.nodes[-1].output[0] = self._named(step.output)

    @write.register
    def _(self, step: Summed) -> None:
        source, given = self.protos[id(step.node)], self.integer(step.node.inputs[0].name)
        name = source.output[0]
        if step.axes:
            axes = self._unused_constant(f"{name}/axes", np.array(step.axes))
            keeps = int(step.node.attrs.get("keepdims", 1))
            self._node("ReduceSum", [given, axes], name, keepdims=keeps)
            return
        channels = self.network.shapes[step.node.inputs[0].name][1]
        assert isinstance(channels, int)
        ones = np.ones((channels, 1, *step.node.attrs["kernel_shape"]))
        weights = self._constant(f"{name}/ones", ones, name)
        kept = {entry.name: helper.get_attribute_value(entry) for entry in source.attribute if entry.name in _WINDOWS}
        self._node("Conv", [given, weights], name, group=channels, **kept)

    @write.register
    def _(self, step: Quantised) -> None:
        activation, codes = step.activation, step.codes
        name, whole = activation.input, self.whole.get(activation.input)
        unit, axis = np.ones(1), codes.axis
        if whole is not None:
            unit = self._unit(name)
            own = whole.axis if unit.size > 1 else None
            if own is not None and codes.axis not in (None, own):
                whole, unit = None, np.ones(1)
            else:
                axis = own if own is not None else codes.axis
        given = self.value(name) if whole is None else self.integer(name)
        multiple = self.multiples.get(activation.output, 1)
        start = len(self.nodes)
        if codes.step is not None:
            spacing, charge = _staircase(codes, unit, whole=whole is not None)
            chain: Sequence[tuple[str, Sequence[Any]]] = [
                ("Div", [self._along(name, spacing, axis=axis)]),
                ("Add", [self._along(name, charge, axis=axis)]),
                ("Floor", []),
                ("Clip", [codes.lowest, codes.highest]),
                *([("Mul", [multiple])] if multiple > 1 else []),
            ]
            self._chain(given, activation.output, activation.name, chain)
        else:
            thresholds = codes.thresholds / unit.reshape(-1, 1)
            self._compared(step, given, thresholds if whole is None else np.ceil(thresholds), axis)
        for node in self.nodes[start:]:
            name_activation(node, activation.name, activation.also_called)

    @write.register
    def _(self, layer: Layer) -> None:
        weights, bias = self.rounding(layer)
        bias = bias * self.multiples.get(layer.output, 1)
        node = self._copy(layer.node)
        kept = [entry for entry in node.attribute if entry.name not in ("alpha", "beta")]
        del node.attribute[:]
        node.attribute.extend(kept)
        name = layer.output
        inputs = [
            self.integer(layer.node.inputs[0].name),
            self._constant(f"{node.input[1]}/integer", native(layer, weights), name),
        ]
        matrix, has_bias = node.op_type == "MatMul", bool(bias.any())
        if has_bias and not matrix:
            inputs.append(self._constant(f"{name}/bias", bias, name))
        node.input[:] = inputs
        if has_bias and matrix:
            node.output[0] = unused(f"{name}/product", self.used)
            self.nodes.append(node)
            self._node("Add", [node.output[0], self._constant(f"{name}/bias", bias, name)], name)
            return
        node.output[0] = self._named(name)
        self.nodes.append(node)

    def _compared(self, step: Quantised, given: str, thresholds: Array, axis: int | None) -> None:
        """Write comparisons that count how many thresholds are reached."""
        name, codes = step.activation.input, step.codes
        rank = len(self.network.shapes[name])
        table = thresholds if axis is None else thresholds.reshape(-1, *[1] * (rank - axis - 1), thresholds.shape[1])
        last = self._unused_constant(f"{step.activation.name}/last", np.array([-1]))
        value = self._inner("Unsqueeze", [given, last], step.activation.name)
        value = self._inner("GreaterOrEqual", [value, self._constant(f"{name}/thresholds", table, name)],
                            step.activation.name)  # fmt: skip
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(self._dtype(name)))
        value = self._inner("Cast", [value], step.activation.name, to=dtype)
        value = self._inner("ReduceSum", [value, last], step.activation.name, keepdims=0)
        one = np.array(self.multiples.get(step.activation.output, 1))
        value = self._inner("Mul", [value, self._constant(f"{name}/one", one, name)], step.activation.name)
        if codes.lowest:
            lowest = self._constant(f"{name}/lowest", codes.lowest * one, name)
            self._inner("Add", [value, lowest], step.activation.name)
        self.nodes[-1].output[0] = self._named(step.activation.output)

    def _in_units(self, name: str, unit: Array, output: str) -> str:
        """A tensor of integers as whole numbers of another unit."""
        multiplier = np.rint(self._unit(name) / unit)
        if (multiplier == 1).all():
            return self.integer(name)
        factors = self._constant(f"{name}/multiplier", self._along(output, multiplier), name)
        return self._inner("Mul", [self.integer(name), factors], output)

    # Names

    def integer(self, name: str) -> str:
        """The name of a tensor's integers."""
        return self.integers[name]

    def value(self, name: str) -> str:
        """The name of a tensor's values, which are written if they are not there."""
        whole = self.whole.get(name)
        if whole is None or name in self.values or name in self.inputs:
            return name
        self.values.add(name)
        # onnxruntime would merge a factor right behind a layer into its weights, and behind codes it would run in time.
        # And an integer has no zero of another sign.
        dtype = np.dtype(self._dtype(name))
        wide = TensorProto.INT64 if dtype == np.float64 else TensorProto.INT32
        given = self._inner("Cast", [self.integer(name)], name, to=wide)
        self.no_activations.add(given)
        given = self._inner("Cast", [given], name, to=helper.np_dtype_to_tensor_dtype(dtype))
        unit = self._constant(f"{name}/unit", self._along(name, self._unit(name)), name)
        self.nodes.append(helper.make_node("Mul", [given, unit], [name], unused(f"{name}/value", self.used)))
        return name

    def _unit(self, name: str) -> Array:
        """`[1]` or `[C]`, what a number is worth as it is written."""
        return self.whole[name].unit.values() / self.multiples.get(name, 1)

    def _named(self, name: str) -> str:
        self.integers[name] = unused(f"{name}/integer", self.used)
        return self.integers[name]

    def _copy(self, source: Node) -> onnx.NodeProto:
        """A node of the source, by the name that it has there, whatever its output is called."""
        node = onnx.NodeProto()
        node.CopyFrom(self.protos[id(source)])
        node.name = node_name(source)
        return node

    def _chain(self, given: str, output: str, name: str, chain: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Operators one behind another, with constants that follow their data."""
        for op_type, operands in chain:
            constants = [self._constant(f"{name}/{op_type}", np.asarray(operand), output) for operand in operands]
            given = self._inner(op_type, [given, *constants], name)
        self.nodes[-1].output[0] = self._named(output)

    def _inner(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node whose output nobody asks for by a name."""
        output = unused(f"{name}/{op_type}", self.used)
        self.nodes.append(helper.make_node(op_type, inputs, [output], output, **attributes))
        return output

    def _node(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> None:
        self._inner(op_type, inputs, name, **attributes)
        self.nodes[-1].output[0] = self._named(name)

    def _dtype(self, name: str) -> Any:
        return self.network.dtypes.get(name, np.dtype(np.float32))

    def _constant(self, name: str, value: Array, like: str) -> str:
        """An initializer of the type that a tensor has."""
        with np.errstate(over="ignore"):  # what no sum reaches may be beyond it
            return self._unused_constant(name, value.astype(self._dtype(like)))

    def _unused_constant(self, name: str, value: Array) -> str:
        name = unused(name, self.used)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _along(self, name: str, values: Array, shaped: str = "", *, axis: int | None = None) -> Array:
        """Numbers `[1]` or `[C]` in a shape that broadcasts against a tensor."""
        return values[0].reshape(()) if (values == values[0]).all() else self._spread(name, values, shaped, axis=axis)

    def _spread(self, name: str, values: Array, shaped: str = "", *, axis: int | None = None) -> Array:
        """The same with a number for each channel, of which the tensor may have one before."""
        if values.size == 1:
            return values.reshape(())
        found = axis if axis is not None else self.whole[name].axis
        assert found is not None
        rank = len(self.network.shapes[shaped or name])
        return values.reshape([-1, *[1] * (rank - found - 1)])


def _staircase(codes: Codes, unit: Array, *, whole: bool) -> tuple[Array, Array]:
    """The spacing of thresholds in units, `[C]` or `[1]`, and what is added behind the division by it.

    Of integers thresholds are evenly spaced integers, but for channels in which that would move one too far: they lie
    midway below these, where no rounding of the division moves one past an integer.
    """
    reached = np.isfinite(codes.thresholds[:, 0])
    spacing = codes.step / unit
    # That around which the others are moved: of the level above zero.
    middle = min(-codes.lowest, codes.thresholds.shape[1] - 1)
    threshold = np.where(reached, codes.thresholds[:, 0], 0) / unit + middle * spacing
    if whole:
        nearest = np.maximum(np.rint(spacing), 1)
        farthest = max(middle, codes.thresholds.shape[1] - 1 - middle, 1)
        is_even = abs(spacing - nearest) * farthest <= _MOVED * nearest
        spacing = np.where(is_even, nearest, spacing)
        threshold = np.where(is_even, np.ceil(threshold - _NOISE) - 0.5, threshold)
    return spacing, np.where(reached, 1 + middle - threshold / spacing + codes.lowest, _NEVER)


# The share of a step that a threshold may be moved by to be one of evenly spaced integers.
_MOVED = 1 / 16
# By how much computed numbers may miss an integer that they are.
_NOISE = 1e-6
# In steps, how far below its first level a channel begins that reaches none.
_NEVER = -(2.0**40)
_WINDOWS = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


def native(layer: Layer, rows: Array) -> Array:
    """Weights `[C, n]` in the layout that the layer's node takes."""
    shape = layer.shape
    if layer.node.op == "Conv" or (layer.node.op == "Gemm" and layer.node.attrs.get("transB", 0)):
        return rows.reshape(shape)
    if layer.node.op != "ConvTranspose":
        return rows.T
    groups = int(layer.node.attrs.get("group", 1))
    by_group = rows.reshape(groups, len(rows) // groups, shape[0] // groups, math.prod(shape[2:]))
    return by_group.swapaxes(1, 2).reshape(shape)
