"""Which of the operators a model has, found in one pass: what must be known before a session is opened."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from pconv_onnx.graph.nesting import subgraphs
from pconv_onnx.operators.domain import attribute, is_neuron, is_operator, is_serial


@dataclass
class Contents:
    """The neurons of a model.

    Attributes:
        neurons: whether it has any.
        serial: whether any run one time-step at a time.
        nested: whether any is in a branch within a branch.
        steps_in_flight: the most time-steps of a tensor; 1 if no neuron emits trains.
    """

    neurons: bool = False
    serial: bool = False
    nested: bool = False
    steps_in_flight: int = 1


def contents_of(model: onnx.ModelProto) -> Contents:
    """The contents of a model, bodies included."""
    found = Contents()
    _look(model.graph, 0, ChainMap(), found)
    return found


def _look(graph: onnx.GraphProto, depth: int, outer: ChainMap[str, Sequence[int]], found: Contents) -> None:
    shapes = outer.new_child({tensor.name: tensor.dims for tensor in graph.initializer})
    for node in graph.node:
        if is_neuron(node):
            found.neurons = True
            found.serial |= is_serial(node)
            found.nested |= depth > 1
        if is_operator(node) and any(entry.name == "spikes" and entry.i for entry in node.attribute):
            thresholds = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
            steps = attribute(node, "steps", 0)
            found.steps_in_flight = max(found.steps_in_flight, *([steps] if steps else thresholds[1:2]), 1)
        for body in subgraphs(node):
            _look(body, depth + 1, shapes, found)
