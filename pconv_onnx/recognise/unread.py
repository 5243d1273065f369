"""Operators that make values discrete but are part of no activation found. They are listed, so that none is overlooked.

Whoever wrote a rounding, a comparison or a Cast to integers between linear layers meant an activation. Computations on
shapes do not count.
"""

from __future__ import annotations

from collections.abc import Iterable

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.network import Graph
from pconv_onnx.graph.products import OF_SHAPES
from pconv_onnx.graph.view import Node
from pconv_onnx.recognise.base import Activation

_ROUNDINGS = ("Ceil", "Floor", "Round", "Sign")
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_LINEAR = ("Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "GRU", "LSTM", "MatMul",
           "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN")  # fmt: skip
_LINEAR_OF_ONNXRUNTIME = ("Attention", "FusedConv", "FusedGemm", "FusedMatMul", "MultiHeadAttention", "NhwcConv",
                          "QAttention", "QGemm")  # fmt: skip


def unread(network: Network, found: Iterable[Activation]) -> list[Activation]:
    """These nodes as refused activations, in topological order."""
    behind, in_front = _behind_layers(network), _in_front_of(network, layers=True)
    listed = {id(node) for activation in found for node in activation.nodes}
    return [
        Activation(network.name_of(node), "unread", (node,), node.inputs[0], node.outputs[0], "refused", _why(node))
        for node in network.every_node()
        if id(node) not in listed
        and _is_discrete(network, node)
        and any(tensor.name in behind for tensor in node.inputs)
        and node.outputs[0].name in in_front
    ]


def needed(network: Network) -> set[str]:
    """Names of the tensors whose values an output depends on."""
    return _in_front_of(network, layers=False)


def _is_discrete(network: Network, node: Node) -> bool:
    if not is_standard(node) or not node.inputs:
        return False
    dtype = network.dtype(node.inputs[0])
    if dtype is not None and dtype.kind in "iubSU":
        return False
    if node.op == "Cast":
        made = element_type(node.attrs["to"])
        return made is not None and made.kind in "iub"
    return node.op in _ROUNDINGS or node.op in _COMPARISONS


def _why(node: Node) -> str:
    if node.op in _ROUNDINGS:
        return f"{node.op} has no Clip before or behind it, so that it has no lowest and no highest level; export one"
    if node.op == "Cast":
        return "it makes integers of floats; export Round or Floor, with a Clip, in floats"
    if all(constant(tensor) is None for tensor in node.inputs):
        return f"{node.op} compares two computed values; a comparison with a constant is a neuron of one level"
    return (
        f"what {node.op} decides becomes no value of its own: export Relu or LeakyRelu where it chooses a slope; a "
        "Cast of it to floats, or a Where between constants, is a neuron of one level"
    )


def _is_linear(node: Node) -> bool:
    if node.domain == "com.microsoft":
        return node.op in _LINEAR_OF_ONNXRUNTIME
    return is_standard(node) and node.op in _LINEAR


def _behind_layers(network: Network) -> set[str]:
    """Names of the tensors whose values depend on a linear layer's output, computed from the network's inputs."""
    found: set[str] = set()

    def walk(graph: Graph) -> None:
        for node, proto in graph.pairs():
            bodies = network.bodies(node)
            reads = found.intersection(proto.input) or found & captured(proto)
            computed = not network.computed_from_inputs.isdisjoint(proto.input)
            if (_is_linear(node) and computed) or (reads and node.op not in OF_SHAPES):
                found.update(name for name in proto.output if name)
            for body in bodies:
                if reads:
                    found.update(info.name for info in body.proto.input)
                walk(body)
                if not found.isdisjoint(info.name for info in body.proto.output):
                    found.update(name for name in proto.output if name)

    walk(network.graph)
    return found


def _in_front_of(network: Network, *, layers: bool) -> set[str]:
    """Names of the tensors whose values affect a linear layer or an output."""
    found: set[str] = set() if layers else {info.name for info in network.proto.graph.output}

    def walk(graph: Graph) -> None:
        for node, proto in reversed(list(graph.pairs())):
            affects = not found.isdisjoint(proto.output)
            for body in network.bodies(node):
                if affects:
                    found.update(info.name for info in body.proto.output)
                walk(body)
            if node.op not in OF_SHAPES and (affects or (layers and _is_linear(node))):
                found.update(name for name in proto.input if name)
            if affects:
                found.update(captured(proto))

    walk(network.graph)
    return found
