"""Graphs within graphs: the bodies of If, Loop and Scan, and the outer tensors that they use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
from google.protobuf.message import Message

from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.tensors import initializer_names


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies within it, outer ones first."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from every_graph(body)


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies within it, in topological order: those of a body before its own node."""
    return nodes_within(graph.node)


def nodes_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph or a function and of the bodies within it, in the same order."""
    for node in nodes:
        for body in subgraphs(node):
            yield from nodes_within(body.node)
        yield node


def is_if(node: onnx.NodeProto) -> bool:
    """Whether a node runs one of its bodies, once."""
    return bool(node.op_type == "If" and is_standard(node))


def once(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of branches in it, which run once at most, in topological order."""
    for node in graph.node:
        if is_if(node):
            for body in subgraphs(node):
                yield from once(body)
        yield node


def captured(node: onnx.NodeProto) -> set[str]:
    """Names of tensors from outside that the bodies of a node use."""
    free: set[str] = set()
    for graph in subgraphs(node):
        inner = {info.name for info in graph.input} | initializer_names(graph)
        for child in graph.node:
            free |= ({name for name in child.input if name} | captured(child)) - inner
            inner.update(child.output)
        free |= {info.name for info in graph.output} - inner
    return free


def drop_unread(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Remove nodes that nothing reads any more, in bodies as well.

    Nodes that nothing read before stay.
    """
    unread = {name for part in every_graph(before) for node in part.node for name in node.output}
    unread -= {name for part in every_graph(before) for name in names_read(part)}
    for part in reversed(list(every_graph(graph))):
        needed = {output.name for output in part.output}
        kept = []
        for node in reversed(part.node):
            if not node.output or not needed.isdisjoint(node.output) or not unread.isdisjoint(node.output):
                needed |= set(node.input) | captured(node)
                kept.append(node)
        keep(part.node, kept[::-1])


def drop_unread_constants(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Remove Constants, initializers and inputs that nothing reads any more; those that nothing read before stay."""
    superfluous = names_read(before) - names_read(graph)
    keep(graph.node, [n for n in graph.node if n.op_type != "Constant" or n.output[0] not in superfluous])
    keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in superfluous])
    keep(graph.input, [info for info in graph.input if info.name not in superfluous])


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that the nodes of a graph read, and of its outputs."""
    names = {name for node in graph.node for name in (*node.input, *captured(node))}
    return names | {output.name for output in graph.output}


def keep(entries: Any, kept: Sequence[Message]) -> None:
    """Keep some of the messages of a protobuf list, in their order.

    Removing them one by one would move all later ones each time; copying them would take the memory twice.
    """
    wanted = set(map(id, kept))
    if len(wanted) < len(entries):
        entries.sort(key=lambda entry: id(entry) not in wanted)
        del entries[len(wanted) :]


def unused(name: str, used: set[str]) -> str:
    """A name that is free: this one, or this one with a number; it is added to the names in use."""
    if name in used:
        # By doubling, then by halves: with many tensors of one name, each would otherwise try all before it.
        taken, free = 0, 1
        while _numbered(name, free) in used:
            taken, free = free, 2 * free
        while free - taken > 1:
            middle = (taken + free) // 2
            taken, free = (middle, free) if _numbered(name, middle) in used else (taken, middle)
        name = _numbered(name, free)
    used.add(name)
    return name


def _numbered(name: str, number: int) -> str:
    return f"{name}_" if number == 1 else f"{name}_{number}"


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor in a graph and the bodies within it."""
    used: set[str] = set()
    for part in every_graph(graph):
        used.update(entry.name for entry in (*part.input, *part.output, *part.value_info))
        used |= initializer_names(part)
        used.update(name for node in part.node for name in (*node.input, *node.output))
    return used


def with_names_of_their_own(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in which no tensor of a body has the name of another tensor.

    Bodies that exclude each other may share names, so a name would not say which tensor is meant. The model itself
    is returned if they do not.
    """
    made = [name for graph in every_graph(model.graph) for name in _made(graph)]
    if len(made) == len(set(made)):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _rename(result.graph, {}, set(), tensor_names(model.graph))
    return result


def _made(graph: onnx.GraphProto) -> set[str]:
    """Names of the tensors that a graph is given, holds or computes."""
    computed = {name for node in graph.node for name in node.output if name}
    return {info.name for info in graph.input} | initializer_names(graph) | computed


def _rename(graph: onnx.GraphProto, outer: Mapping[str, str], taken: set[str], used: set[str]) -> None:
    """Rename tensors whose name is taken, and use the new names in the graph, with those of the graphs around it."""
    own = {name: unused(name, used) if name in taken else name for name in sorted(_made(graph))}
    taken.update(own)
    names = {**outer, **own}
    for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        entry.name = names.get(entry.name, entry.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
    for node in graph.node:
        for body in subgraphs(node):
            _rename(body, names, taken, used)
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
