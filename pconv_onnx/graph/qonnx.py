"""QONNX's quantisers, which Brevitas and FINN write, expressed in operators of ONNX.

onnxruntime does not have these operators. Here each is a chain of float operations, which recognition reads and which
`standardised` writes for quantisers that stay. Source: the QONNX operators' specification and its executable form, the
package qonnx 1.0 (Pappalardo et al., "QONNX: Representing arbitrary-precision quantized neural networks", 2022).
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.external import values
from pconv_onnx.graph.nesting import every_graph, every_node, subgraphs, tensor_names, unused
from pconv_onnx.graph.stand_ins import inferred

# The current domain, and those of earlier versions of QONNX and FINN.
DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")

_SCALE, _ZERO_POINT, BIT_WIDTH = 1, 2, 3
THRESHOLDS = 1

_ROUNDING_MODES = {
    "ROUND": "Round",
    "HALF_EVEN": "Round",
    "CEIL": "Ceil",
    "FLOOR": "Floor",
    "UP": "RoundUp",
    "DOWN": "RoundDown",
    "HALF_UP": "RoundHalfUp",
    "HALF_DOWN": "RoundHalfDown",
}
# The channel axis if MultiThreshold does not say.
_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}


class Operation(NamedTuple):
    """One float operation: an operator of `neuron.FloatOperation`; its operand is a number or the index of an input."""

    op_type: str
    operands: tuple[int | float, ...] = ()


@dataclass(frozen=True)
class Quantiser:
    """What a node computes: `tail(rounding(head(x)))`.

    Attributes:
        head: the operations before the rounding.
        rounding: the operation that rounds to an integer.
        tail: the operations after it.
        channel_axis: the axis that the rows of thresholds run along.
    """

    head: tuple[Operation, ...]
    rounding: Operation
    tail: tuple[Operation, ...]
    channel_axis: int = 1


def quantiser(op_type: str, attributes: Mapping[str, Any], bit_width: Array | None, rank: int | None) -> Quantiser:
    """The meaning of a node.

    Args:
        op_type: `Quant`, `IntQuant`, `BipolarQuant` or `MultiThreshold`.
        attributes: the node's, strings as strings.
        bit_width: value of input `BIT_WIDTH`; None if there is no such input, or it is computed.
        rank: the rank of the node's data; None if unknown.

    Raises:
        ValueError: the node is invalid, or of a kind that is not supported here; the text says why.
    """
    bipolar = (Operation("Mul", (2.0,)), Operation("Sub", (1.0,)))
    if op_type == "BipolarQuant":
        return Quantiser((), Operation("MultiThreshold", (0.0,)), (*bipolar, Operation("Mul", (_SCALE,))))
    if op_type == "MultiThreshold":
        tail = (("Mul", _number(attributes, "out_scale", 1)), ("Add", _number(attributes, "out_bias", 0)))
        return Quantiser(
            (),
            Operation("MultiThreshold", (THRESHOLDS,)),
            tuple(Operation(name, (value,)) for name, value in tail),
            _channel_axis(str(attributes.get("data_layout", "")), rank),
        )
    if op_type not in ("Quant", "IntQuant"):
        raise ValueError(f"there is no neuron for {op_type}; export its quantiser as Quant, with integers")
    scaling = (Operation("Div", (_SCALE,)), Operation("Add", (_ZERO_POINT,)))
    scaling_back = (Operation("Sub", (_ZERO_POINT,)), Operation("Mul", (_SCALE,)))
    signed, narrow = (bool(_number(attributes, name, 1)) for name in ("signed", "narrow"))
    low, high = _bounds(bit_width, signed, narrow)
    if signed and bit_width == 1:
        return Quantiser(scaling, Operation("MultiThreshold", (0.0,)), (*bipolar, *scaling_back))
    mode = str(attributes.get("rounding_mode", "ROUND")).upper()
    if mode not in _ROUNDING_MODES:
        raise ValueError(f"its rounding_mode '{mode}' is not one of {', '.join(_ROUNDING_MODES)}")
    clip = Operation("Clip", (low, high))
    return Quantiser((*scaling, clip), Operation(_ROUNDING_MODES[mode]), scaling_back)


def _number(attributes: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = attributes.get(name, otherwise)
    if not isinstance(value, int | float):
        raise ValueError(f"its {name} is not a number")
    return float(value)


def _bounds(bit_width: Array | None, signed: bool, narrow: bool) -> tuple[float, float]:
    if bit_width is None or bit_width.size != 1 or bit_width.dtype.kind in "cOSU":
        raise ValueError("its bit width is not one constant")
    bits = float(bit_width.item())
    if not 1 <= bits <= 32 or bits != int(bits):
        raise ValueError(f"its bit width is {bits:g}; a whole number from 1 to 32 is needed")
    if signed:
        return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - narrow


def _channel_axis(layout: str, rank: int | None) -> int:
    layout = layout or _LAYOUTS.get(rank or 0, "")
    return layout.index("C") if "C" in layout else 1


def standardised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with QONNX's quantisers as operators of ONNX, also those with computed scales, and those of weights.

    Tensors keep their names. Nodes that `quantiser` refuses stay as they are. The model itself
    is returned if there is nothing to do.
    """
    if not any(node.domain in DOMAINS for node in every_node(model.graph)):
        return model
    ranks = _ranks(model.graph)
    while True:
        result = _written(model, ranks)
        if not any(node.op_type == "MultiThreshold" for node in every_node(result.graph)):
            return result
        # The rank of its data decides the channel axis; it may follow from what has just been written.
        known = len(ranks)
        ranks |= _inferred_ranks(result)
        if len(ranks) == known:
            return result


def _inferred_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Ranks as onnx infers them, also behind MultiThresholds, whose output has as many axes as their data."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in every_node(copy.graph):
        if node.op_type == "MultiThreshold":
            node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output))
    return _ranks(inferred(copy).graph)


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    graphs = list(every_graph(graph))
    infos = (info for part in graphs for info in (*part.input, *part.value_info, *part.output))
    shaped = (info for info in infos if info.type.tensor_type.HasField("shape"))
    ranks = {tensor.name: len(tensor.dims) for part in graphs for tensor in part.initializer}
    return ranks | {info.name: len(info.type.tensor_type.shape.dim) for info in shaped}


def _written(model: onnx.ModelProto, ranks: Mapping[str, int]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _write(result.graph, ranks, ChainMap(), tensor_names(model.graph))
    alive = {node.domain for node in every_node(result.graph)}
    imports = [entry for entry in result.opset_import if entry.domain not in DOMAINS or entry.domain in alive]
    del result.opset_import[:]
    result.opset_import.extend(imports)
    return result


def _write(
    graph: onnx.GraphProto, ranks: Mapping[str, int], outer: ChainMap[str, onnx.TensorProto], names: set[str]
) -> None:
    """Write out QONNX's nodes in a graph and its bodies, given the constants and names of the graphs around it."""
    writer = _Writer(graph, ranks, outer, names)
    for body in (body for node in writer.nodes for body in subgraphs(node)):
        _write(body, ranks, writer.constants, names)
    del graph.node[:]
    graph.node.extend(writer.nodes)


class _Writer:
    """The nodes of a graph, with QONNX's nodes written out."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        ranks: Mapping[str, int],
        outer: ChainMap[str, onnx.TensorProto],
        names: set[str],
    ) -> None:
        self._ranks, self._names = ranks, names
        self.nodes: list[onnx.NodeProto] = []
        self.constants = outer.new_child({tensor.name: tensor for tensor in graph.initializer})
        self.constants |= {
            node.output[0]: _tensor(attribute)
            for node in graph.node
            for attribute in node.attribute
            if node.op_type == "Constant" and attribute.name in _CONSTANTS
        }
        for node in graph.node:
            if node.domain not in DOMAINS or not self._expand(node):
                self.nodes.append(node)

    def _expand(self, node: onnx.NodeProto) -> bool:
        if not node.input or not node.output or not node.output[0]:
            return False
        attributes = {attribute.name: _value(attribute) for attribute in node.attribute}
        rank = self._ranks.get(node.input[0]) or len(str(attributes.get("data_layout", ""))) or None
        if node.op_type == "MultiThreshold" and rank is None:
            return False
        bit_width = self.constants.get(node.input[BIT_WIDTH]) if len(node.input) > BIT_WIDTH else None
        try:
            meaning = quantiser(
                node.op_type,
                attributes,
                None if bit_width is None else values(bit_width, None),
                rank,
            )
        except ValueError:
            return False
        operations = (*meaning.head, meaning.rounding, *meaning.tail)
        read = {0, *(o for operation in operations for o in operation.operands if isinstance(o, int))}
        if max(read) >= len(node.input) or not all(node.input[index] for index in read):
            return False
        operand = self.constants.get(node.input[1])
        self._element = operand.data_type if operand is not None else onnx.TensorProto.FLOAT
        if self._element not in _ELEMENTS:
            return False
        self._prefix, value = node.output[0], node.input[0]
        first = len(self.nodes)
        for operation in operations:
            operands = [node.input[o] if isinstance(o, int) else self._number(o) for o in operation.operands]
            axis = meaning.channel_axis if node.op_type == "MultiThreshold" else None
            value = self._operation(operation.op_type, value, operands, rank, axis)
        self.nodes[-1].output[0] = node.output[0]
        for written in self.nodes[first:]:
            written.metadata_props.extend(node.metadata_props)
        return True

    def _operation(
        self, op_type: str, x: str, operands: Sequence[str], rank: int | None, channel_axis: int | None
    ) -> str:
        if op_type == "MultiThreshold":
            return self._count(x, operands[0], rank, channel_axis)
        if op_type not in _AWAY_FROM_STANDARD:
            return self._node(op_type, x, *operands)
        before, rounding = _AWAY_FROM_STANDARD[op_type]
        magnitude = self._node("Abs", x)
        if before:
            magnitude = self._node("Add", magnitude, self._number(before))
        return self._node("Mul", self._node("Sign", x), self._node(rounding, magnitude))

    def _count(self, x: str, thresholds: str, rank: int | None, channel_axis: int | None) -> str:
        """The number of its channel's thresholds that each value reaches, counted along a new last axis."""
        after = 0 if rank is None or channel_axis is None else rank - channel_axis - 1
        if after > 0:
            thresholds = self._node("Unsqueeze", thresholds, self._constant(np.arange(1, after + 1)))
        by_threshold = self._node("Unsqueeze", x, self._constant(np.array([-1])))
        reached = self._node("Cast", self._node("GreaterOrEqual", by_threshold, thresholds), to=self._element)
        return self._node("ReduceSum", reached, self._constant(np.array([-1])), keepdims=0)

    def _number(self, value: float) -> str:
        dtype = helper.tensor_dtype_to_np_dtype(self._element)
        return self._constant(np.array(value, dtype=dtype))

    def _constant(self, value: Array) -> str:
        return self._node("Constant", value=numpy_helper.from_array(value))

    def _node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = unused(f"{self._prefix}/{op_type}", self._names)
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name


# The attributes of Constant that may hold an operand, each with its type; None for a tensor.
_CONSTANTS = {"value": None, "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
              "value_ints": np.int64}  # fmt: skip
_ELEMENTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)

# The number added to the magnitude, and the rounding of the sum.
_AWAY_FROM_STANDARD = {
    "RoundUp": (0.0, "Ceil"),
    "RoundDown": (0.0, "Floor"),
    "RoundHalfUp": (0.5, "Floor"),
    "RoundHalfDown": (-0.5, "Ceil"),
}


def _tensor(attribute: onnx.AttributeProto) -> onnx.TensorProto:
    dtype = _CONSTANTS[attribute.name]
    if dtype is None:
        return attribute.t
    return numpy_helper.from_array(np.asarray(helper.get_attribute_value(attribute), dtype))


def _value(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value
