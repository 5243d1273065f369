"""Cuts a model at some of its tensors into parts that share no computation and run separately."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import helper

from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import captured, subgraphs, tensor_names, unused
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION, initializer_names


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        model: the part.
        fed: its inputs, each with the tensor of the whole model that it stands for.
        ends: the tensors of the whole model that are wanted of it, each with the output that hands it out.
    """

    model: onnx.ModelProto = field(repr=False)
    fed: Mapping[str, str]
    ends: Mapping[str, str]


def parts(model: onnx.ModelProto, cut: Mapping[str, int], ends: Mapping[str, int]) -> list[Part]:
    """The parts of a model that some of its tensors are computed by.

    Args:
        model: the model; changed in place.
        cut: tensors, of branches as well, that are given to what reads them instead of computed, with element types.
        ends: the tensors that are wanted, likewise.

    Raises:
        KeyError: there is no such tensor to be wanted.
    """
    graph = model.graph
    used = tensor_names(graph)
    fed = {name: unused(f"{name}/fed", used) for name in cut}
    _rewire(graph, fed, used)
    del graph.output[:]
    outputs = expose(graph, ends, used)
    # Initializers that are inputs as well, as they had to be once, are constants.
    held = initializer_names(graph)
    inputs = {info.name: info for info in graph.input if info.name not in held}
    inputs |= {fed[name]: helper.make_tensor_value_info(fed[name], element, None) for name, element in cut.items()}
    given = {new: old for old, new in fed.items()}
    return [
        Part(part, {info.name: given.get(info.name, info.name) for info in part.graph.input}, there)
        for part, there in _apart(model, inputs, outputs)
    ]


def _rewire(graph: onnx.GraphProto, fed: Mapping[str, str], used: set[str], is_body: bool = False) -> None:
    """Have all that reads a tensor which is fed read that."""
    for node in graph.node:
        node.input[:] = [fed.get(name, name) for name in node.input]
        for body in subgraphs(node):
            _rewire(body, fed, used, is_body=True)
    if is_body:
        # What a body hands out it has to make itself.
        for output in (output for output in graph.output if output.name in fed):
            renamed = unused(output.name, used)
            graph.node.append(helper.make_node("Identity", [fed[output.name]], [renamed]))
            output.name = renamed


def _apart(
    model: onnx.ModelProto, inputs: Mapping[str, onnx.ValueInfoProto], outputs: Mapping[str, str]
) -> list[tuple[onnx.ModelProto, dict[str, str]]]:
    """Models of nodes that computed tensors join, each with its outputs; constants join nothing."""
    graph = model.graph
    nodes = list(graph.node)
    reads = [{name for name in (*node.input, *captured(node)) if name} for node in nodes]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    varies = set(inputs)
    for node, names in zip(nodes, reads, strict=True):
        if not varies.isdisjoint(names):
            varies.update(node.output)
    # Trees, whose roots name the parts.
    parent = list(range(len(nodes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for index in _behind(outputs.values(), maker, reads):
        for name in reads[index]:
            if name in varies and name in maker:
                parent[root(maker[name])] = root(index)
    there: dict[int, dict[str, str]] = {}
    for name, output in outputs.items():
        if output in maker:  # else it is an input
            there.setdefault(root(maker[output]), {})[name] = output
    infos = {info.name: info for info in graph.output}
    dense = {tensor.name: tensor for tensor in graph.initializer}
    sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
    found = []
    for part in sorted(there.values(), key=lambda part: min(maker[output] for output in part.values())):
        indices = sorted(_behind(part.values(), maker, reads))
        read = sorted({name for index in indices for name in reads[index]})
        body = helper.make_graph(
            [nodes[index] for index in indices],
            "segment",
            [inputs[name] for name in read if name in inputs],
            [infos[output] for output in part.values()],
            [dense[name] for name in read if name in dense],
            sparse_initializer=[sparse[name] for name in read if name in sparse],
        )
        made = helper.make_model(
            body,
            opset_imports=model.opset_import,
            functions=model.functions,
            ir_version=max(model.ir_version, INITIALIZERS_IR_VERSION),
        )
        found.append((made, part))
    return found


def _behind(names: Iterable[str], maker: Mapping[str, int], reads: Sequence[Collection[str]]) -> set[int]:
    """The nodes that tensors are computed by."""
    waiting, found = list(names), set()
    while waiting:
        index = maker.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting += reads[index]
    return found
