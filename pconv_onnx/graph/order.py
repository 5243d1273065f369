"""Topological order of nodes, which ONNX requires and some tools do not keep."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, MutableSequence

import onnx

from pconv_onnx.graph.nesting import captured, subgraphs
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.graph.view import called


def sort(nodes: MutableSequence[onnx.NodeProto]) -> int:
    """Bring the nodes of a graph or function into topological order, in place, and those of the bodies within it.

    Nodes are moved only as far as necessary.

    Returns:
        How many nodes stood before a node that makes one of their inputs.

    Raises:
        ValueError: a node needs, directly or not, a tensor that it makes itself.
    """
    early = sum(sort(body.node) for node in nodes for body in subgraphs(node))
    made = [(name, index) for index, node in enumerate(nodes) for name in node.output if name]
    makers = dict(made)
    if len(makers) < len(made):
        return early  # if two nodes make one name, no order says which is meant; the checker refuses that
    needs = [{makers[name] for name in _taken(node) if name in makers} for node in nodes]
    waiting = [index for index, needed in enumerate(needs) if any(other >= index for other in needed)]
    if not waiting:
        return early
    order = _order(needs)
    if len(order) < len(needs):
        raise ValueError(_circle(nodes, makers, set(range(len(needs))).difference(order)))
    ordered = [onnx.NodeProto.FromString(nodes[index].SerializeToString()) for index in order]
    del nodes[:]
    nodes.extend(ordered)
    return early + len(waiting)


def _taken(node: onnx.NodeProto) -> set[str]:
    return {name for name in node.input if name} | captured(node)


def _order(needs: list[set[int]]) -> list[int]:
    """Indices in topological order, lower ones first; nodes on a circle, or behind one, are left out."""
    readers: list[list[int]] = [[] for _ in needs]
    for index, needed in enumerate(needs):
        for other in needed:
            readers[other].append(index)
    missing = [len(needed) for needed in needs]
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    return order


def _circle(nodes: MutableSequence[onnx.NodeProto], makers: dict[str, int], left: set[int]) -> str:
    """A tensor on a circle, and the node that takes it: every node that is left needs another that is left."""
    index, passed = min(left), set()
    while True:
        passed.add(index)
        maker, name = min((makers[name], str(name)) for name in _taken(nodes[index]) if makers.get(name) in left)
        if maker in passed:
            return f"{called(nodes[index])} takes '{name}', which is made of what this node makes"
        index = maker


def undefined(graph: onnx.GraphProto) -> str:
    """A message on a tensor that a sorted graph needs and no node makes; empty if there is none.

    Bodies are checked too.
    """
    return _undefined(graph, set())


def _undefined(graph: onnx.GraphProto, around: set[str]) -> str:
    """The same for a graph within others, whose tensors are `known`; that set is unchanged afterwards."""
    own = {info.name for info in graph.input} | initializer_names(graph)
    made = {name for node in graph.node for name in node.output if name}
    inside = (own | made) - around  # no copy of the set: there may be as many bodies as tensors
    around |= own
    if fault := undefined_of(graph.node, around):
        return fault
    around -= inside
    own |= made
    missing = next((output.name for output in graph.output if output.name not in own), None)
    return "" if missing is None else f"no node makes the output '{missing}'"


def undefined_of(nodes: Iterable[onnx.NodeProto], known: set[str]) -> str:
    """The same for nodes; the tensors that they make are added to `known`."""
    for node in nodes:
        missing = next((name for name in node.input if name and name not in known), None)
        if missing is not None:
            return f"{called(node)} takes '{missing}', which no node makes"
        for body in subgraphs(node):
            if fault := _undefined(body, known):
                return f"in a body of {called(node)}, {fault}"
        known.update(name for name in node.output if name)
    return ""
