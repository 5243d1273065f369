"""The interface of recognisers, and the activations that they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec

Status = Literal["converted", "needs-calibration", "refused"]

# The encoding of tensors that products read and that are no activations; a neuron stands in front of the product.
PRODUCT = "product"

# Whether trains with such levels are signed.
Signs = Callable[[QuantizerSpec], bool]


def where_zero(spec: QuantizerSpec) -> bool:
    """Signed, if a level above the lowest is zero."""
    return spec.zero > 0


def never(_: QuantizerSpec) -> bool:
    """Not signed."""
    return False


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation of the source network, recognised or refused.

    Attributes:
        name: its name in reports and patterns, unique in the network.
        encoding: how it is quantised, such as `qcfs`.
        nodes: its nodes, in topological order; perhaps not all of them if it is not converted.
        input: its pre-activation.
        output: its output.
        status: `converted` if `spec` is known, else `needs-calibration` or `refused`.
        reason: why it is not converted; empty if it is.
        spec: its operations, if it is converted.
        bounds: if it has no levels and is clip(x, low, high), the two bounds.
        unit: if it has levels without end, the difference between two neighbours, `[1]` or `[C]`.
        also_called: its node's own name, if it is named after a module instead; patterns may use it too.
    """

    name: str
    encoding: str
    nodes: tuple[Node, ...]
    input: Tensor
    output: Tensor
    status: Status
    reason: str = ""
    spec: QuantizerSpec | None = None
    bounds: tuple[float, float] | None = None
    unit: Array | None = None
    also_called: str = ""

    @property
    def op_types(self) -> list[str]:
        """Operator types of its nodes."""
        return [node.op for node in self.nodes]


# The reason for an activation without levels, with what to do.
CALIBRATE = (
    "{} has no levels of its own, so it runs on the temporal mean; pass `calibration='data.npz', steps=T`, or "
    "quantise it (QCFS) and fine-tune before the export"
)
# The reason for one that falls somewhere, so that no neuron can replace it.
CALIBRATE_BEHIND = (
    "{} has no levels of its own and does not ascend throughout, so it stays analog, on the temporal mean; pass "
    "`calibration='data.npz', steps=T` for a neuron behind it"
)


class Refusal(Exception):
    """Why a candidate is not converted, in words that a user can act on."""


def number(tensor: Tensor) -> float | None:
    """The value of a constant that is a single number; None for others, and for NaN."""
    value = constant(tensor)
    return None if value is None or value.size != 1 or np.isnan(value).any() else float(value.item())


def bounds_of(node: Node) -> tuple[float, float] | None:
    """The bounds of a Relu or Clip, infinite on an open side; None if they are computed, or not single numbers."""
    bounds = [0.0 if node.op == "Relu" else -np.inf, np.inf]
    for index, tensor in enumerate(node.inputs[1:3]):
        if tensor.name:
            value = number(tensor)
            if value is None:
                return None
            bounds[index] = value
    return bounds[0], bounds[1]


@dataclass(frozen=True, eq=False)
class ClipBefore:
    """The Relu or Clip, if any, in front of a quantiser, so that the quantiser's input lies between constants.

    Attributes:
        node: the Relu or Clip.
        alone: whether the quantiser is its only reader.
        operations: its operations; empty if there is none.
    """

    node: Node | None = None
    alone: bool = False
    operations: tuple[FloatOperation, ...] = ()

    @classmethod
    def find(cls, quantiser: Node, free: Callable[[Node], bool]) -> ClipBefore:
        """The one that makes a quantiser's first input."""
        data = quantiser.inputs[0]
        node = data.inputs[0] if len(data.inputs) == 1 else None
        if node is None or node.op not in ("Relu", "Clip") or not is_standard(node):
            return cls()
        bounds = bounds_of(node)
        if bounds is None:
            return cls()
        clip = FloatOperation("Clip", tuple(np.full(1, bound) for bound in bounds))
        return cls(node, free(node) and len(data.outputs) == 1, (clip,))

    def part(self, network: Network) -> tuple[Node, ...]:
        """The node, if it is part of the activation; empty if it stays as an output or for other readers."""
        if self.node is None or not self.alone or network.is_output(self.node.outputs[0]):
            return ()
        return (self.node,)


class Recogniser(Protocol):
    """One encoding of quantised activations.

    `pattern` looks at the shape of the graph alone, `check` at constants and types; neither changes anything.
    """

    encoding: str

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> Any | None:
        """The candidate anchored at `node`; None if this is something else.

        It may take other nodes that are `free`: in the same graph, and not part of a converted activation.
        """

    def check(self, network: Network, match: Any) -> Activation | None:
        """The activation with its QuantizerSpec, or a refused one with a reason that a user can act on.

        None if its types show that it is no activation.
        """
