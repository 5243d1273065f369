"""Operators that hold products within, taken apart into standard operators that recognition, plans and counts know.

Exporters and onnxruntime's optimiser write whole layers as one operator. What makes and reads the tensors in it is out
of sight there: a product within reads no spikes. Which operators, a row each in `_RULES`; outputs keep their names and,
up to rounding, their values. What is malformed, of a form that the rules do not have, or of unknown shape, stays whole.
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

# By domain and operator. A rule writes nodes that make all outputs that are read, or raises StaysWhole.
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
    """The network in which such operators are written in parts; it is returned itself where it has none."""
    # Of what stands behind an operator onnx infers shapes once that is taken apart.
    while parts := _parts(network):
        model = onnx.ModelProto()
        model.CopyFrom(network.proto)
        for graph in every_graph(model.graph):
            # Copied: the list that is emptied owns its nodes.
            nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
            del graph.node[:]
            graph.node.extend(part for node in nodes for part in parts.get(key_of(node), [node]))
        network = replace(network, proto=model)
    return network


def _parts(network: Network) -> dict[str, list[onnx.NodeProto]]:
    """What is to stand in the place of nodes, by the first output of each."""
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
    """What a rule writes; None where the operator stays whole."""
    if not proto.input or not key_of(node):
        return None
    whole = Whole(network, node, proto, names)
    try:
        rule(whole)
    except (StaysWhole, ArithmeticError, LookupError, TypeError, ValueError):  # a runtime refuses such a one as well
        return None
    return whole.nodes
