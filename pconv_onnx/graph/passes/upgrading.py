"""Upgrades models of an older opset to one in which function bodies can be written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import onnx
from onnx import helper, version_converter

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.checking import check
from pconv_onnx.graph.nesting import every_graph, every_node, tensor_names
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.passes.old_operators import OPSET, Old, Rule, rule_of
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION, references
from pconv_onnx.graph.view import Node

# The domain in which nodes are parked while the converter works, which leaves other domains alone.
_PARKED = "pconv.parked"
_WITH_BODIES = ("If", "Loop", "Scan")


def upgraded(network: Network, oldest: int) -> Network:
    """The network at a later opset if its own is before `oldest`; names stay.

    Operators that onnx's version converter gets wrong are converted by `old_operators`; those that no opset has stay as
    they are.

    Args:
        network: a network without model-local functions, which the converter would drop.
        oldest: the first opset that needs no conversion.

    Raises:
        PconvError: it is too large, or an operator of it has no counterpart, or onnx cannot convert it.
    """
    if network.opset >= oldest:
        return network
    if references(network.proto):
        raise PconvError(
            f"{network.name} uses opset {network.opset}, and is too large for onnx to convert",
            f"export it with opset {oldest} or later",
        )
    rules = {
        node.outputs[0].name: (node, rule)
        for node in network.every_node()
        if node.outputs and (rule := rule_of(node, network.opset)) is not None
    }
    try:
        model = _converted(network.proto, rules)
    except Exception as error:  # onnx raises whatever its C++ code raises
        raise PconvError(
            f"{network.name} uses opset {network.opset}, and onnx cannot bring {_culprit(network.proto, rules)} to"
            f" {OPSET}",
            f"export it with opset {oldest} or later",
        ) from error
    _write(network, model, rules)
    _keep_annotations(network.proto.graph, model.graph)
    return replace(network, proto=model)


def _name(node: onnx.NodeProto) -> str:
    return node.output[0] if node.output else ""


def _converted(proto: onnx.ModelProto, parked: Collection[str]) -> onnx.ModelProto:
    """The model at the later opset, checked; nodes with these first outputs stay as they were, in another domain."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for node in every_node(model.graph):
        if node.output and node.output[0] in parked:
            node.domain = _PARKED
    model.opset_import.append(helper.make_opsetid(_PARKED, 1))
    model = version_converter.convert_version(model, OPSET)
    # The converter makes initializers that are not inputs.
    model.ir_version = max(model.ir_version, INITIALIZERS_IR_VERSION)
    check(model)
    return model


def _culprit(proto: onnx.ModelProto, parked: Collection[str]) -> str:
    """The operator that stops the converter, for a message: it does so even if all others are parked."""
    first = {"": ""}
    for node in every_node(proto.graph):
        if _name(node) not in parked:
            first.setdefault(node.op_type, node.name or _name(node))
    # Operators with bodies stay, since others are within them.
    for op_type in sorted(first, key=lambda op_type: op_type not in ("", *_WITH_BODIES)):
        others = {_name(node) for node in every_node(proto.graph) if node.op_type not in (op_type, *_WITH_BODIES)}
        try:
            _converted(proto, others.union(parked))
        except Exception:  # as above
            return f"its {op_type} '{first[op_type]}'" if op_type else "it"
    return "it"


def _write(network: Network, model: onnx.ModelProto, rules: Mapping[str, tuple[Node, Rule]]) -> None:
    """Replace parked nodes by what the rules write.

    Raises:
        PconvError: of a rule.
    """
    names = tensor_names(model.graph) | network.names
    graphs = list(every_graph(model.graph))
    read = {name for graph in graphs for node in graph.node for name in node.input}
    read.update(info.name for graph in graphs for info in graph.output)
    for graph in graphs:
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            if node.domain == _PARKED:
                old, rule = rules[_name(node)]
                nodes += rule(Old(old, network, names, read))
            else:
                nodes.append(node)
        if len(nodes) != len(graph.node) or any(node.domain == _PARKED for node in graph.node):
            written = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
            del graph.node[:]
            graph.node.extend(written)
    imports = [entry for entry in model.opset_import if entry.domain != _PARKED]
    del model.opset_import[:]
    model.opset_import.extend(imports)


def _keep_annotations(source: onnx.GraphProto, graph: onnx.GraphProto) -> None:
    """Restore annotations that the converter drops."""
    of_node = {node.output[0]: node.metadata_props for node in source.node if node.output}
    for node in graph.node:
        if node.output and not node.metadata_props:
            node.metadata_props.extend(of_node.get(node.output[0], ()))
    if not graph.quantization_annotation:
        graph.quantization_annotation.extend(source.quantization_annotation)
