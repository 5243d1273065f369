"""Recognition of quantised activations: one module per encoding, tried in the order of `RECOGNISERS`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from pconv_onnx.graph import Network
from pconv_onnx.recognise.base import Activation, Recogniser
from pconv_onnx.recognise.qcfs import Qcfs
from pconv_onnx.recognise.relu import Relu

RECOGNISERS: tuple[Recogniser, ...] = (Qcfs(), Relu())

__all__ = ["RECOGNISERS", "Activation", "recognise"]


def recognise(network: Network) -> list[Activation]:
    """Every activation of the network, converted or not, in topological order.

    A node belongs to one activation at most: to the first recogniser that converts it.
    """
    position = {id(node): index for index, node in enumerate(network.nodes)}
    claimed: set[int] = set()
    found: list[Activation] = []
    for recogniser in RECOGNISERS:
        for node in network.nodes:
            if id(node) in claimed or (match := recogniser.pattern(network, node)) is None:
                continue
            activation = recogniser.check(network, match)
            if claimed.isdisjoint(map(id, activation.nodes)):
                claimed.update(map(id, activation.nodes))
                found.append(activation)
    found.sort(key=lambda activation: position[id(activation.nodes[0])])
    return _with_unique_names(found)


def _with_unique_names(activations: list[Activation]) -> list[Activation]:
    """Activations whose name is shared (one module called twice, say) are told apart by their output."""
    uses = Counter(activation.name for activation in activations)
    return [
        replace(activation, name=f"{activation.name}:{activation.output.name}")
        if uses[activation.name] > 1
        else activation
        for activation in activations
    ]
