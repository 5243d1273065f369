"""The `pconv::SerialSpike` operator: executable reference, function body.

One time-step of integrate-and-fire neurons, the baseline that the parallel neuron is compared with. The contract is
docs/SerialSpike-1.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.neuron.parallel import along_channels as laid_along_channels
from pconv_onnx.operators.bodies import CONSTANTS, along_channels, channels_of, element_type, function
from pconv_onnx.operators.domain import SERIAL_OP_TYPE


def serial_reference(
    current: Array, potential: Array, bias: Array, threshold: Array, reset: Array, levels: Array, *, channel_axis: int
) -> tuple[Array, Array]:
    """The operator in NumPy, as the specification words it.

    Args:
        current: `[B, …]`, of this time-step.
        potential: `[B, …]`, the membrane potential that the last time-step gave; zeros before the first.
        bias: `[R]`, ψ: added to the current of each step.
        threshold: `[R]`, θ − b: the potential at which a neuron fires.
        reset: `[R]`, θ: what a spike subtracts from the potential (soft reset).
        levels: `[R, 2]`, the value of a silent and of a firing neuron.
        channel_axis: axis of `current` for the rows of the tables.

    Returns:
        The spikes `[B, …]`, and the new membrane potential `[B, …]`.

    Raises:
        ValueError: ranks, shapes or attributes that the specification rules out.
    """
    if current.ndim < 1 or potential.shape != current.shape:
        raise ValueError(f"current has shape {list(current.shape)}, the potential {list(potential.shape)}")
    rows = len(threshold)
    if any(table.shape != (rows,) for table in (bias, threshold, reset)) or levels.shape != (rows, 2):
        raise ValueError("bias, threshold, reset and levels do not have the shapes [R], [R], [R] and [R, 2] of one R")
    axis = channels_of(current, levels, channel_axis)
    columns = (column.astype(np.float32).reshape(-1, 1) for column in (bias, threshold, reset))
    wide_bias, wide_threshold, wide_reset = (laid_along_channels(column, axis, current.ndim)[0] for column in columns)
    silent, firing = laid_along_channels(levels, axis, current.ndim)
    charge = potential.astype(np.float32) + (current.astype(np.float32) + wide_bias)
    fires = charge >= wide_threshold
    left = np.where(fires, charge - wide_reset, charge)
    return np.where(fires, firing, silent), left.astype(current.dtype)


def serial_spike(opset: int, dtype: np.dtype[Any]) -> onnx.FunctionProto:
    """The operator as a model-local function of standard operators, for models of that opset and type.

    The negated current is subtracted from the bias, which gives the same bits as a sum: onnxruntime would fold an
    Add into the Conv before it and change bits.

    Args:
        opset: version of the default domain, at least `MIN_OPSET`.
        dtype: type of the currents.
    """
    return function(
        f"""
    <opset_import: ["" : {opset}], domain: "{DOMAIN}">
    {SERIAL_OP_TYPE} <channel_axis> (current, potential, bias, threshold, reset, levels) => (spikes, new_potential)
    {{
        {CONSTANTS}
        third = Constant <value_ints = [2]> ()
        {along_channels("current", "levels")}
        wide_bias = Cast <to = 1> (bias)
        channel_bias = Reshape (wide_bias, along_channels)
        wide_threshold = Cast <to = 1> (threshold)
        channel_threshold = Reshape (wide_threshold, along_channels)
        wide_reset = Cast <to = 1> (reset)
        channel_reset = Reshape (wide_reset, along_channels)
        wide_levels = Cast <to = 1> (levels)
        silent_column = Slice (wide_levels, first, second, second)
        silent = Reshape (silent_column, along_channels)
        firing_column = Slice (wide_levels, second, third, second)
        firing = Reshape (firing_column, along_channels)

        wide_current = Cast <to = 1> (current)
        negative = Neg (wide_current)
        driving = Sub (channel_bias, negative)
        wide_potential = Cast <to = 1> (potential)
        charge = Add (wide_potential, driving)
        fires = GreaterOrEqual (charge, channel_threshold)
        level = Where (fires, firing, silent)
        spikes = Cast <to = {element_type(dtype)}> (level)
        spent = Sub (charge, channel_reset)
        left = Where (fires, spent, charge)
        new_potential = Cast <to = {element_type(dtype)}> (left)
    }}
    """,
        "One time-step of integrate-and-fire neurons with soft reset (docs/SerialSpike-1.md).",
    )
