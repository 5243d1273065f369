"""Layers of integer weights on spike counts: executable reference, function bodies.

The contract is docs/IntegerSpike-3.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.neuron.coding import CODINGS, Coding
from pconv_onnx.operators.bodies import CONSTANTS, function
from pconv_onnx.operators.counting import counting
from pconv_onnx.operators.domain import (
    INTEGER,
    INTEGER_CONV,
    INTEGER_GEMM,
    INTEGER_SPIKE,
    INTEGER_SPIKE_CONV,
    INTEGER_SPIKE_GEMM,
    OP_TYPE,
    SPIKE_COUNT,
)

# The highest count that uint8 holds.
MOST = 255
# The most time-steps of radix trains that layers of integers read.
MOST_STEPS = 16


def count_of(sums: Array, thresholds: Array) -> Array:
    """The spike counts of sums: how many thresholds they reach.

    Args:
        sums: `[…, M]`.
        thresholds: `[M, S]` or `[1, S]`, ascending.
    """
    return (sums[..., np.newaxis] >= thresholds).sum(axis=-1).astype(np.uint8)


def trains_of(counts: Array, *, steps: int, coding: int, silent: int) -> Array:
    """The output of neurons with spike counts `[N, …]`: the counts, or digits `[T·N, …]` offset by that of silence.

    Args:
        counts: uint8.
        steps: T; 0 for counts.
        coding: of trains, by the number of one of `CODINGS`.
        silent: k₀, the count of a silent neuron.
    """
    if not steps:
        return counts
    digits = _coding(coding, steps, silent).digits(counts)
    return (digits + (silent > 0)).astype(np.uint8).reshape(steps * len(counts), *counts.shape[1:])


def counts_of(trains: Array, *, steps: int, coding: int, silent: int) -> Array:
    """The spike counts `[N, …]` of trains `[T·N, …]`, as `trains_of` gives them; int64."""
    return silent + _summed(trains.astype(np.int64) - (silent > 0), steps, coding) if steps else trains


def worths(steps: int, coding: int) -> Array:
    """`[I]`, the worth of a digit in each time-step."""
    weighted = _coding(coding, steps, 0).weighted
    return np.array([1 << (steps - 1 - step) if weighted else 1 for step in range(steps)], np.int64)


def _coding(number: int, steps: int, zero: int) -> Coding:
    return next(one for one in CODINGS.values() if one.number == number)(steps, zero)


def sums_of_convolution(
    counts: Array,
    weights: Array,
    bias: Array,
    factor: Array,
    residual: Array,
    multiplier: Array,
    *,
    zero: int,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    **attributes: int,
) -> Array:
    """The sums of a convolution in NumPy, as the specification words it.

    Args:
        counts: `[I·N, H, W, C]`.
        weights: `[M, C/group, kH, kW]`.
        bias: `[M]`.
        factor: `[M]`.
        residual: `[N, H′, W′, M]`, `[I·N, H′, W′, M]`, or one element.
        multiplier: `[M]`.
        zero: the count that stands for zero.
        group: the number of groups of channels.
        strides: of the window.
        dilations: of the window.
        pads: padding rows above, columns to the left, rows below, columns to the right.
        attributes: `residual_zero`, and of time `input_steps`, `residual_steps` and `input_coding`.

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
    return _added(products, bias, factor, residual, multiplier, **attributes)


def sums_of_product(
    counts: Array,
    weights: Array,
    bias: Array,
    factor: Array,
    residual: Array,
    multiplier: Array,
    *,
    zero: int,
    **attributes: int,
) -> Array:
    """The sums `[…, M]` in int64 of a matrix product of counts `[…, C]` and weights `[M, C]`."""
    products = (counts.astype(np.int64) - zero) @ weights.astype(np.int64).T
    return _added(products, bias, factor, residual, multiplier, **attributes)


def _added(
    products: Array,
    bias: Array,
    factor: Array,
    residual: Array,
    multiplier: Array,
    *,
    residual_zero: int,
    input_steps: int = 1,
    residual_steps: int = 1,
    input_coding: int = 0,
) -> Array:
    wide = [table.astype(np.int64) for table in (bias, factor, residual, multiplier)]
    total = _summed(products, input_steps, input_coding)
    return wide[1] * total + wide[0] + wide[3] * _summed(wide[2] - residual_zero, residual_steps, input_coding)


def _summed(values: Array, steps: int, coding: int) -> Array:
    """The sum over time-steps of a tensor `[I·N, …]`, weighted by their worth."""
    if steps == 1:
        return values
    by_time = values.reshape(steps, len(values) // steps, *values.shape[1:])
    return np.tensordot(worths(steps, coding), by_time, axes=1)


def functions(opset: int, highest: int | None) -> list[onnx.FunctionProto]:
    """The operators as model-local functions of standard operators and `ParallelSpike`, for models of that opset.

    The sums are computed on floats that hold the integers, since onnxruntime's convolutions of integers are much
    slower.

    Args:
        opset: version of the default domain, at least `MIN_OPSET`.
        highest: the largest S of the model, whose neurons give counts; None where all of them give trains.
    """
    in_time = highest is None
    read, tables = "counts, weights, bias, factor, residual, multiplier", ", thresholds, line"
    product = "zero, highest, residual_zero, input_steps, residual_steps, input_coding"
    window, train = f"{product}, group, strides, dilations, pads", "steps, coding, silent"
    convolution, matrix = (text[in_time] for text in (_CONVOLUTION, _PRODUCT))
    first, last, alone = (
        _emitted(axis) if highest is None else _counted(channels, axis, highest)
        for channels, axis in ((_OF_LAYER, 1), (_OF_LAYER, -1), (_OF_SUMS, -1))
    )
    rows = [
        (INTEGER_SPIKE_CONV, f"{window}, {train}", read + tables, convolution + first + _CHANNELS_LAST),
        (INTEGER_SPIKE_GEMM, f"{product}, {train}", read + tables, matrix + last + _AS_IT_IS),
        (INTEGER_CONV, window, read, convolution + _WHOLE + _CHANNELS_LAST),
        (INTEGER_GEMM, product, read, matrix + _WHOLE + _AS_IT_IS),
        (INTEGER_SPIKE, train, f"whole_sums{tables}", _SUMS + alone + _AS_IT_IS),
        (SPIKE_COUNT, "steps, coding, silent", "trains", _DECODED),
    ]
    # Before that opset a size of zero would mean that of the input.
    sizes = "Reshape <allowzero = 1>" if opset >= 14 else "Reshape"
    return [
        function(
            f"""
    <opset_import: ["" : {opset}, "{DOMAIN}" : {INTEGER}], domain: "{DOMAIN}">
    {name} <{attributes}> ({inputs}) => (output)
    {{
        {CONSTANTS}
        third = Constant <value_ints = [2]> ()
        {body.replace(_RESHAPE, sizes)}
    }}
    """,
            "Layers with integer weights on spike counts (docs/IntegerSpike-3.md).",
        )
        for name, attributes, inputs, body in rows
    ]


_SUMS = """
        sums = Cast <to = 1> (whole_sums)"""

# A node's constants, and its inputs as values: `value`, `weight`, `offset` and `added`.
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

# Channels come first while sums are computed, so that constants become part of the convolution.
_IMAGES = f"""{_OPERANDS}
        of_weights = Constant <value_ints = [-1, 1, 1, 1]> ()
        of_images = Constant <value_ints = [-1, 1, 1]> ()
        factor_4 = Reshape (factor_1, of_weights)
        weight = Mul (weight_1, factor_4)
        image = Transpose <perm = [0, 3, 1, 2]> (value)
        multiplier_3 = Reshape (multiplier_1, of_images)
        products = Conv <group: int = @group, strides: ints = @strides, dilations: ints = @dilations,
            pads: ints = @pads> ({{operands}})
        added_first = Transpose <perm = [0, 3, 1, 2]> (added)"""

_MATRICES = f"""{_OPERANDS}
        of_weights = Constant <value_ints = [-1, 1]> ()
        factor_2 = Reshape (factor_1, of_weights)
        weight = Mul (weight_1, factor_2)
        matrix = Transpose <perm = [1, 0]> (weight)
        products = MatMul (value, matrix)"""


# The placeholder for a Reshape to sizes that may be zero.
_RESHAPE = "ReshapeToSizes"


def _over_time(name: str, source: str, steps: str) -> str:
    """`name`, the sum of a tensor `[I·N, …]` over its time-steps, weighted by the worth of their digits."""
    return f"""
        {name}_steps = Constant <value_int: int = @{steps}> ()
        {name}_steps_1d = Reshape ({name}_steps, second)
        {name}_shape = Shape ({source})
        {name}_rows = Slice ({name}_shape, first, second)
        {name}_samples = Div ({name}_rows, {name}_steps_1d)
        {name}_sample = Slice ({name}_shape, second, end)
        {name}_in_time = Concat <axis = 0> ({name}_steps_1d, {name}_samples, {name}_sample)
        {name}_by_time = {_RESHAPE} ({source}, {name}_in_time)
        {name}_step = Range (zero, {name}_steps, one)
        {name}_last = Sub ({name}_steps, one)
        {name}_place = Sub ({name}_last, {name}_step)
        {name}_known = Min ({name}_place, last_place)
        {name}_weight = Gather (weights_of_places, {name}_known)
        {name}_worth_1d = Where (is_radix, {name}_weight, unit)
        {name}_rank = Shape ({name}_shape)
        {name}_ones = Expand (second, {name}_rank)
        {name}_along_time = Concat <axis = 0> (open, {name}_ones)
        {name}_worth = Reshape ({name}_worth_1d, {name}_along_time)
        {name}_weighted = Mul ({name}_by_time, {name}_worth)
        {name} = ReduceSum <keepdims = 0> ({name}_weighted, first)"""


def _places(coding: str) -> str:
    """The worth of digits in a coding."""
    return f"""
        coding_64 = Constant <value_int: int = @{coding}> ()
        is_radix = Equal (coding_64, one)
        open = Constant <value_ints = [-1]> ()
        unit = Constant <value = float {{1.0}}> ()
        last_place = Constant <value_int = {MOST_STEPS - 1}> ()
        weights_of_places = Constant <value_floats = {[float(1 << place) for place in range(MOST_STEPS)]}> ()"""


# Without a time axis, and with one.
_CONVOLUTION = (
    _IMAGES.format(operands="image, weight, offset")
    + """
        rest = Mul (added_first, multiplier_3)
        sums = Add (products, rest)""",
    _IMAGES.format(operands="image, weight")
    + _places("input_coding")
    + _over_time("total", "products", "input_steps")
    + _over_time("added_total", "added_first", "residual_steps")
    + """
        offset_3 = Reshape (offset, of_images)
        rest = Mul (added_total, multiplier_3)
        more = Add (rest, offset_3)
        sums = Add (total, more)""",
)
_PRODUCT = (
    _MATRICES
    + """
        rest = Mul (added, multiplier_1)
        more = Add (rest, offset)
        sums = Add (products, more)""",
    _MATRICES
    + _places("input_coding")
    + _over_time("total", "products", "input_steps")
    + _over_time("added_total", "added", "residual_steps")
    + """
        rest = Mul (added_total, multiplier_1)
        more = Add (rest, offset)
        sums = Add (total, more)""",
)

_CHANNELS_LAST = """
        output = Transpose <perm = [0, 2, 3, 1]> (number)"""
_AS_IT_IS = """
        output = Identity (number)"""
_WHOLE = """
        number = Cast <to = 6> (sums)"""

# Spike counts of trains.
_DECODED = f"""{_places("coding")}
        silent_64 = Constant <value_int: int = @silent> ()
        silent_count = Cast <to = 1> (silent_64)
        is_signed = Greater (silent_64, zero)
        no_spike = Cast <to = 1> (is_signed)
        digit = Cast <to = 1> (trains)
        value = Sub (digit, no_spike){_over_time("total", "value", "steps")}
        count = Add (total, silent_count)
        output = Cast <to = 2> (count)"""

# How many channels there are where neurons stand behind a layer, and where they stand alone.
_OF_LAYER = "channels = Shape (bias)"
_OF_SUMS = """size = Shape (sums)
        last = Constant <value_ints = [-1]> ()
        channels = Gather (size, last)"""


def _thresholds(channel_axis: int) -> str:
    """Of neurons `threshold_rows`, `[R, S]`, and the sizes R, `channels_1d`, and S, `highest_1d`."""
    return f"""
        table_shape = Shape (thresholds)
        channels_1d = Slice (table_shape, first, second)
        highest_1d = Slice (table_shape, second, third)
        along_channels = Constant <value_ints = {[-1, 1, 1] if channel_axis > 0 else [-1]}> ()
        threshold_rows = Cast <to = 1> (thresholds)"""


def _counted(channels: str, channel_axis: int, highest: int) -> str:
    """`number`, how many thresholds `sums` reach, as uint8.

    If thresholds lie on a line, it takes one division and no comparisons, which onnxruntime has as QuantizeLinear.
    onnxruntime does not fuse a Sub into a convolution.
    """
    tables, count = counting("sums", highest)
    return f"""{_thresholds(channel_axis)}
        offsets = Gather <axis = 1> (line, zero)
        spacings = Gather <axis = 1> (line, one)
        least = ReduceMin <keepdims = 0> (spacings)
        none = Constant <value = float {{0.0}}> ()
        has_lines = Greater (least, none)
        line_offset = Reshape (offsets, along_channels)
        highest_count = Cast <to = 2> (highest_1d)
        highest = Squeeze (highest_count)
        no_count = Constant <value = uint8 {{0}}> ()
        {channels}
        spacing = Expand (spacings, channels)
        zero_points = Expand (no_count, channels)
        {tables}
        number = If (has_lines) <
            then_branch = by_division () => (uint8[] divided)
            {{
                distance = Sub (sums, line_offset)
                rounded = QuantizeLinear <axis = {channel_axis}> (distance, spacing, zero_points)
                divided = Clip (rounded, no_count, highest)
            }},
            else_branch = by_comparison () => (uint8[] compared)
            {{
                {count}
                compared = Cast <to = 2> (count)
            }}
        >"""


def _emitted(channel_axis: int) -> str:
    """`number`, the digits of the trains of the count, as uint8, offset by that of silence."""
    return f"""{_thresholds(channel_axis)}
        levels_1d = Add (highest_1d, second)
        levels_end = Squeeze (levels_1d)
        level_64 = Range (zero, levels_end, one)
        level = Cast <to = 1> (level_64)
        level_shape = Concat <axis = 0> (channels_1d, levels_1d)
        silent_64 = Constant <value_int: int = @silent> ()
        silent_count = Cast <to = 1> (silent_64)
        is_signed = Greater (silent_64, zero)
        no_spike = Cast <to = 1> (is_signed)
        offset_of_level = Sub (level, silent_count)
        levels = Expand (offset_of_level, level_shape)
        trains = {DOMAIN}.{OP_TYPE} <input_steps = 1, channel_axis = {channel_axis}, spikes = 1, coding: int = @coding,
            steps: int = @steps, zero: int = @silent> (sums, threshold_rows, levels)
        digit = Sign (trains)
        shifted = Add (digit, no_spike)
        number = Cast <to = 2> (shifted)"""
