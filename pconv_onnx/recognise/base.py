"""What a recogniser is and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec

Status = Literal["converted", "needs-calibration", "refused"]


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
    """

    name: str
    encoding: str
    nodes: tuple[Node, ...]
    input: Tensor
    output: Tensor
    status: Status
    reason: str = ""
    spec: QuantizerSpec | None = None

    @property
    def op_types(self) -> list[str]:
        """Operator types of its nodes."""
        return [node.op for node in self.nodes]


# What to do with an activation without levels.
CALIBRATE = (
    "{} has no levels of its own, so it runs on the temporal mean; pass --calibration data.npz --steps T, or quantise "
    "it (QCFS) and fine-tune before the export"
)


class Refusal(Exception):
    """Why a candidate is not converted, in words that a user can act on."""


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
        bounds = [np.zeros(1) if node.op == "Relu" else np.full(1, -np.inf), np.full(1, np.inf)]
        for index, tensor in enumerate(node.inputs[1:]):
            value = constant(tensor) if tensor.name else bounds[index]
            if value is None or value.size != 1 or np.isnan(value).any():
                return cls()
            bounds[index] = value.reshape(1)
        clip = FloatOperation("Clip", tuple(bounds))
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
