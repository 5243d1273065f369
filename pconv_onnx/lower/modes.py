"""The lowering of each mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from pconv_onnx.lower.integer import IntegerLowering, IntegerParallelLowering
from pconv_onnx.lower.lowering import Lowering
from pconv_onnx.lower.serial import SerialLowering
from pconv_onnx.plan.plan import Plan

LOWERINGS: dict[str, type[Lowering]] = {
    "parallel": Lowering,
    "folded": Lowering,
    "serial": SerialLowering,
    "integer": IntegerLowering,
    "integer-parallel": IntegerParallelLowering,
}


def lower(plan: Plan, calibration: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """Write the rewritten model. Inputs and outputs have the source's names, types and shapes.

    In mode `serial` further ones follow, the membrane potentials of each neuron before and after the
    time-step.

    Args:
        plan: the plan of the network.
        calibration: how levels were found, for the record; None if there was no calibration.
    """
    return LOWERINGS[plan.mode.name](plan).model(calibration)
