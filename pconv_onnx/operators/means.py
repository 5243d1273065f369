"""Means over time, as functions of standard operators: over all time-steps, and over the first 1, 2, … of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.operators.bodies import CONSTANTS, element_type, function, reshape
from pconv_onnx.operators.domain import MEAN_OP_TYPE, RUNNING_MEAN_OP_TYPE


def running_mean(opset: int, dtype: np.dtype[Any]) -> onnx.FunctionProto:
    """`pconv::RunningMean`, `[T·B, …]` to `[T, B, …]`: row t is the mean of the first t time-steps."""
    return function(
        f"""
    <opset_import: ["" : {opset}], domain: "{DOMAIN}">
    {RUNNING_MEAN_OP_TYPE} <steps> (current) => (means)
    {{
        {CONSTANTS}
        count = Constant <value_int: int = @steps> ()
        {_running_sum(opset, dtype)}
        after = Add (count, one)
        step = Range (one, after, one)
        rank = Shape (by_time_shape)
        ones = Expand (one, rank)
        divisor_shape = ScatterElements (ones, first, count_1d)
        divisor_by_time = Reshape (step, divisor_shape)
        divisor = Cast <to = {element_type(SUM_TYPES[dtype])}> (divisor_by_time)
        quotient = Div (running, divisor)
        means = Cast <to = {element_type(dtype)}> (quotient)
    }}
    """,
        "The means over the first 1, 2, … of all time-steps (docs/RunningMean-1.md).",
    )


def _running_sum(opset: int, dtype: np.dtype[Any]) -> str:
    """`running` `[T, B, …]` of `current` `[T·B, …]`, in order and in the type of `SUM_TYPES`."""
    return f"""
                shape = Shape (current)
                rows = Slice (shape, first, second)
                sample = Slice (shape, second, end)
                count_1d = Reshape (count, second)
                batch = Div (rows, count_1d)
                wide = Cast <to = {element_type(SUM_TYPES[dtype])}> (current)
                {reshape(opset, "by_time", "wide", ("count_1d", "batch", "sample"))}
                running = CumSum (by_time, zero)"""


def temporal_mean_body(opset: int, dtype: np.dtype[Any]) -> onnx.FunctionProto:
    """`[T·B, …]` to `[B, …]`. A running sum, since the order of ReduceSum is not defined.

    The If gives float32, which it can in every opset, and which holds half types and values rounded to them.
    """
    return function(
        f"""
    <opset_import: ["" : {opset}], domain: "{DOMAIN}">
    {MEAN_OP_TYPE} <steps> (current) => (mean)
    {{
        {CONSTANTS}
        count = Constant <value_int: int = @steps> ()
        no_time_axis = Equal (count, one)
        wide_mean = If (no_time_axis) <
            then_branch = static () => (float[] value)
            {{
                value = Cast <to = 1> (current)
            }},
            else_branch = over_time () => (float[] average)
            {{
                {_running_sum(opset, dtype)}
                last = Sub (count, one)
                total = Gather <axis = 0> (running, last)
                divisor = Cast <to = {element_type(SUM_TYPES[dtype])}> (count)
                quotient = Div (total, divisor)
                average = Cast <to = 1> (quotient)
            }}
        >
        mean = Cast <to = {element_type(dtype)}> (wide_mean)
    }}
    """,
        "The mean over all time-steps (docs/TemporalMean-1.md).",
    )
