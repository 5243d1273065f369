"""What a recogniser is and what it finds."""

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

# The encoding of what products read where no activation is: a neuron stands in front of them.
PRODUCT = "product"

# Whether trains of such levels are to have signs.
Signs = Callable[[QuantizerSpec], bool]


def where_zero(spec: QuantizerSpec) -> bool:
    """They are wherever a level above the lowest is zero."""
    return spec.zero > 0


def never(_: QuantizerSpec) -> bool:
    """They are not."""
    return False


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation of the source network, recognised or refused.

    Attributes:
        name: unique in its network; what reports and patterns call it.
        encoding: what it is called, such as `qcfs`.
        nodes: the nodes it is made of, in topological order; where it is not converted perhaps only some of them.
        input: its pre-activation.
        output: its value.
        status: `converted` where `spec` is known.
        reason: why it is not converted; empty where it is.
        spec: its operations, where it is converted.
        bounds: where it has no levels and is clip(x, low, high), the two.
        unit: where it has levels without end, what one adds to its value, `[1]` or `[C]`.
        also_called: its node's own name, where it is called after a module instead; patterns call it so as well.
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


# What to do with an activation without levels.
CALIBRATE = (
    "{} has no levels of its own, so it runs on the temporal mean; pass `calibration='data.npz', steps=T`, or "
    "quantise it (QCFS) and fine-tune before the export"
)
# Of one that falls somewhere, in whose place no neuron can stand.
CALIBRATE_BEHIND = (
    "{} has no levels of its own and does not ascend throughout, so it stays analog, on the temporal mean; pass "
    "`calibration='data.npz', steps=T` for a neuron behind it"
)


class Refusal(Exception):
    """Why a candidate is not converted, in words that a user can act on."""


def number(tensor: Tensor) -> float | None:
    """The value of a constant that is one number; None of others, and of NaN."""
    value = constant(tensor)
    return None if value is None or value.size != 1 or np.isnan(value).any() else float(value.item())


def bounds_of(node: Node) -> tuple[float, float] | None:
    """The bounds of a Relu or Clip, infinite where it is open; None where they are not constant, or several."""
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
    """The Relu or Clip that a quantiser's data come from, if there is one: what it gives lies between constants.

    Attributes:
        node: the Relu or Clip.
        alone: whether nothing else reads it or is made of it.
        operations: what it does; nothing where there is none.
    """

    node: Node | None = None
    alone: bool = False
    operations: tuple[FloatOperation, ...] = ()

    @classmethod
    def find(cls, quantiser: Node, free: Callable[[Node], bool]) -> ClipBefore:
        """That of a quantiser's first input."""
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
        """The node as part of the activation; nothing where it stays, as an output or for other readers."""
        if self.node is None or not self.alone or network.is_output(self.node.outputs[0]):
            return ()
        return (self.node,)


class Recogniser(Protocol):
    """One encoding of quantised activations.

    `pattern` looks at the shape of the graph alone, `check` at constants and types; neither changes anything.
    """

    encoding: str

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> Any | None:
        """The candidate anchored at `node`, or None where this is something else altogether.

        It may take other nodes that are `free`: in the same graph, and not part of a converted activation.
        """

    def check(self, network: Network, match: Any) -> Activation | None:
        """The activation with its QuantizerSpec, or refused with a reason that a user can act on.

        None where its types tell that it is none at all.
        """
