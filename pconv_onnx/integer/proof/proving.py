"""Proves that a network's sums are sums of integers that its number type holds, in any order of summation.

It holds for kernels that only add and multiply, not for algorithms that divide, such as Winograd's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.view import Node, node_name
from pconv_onnx.integer.proof.rules import transfer
from pconv_onnx.integer.proof.site import Finding, Island, Known, Site, Sum
from pconv_onnx.integer.proof.sums import limit_of
from pconv_onnx.integer.proof.values import Float, Value

# Operators that give a tensor's size, not its values.
_SHAPES = ("Shape", "Size")


@dataclass(frozen=True)
class Bound:
    """How large the partial sums of a node may be.

    Attributes:
        name: of the node.
        op_type: its operator.
        largest: the largest absolute value of any partial sum, in units of the largest power of two that divides all
            terms; infinite where an operand has no bounds.
        limit: the first number from which on its type does not hold every integer.
    """

    name: str
    op_type: str
    largest: float
    limit: int

    @property
    def share(self) -> float:
        """The share of the type's range that may be used; 1 or more is too much."""
        return self.largest / self.limit


@dataclass(frozen=True)
class Proof:
    """The bounds of a network's sums. Those of a sum are right if no sum before it overflows.

    Attributes:
        bounds: a bound for each node that sums integers, in topological order.
        islands: nodes whose floats may differ between machines, batch sizes or fusions although their inputs do not,
            by name, with the reason in one short sentence.
        outputs: for each output, the islands that it depends on.
        tensors: what is known of each output of a node of the main graph.
    """

    bounds: list[Bound]
    islands: Mapping[str, str]
    outputs: Mapping[str, frozenset[str]]
    tensors: Mapping[str, Known] = field(repr=False)

    @property
    def overflowing(self) -> list[Bound]:
        """The bounds of nodes whose partial sums may be rounded."""
        return [bound for bound in self.bounds if bound.largest >= bound.limit]

    @property
    def exact(self) -> bool:
        """Whether every output has the same bits in any order of summation."""
        return not self.overflowing and not any(self.outputs.values())

    @property
    def worst(self) -> Bound | None:
        """The bound nearest to its limit, or farthest beyond it; None if the network has no sums."""
        return max(self.bounds, key=lambda bound: bound.share, default=None)


def prove(network: Network) -> Proof:
    """Prove that sums are exact, or find those that are not.

    Args:
        network: a spiking network in mode `parallel` or `folded`, or one of standard operators.
    """
    walk = _Walk(network)
    for node, proto in network.graph.pairs():
        walk.take(node, proto)
    outputs = {info.name: walk.known(info.name).islands for info in network.proto.graph.output}
    return Proof(walk.bounds, walk.islands, outputs, walk.tensors)


class _Walk:
    """The state: what is known of tensors so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tables = {tensor.name: tensor for tensor in network.proto.graph.initializer}
        self.bounds: list[Bound] = []
        self.islands: dict[str, str] = {}
        self.tensors: dict[str, Known] = {}

    def known(self, name: str) -> Known:
        """What is known of a tensor, also of the network's inputs and constants."""
        return self.tensors.get(name, Known())

    def take(self, node: Node, proto: onnx.NodeProto) -> None:
        """Add a node; those that make its inputs must have been added."""
        site = Site(self.network, node, proto, [self.known(tensor.name) for tensor in node.inputs], self.tables)
        sizes_alone = is_standard(node) and node.op in _SHAPES
        read = () if sizes_alone else (*site.operands, *map(self.known, captured(proto)))
        loose = any(known.value is Float.LOOSE for known in read)
        found, steps = transfer(site)
        value = self._settled(site, found, loose)
        islands = frozenset[str]().union(*(known.islands for known in read))
        if value is Float.LOOSE and not loose:
            islands |= {node_name(node)}
        rest = value if node.op == "Split" else Float.LOOSE if value is Float.LOOSE or loose else Float.FIXED
        for index, tensor in enumerate(node.outputs):
            self.tensors[tensor.name] = Known(rest if index else value, steps, islands)

    def _settled(self, site: Site, found: Finding, loose: bool) -> Value:
        """What comes out, once what was found is written down; with `loose` inputs nobody asks where floats differ."""
        if isinstance(found, Sum):
            dtype = site.dtype if found.dtype is None else found.dtype
            if dtype is None:
                found = Island("its number type is not known")
            else:
                self.bounds.append(Bound(node_name(site.node), site.node.op, found.largest, limit_of(dtype)))
                found = found.value
        if isinstance(found, Island):
            if not loose:
                self.islands[node_name(site.node)] = found.reason
            return Float.LOOSE
        return Float.LOOSE if loose and found is Float.FIXED else found
