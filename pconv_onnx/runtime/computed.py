"""Tensors that a network computes from constants only, such as weights behind a DequantizeLinear."""

from __future__ import annotations

import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import captured, every_node, subgraphs
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session, run_session


def computed_constants(network: Network) -> dict[str, Array]:
    """What nodes compute of constants that other nodes, or the network's outputs, read.

    onnxruntime computes it, graph optimisations disabled, so that operators are what they say in every opset.

    Raises:
        PconvError: onnxruntime cannot.
    """
    names = _computed(network)
    if not names:
        return {}
    disabled = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    runner = open_session(_computing(network, names), f"constants of {network.name}", disabled, folder=network.folder)
    return dict(zip(names, run_session(runner, {}, names), strict=True))


def _computed(network: Network) -> list[str]:
    """Tensors that are computed of constants, and read where the network's inputs are as well."""
    settled = _settled(network)
    made = {id(node) for node in settled}
    varying = [node for node in network.proto.graph.node if id(node) not in made]
    read = {name for node in varying for name in (*node.input, *captured(node))}
    read.update(info.name for info in network.proto.graph.output)
    return [name for node in settled for name in node.output if name in read]


# What each run draws anew.
_DRAWS = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def _settled(network: Network) -> list[onnx.NodeProto]:
    """The nodes that give the same in every run."""
    drawn: set[str] = set()
    found = []
    for node in network.proto.graph.node:
        inner = (child.op_type for body in subgraphs(node) for child in every_node(body))
        if {node.op_type, *inner} & {*_DRAWS} or not drawn.isdisjoint((*node.input, *captured(node))):
            drawn.update(node.output)
        elif network.computed_from_inputs.isdisjoint(node.output):
            found.append(node)
    return found


def _computing(network: Network, names: list[str]) -> onnx.ModelProto:
    """The part of the network that computes such tensors."""
    source = network.proto
    nodes = _settled(network)
    read = {name for node in nodes for name in (*node.input, *captured(node))}
    part = helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],
        [tensor for tensor in source.graph.initializer if tensor.name in read],
        sparse_initializer=[tensor for tensor in source.graph.sparse_initializer if tensor.values.name in read],
    )
    return helper.make_model(
        part,
        opset_imports=source.opset_import,
        functions=source.functions,
        ir_version=max(source.ir_version, INITIALIZERS_IR_VERSION),
    )
