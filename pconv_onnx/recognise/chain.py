"""A rounding and the operators with constants around it, and the parts of this chain that may be an activation.

Only the structure of the graph is read here; `operands` reads constants.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import numpy as np

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.view import Node, Tensor, called, node_name
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Refusal

# One letter for each node, in the direction of the data: scaling, clipping, adding, casting. Identity has none.
LETTERS = {
    "Mul": "S", "Div": "S", "Clip": "C", "Max": "C", "Min": "C", "Relu": "C", "Where": "C", "Add": "A", "Sub": "A",
    "Cast": "T", "Identity": "",
}  # fmt: skip
# The types that a Cast in a chain may convert to.
FLOATS = (*SUM_TYPES, np.dtype(np.float64))
# Operators whose data are the first operand; with operands swapped they are something else.
_DATA_FIRST = ("Cast", "Clip", "Div", "Identity", "Relu")
_GREATER, _LESS = ("Greater", "GreaterOrEqual"), ("Less", "LessOrEqual")
_LONGEST = 12
# How many other readers of a value a refusal names.
_MOST_TOLD = 3
# A scaling may be split in two, and so may an addition; more of them at one end are not all the quantiser's.
_MOST = {"S": 2, "A": 2}


@dataclass(frozen=True, eq=False)
class Selection:
    """A Where that is a Max or Min of data and a constant, such as `x > c ? c : x`."""

    op_type: Literal["Max", "Min"]
    data: Tensor
    comparison: Node
    compared: Tensor
    chosen: Tensor


def selection(node: Node) -> Selection | None:
    """The selection that a Where is; None if it is none."""
    condition, positive, negative = node.inputs
    if len(condition.inputs) != 1 or condition.inputs[0].op not in (*_GREATER, *_LESS):
        return None
    comparison = condition.inputs[0]
    left, right = comparison.inputs
    for data, chosen in ((positive, negative), (negative, positive)):
        if (data is left or data is right) and constant(data) is None:
            compared = right if data is left else left
            keeps_greater = ((comparison.op in _GREATER) == (data is left)) == (data is positive)
            if constant(compared) is None or constant(chosen) is None:
                return None
            return Selection("Max" if keeps_greater else "Min", data, comparison, compared, chosen)
    return None


@dataclass(frozen=True, eq=False)
class Link:
    """An operator of the chain around a rounding: `tensor` is its other end, away from there.

    It is one node, or two: a Where with its comparison.
    """

    nodes: tuple[Node, ...]
    tensor: Tensor

    @property
    def node(self) -> Node:
        """The node that makes the value."""
        return self.nodes[-1]

    @property
    def letter(self) -> str:
        """The letter for what the node does, from `LETTERS`."""
        return LETTERS[self.node.op]


@dataclass(frozen=True, eq=False)
class Chain:
    """A rounding, and a possible head and tail around it."""

    head: tuple[Link, ...]
    rounding: Node
    tail: tuple[Link, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, in topological order."""
        head, tail = (tuple(node for link in links for node in link.nodes) for links in (self.head, self.tail))
        return (*head, self.rounding, *tail)

    @property
    def start(self) -> Tensor:
        """Its input."""
        return self.head[0].tensor if self.head else self.rounding.inputs[0]

    @property
    def end(self) -> Tensor:
        """Its output."""
        return self.tail[-1].tensor if self.tail else self.rounding.outputs[0]

    def cuts(self) -> list[Chain]:
        """Its parts that may be a quantiser, longest first; the rest belongs to the neighbouring layers."""
        heads = [head for start in range(len(self.head) + 1) if _is_end(head := self.head[start:], head[:1])]
        tails = [tail for end in range(len(self.tail) + 1) if _is_end(tail := self.tail[:end], tail[-1:])]
        # A Cast at only one end belongs to a neighbour.
        parts = [
            Chain(head, self.rounding, tail)
            for head in heads
            for tail in tails
            if _is_cast(head[:1]) == _is_cast(tail[-1:])
        ]
        return sorted(parts, key=lambda part: -len(part.nodes))

    def is_within(self, other: Chain) -> bool:
        """Whether another chain around the same rounding extends beyond it at both ends."""
        return len(self.head) < len(other.head) and len(self.tail) < len(other.tail)


def _is_cast(links: tuple[Link, ...]) -> bool:
    return any(link.letter == "T" for link in links)


def _is_end(links: tuple[Link, ...], outermost: tuple[Link, ...]) -> bool:
    letters = "".join(link.letter for link in links)
    return all(link.letter for link in outermost) and all(letters.count(kind) <= most for kind, most in _MOST.items())


class Foreign(Refusal):
    """A part of the chain does not belong to the quantiser, nor does anything beyond it.

    Its value is used elsewhere too, or it adds an infinity, as calibration does for channels that never fire.
    """


def chain_around(node: Node, free: Callable[[Node], bool]) -> Chain | None:
    """The longest chain around a rounding; None if nothing bounds it and it has operators on one side only."""

    def belongs(other: Node) -> bool:
        return is_standard(other) and free(other)

    head = tuple(_walk(node.inputs[0], partial(_upstream, belongs)))[::-1]
    tail = tuple(_walk(node.outputs[0], partial(_downstream, belongs)))
    chain = Chain(head, node, tail)
    bounded = node.op == "Sign" or any(link.letter == "C" for link in (*head, *tail))
    return chain if bounded or (head and tail) else None


def _walk(tensor: Tensor, follow: Callable[[Tensor], Link | None]) -> Iterator[Link]:
    for _ in range(_LONGEST):
        link = follow(tensor)
        if link is None:
            return
        yield link
        tensor = link.tensor


def _upstream(belongs: Callable[[Node], bool], tensor: Tensor) -> Link | None:
    if len(tensor.inputs) != 1:
        return None
    node = tensor.inputs[0]
    data = data_input(node)
    nodes = _nodes_of(node)
    return Link(nodes, data) if data is not None and all(map(belongs, nodes)) else None


def _downstream(belongs: Callable[[Node], bool], tensor: Tensor) -> Link | None:
    for node in tensor.outputs:
        if data_input(node) is tensor and all(map(belongs, _nodes_of(node))):
            return Link(_nodes_of(node), node.outputs[0])
    return None


def _nodes_of(node: Node) -> tuple[Node, ...]:
    chosen = selection(node) if node.op == "Where" else None
    return (node,) if chosen is None else (chosen.comparison, node)


def data_input(node: Node) -> Tensor | None:
    """The one input of a node that is not a constant; None if there is none, or it is in a constant's place."""
    if node.op not in LETTERS:
        return None
    if node.op == "Where":
        chosen = selection(node)
        return None if chosen is None else chosen.data
    if node.op == "Cast" and element_type(node.attrs["to"]) not in FLOATS:
        return None
    if node.op in _DATA_FIRST:
        data, *others = node.inputs
        return data if constant(data) is None and all(other is not data for other in others) else None
    varying = [tensor for tensor in node.inputs if constant(tensor) is None]
    if len(varying) != 1 or len(node.inputs) != 2 or (node.op == "Sub" and varying[0] is not node.inputs[0]):
        return None
    return varying[0]


def refuse_shared(network: Network, nodes: Sequence[Node]) -> None:
    """Raise if values between these nodes, in topological order, are used elsewhere.

    Raises:
        Foreign: a value within it is used by a node outside, or is an output of the model.
    """
    own = set(map(id, nodes))
    inner = [node.outputs[0] for node in nodes[:-1]]
    for tensor in inner:
        if network.is_output(tensor):
            raise Foreign(f"its intermediate value '{tensor.name}' is also an output of the model")
        # Not all readers are named, since as many candidates may share them.
        others = list(islice((node for node in tensor.outputs if id(node) not in own), _MOST_TOLD + 1))
        if others:
            told = ", ".join(map(called, others[:_MOST_TOLD])) + (" and others" if len(others) > _MOST_TOLD else "")
            raise Foreign(f"its intermediate value '{tensor.name}' is also used by {told}")


def broken_off(chain: Chain) -> str:
    """An addition to the reason of a refused chain: what may have ended it too early."""
    for node in filter(is_standard, (*chain.start.inputs, *chain.end.outputs)):
        if node.op == "Cast":
            return f"; Cast '{node_name(node)}' ends the chain: export it in floats throughout"
    for node in filter(is_standard, chain.start.inputs):
        # PACT's ½(|x| − |x − α| + α) is not monotone in floats: of a large x it makes α/2.
        ramps = node.op == "Sub" and all(part.inputs and part.inputs[0].op in ("Abs", "Relu") for part in node.inputs)
        if ramps or node.op == "Where":
            return (
                f"; {node.op} '{node_name(node)}' before it is no clip for every float: export clamp(x, 0, α) instead"
            )
    return ""


def name_of(network: Network, chain: Chain) -> str:
    """The name of its module or, from constants, of the module that owns θ (`layer1.0.act1` of `layer1.0.act1.up`)."""
    module = network.module(chain.rounding)
    if module:
        return module
    for link in (*chain.tail[::-1], *chain.head):
        if link.letter == "S":
            owner = owner_of_constants(link.node)
            if owner:
                return owner
    return network.name_of(chain.rounding)


def owner_of_constants(node: Node) -> str:
    """The module in the name of one of a node's constants; empty if there is none."""
    for tensor in node.inputs:
        owner, _, parameter = tensor.name.rpartition(".")
        # Names with a slash or a colon are made up by the exporter.
        if constant(tensor) is not None and owner and parameter and not re.search("[/:]", tensor.name):
            return str(owner)
    return ""
