"""How each mode is written: one row a mode."""

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
    """The rewritten model. Inputs and outputs have the source's names, types and shapes.

    In mode `serial` there are further ones behind them, the membrane potentials of each neuron before and after the
    time-step.

    Args:
        plan: what to write.
        calibration: what its record is to say of how levels were found, if they were.
    """
    return LOWERINGS[plan.mode.name](plan).model(calibration)
