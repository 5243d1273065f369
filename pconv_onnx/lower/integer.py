"""Modes `integer` and `integer-parallel`: uint8 counts, int8 weights, and neurons inside the layers before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.nesting import tensor_names
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.sketch import sketch
from pconv_onnx.lower.fusing.fusing import fused
from pconv_onnx.lower.fusing.in_time import in_time
from pconv_onnx.lower.lowering import Lowering
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.operators.domain import INTEGER, is_integer
from pconv_onnx.operators.integer_spike import MOST_STEPS
from pconv_onnx.plan.plan import Plan


class IntegerLowering(Lowering):
    """Writes layers of integers from a folded network whose floats hold integers; the record keeps that network."""

    def __init__(self, plan: Plan) -> None:
        """Nothing is written yet."""
        super().__init__(plan)
        self.version = INTEGER

    def model(self, calibration: Mapping[str, Any] | None) -> onnx.ModelProto:
        """The rewritten model, its record included.

        Raises:
            PconvError: no layer can be one of integers.
        """
        found = fused(super().model(calibration))
        model = found.model
        if not any(map(is_integer, model.graph.node)):
            name, reason = next(iter(found.left.items()))
            raise PconvError(
                f"no layer of {self.plan.network.name} can be one of integers: '{name}': {reason}",
                "mode 'folded' takes it; docs/integers.md says which networks layers of integers take",
            )
        model = self.finished(model)
        carriers = sketch(found.carriers, onnx.ModelProto(), model, shapes=True)
        replace(Record.read(model), carriers=carriers).write(model)
        return model

    def finished(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model that is written, from the network of counts."""
        return model


class IntegerParallelLowering(IntegerLowering):
    """Writes the same layers with spike trains instead of counts."""

    def finished(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model in time.

        Raises:
            PconvError: trains have more steps than layers of integers read.
        """
        codings = {
            self.neuron_names[name]: neuron.coding
            for name, neuron in self.plan.neurons.items()
            if isinstance(neuron, ParallelNeuron)
        }
        longest = max((coding.steps for coding in codings.values() if coding.weighted), default=0)
        if longest > MOST_STEPS:
            raise PconvError(
                f"trains of {self.plan.network.name} have {longest} weighted steps, and layers of integers read up to "
                f"{MOST_STEPS}",
                "pass fewer `steps=`, or none",
            )
        return in_time(model, codings, tensor_names(model.graph) | {node.name for node in model.graph.node})
