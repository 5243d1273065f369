"""Moves DequantizeLinear in front of operators that only move integer codes.

TensorFlow Lite and Keras pool, pad, reshape, transpose and join the codes between QuantizeLinear and DequantizeLinear.
Operators that only move codes, or take the largest, give the same values in either order if all codes have one scale
and zero-point. Then the quantiser and the dequantiser stand side by side, as recognition expects them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.nesting import every_graph, unused
from pconv_onnx.graph.network import Graph, Network
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION
from pconv_onnx.graph.view import Node, Tensor

# Operators that move codes or choose among them; all inputs of a Concat are codes, and the first of the others.
_MOVERS = ("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "MaxPool", "Pad",
           "ReduceMax", "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
           "Transpose", "Unsqueeze")  # fmt: skip
_PADDED_WITH = 2


@dataclass(frozen=True, eq=False)
class _Reading:
    """How codes are read: by a DequantizeLinear with one scale and one zero-point for all."""

    domain: str
    scale: Array
    zero_point: Array | None

    @classmethod
    def of(cls, node: Node) -> _Reading | None:
        """The reading that a node is; None if it is something else."""
        if not is_one(node, "DequantizeLinear") or node.attrs.get("block_size", 0) or node.attrs.get("output_dtype", 0):
            return None
        values = [constant(tensor) for tensor in node.inputs[1:] if tensor.name]
        if not values or any(value is None or value.size != 1 for value in values):
            return None
        scale, zero_point = (value.reshape(()) for value in (*values, values[0])[:2] if value is not None)
        # With a negative scale the largest code is the smallest value.
        if not 0 < float(scale) < np.inf:
            return None
        return cls(node.domain or "", scale, zero_point if len(values) > 1 else None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reading) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        constants = (self.scale, np.zeros((), np.uint8) if self.zero_point is None else self.zero_point)
        return (self.domain, *((value.dtype, value.item()) for value in constants))

    def value(self, code: Array) -> Array:
        """What a code stands for."""
        zero_point = 0 if self.zero_point is None else int(self.zero_point)
        return (code.astype(np.int64) - zero_point).astype(self.scale.dtype) * self.scale


def dequantised_first(network: Network) -> Network:
    """The network in which codes are dequantised before they are moved."""
    moved = {name: reading for graph in network.graphs() for name, reading in _moved(network, graph).items()}
    if not moved:
        return network
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    _Rewriting(network, model, moved).run()
    return replace(network, proto=model)


def is_one(node: Node, op_type: Literal["QuantizeLinear", "DequantizeLinear"]) -> bool:
    """Whether a node is this operator of ONNX, or onnxruntime's own one for 16 bits, from before opset 21."""
    return bool(node.op == op_type) and (is_standard(node) or node.domain == "com.microsoft")


def _codes_of(node: Node) -> list[Tensor]:
    return list(node.inputs if node.op == "Concat" else node.inputs[:1])


def moves(node: Node) -> bool:
    """Whether a node only moves codes."""
    if node.op not in _MOVERS or not is_standard(node):
        return False
    if node.op == "Pad":
        padding = node.inputs[_PADDED_WITH] if len(node.inputs) > _PADDED_WITH else None
        known = padding is None or not padding.name or constant(padding) is not None
        return known and node.attrs.get("mode", "constant") == "constant" and "pads" not in node.attrs
    if node.op == "Resize":
        # Resize with crop fills the outside with a value of its own, which would be a code.
        cropped = node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
        return node.attrs.get("mode", "nearest") == "nearest" and not cropped
    return True


def _moved(network: Network, graph: Graph) -> dict[str, _Reading]:
    """Outputs of the nodes that move codes, with the one way in which these are read afterwards."""
    codes: set[str] = set()
    for node in graph.nodes:
        quantises = is_one(node, "QuantizeLinear") and node.inputs[0].name in network.computed_from_inputs
        if quantises or (moves(node) and any(tensor.name in codes for tensor in _codes_of(node))):
            codes.update(tensor.name for tensor in node.outputs)
    found: dict[str, _Reading] = {}
    for node in reversed(graph.nodes):
        if not moves(node) or node.outputs[0].name not in codes:
            continue
        # MaxPool may also give indices, which are not read as codes.
        readings = {_reading(network, graph, found, tensor) for tensor in node.outputs}
        if len(readings) == 1 and (reading := readings.pop()) is not None:
            found |= {tensor.name: reading for tensor in node.outputs}
    return found


def _reading(network: Network, graph: Graph, found: Mapping[str, _Reading], tensor: Tensor) -> _Reading | None:
    """The one way in which all readers of a tensor read it; None if they differ, or there are none."""
    if network.is_output(tensor):
        return None
    readings = {
        found.get(reader.outputs[0].name) if moves(reader) else _Reading.of(reader) for reader in tensor.outputs
    }
    inside = all(network.graph_of(reader) is graph for reader in tensor.outputs)
    return readings.pop() if inside and len(readings) == 1 else None


class _Rewriting:
    """One pass over a copy of the model."""

    def __init__(self, network: Network, model: onnx.ModelProto, moved: Mapping[str, _Reading]) -> None:
        self._network, self._model, self._moved = network, model, moved
        self._names = set(network.names)
        # By codes and how they are read; tensors made in a body do not exist outside it.
        self._values: dict[tuple[str, _Reading], str] = {}

    def run(self) -> None:
        self._model.ir_version = max(self._model.ir_version, INITIALIZERS_IR_VERSION)
        view = {tensor.name: node for node in self._network.every_node() for tensor in node.outputs if tensor.name}
        for graph in every_graph(self._model.graph):
            self._values = {}
            nodes = [new for node in graph.node for new in self._rewritten(view, node)]
            del graph.node[:]
            graph.node.extend(nodes)
            # They are values now, with other names and another type.
            declared = [info for info in graph.value_info if info.name not in self._moved]
            del graph.value_info[:]
            graph.value_info.extend(declared)

    def _rewritten(self, view: Mapping[str, Node], proto: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if proto.output and proto.output[0] in self._moved:
            node, reading = view[proto.output[0]], self._moved[proto.output[0]]
            for index, tensor in enumerate(_codes_of(node)):
                if (tensor.name, reading) not in self._values:
                    yield self._dequantised(tensor.name, reading)
                proto.input[index] = self._values[tensor.name, reading]
            if node.op == "Pad":
                self._pad_with_value(proto, node, reading)
            for index, name in enumerate(proto.output):
                proto.output[index] = self._values[name, reading] = unused(f"{name}/value", self._names)
            yield proto
        elif proto.input and proto.input[0] in self._moved:
            value = self._values[proto.input[0], self._moved[proto.input[0]]]
            yield helper.make_node("Identity", [value], list(proto.output), proto.name)
        else:
            yield proto

    def _dequantised(self, codes: str, reading: _Reading) -> onnx.NodeProto:
        value = self._values[codes, reading] = unused(f"{codes}/value", self._names)
        constants = [self._constant(f"{codes}/scale", reading.scale)]
        if reading.zero_point is not None:
            constants.append(self._constant(f"{codes}/zero_point", reading.zero_point))
        name = unused(f"{codes}/DequantizeLinear", self._names)
        return helper.make_node("DequantizeLinear", [codes, *constants], [value], name, domain=reading.domain)

    def _pad_with_value(self, proto: onnx.NodeProto, node: Node, reading: _Reading) -> None:
        given = len(node.inputs) > _PADDED_WITH and bool(node.inputs[_PADDED_WITH].name)
        code = constant(node.inputs[_PADDED_WITH]) if given else np.zeros((), np.int64)
        assert code is not None  # `moves` has checked it
        proto.input.extend([""] * (_PADDED_WITH + 1 - len(proto.input)))
        proto.input[_PADDED_WITH] = self._constant(f"{proto.output[0]}/padding", reading.value(code.reshape(())))

    def _constant(self, name: str, value: Array) -> str:
        name = unused(name, self._names)
        self._model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
