"""Inlines model-local functions: their nodes become part of the graph."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import helper, inliner

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.graph.checking import check
from pconv_onnx.graph.nesting import nodes_within, with_names_of_their_own
from pconv_onnx.graph.network import Network


def inlined(network: Network, own_domain: str) -> Network:
    """The network without model-local functions, by onnx's inliner.

    Nodes and tensors of a function get the number of the call behind their name. Functions of another opset are
    converted to that of the network. The network itself is returned if it has no functions, or has one of `own_domain`:
    those stand for operators.

    Raises:
        PconvError: onnx cannot inline a function.
    """
    functions = network.proto.functions
    if not functions or any(function.domain == own_domain for function in functions):
        return network
    given = onnx.ModelProto()
    given.CopyFrom(network.proto)
    _give_defaults(given)
    known = {entry.domain for entry in given.opset_import}
    needed = {entry.domain: entry.version for function in functions for entry in function.opset_import}
    given.opset_import.extend(
        helper.make_opsetid(domain, version) for domain, version in needed.items() if domain not in {*known, "ai.onnx"}
    )
    try:
        model = inliner.inline_local_functions(given, convert_version=True)
        check(model)
    except Exception as error:  # onnx raises whatever its C++ code raises
        raise PconvError(
            f"onnx cannot inline the functions of {network.name}: {reason_of(error)}",
            "write them in the opset of the model, or inline them in the export",
        ) from error
    return replace(network, proto=with_names_of_their_own(model))


def _give_defaults(model: onnx.ModelProto) -> None:
    """Write default values of a function's attributes into its calls, since the inliner ignores defaults."""
    defaults = {(entry.domain, entry.name, entry.overload): entry.attribute_proto for entry in model.functions}
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes_within(nodes):
            given = {attribute.name for attribute in node.attribute}
            default = defaults.get((node.domain, node.op_type, node.overload), ())
            node.attribute.extend(attribute for attribute in default if attribute.name not in given)
