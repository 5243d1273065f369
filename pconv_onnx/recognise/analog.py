"""Activations other than ReLU without a quantiser. They have no levels, so they are listed and not converted.

1. One operator: Clip, LeakyRelu, Sigmoid, Gelu, …
2. A product of a tensor with a gate computed from it, as exporters spell GELU, SiLU, HardSwish and Mish.

Only element-wise functions are listed. Softmax and normalisations mix elements; Erf alone is no activation, and a Clip
with its lower bound above zero guards a division.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.view import Constant, Node, Tensor
from pconv_onnx.recognise.ascending import ascends
from pconv_onnx.recognise.base import CALIBRATE, CALIBRATE_BEHIND, Activation, Status, bounds_of
from pconv_onnx.recognise.bounded import activates, clip_name

# Names of activations, by operator.
_NAMES = {
    "Celu": "CELU",
    "Elu": "ELU",
    "Gelu": "GELU",
    "HardSigmoid": "HardSigmoid",
    "HardSwish": "HardSwish",
    "LeakyRelu": "LeakyReLU",
    "Mish": "Mish",
    "PRelu": "PReLU",
    "Selu": "SELU",
    "Sigmoid": "Sigmoid",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "Swish": "SiLU",
    "Tanh": "Tanh",
    "ThresholdedRelu": "ThresholdedReLU",
}
# Operators that onnxruntime's optimiser writes, in its own domain.
_NAMES_OF_ONNXRUNTIME = {"BiasGelu": "GELU", "FastGelu": "GELU", "Gelu": "GELU", "QuickGelu": "SiLU"}
# Names of the product of a tensor and a gate, by the gate's operator.
_GATED = {"Clip": "HardSwish", "Erf": "GELU", "HardSigmoid": "HardSwish", "Sigmoid": "SiLU", "Tanh": "GELU"}

# Operators that may stand between a tensor and its gate, and how many in a row.
ELEMENTWISE = ("Add", "Div", "Identity", "Mul", "Neg", "Pow", "Softplus", "Sub")
DEPTH = 6


@dataclass(frozen=True, eq=False)
class _Found:
    """An activation: what to call it, the nodes of one path through it, its input, and why no data would help.

    Where it is a Clip with constant bounds, these too.
    """

    name: str
    nodes: tuple[Node, ...]
    input: Tensor
    refusal: str = ""
    bounds: tuple[float, float] | None = None


class Analog:
    """An activation without levels, as the module describes."""

    encoding = "analog"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Found | None:
        """An operator of the tables on something computed, with the product if it is a gate."""
        if node.domain == "com.microsoft":
            found = _operator(node, _NAMES_OF_ONNXRUNTIME)
        elif not is_standard(node):
            return None
        else:
            product = _product(node, free) if node.op in _GATED else None
            found = product or (_clip(node) if node.op == "Clip" else _operator(node, _NAMES))
        return found if found is not None and constant(found.input) is None else None

    def check(self, network: Network, match: _Found) -> Activation | None:
        """Refused, since it has no levels; None if it works on integers."""
        dtype = network.dtype(match.input)
        if dtype is not None and dtype.kind in "iub":
            return None
        status: Status = "refused" if match.refusal else "needs-calibration"
        (output,) = match.nodes[-1].outputs
        name = network.name_of(match.nodes[0])
        found = Activation(name, self.encoding, match.nodes, match.input, output, status, bounds=match.bounds)
        told = CALIBRATE if ascends(found) else CALIBRATE_BEHIND
        return replace(found, reason=match.refusal or told.format(match.name))


def _operator(node: Node, names: dict[str, str]) -> _Found | None:
    return _Found(names[node.op], (node,), node.inputs[0]) if node.op in names else None


def _clip(node: Node) -> _Found | None:
    """A Clip that is an activation, with a constant lower bound that is not above zero or with computed bounds."""
    for tensor in node.inputs[1:3]:
        if tensor.name and constant(tensor) is None and not isinstance(tensor, Constant):
            reason = f"its bound '{tensor.name}' is computed; a Clip with constant bounds can be calibrated"
            return _Found("Clip", (node,), node.inputs[0], reason)
    bounds = bounds_of(node)
    if bounds is None or not activates(bounds):
        return None
    return _Found(clip_name(bounds), (node,), node.inputs[0], bounds=bounds)


def _product(gate: Node, free: Callable[[Node], bool]) -> _Found | None:
    """`x · g(x)`, with constants added and multiplied anywhere, where `gate` is the operator of g."""
    before = [(tensor, nodes) for tensor, nodes in _sources(gate.inputs[0], (), free)]
    value, after = gate.outputs[0], [gate]
    while len(value.outputs) == 1 and len(after) < DEPTH:
        (user,) = value.outputs
        others = [tensor for tensor in user.inputs if tensor is not value]
        if user.op not in ("Add", "Div", "Mul") or len(others) != 1 or not is_standard(user) or not free(user):
            return None
        after.append(user)
        value = user.outputs[0]
        if constant(others[0]) is None:
            for factor, _ in _sources(others[0], (), free) if user.op == "Mul" else ():
                for x, nodes in before:
                    if x is factor:
                        name = "Mish" if any(node.op == "Softplus" for node in nodes) else _GATED[gate.op]
                        return _Found(name, (*nodes, *after, *_scaled(value, free)), x)
            return None
    return None


def _scaled(product: Tensor, free: Callable[[Node], bool]) -> tuple[Node, ...]:
    """The only reader of a product, if it scales by a constant, as TorchScript writes the half of GELU last."""
    if len(product.outputs) != 1 or product.outputs[0].op not in ("Div", "Mul"):
        return ()
    (node,) = product.outputs
    others = [tensor for tensor in node.inputs if tensor is not product]
    value = constant(others[0]) if len(others) == 1 and is_standard(node) and free(node) else None
    divides = node.op == "Div" and node.inputs[0] is not product
    return (node,) if value is not None and value.size == 1 and not divides else ()


def _sources(
    tensor: Tensor, after: tuple[Node, ...], free: Callable[[Node], bool]
) -> Iterator[tuple[Tensor, tuple[Node, ...]]]:
    """A tensor and those that it is computed from element by element, each with the nodes in between."""
    yield tensor, after
    if len(tensor.inputs) != 1 or len(after) == DEPTH:
        return
    (node,) = tensor.inputs
    if node.op in ELEMENTWISE and is_standard(node) and free(node):
        for operand in node.inputs:
            if constant(operand) is None:
                yield from _sources(operand, (node, *after), free)
