"""Mode `serial`: integrate-and-fire neurons for one time-step, with membrane potentials as inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import helper

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.nesting import unused
from pconv_onnx.lower.lowering import GraphLowering, Lowering
from pconv_onnx.neuron.serial import SerialNeuron
from pconv_onnx.operators.domain import SERIAL_OP_TYPE
from pconv_onnx.operators.serial_spike import serial_spike
from pconv_onnx.plan.plan import Plan, Planned


class SerialLowering(Lowering):
    """Writes `SerialSpike` nodes. The membrane potentials follow the source's inputs and outputs."""

    def __init__(self, plan: Plan) -> None:
        """Nothing is written yet."""
        super().__init__(plan)
        self._potentials: dict[str, str] = {}
        self._infos: dict[str, onnx.ValueInfoProto] = {}

    def neuron(self, graph: GraphLowering, activation: Planned) -> None:
        """Write the neuron of an activation."""
        neuron, name = self.plan.neurons[activation.name], self.neuron_names[activation.name]
        assert isinstance(neuron, SerialNeuron)
        tables = [
            graph.initializer(f"{name}/{table}", getattr(neuron, table))
            for table in ("bias", "threshold", "reset", "levels")
        ]
        before, after = (unused(f"{name}/{which}", self.names) for which in ("potential", "new_potential"))
        element = helper.np_dtype_to_tensor_dtype(neuron.levels.dtype)
        self._potentials[before] = after
        for potential in (before, after):
            shape = self.plan.network.shapes.get(activation.input)
            self._infos[potential] = helper.make_tensor_value_info(potential, element, shape)
        node = helper.make_node(
            SERIAL_OP_TYPE,
            [activation.input, before, *tables],
            [activation.output, after],
            name=name,
            domain=DOMAIN,
            channel_axis=1 if neuron.channel_axis is None else neuron.channel_axis,
        )
        graph.nodes.append(node)

    def functions(self) -> list[onnx.FunctionProto]:
        """The operator in standard ones."""
        return [serial_spike(self.plan.network.opset, self.plan.dtype)]

    def add_ends(self, graph: onnx.GraphProto) -> None:
        """Add the potentials."""
        for before, after in self._potentials.items():
            graph.input.append(self._infos[before])
            graph.output.append(self._infos[after])

    @property
    def potentials(self) -> Mapping[str, str]:
        """Membrane potentials: for each input, the output that the next time-step takes there."""
        return self._potentials
