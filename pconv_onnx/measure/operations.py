"""The operations of products in a spiking network, and in its ANN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.fan_out import fan_out, total
from pconv_onnx.graph.products import Product, products, uncounted
from pconv_onnx.graph.windows import Shape
from pconv_onnx.measure.spike_counts import not_zero
from pconv_onnx.plan.spike_driven import operand_in_time, per_sample, runs_in_time
from pconv_onnx.temporal.kinds import STATIC, Kind, Spikes


@dataclass(eq=False)
class LinearOperator:
    """The operations of one linear operator, added up batch by batch.

    Attributes:
        name: what its node is called.
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

    def add(self, macs: int, fan: Array, counts: Array | None) -> None:
        """Take in one batch: the operations of the ANN, the fan-out of its input, and the spike counts of that."""
        self.macs += macs
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
    """A product with what has to be read of it at each batch.

    Attributes:
        product: its node, and what this multiplies.
        index: which of its inputs is counted.
        repeats: the time-steps that the rows of that hold.
        result: what is counted.
    """

    product: Product
    index: int
    repeats: int
    result: LinearOperator

    @property
    def operands(self) -> list[str]:
        """The names of its first two inputs."""
        return [tensor.name for tensor in self.product.node.inputs[:2]]

    @property
    def input(self) -> str:
        """The name of the one that is counted."""
        return str(self.product.node.inputs[self.index].name)

    def add(self, shapes: Mapping[str, Shape], counts: Mapping[str, Array]) -> None:
        """Take in one batch: shapes of tensors, and spike counts of trains."""
        own = [shapes[name] for name in self.operands]
        # Each element takes part in as many at each step as in the ANN.
        fan = fan_out(self.product.node, self.index, own)
        self.result.add(total(fan, own[self.index]) // self.repeats, fan, counts.get(self.input))


def readings(network: Network, kinds: Mapping[str, Kind], has_time_axis: bool) -> list[Reading]:
    """The products of a network, in topological order.

    Args:
        network: a spiking network.
        kinds: of its tensors in time, by name.
        has_time_axis: whether these have rows for each time-step.

    Raises:
        KeyError: what a product in time reads is none of them.
    """
    counted = set(products(network))
    found = {id(product.node): product for product in (*counted, *uncounted(network))}
    read = []
    for product in (found[id(node)] for node in network.nodes if id(node) in found):
        node, index = product.node, operand_in_time(network, product, kinds)
        kind = kinds[node.inputs[index].name] if runs_in_time(product, kinds) else STATIC
        result = LinearOperator(network.name_of(node), node.op, kind, product in counted)
        read.append(Reading(product, index, kind.steps if has_time_axis else 1, result))
    return read
