"""Takes fused operators apart into standard operators, which recognition, plans and statistics know.

Exporters and onnxruntime's optimiser write whole layers as one operator. Its inner tensors cannot be seen, so products
inside read no spikes. `_RULES` has a row for each operator that is taken apart. Outputs keep their names and, up to
rounding, their values. An operator that is malformed, of a form without a rule, or of unknown shape stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx

from pconv_onnx.graph.nesting import every_graph
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.passes import attention, attention_of_onnxruntime, contraction, grouped, rotary, summing
from pconv_onnx.graph.passes.whole import StaysWhole, Whole
from pconv_onnx.graph.view import Node, key_of

_OF_ONNXRUNTIME = "com.microsoft"

# By domain and operator. A rule writes nodes for all outputs that are read, or raises StaysWhole.
_RULES: dict[tuple[str, str], Callable[[Whole], object]] = {
    ("", "Attention"): attention.attention,
    ("", "Einsum"): contraction.einsum,
    ("", "RotaryEmbedding"): rotary.standard,
    (_OF_ONNXRUNTIME, "Attention"): attention_of_onnxruntime.projected,
    (_OF_ONNXRUNTIME, "BiasGelu"): summing.bias_gelu,
    (_OF_ONNXRUNTIME, "EmbedLayerNormalization"): summing.embeddings,
    (_OF_ONNXRUNTIME, "FastGelu"): summing.fast_gelu,
    (_OF_ONNXRUNTIME, "FusedMatMul"): contraction.fused_matmul,
    (_OF_ONNXRUNTIME, "GroupQueryAttention"): grouped.grouped,
    (_OF_ONNXRUNTIME, "MultiHeadAttention"): attention_of_onnxruntime.multi_head,
    (_OF_ONNXRUNTIME, "RotaryEmbedding"): rotary.of_onnxruntime,
    (_OF_ONNXRUNTIME, "SkipLayerNormalization"): summing.skip_normalisation,
    (_OF_ONNXRUNTIME, "SkipSimplifiedLayerNormalization"): summing.skip_simplified_normalisation,
}


def taken_apart(network: Network) -> Network:
    """The network with such operators in parts; itself if it has none."""
    # onnx infers shapes behind an operator only once that is taken apart.
    while parts := _parts(network):
        model = onnx.ModelProto()
        model.CopyFrom(network.proto)
        for graph in every_graph(model.graph):
            # A copy, since emptying the list would free its nodes.
            nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
            del graph.node[:]
            graph.node.extend(part for node in nodes for part in parts.get(key_of(node), [node]))
        network = replace(network, proto=model)
    return network


def _parts(network: Network) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that replace each operator, by its first output."""
    names, found = set(network.names), {}
    for graph in network.graphs():
        for node, proto in graph.pairs():
            rule = _rule_of(node)
            if rule is not None and (nodes := _applied(rule, network, node, proto, names)) is not None:
                found[key_of(node)] = nodes
    return found


def _rule_of(node: Node) -> Callable[[Whole], object] | None:
    domain = "" if node.domain in (None, "ai.onnx") else node.domain
    return _RULES.get((domain, node.op))


def _applied(
    rule: Callable[[Whole], object], network: Network, node: Node, proto: onnx.NodeProto, names: set[str]
) -> list[onnx.NodeProto] | None:
    """The nodes that a rule writes; None if the operator stays whole."""
    if not proto.input or not key_of(node):
        return None
    whole = Whole(network, node, proto, names)
    try:
        rule(whole)
    except (StaysWhole, ArithmeticError, LookupError, TypeError, ValueError):  # a runtime refuses such an operator too
        return None
    return whole.nodes
