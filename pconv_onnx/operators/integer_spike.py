"""Layers of integer weights on spike counts: executable reference, function bodies.

The contract is docs/IntegerSpike-3.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx.parser

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.operators.domain import (
    INTEGER,
    INTEGER_CONV,
    INTEGER_GEMM,
    INTEGER_SPIKE,
    INTEGER_SPIKE_CONV,
    INTEGER_SPIKE_GEMM,
    OP_TYPE,
)

# The most counts above zero that uint8 holds.
MOST = 255


def count_of(sums: Array, thresholds: Array) -> Array:
    """How many thresholds sums reach.

    Args:
        sums: `[…, M]`.
        thresholds: `[M, S]` or `[1, S]`, ascending.
    """
    return (sums[..., np.newaxis] >= thresholds).sum(axis=-1).astype(np.uint8)


def sums_of_convolution(
    counts: Array,
    weights: Array,
    bias: Array,
    factor: Array,
    residual: Array,
    multiplier: Array,
    *,
    zero: int,
    residual_zero: int,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> Array:
    """The sums of a convolution in NumPy, as the specification words it.

    Args:
        counts: `[N, H, W, C]`.
        weights: `[M, C/group, kH, kW]`.
        bias: `[M]`.
        factor: `[M]`.
        residual: `[N, H′, W′, M]`, or one element.
        multiplier: `[M]`.
        zero: the count that is worth nothing.
        residual_zero: the same of the residual.
        group: into how many parts channels fall.
        strides: of the window.
        dilations: of its taps.
        pads: rows above, columns to the left, rows below, columns to the right.

    Returns:
        `[N, H′, W′, M]` in int64.
    """
    top, left, bottom, right = pads
    values = np.pad(counts.astype(np.int64) - zero, ((0, 0), (top, bottom), (left, right), (0, 0)))
    outputs, inputs, *window = weights.shape
    height, width = (
        (size - dilation * (taps - 1) - 1) // stride + 1
        for size, taps, stride, dilation in zip(values.shape[1:3], window, strides, dilations, strict=True)
    )
    by_group = values.reshape(*values.shape[:3], group, inputs)
    filters = weights.astype(np.int64).reshape(group, outputs // group, inputs, *window)
    total = np.zeros((len(values), height, width, group, outputs // group), np.int64)
    for row, column in np.ndindex(*window):
        down, across = row * dilations[0], column * dilations[1]
        part = by_group[:, down:, across:][:, : (height - 1) * strides[0] + 1 : strides[0]]
        part = part[:, :, : (width - 1) * strides[1] + 1 : strides[1]]
        total += np.einsum("nhwgi,goi->nhwgo", part, filters[..., row, column])
    products = total.reshape(len(values), height, width, outputs)
    return _added(products, bias, factor, residual, multiplier, residual_zero)


def sums_of_product(
    counts: Array,
    weights: Array,
    bias: Array,
    factor: Array,
    residual: Array,
    multiplier: Array,
    *,
    zero: int,
    residual_zero: int,
) -> Array:
    """The sums `[…, M]` of a matrix product of counts `[…, C]` and weights `[M, C]`, likewise."""
    products = (counts.astype(np.int64) - zero) @ weights.astype(np.int64).T
    return _added(products, bias, factor, residual, multiplier, residual_zero)


def _added(
    products: Array, bias: Array, factor: Array, residual: Array, multiplier: Array, residual_zero: int
) -> Array:
    wide = [table.astype(np.int64) for table in (bias, factor, residual, multiplier)]
    return wide[1] * products + wide[0] + wide[3] * (wide[2] - residual_zero)


def functions(opset: int) -> list[onnx.FunctionProto]:
    """The operators as model-local functions of standard operators and `ParallelSpike`, for models of that opset.

    Sums are those of floats that hold the same integers: onnxruntime's convolutions of integers are many times slower.
    """
    read = "counts, weights, bias, factor, residual, multiplier"
    window = "zero, highest, residual_zero, group, strides, dilations, pads"
    product = "zero, highest, residual_zero"
    rows = [
        (
            INTEGER_SPIKE_CONV,
            window,
            f"{read}, thresholds, line",
            _CONVOLUTION + _counted(_OF_LAYER, 1) + _CHANNELS_LAST,
        ),
        (INTEGER_SPIKE_GEMM, product, f"{read}, thresholds, line", _PRODUCT + _counted(_OF_LAYER, -1) + _AS_IT_IS),
        (INTEGER_CONV, window, read, _CONVOLUTION + _WHOLE + _CHANNELS_LAST),
        (INTEGER_GEMM, product, read, _PRODUCT + _WHOLE + _AS_IT_IS),
        (INTEGER_SPIKE, "", "whole_sums, thresholds, line", _SUMS + _counted(_OF_SUMS, -1) + _AS_IT_IS),
    ]
    return [
        onnx.parser.parse_function(
            f"""
    <opset_import: ["" : {opset}, "{DOMAIN}" : {INTEGER}], domain: "{DOMAIN}">
    {name} {f"<{attributes}>" if attributes else ""} ({inputs}) => (output)
    {{
        {body}
    }}
    """
        )
        for name, attributes, inputs, body in rows
    ]


_SUMS = """
        sums = Cast <to = 1> (whole_sums)"""

# Constants of a node, and what it reads as values: `value`, `weight`, `offset` and `added`.
_OPERANDS = """
        zero_64 = Constant <value_int: int = @zero> ()
        zero_1 = Cast <to = 1> (zero_64)
        code = Cast <to = 1> (counts)
        value = Sub (code, zero_1)
        weight_1 = Cast <to = 1> (weights)
        factor_1 = Cast <to = 1> (factor)
        offset = Cast <to = 1> (bias)
        residual_zero_64 = Constant <value_int: int = @residual_zero> ()
        residual_zero_1 = Cast <to = 1> (residual_zero_64)
        residual_1 = Cast <to = 1> (residual)
        added = Sub (residual_1, residual_zero_1)
        multiplier_1 = Cast <to = 1> (multiplier)"""

# Channels come first while sums are made: what is constant then becomes part of the convolution.
_CONVOLUTION = f"""{_OPERANDS}
        of_weights = Constant <value_ints = [-1, 1, 1, 1]> ()
        of_images = Constant <value_ints = [-1, 1, 1]> ()
        factor_4 = Reshape (factor_1, of_weights)
        weight = Mul (weight_1, factor_4)
        image = Transpose <perm = [0, 3, 1, 2]> (value)
        products = Conv <group: int = @group, strides: ints = @strides, dilations: ints = @dilations,
            pads: ints = @pads> (image, weight, offset)
        added_first = Transpose <perm = [0, 3, 1, 2]> (added)
        multiplier_3 = Reshape (multiplier_1, of_images)
        rest = Mul (added_first, multiplier_3)
        sums = Add (products, rest)"""

_PRODUCT = f"""{_OPERANDS}
        of_weights = Constant <value_ints = [-1, 1]> ()
        factor_2 = Reshape (factor_1, of_weights)
        weight = Mul (weight_1, factor_2)
        matrix = Transpose <perm = [1, 0]> (weight)
        products = MatMul (value, matrix)
        rest = Mul (added, multiplier_1)
        more = Add (rest, offset)
        sums = Add (products, more)"""

_CHANNELS_LAST = """
        output = Transpose <perm = [0, 2, 3, 1]> (number)"""
_AS_IT_IS = """
        output = Identity (number)"""
_WHOLE = """
        number = Cast <to = 6> (sums)"""


# How many channels there are.
_OF_LAYER = "channels = Shape (bias)"
_OF_SUMS = """
        size = Shape (sums)
        last = Constant <value_ints = [-1]> ()
        channels = Gather (size, last)"""


def _counted(channels: str, channel_axis: int) -> str:
    """`number`, of the thresholds those that `sums` reach, as uint8.

    Where thresholds lie on a line it takes one division and no comparisons, which onnxruntime has as QuantizeLinear. It
    takes a Sub into no convolution.
    """
    shape = (
        "by_channel = Constant <value_ints = [-1, 1, 1]> ()"
        if channel_axis > 0
        else ("by_channel = Constant <value_ints = [-1]> ()")
    )
    return f"""
        zero = Constant <value = int64 {{0}}> ()
        one = Constant <value = int64 {{1}}> ()
        first = Constant <value_ints = [0]> ()
        second = Constant <value_ints = [1]> ()
        third = Constant <value_ints = [2]> ()
        table_shape = Shape (thresholds)
        rows = Slice (table_shape, first, second)
        highest_1d = Slice (table_shape, second, third)
        {shape}
        offsets = Gather <axis = 1> (line, zero)
        spacings = Gather <axis = 1> (line, one)
        least = ReduceMin <keepdims = 0> (spacings)
        none = Constant <value = float {{0.0}}> ()
        has_lines = Greater (least, none)
        line_offset = Reshape (offsets, by_channel)
        line_spacing = Reshape (spacings, by_channel)
        highest_count = Cast <to = 2> (highest_1d)
        highest = Squeeze (highest_count)
        no_count = Constant <value = uint8 {{0}}> ()
        threshold_rows = Cast <to = 1> (thresholds)
        levels_1d = Add (highest_1d, second)
        end = Squeeze (levels_1d)
        level_64 = Range (zero, end, one)
        level = Cast <to = 1> (level_64)
        level_shape = Concat <axis = 0> (rows, levels_1d)
        levels = Expand (level, level_shape)
        {channels}
        spacing = Expand (spacings, channels)
        zero_points = Expand (no_count, channels)
        number = If (has_lines) <
            then_branch = by_division () => (uint8[] divided)
            {{
                distance = Sub (sums, line_offset)
                rounded = QuantizeLinear <axis = {channel_axis}> (distance, spacing, zero_points)
                divided = Clip (rounded, no_count, highest)
            }},
            else_branch = by_comparison () => (uint8[] compared)
            {{
                count = {DOMAIN}.{OP_TYPE} <input_steps = 1, channel_axis = {channel_axis}, spikes = 0, coding = 0,
                    steps = 0, zero = 0> (sums, threshold_rows, levels)
                compared = Cast <to = 2> (count)
            }}
        >"""
