"""Operations of linear operators, as their inputs in time leave them of the ANN's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.fan_out import LINEAR, UNCOUNTED, fan_out, total
from pconv_onnx.graph.nesting import captured, every_node, subgraphs
from pconv_onnx.graph.view import Node
from pconv_onnx.graph.windows import Shape
from pconv_onnx.measure.spike_counts import not_zero
from pconv_onnx.temporal.kinds import STATIC, Kind, Spikes


@dataclass(eq=False)
class LinearOperator:
    """The operations of one linear operator, added up batch by batch.

    Attributes:
        name: name of its node.
        op_type: its ONNX operator.
        kind: what its input is in time.
        counted: whether its operations can be counted; those of bodies and a few operators cannot.
        macs: multiply-accumulates of the ANN.
        synaptic_operations: non-zero input values of all steps, each times its fan-out; 0 where no spikes come in.
    """

    name: str
    op_type: str
    kind: Kind = field(repr=False)
    counted: bool = True
    macs: int = 0
    synaptic_operations: int = 0

    @property
    def multiply_accumulates(self) -> int:
        """Those that remain: none on spikes, the ANN's at each step on a current, and once on what is static."""
        return 0 if isinstance(self.kind, Spikes) else self.kind.steps * self.macs

    def add(self, fan: Array, shape: Shape, counts: Array | None) -> None:
        """Take in one batch: the fan-out of its input, which has that shape without time, and its spike counts."""
        self.macs += total(fan, shape)
        if counts is not None and isinstance(self.kind, Spikes) and fan.size:
            values = not_zero(counts, self.kind)
            self.synaptic_operations += int((values.reshape(-1, *fan.shape).sum(axis=0) * fan).sum())

    def summary(self, samples: int) -> dict[str, Any]:
        """Its row in the JSON document."""
        operations = {key: getattr(self, key) for key in ("macs", "synaptic_operations", "multiply_accumulates")}
        return {
            "name": self.name,
            "op_type": self.op_type,
            "input": type(self.kind).__name__.lower(),
            **{key: per_sample(value, samples) if self.counted else None for key, value in operations.items()},
        }


@dataclass(frozen=True, eq=False)
class Reading:
    """A linear operator with what has to be read of it at each batch.

    Attributes:
        node: its node.
        operands: the names of its first two inputs.
        index: which of them is its input.
        repeats: the time-steps that the rows of its input hold.
        result: what is counted.
    """

    node: Node
    operands: tuple[str, ...]
    index: int
    repeats: int
    result: LinearOperator

    @property
    def input(self) -> str:
        """Its name."""
        return self.operands[self.index]

    def add(self, shapes: Mapping[str, Shape], counts: Mapping[str, Array]) -> None:
        """Take in one batch: shapes of tensors, and spike counts of trains."""
        own = [shapes[name] for name in self.operands]
        own[self.index] = (own[self.index][0] // self.repeats, *own[self.index][1:])
        self.result.add(fan_out(self.node, self.index, own), own[self.index], counts.get(self.input))


def readings(network: Network, kinds: Mapping[str, Kind], has_time_axis: bool) -> list[Reading]:
    """The linear operators that depend on the inputs of the network, in topological order.

    Args:
        network: a spiking network.
        kinds: of its tensors in time, by name.
        has_time_axis: whether these have rows for each time-step.

    Raises:
        KeyError: the input of an operator in time is none of them.
    """
    found = []
    for node, proto in network.graph.pairs():
        counted = is_standard(node) and node.op in LINEAR
        listed = counted or (is_standard(node) and node.op in UNCOUNTED) or _linear_inside(proto)
        if not listed or network.computed_from_inputs.isdisjoint({*proto.input, *captured(proto)}):
            continue
        operands = tuple(proto.input[:2])
        in_time = proto.output[0] in kinds
        depends = kinds if in_time else network.computed_from_inputs
        # Weights of a convolution are the second; of a product it may be either.
        either = node.op == "MatMul" or not counted
        index = 1 if either and operands[0] not in depends and operands[-1] in depends else 0
        kind = kinds[operands[index]] if in_time else STATIC
        result = LinearOperator(node.name or proto.output[0], node.op, kind, counted)
        found.append(Reading(node, operands, index, kind.steps if has_time_axis else 1, result))
    return found


def _linear_inside(node: onnx.NodeProto) -> bool:
    """Whether a linear operator is in the bodies of a node."""
    inner = (child for body in subgraphs(node) for child in every_node(body))
    return any(child.op_type in LINEAR or child.op_type in UNCOUNTED for child in inner)


def per_sample(value: int, samples: int) -> int | float:
    """The share of one sample."""
    return value / samples if value % samples else value // samples
