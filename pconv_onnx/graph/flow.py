"""What depends on what in a graph, bodies included."""

from __future__ import annotations

from collections.abc import Iterator

from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import captured, every_node
from pconv_onnx.graph.network import Graph


def flow(network: Network, graph: Graph) -> Iterator[tuple[set[str], set[str]]]:
    """The tensors given and all that depend on any of them, in topological order."""
    for node, proto in graph.pairs():
        inputs, outputs = ({name for name in names if name} for names in (proto.input, proto.output))
        for body in network.bodies(node):
            if body.repeated_by:
                # A pass of a loop may read what the one before computed: everything inside depends on all inputs.
                inside = {name for inner in every_node(body.proto) for name in inner.output if name}
                yield inputs | captured(proto), inside | {info.name for info in body.proto.input}
                inputs |= inside
            else:
                yield from flow(network, body)
                inputs |= {info.name for info in body.proto.output}
        yield inputs | captured(proto), outputs
