"""A rounding and the operators with constants around it: how far they reach, and which parts may be an activation.

Nothing is read here but the shape of the graph; constants are in `operands`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.recognise.base import Refusal, called

# One letter a node: scaling, clipping, Add; Identity is passed over. Read in the direction of the data.
LETTERS = {"Mul": "S", "Div": "S", "Clip": "C", "Max": "C", "Min": "C", "Relu": "C", "Add": "A", "Identity": ""}
_LONGEST = 12


@dataclass(frozen=True, eq=False)
class Link:
    """A node of the chain around a rounding: `tensor` is its other end, away from there."""

    node: gs.Node
    tensor: gs.Tensor

    @property
    def letter(self) -> str:
        """What the node does, as `LETTERS` has it."""
        return LETTERS[self.node.op]


@dataclass(frozen=True, eq=False)
class Chain:
    """A rounding, alone or with the nodes of a straight-through gradient, and a possible head and tail around it."""

    head: tuple[Link, ...]
    rounding: tuple[gs.Node, ...]
    tail: tuple[Link, ...]

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        """All nodes, in topological order."""
        return (*(link.node for link in self.head), *self.rounding, *(link.node for link in self.tail))


class Shared(Refusal):
    """A value within the chain is used elsewhere too: what is on its other side belongs to the neighbours."""


def chain_around(node: gs.Node, free: Callable[[gs.Node], bool]) -> Chain | None:
    """The longest chain around a rounding node; None where it has no head or no tail."""

    def belongs(other: gs.Node) -> bool:
        return other.op in LETTERS and is_standard(other) and free(other)

    rounding = _straight_through(node, free) or (node,)
    head = tuple(_walk(node.inputs[0], partial(_upstream, belongs)))[::-1]
    tail = tuple(_walk(rounding[-1].outputs[0], partial(_downstream, belongs)))
    return Chain(head, rounding, tail) if head and tail else None


def _straight_through(rounding: gs.Node, free: Callable[[gs.Node], bool]) -> tuple[gs.Node, ...] | None:
    """The nodes of `z + (⌊z⌋ − z)`, in that order, where this rounding is part of it."""
    z, code = rounding.inputs[0], rounding.outputs[0]
    for difference in code.outputs:
        if difference.op != "Sub" or difference.inputs[0] is not code or difference.inputs[1] is not z:
            continue
        nodes = [rounding, difference]
        # Where a gradient was stopped.
        while len(nodes[-1].outputs[0].outputs) == 1 and nodes[-1].outputs[0].outputs[0].op == "Identity":
            nodes.append(nodes[-1].outputs[0].outputs[0])
        for total in nodes[-1].outputs[0].outputs:
            if total.op == "Add" and any(tensor is z for tensor in total.inputs):
                nodes.append(total)
                return tuple(nodes) if all(is_standard(node) and free(node) for node in nodes) else None
    return None


def _walk(tensor: gs.Tensor, follow: Callable[[gs.Tensor], Link | None]) -> Iterator[Link]:
    for _ in range(_LONGEST):
        link = follow(tensor)
        if link is None:
            return
        yield link
        tensor = link.tensor


def _upstream(belongs: Callable[[gs.Node], bool], tensor: gs.Tensor) -> Link | None:
    if len(tensor.inputs) != 1 or not belongs(tensor.inputs[0]):
        return None
    node = tensor.inputs[0]
    data = data_input(node)
    return None if data is None else Link(node, data)


def _downstream(belongs: Callable[[gs.Node], bool], tensor: gs.Tensor) -> Link | None:
    for node in tensor.outputs:
        if belongs(node) and node.op != "Add" and data_input(node) is tensor:
            return Link(node, node.outputs[0])
    return None


def data_input(node: gs.Node) -> gs.Tensor | None:
    """The one input that is not a constant; None where there is no such, or where it divides or bounds."""
    if node.op in ("Clip", "Div", "Identity", "Relu"):
        data, *others = node.inputs
        return data if constant(data) is None and all(other is not data for other in others) else None
    varying = [tensor for tensor in node.inputs if constant(tensor) is None]
    return varying[0] if len(varying) == 1 and len(node.inputs) == 2 else None


def shorter_at_both_ends(chain: Chain, other: Chain) -> bool:
    """Whether one chain has fewer nodes than the other before its rounding, and after it."""
    return len(chain.head) < len(other.head) and len(chain.tail) < len(other.tail)


def refuse_shared(network: Network, chain: Chain) -> None:
    """Refuse a chain that others look into.

    Raises:
        Shared: a value within it is used by a node outside, or is an output of the model.
    """
    own = set(map(id, chain.nodes))
    inner = [node.outputs[0] for node in chain.nodes[:-1]]
    for tensor in inner:
        if network.is_output(tensor):
            raise Shared(f"its intermediate value '{tensor.name}' is also an output of the model")
        others = [node for node in tensor.outputs if id(node) not in own]
        if others:
            told = ", ".join(f"{node.op} '{called(node)}'" for node in others)
            raise Shared(f"its intermediate value '{tensor.name}' is also used by {told}")


def broken_off(chain: Chain) -> str:
    """What else to tell of a chain that is refused: a Cast at its ends, which may have cut it in two."""
    for node in (*chain.head[0].tensor.inputs, *chain.tail[-1].tensor.outputs):
        if node.op == "Cast" and is_standard(node):
            return f"; Cast '{called(node)}' ends the chain: export it in one type throughout"
    return ""


def name_of(network: Network, chain: Chain) -> str:
    """The module that it comes from, or that owns θ (`layer1.0.act1` for `layer1.0.act1.up`), else the rounding."""
    module = network.module(chain.rounding[0])
    if module:
        return module
    for link in (*chain.tail[::-1], *chain.head):
        if link.letter == "S":
            for tensor in link.node.inputs:
                owner, _, parameter = tensor.name.rpartition(".")
                # Names with a slash or a colon are the exporter's own.
                if constant(tensor) is not None and owner and parameter and not re.search("[/:]", tensor.name):
                    return owner
    return called(chain.rounding[0])
