"""What flows in time: kinds of tensors, nodes that are not needed, activations that stay between neurons."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.flow import flow
from pconv_onnx.graph.network import Graph
from pconv_onnx.graph.view import Node, Tensor, key_of
from pconv_onnx.neuron.quantiser import Neuron
from pconv_onnx.recognise import Activation
from pconv_onnx.temporal.kinds import STATIC, Kind, Passage, Spikes, Static
from pconv_onnx.temporal.rules import transfer
from pconv_onnx.temporal.site import Site


def in_time(
    network: Network,
    graph: Graph,
    neurons: Mapping[str, Neuron],
    replaced: Mapping[str, Activation | None],
    *,
    weights: bool,
) -> tuple[dict[str, Passage], dict[str, Kind]]:
    """Find kinds in one walk in topological order: neurons emit spikes, and rules say what operators do to them.

    A body is a network of its own: it sees the tensors around it by name, so it gets them decoded. `weights` says
    whether spikes may be worth different amounts, which decides how trains of different time-steps are combined.
    """
    passages: dict[str, Passage] = {}
    kinds: dict[str, Kind] = {}
    for node in graph.nodes:
        bodies = network.bodies(node)
        for body in bodies:
            inner_passages, inner_kinds = in_time(network, body, neurons, replaced, weights=weights)
            passages |= inner_passages
            kinds |= inner_kinds
        key = key_of(node)
        if key in replaced:
            ended = replaced[key]
            if ended is not None:
                neuron = neurons[ended.name]
                kinds[ended.output.name] = Spikes(neuron.coding, neuron.levels, neuron.channel_axis)
        elif not bodies:
            given = [kinds.get(tensor.name, STATIC) for tensor in node.inputs]
            passage = transfer(Site(network, node, given, weights=weights))
            for tensor, kind in zip(node.outputs, passage.kinds, strict=True):
                if tensor.name and not isinstance(kind, Static):
                    kinds[tensor.name] = kind
                    passages[key] = passage
    # A tensor that only neurons read is not encoded again: they count in a mean just as well.
    for node in graph.nodes:
        key = key_of(node)
        if key in passages and passages[key].encodes and not _trains_are_read(node.outputs, passages):
            del passages[key]
            for tensor in node.outputs:
                kinds.pop(tensor.name, None)
    return passages, kinds


def _trains_are_read(tensors: Sequence[Tensor], passages: Mapping[str, Passage]) -> bool:
    """Whether a node runs in time on one of these tensors."""
    readers = [(tensor, reader, passages.get(key_of(reader))) for tensor in tensors for reader in tensor.outputs]
    return any(
        given is tensor and passage is not None and not passage.encodes and index not in passage.held
        for tensor, reader, passage in readers
        for index, given in enumerate(reader.inputs)
    )


def hands_spikes_on(activation: Activation, passages: Mapping[str, Passage]) -> bool:
    """Whether an activation that stays passes spikes on: a Relu or Clip that keeps or cuts off levels of trains."""
    passage = passages.get(key_of(activation.nodes[-1])) if len(activation.nodes) == 1 else None
    return passage is not None and not passage.encodes and all(isinstance(kind, Spikes) for kind in passage.kinds)


def between_neurons(network: Network, activations: Sequence[Activation], neurons: Mapping[str, Neuron]) -> list[str]:
    """Names of activations that are not converted, depend on one neuron and affect another.

    It walks forwards and backwards over the source, in which activations that become neurons are still whole.
    """
    converted = [activation for activation in activations if activation.name in neurons]
    behind = {activation.output.name for activation in converted}
    in_front = {activation.input.name for activation in converted}
    steps = list(flow(network, network.graph))
    for inputs, outputs in steps:
        if not behind.isdisjoint(inputs):
            behind |= outputs
    for inputs, outputs in reversed(steps):
        if not in_front.isdisjoint(outputs):
            in_front |= inputs
    return [
        activation.name
        for activation in activations
        if activation.name not in neurons
        and any(tensor.name in behind for node in activation.nodes for tensor in node.inputs)
        and any(tensor.name in in_front for node in activation.nodes for tensor in node.outputs)
    ]


# The most operators that are followed from each end, the nearest first.
_NEAR = 256
# Operators that pass an analog current on, unchanged or changed element by element.
_HAND_ON = ("Add", "Cast", "Clip", "Div", "Identity", "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Sum", "Where")


def bypassed(activations: Sequence[Activation], neurons: Mapping[str, Neuron]) -> list[str]:
    """Names of neurons that an analog current bypasses: their pre-activation is combined with their spikes at once.

    This is so for a straight-through estimator that was not recognised, and for a residual sum around an activation
    alone.
    """
    return [
        activation.name
        for activation in activations
        if activation.name in neurons and _meet(activation.input, activation.output, activation.nodes)
    ]


def _meet(current: Tensor, spikes: Tensor, own: Collection[Node]) -> bool:
    """Whether both reach one operator, each passed on element by element."""
    inside = set(map(id, own))
    reached = []
    for start in (current, spikes):
        waiting, found = deque([start]), {id(start)}
        readers: set[int] = set()
        while waiting and len(readers) < _NEAR:
            for node in islice(waiting.popleft().outputs, _NEAR):
                if id(node) in inside or id(node) in readers or node.op not in _HAND_ON or not is_standard(node):
                    continue
                readers.add(id(node))
                waiting += [tensor for tensor in node.outputs if id(tensor) not in found]
                found.update(map(id, node.outputs))
        reached.append(readers)
    return not reached[0].isdisjoint(reached[1])


def unused(
    network: Network, graph: Graph, replaced: Mapping[str, Activation | None], passages: Mapping[str, Passage]
) -> tuple[set[str], set[str]]:
    """The nodes that nothing needs any more: constants of activations, computed numbers of rows.

    Returns:
        Their keys, and the names of the tensors that are needed.
    """
    found: set[str] = set()
    needed = {output.name for output in graph.proto.output}
    for node, proto in reversed(list(graph.pairs())):
        bodies = network.bodies(node)
        key = key_of(proto)
        if key in replaced:
            ended = replaced[key]
            if ended is not None:
                needed.add(ended.input.name)
        elif key and needed.isdisjoint(proto.output) and not bodies:
            found.add(key)
        else:
            passage = passages.get(key)
            constants = passage.constants if passage is not None else {}
            needed.update(name for index, name in enumerate(proto.input) if index not in constants)
        for body in bodies:
            unused_there, needed_there = unused(network, body, replaced, passages)
            found |= unused_there
            needed |= needed_there
    return found, needed
