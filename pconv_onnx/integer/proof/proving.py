"""A proof that a network's sums are sums of integers which its number type holds, in whatever order these are added.

It holds for kernels that only add and multiply: an algorithm that divides, as Winograd's does, is none of them.
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

# What tells of the sizes of a tensor, and not of its values.
_SHAPES = ("Shape", "Size")


@dataclass(frozen=True)
class Bound:
    """How large the partial sums of a node may be.

    Attributes:
        name: of the node.
        op_type: its operator.
        largest: the largest absolute value of any partial sum, in units of the largest power of two that divides all
            terms; infinite where an operand has no bounds.
        limit: from where on its number type no longer holds every such number.
    """

    name: str
    op_type: str
    largest: float
    limit: int

    @property
    def share(self) -> float:
        """How much of what the type holds may be used; 1 and more is too much."""
        return self.largest / self.limit


@dataclass(frozen=True)
class Proof:
    """What is known of a network's sums. The bounds of one are right where those before it are not overflowing.

    Attributes:
        bounds: one a node that sums integers, in topological order.
        islands: by the name of a node that makes floats which may differ between machines, batch sizes or fusions of
            what did not: why, in one short sentence.
        outputs: by output the islands that it descends from.
        tensors: what is known of each tensor that a node of the main graph gives.
    """

    bounds: list[Bound]
    islands: Mapping[str, str]
    outputs: Mapping[str, frozenset[str]]
    tensors: Mapping[str, Known] = field(repr=False)

    @property
    def overflowing(self) -> list[Bound]:
        """Those of nodes whose partial sums may be rounded."""
        return [bound for bound in self.bounds if bound.largest >= bound.limit]

    @property
    def exact(self) -> bool:
        """Whether every output has the same bits in whatever order sums are added."""
        return not self.overflowing and not any(self.outputs.values())

    @property
    def worst(self) -> Bound | None:
        """The bound nearest to its limit, or farthest beyond; None of a network without sums."""
        return max(self.bounds, key=lambda bound: bound.share, default=None)


def prove(network: Network) -> Proof:
    """Prove that sums are exact, as far as they are.

    Args:
        network: a spiking network in mode `parallel` or `folded`, or one of standard operators.
    """
    walk = _Walk(network)
    for node, proto in network.graph.pairs():
        walk.take(node, proto)
    outputs = {info.name: walk.known(info.name).islands for info in network.proto.graph.output}
    return Proof(walk.bounds, walk.islands, outputs, walk.tensors)


class _Walk:
    """What is known so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tables = {tensor.name: tensor for tensor in network.proto.graph.initializer}
        self.bounds: list[Bound] = []
        self.islands: dict[str, str] = {}
        self.tensors: dict[str, Known] = {}

    def known(self, name: str) -> Known:
        """Of a tensor; inputs of the network and constants are what they are."""
        return self.tensors.get(name, Known())

    def take(self, node: Node, proto: onnx.NodeProto) -> None:
        """Take a node in whose inputs have been."""
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
