"""Removes straight-through estimators, which training puts around quantisers and an export may leave in.

`x + (q(x) − x)` is q(x), and so is every sum in which all but q cancels: signs, order, and an Identity where a gradient
was stopped do not matter, and x may be replaced by something computed from x. In floats the sum is q(x) up to the
rounding of x; around a rounding alone, `z + (⌊z⌋ − z)`, it is exact for every finite z. Source: Bengio et al.,
"Estimating or propagating gradients through stochastic neurons" (2013).
"""

from __future__ import annotations

from collections.abc import Iterator

from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.passes.identities import with_identities
from pconv_onnx.graph.view import Node, Tensor

# Operators that make a value discrete, and those that keep it so.
_DISCRETE = ("Ceil", "DequantizeLinear", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Quant",
             "Round", "Sign")  # fmt: skip
_STILL_DISCRETE = ("Abs", "Add", "Cast", "Clip", "Div", "Identity", "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Where")
# Further element-wise operators.
_ELEMENTWISE = ("And", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "LeakyRelu", "Not", "Or", "Pow",
                "QuantizeLinear", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh")  # fmt: skip
_FARTHEST = 16
# Sums, with the signs of their operands, and how deep they may be nested.
_SIGNS = {"Add": (1, 1), "Sub": (1, -1)}
_DEEPEST = 3
# The most passes over a network: a sum may be within another, but each pass visits every node.
_MOST_PASSES = 8

# Summands, each with its sign.
_Terms = tuple[tuple[Tensor, int], ...]


def without_straight_through(network: Network) -> Network:
    """The network in which such sums are Identities of the quantiser's output; unread nodes are removed."""
    for _ in range(_MOST_PASSES):
        same = {
            node.outputs[0].name: value.name
            for node in network.every_node()
            if node.op in _SIGNS and is_standard(node) and (value := _what_is_left(network, node)) is not None
        }
        if not same:
            break
        # A sum around the rounding is within one around the quantiser.
        network = with_identities(network, same)
    return network


def _what_is_left(network: Network, total: Node) -> Tensor | None:
    """The one summand that does not cancel, if it is a quantiser's and something does cancel; else None."""
    (output,) = total.outputs
    for terms in _readings(output, 1, _DEEPEST):
        left, cancelled = _cancelled(terms)
        if not cancelled or [sign for _, sign in left] != [1]:
            continue
        ((value, _),) = left
        origins = _origins(value)
        related = all(constant(tensor) is None and origins & _origins(tensor) for tensor in cancelled)
        if related and _is_discrete(value, _FARTHEST) and _is_as_large(network, value, output):
            return value
    return None


def _is_as_large(network: Network, tensor: Tensor, total: Tensor) -> bool:
    """Whether a summand has the shape of the sum; if not, it is broadcast."""
    shape = network.shape(tensor)
    return shape is not None and shape == network.shape(total)


def _readings(tensor: Tensor, sign: int, depth: int) -> Iterator[_Terms]:
    """The ways to read a tensor as a sum, beginning with the tensor itself."""
    for _ in range(_FARTHEST):
        node = _only_maker(tensor)
        if node is None or node.op not in ("Identity", "Neg"):
            break
        tensor, sign = node.inputs[0], -sign if node.op == "Neg" else sign
    yield ((tensor, sign),)
    if not depth or node is None or node.op not in _SIGNS:
        return
    parts: list[_Terms] = [()]
    for operand, own in zip(node.inputs, _SIGNS[node.op], strict=True):
        parts = [(*part, *terms) for part in parts for terms in _readings(operand, sign * own, depth - 1)]
    yield from parts


def _only_maker(tensor: Tensor) -> Node | None:
    """The node that makes a tensor; None for inputs and for operators of other domains except quantisers."""
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    return node if node is not None and (is_standard(node) or node.op in _DISCRETE) else None


def _cancelled(terms: _Terms) -> tuple[_Terms, list[Tensor]]:
    """The terms that are left, and the tensors that cancel."""
    left: list[tuple[Tensor, int]] = []
    cancelled = []
    for tensor, sign in terms:
        opposite = next((entry for entry in left if entry[0] is tensor and entry[1] == -sign), None)
        if opposite is None:
            left.append((tensor, sign))
        else:
            left.remove(opposite)
            cancelled.append(tensor)
    return tuple(left), cancelled


def _is_discrete(tensor: Tensor, farthest: int) -> bool:
    """Whether a tensor is discrete: computed from roundings or comparisons, and constants."""
    node = _only_maker(tensor)
    if node is None or not farthest:
        return False
    if node.op in _DISCRETE:
        return True
    # The condition of a Where does not matter for its levels.
    operands = [operand for operand in node.inputs[node.op == "Where" :] if operand.name and constant(operand) is None]
    discrete = (_is_discrete(operand, farthest - 1) for operand in operands)
    return node.op in _STILL_DISCRETE and bool(operands) and all(discrete)


def _origins(tensor: Tensor) -> set[str]:
    """Names of the tensors that a tensor is computed from element by element, and its own; no constants."""
    waiting, found = [(tensor, _FARTHEST)], {tensor.name}
    while waiting:
        current, farthest = waiting.pop(0)
        node = _only_maker(current)
        if node is None or not farthest or node.op not in (*_DISCRETE, *_STILL_DISCRETE, *_ELEMENTWISE):
            continue
        for operand in node.inputs:
            if operand.name and operand.name not in found and constant(operand) is None:
                found.add(operand.name)
                waiting.append((operand, farthest - 1))
    return found
