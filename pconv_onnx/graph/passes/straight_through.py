"""Straight-through gradients: what training adds to a quantiser so that gradients pass it, and an export may leave in.

`x + (q(x) − x)` is q(x), and so is every other sum in which all but q cancels: signs, order and an Identity where a
gradient was stopped do not matter. In floats the sum is q(x) up to the rounding of x; around a rounding alone,
`z + (⌊z⌋ − z)`, in every bit of a finite z. Source: Bengio et al., "Estimating or propagating gradients through
stochastic neurons" (2013).
"""

from __future__ import annotations

from collections.abc import Iterator

from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.passes.identities import with_identities
from pconv_onnx.graph.view import Node, Tensor

# What makes a value discrete, and what may follow before it is added.
_DISCRETE = ("Ceil", "DequantizeLinear", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Quant",
             "Round", "Sign")  # fmt: skip
_AFTER_IT = ("Abs", "Add", "Cast", "Clip", "Div", "Identity", "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Where")
_FARTHEST = 16
# Sums, each with the signs of its operands, and how many may be within each other.
_SIGNS = {"Add": (1, 1), "Sub": (1, -1)}
_DEEPEST = 3

# Summands, each with its sign.
_Terms = tuple[tuple[Tensor, int], ...]


def without_straight_through(network: Network) -> Network:
    """The network in which such a sum is an Identity of the quantiser's output; what nothing reads then goes."""
    same = {
        node.outputs[0].name: value.name
        for node in network.every_node()
        if node.op in ("Add", "Sub") and is_standard(node) and (value := _what_is_left(network, node)) is not None
    }
    return with_identities(network, same)


def _what_is_left(network: Network, total: Node) -> Tensor | None:
    """The one summand that does not cancel, where something does and that one is a quantiser's."""
    (output,) = total.outputs
    for terms in _readings(output, 1, _DEEPEST):
        left = _not_cancelled(terms) if len(terms) > 1 else ()
        if [sign for _, sign in left] == [1]:
            ((value, _),) = left
            if _is_discrete(value) and _is_as_large(network, value, output):
                return value
    return None


def _is_as_large(network: Network, tensor: Tensor, total: Tensor) -> bool:
    """Whether a summand has the shape of the sum: another could be broadcast to what cancels."""
    shape = network.shape(tensor)
    return shape is not None and shape == network.shape(total)


def _readings(tensor: Tensor, sign: int, depth: int) -> Iterator[_Terms]:
    """The ways to read a tensor as a sum, the whole first."""
    while (node := _only_maker(tensor)) is not None and node.op in ("Identity", "Neg"):
        tensor, sign = node.inputs[0], -sign if node.op == "Neg" else sign
    yield ((tensor, sign),)
    if not depth or node is None or node.op not in _SIGNS:
        return
    parts: list[_Terms] = [()]
    for operand, own in zip(node.inputs, _SIGNS[node.op], strict=True):
        parts = [(*part, *terms) for part in parts for terms in _readings(operand, sign * own, depth - 1)]
    yield from parts


def _only_maker(tensor: Tensor) -> Node | None:
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    return node if node is not None and is_standard(node) else None


def _not_cancelled(terms: _Terms) -> _Terms:
    left: list[tuple[Tensor, int]] = []
    for tensor, sign in terms:
        opposite = next((entry for entry in left if entry[0] is tensor and entry[1] == -sign), None)
        if opposite is None:
            left.append((tensor, sign))
        else:
            left.remove(opposite)
    return tuple(left)


def _is_discrete(tensor: Tensor) -> bool:
    """Whether a tensor is computed element by element from what is discrete."""
    waiting, seen = [(tensor, 0)], set()
    while waiting:
        current, distance = waiting.pop(0)
        node = current.inputs[0] if len(current.inputs) == 1 else None
        if node is None or id(node) in seen or distance == _FARTHEST:
            continue
        seen.add(id(node))
        if node.op in _DISCRETE:
            return True
        if node.op in _AFTER_IT and is_standard(node):
            waiting += [(operand, distance + 1) for operand in node.inputs]
    return False
