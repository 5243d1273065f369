"""What a model holds of the operators, found in one pass."""

from __future__ import annotations

import onnx

from pconv_onnx.graph.nesting import every_graph, every_node, subgraphs
from pconv_onnx.operators.domain import is_neuron, is_operator


def steps_in_flight(model: onnx.ModelProto) -> int:
    """The most time-steps that a tensor of a network has; 1 where no neuron emits spikes."""
    shapes = {tensor.name: tensor.dims for graph in every_graph(model.graph) for tensor in graph.initializer}
    emitting = (
        node
        for node in every_node(model.graph)
        if is_operator(node) and any(attribute.name == "spikes" and attribute.i for attribute in node.attribute)
    )
    return max((shapes[node.input[1]][1] for node in emitting if node.input[1] in shapes), default=1)


def has_nested_neurons(model: onnx.ModelProto) -> bool:
    """Whether a branch within a branch has neurons."""
    branches = (graph for node in model.graph.node for graph in subgraphs(node))
    nested = (graph for branch in branches for node in branch.node for graph in subgraphs(node))
    return any(is_neuron(node) for graph in nested for node in every_node(graph))
