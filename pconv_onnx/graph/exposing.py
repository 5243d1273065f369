"""Makes tensors outputs of a model, those in branches as well."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from pconv_onnx.graph.nesting import subgraphs, unused


def expose(graph: onnx.GraphProto, elements: Mapping[str, int], used: set[str]) -> dict[str, str]:
    """Make tensors of a graph, or of branches of an If in it, outputs of the graph.

    If a run does not enter the branch, such an output is an empty vector.

    Args:
        graph: the main graph of a model; changed in place.
        elements: the tensors, each with its element type, as ONNX numbers them.
        used: the names in use; new names are added.

    Returns:
        The name of the output, by tensor.

    Raises:
        KeyError: there is no such tensor.
    """
    there = {info.name for info in (*graph.input, *graph.output)}
    level = _Level(graph)
    outputs = {}
    for name, element in elements.items():
        if name in there:
            outputs[name] = name
            continue
        found = level.lifted(name, element, used)
        if found is None:
            raise KeyError(name)
        graph.output.append(helper.make_tensor_value_info(found, element, None))
        outputs[name] = found
    return outputs


class _Level:
    """A graph, and for each tensor in it, or in branches within it, the node that makes it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        nodes = [(node, [_Level(branch) for branch in subgraphs(node)]) for node in graph.node]
        self._nodes = {name: (node, branches) for node, branches in nodes for name in node.output}
        for node, branches in nodes:
            for branch in branches:
                for name in branch._nodes:
                    self._nodes.setdefault(name, (node, branches))

    def lifted(self, name: str, element: int, used: set[str]) -> str | None:
        """The name of a tensor in this graph, brought out of branches if need be; None if it is in none of them."""
        if name not in self._nodes:
            return None
        node, branches = self._nodes[name]
        if name in node.output:
            return name
        for branch in branches:
            branch._hand_out(name, element, used)
        node.output.append(unused(f"{name}/exposed", used))
        return node.output[-1]

    def _hand_out(self, name: str, element: int, used: set[str]) -> None:
        """Give a branch an output for a tensor; it is empty if the branch does not have that tensor."""
        value, output = self.lifted(name, element, used), unused(f"{name}/exposed", used)
        empty = helper.make_tensor("", element, [0], [])
        self.graph.node.append(
            helper.make_node("Constant", [], [output], value=empty)
            if value is None
            else helper.make_node("Identity", [value], [output])
        )
        self.graph.output.append(helper.make_tensor_value_info(output, element, None))
