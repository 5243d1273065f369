"""Recognition of quantised activations: one module per encoding, tried in the order of `recognisers`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from pconv_onnx.graph import Network
from pconv_onnx.graph.network import Dimension, Graph
from pconv_onnx.graph.view import Node, node_name
from pconv_onnx.recognise.analog import Analog
from pconv_onnx.recognise.base import Activation, Recogniser, Signs, where_zero
from pconv_onnx.recognise.binary import Binary
from pconv_onnx.recognise.bounded import Bounded
from pconv_onnx.recognise.fused import Fused
from pconv_onnx.recognise.qdq import Qdq, Requantised
from pconv_onnx.recognise.qonnx import Qonnx
from pconv_onnx.recognise.relu import Relu
from pconv_onnx.recognise.thresholds import Thresholds
from pconv_onnx.recognise.uniform import Uniform
from pconv_onnx.recognise.unread import needed, unread


def recognisers(signs: Signs) -> tuple[Recogniser, ...]:
    """The recognisers, in order: a node belongs to the first that converts it."""
    return (
        Uniform(signs),
        Requantised(),
        Qdq(),
        Qonnx(),
        Thresholds(signs),
        Binary(),
        Fused(),
        Bounded(),
        Relu(),
        Analog(),
    )


_WITHOUT_INFLUENCE = "no output depends on its values; leave it out of the export"

__all__ = ["Activation", "recognise", "recognisers"]


def recognise(network: Network, *, signs: Signs = where_zero) -> list[Activation]:
    """Every activation of the network and its bodies, converted or not, in topological order.

    Every other rounding, comparison and Cast to integers between linear layers is listed as well. Values computed from
    constants alone, such as quantised weights, are no activations. A node belongs to at most one converted activation,
    that of the first recogniser that converts it. Activations that are not converted are listed unless all their nodes
    are part of a larger one, such as a Clip in a chain that is refused.

    Args:
        network: the source.
        signs: says which trains may be signed; an activation that can be read with or without values below zero is
            read accordingly.
    """
    claimed: set[int] = set()
    graphs = [(graph, partial(_free, network, graph, claimed)) for graph in network.graphs()]
    free_of = {id(graph): free for graph, free in graphs}
    nodes = [(node, graph := network.graph_of(node), free_of[id(graph)]) for node in network.every_node()]
    position = {id(node): index for index, (node, _, _) in enumerate(nodes)}
    found: list[Activation] = []
    influential = needed(network)
    for recogniser in recognisers(signs):
        for node, graph, free in nodes:
            match = recogniser.pattern(node, free)
            if id(node) in claimed or match is None:
                continue
            checked = recogniser.check(network, match)
            if checked is None or checked.input.name not in network.computed_from_inputs:
                continue
            activation = _unless_repeated(_unless_contradicted(checked, network, graph), graph)
            if activation.spec is not None and activation.output.name not in influential:
                activation = replace(activation, status="refused", reason=_WITHOUT_INFLUENCE, spec=None)
            if activation.spec is not None:
                claimed.update(map(id, activation.nodes))
            found.append(activation)
    found += unread(network, found)
    size: dict[int, int] = {}
    for activation in found:
        for node in activation.nodes:
            size[id(node)] = max(size.get(id(node), 0), len(activation.nodes))
    found = [a for a in found if a.spec is not None or any(size[id(node)] == len(a.nodes) for node in a.nodes)]
    found.sort(key=lambda activation: position[id(activation.nodes[0])])
    return _with_unique_names([replace(one, also_called=_also_called(network, one)) for one in found])


def _free(network: Network, graph: Graph, claimed: set[int], node: Node) -> bool:
    return network.graph_of(node) is graph and id(node) not in claimed


def _unless_contradicted(activation: Activation, network: Network, graph: Graph) -> Activation:
    """The activation; refused if a body declares another shape for its output, which onnxruntime would use."""
    if activation.spec is None or not graph.place or not network.is_output(activation.output):
        return activation
    found, declared = network.shape(activation.input), network.shape(activation.output)
    if found is None or declared is None or _may_be_equal(found, declared):
        return activation
    reason = f"{graph.place} declares shape {list(declared)} for its output, and its input has {list(found)}"
    return replace(activation, status="refused", reason=f"{reason}; correct the declaration", spec=None)


def _may_be_equal(found: tuple[Dimension, ...], declared: tuple[Dimension, ...]) -> bool:
    return len(found) == len(declared) and not any(
        isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(found, declared, strict=True)
    )


def _unless_repeated(activation: Activation, graph: Graph) -> Activation:
    if not graph.repeated_by:
        return activation
    reason = f"it is in {graph.place}, which may run many times; export {graph.repeated_by} unrolled to convert it"
    return replace(activation, status="refused", reason=reason, spec=None)


def _also_called(network: Network, activation: Activation) -> str:
    """The name of an activation's node, if the activation is named after a module instead; else empty.

    Where a calibration replaced that node, the new nodes say its name.
    """
    said = (network.also_called(node) for node in activation.nodes)
    if name := next(filter(None, said), ""):
        return name
    names = ((network.name_of(node), node_name(node)) for node in activation.nodes)
    return next((own for name, own in names if name == activation.name != own), "")


def _with_unique_names(activations: list[Activation]) -> list[Activation]:
    """Make shared names unique by the names of outputs; one module called twice has such a name, for example."""
    uses = Counter(activation.name for activation in activations)
    renamed: dict[str, Activation] = {}
    for activation in activations:
        name = activation.name if uses[activation.name] == 1 else f"{activation.name}:{activation.output.name}"
        while name in renamed:
            name += "_"
        renamed[name] = replace(activation, name=name)
    return list(renamed.values())
