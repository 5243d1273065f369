"""Tensors of a graph handed out as outputs of its model, those of branches as well."""

from __future__ import annotations

import onnx
from onnx import helper

from pconv_onnx.graph.nesting import subgraphs, unused


def expose(graph: onnx.GraphProto, name: str, element: int, used: set[str]) -> str:
    """Hand a tensor of a graph, or of a branch of an If in it, out as an output.

    Where a run does not enter the branch, it gives an empty vector.

    Args:
        graph: the main graph of a model; changed in place.
        name: the tensor.
        element: its element type, as ONNX numbers them.
        used: the names in use; those that are given are added.

    Returns:
        The name of the output.

    Raises:
        KeyError: there is no such tensor.
    """
    if any(name == info.name for info in (*graph.input, *graph.output)):
        return name
    found = _lifted(graph, name, element, used)
    if found is None:
        raise KeyError(name)
    graph.output.append(helper.make_tensor_value_info(found, element, None))
    return found


def _lifted(graph: onnx.GraphProto, name: str, element: int, used: set[str]) -> str | None:
    """The name of the tensor in a graph, brought there from the branches within it; None where it is in none."""
    if any(name in node.output for node in graph.node):
        return name
    for node in graph.node:
        branches = list(subgraphs(node))
        inner = [_lifted(branch, name, element, used) for branch in branches]
        if inner == [None] * len(inner):
            continue
        for branch, value in zip(branches, inner, strict=True):
            output = unused(f"{name}/exposed", used)
            empty = helper.make_tensor("", element, [0], [])
            branch.node.append(
                helper.make_node("Constant", [], [output], value=empty)
                if value is None
                else helper.make_node("Identity", [value], [output])
            )
            branch.output.append(helper.make_tensor_value_info(output, element, None))
        node.output.append(unused(f"{name}/exposed", used))
        return node.output[-1]
    return None
