"""The tensors of a network that do not depend on its inputs, as they are when it runs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.external import values
from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session, run_session


def constants(network: Network) -> dict[str, Array]:
    """Initializers, and what nodes compute of them that other nodes read: weights behind a DequantizeLinear, say.

    onnxruntime computes it, graph optimisations disabled, so that operators are what they say in every opset.

    Raises:
        PconvError: onnxruntime cannot, or a file of weights cannot be read.
    """
    graph = network.proto.graph
    held = [*graph.initializer, *(tensor.values for tensor in graph.sparse_initializer)]
    found = {tensor.name: np.asarray(values(tensor, network.folder)) for tensor in held}
    names = _computed(network)
    if names:
        disabled = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
        runner = open_session(
            _computing(network, names), f"constants of {network.name}", disabled, folder=network.folder
        )
        found |= zip(names, run_session(runner, {}, names), strict=True)
    return found


def _computed(network: Network) -> list[str]:
    """Tensors that are computed of constants, and read where the network's inputs are as well."""
    nodes = network.proto.graph.node
    varying = [node for node in nodes if not _is_constant(network, node)]
    read = {name for node in varying for name in (*node.input, *captured(node))}
    read.update(info.name for info in network.proto.graph.output)
    return [name for node in nodes if _is_constant(network, node) for name in node.output if name in read]


def _is_constant(network: Network, node: onnx.NodeProto) -> bool:
    return network.computed_from_inputs.isdisjoint(node.output)


def _computing(network: Network, names: list[str]) -> onnx.ModelProto:
    """The part of the network that computes such tensors."""
    source = network.proto
    nodes = [node for node in source.graph.node if _is_constant(network, node)]
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
