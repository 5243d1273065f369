"""Pieces that the operators' function bodies have in common, in ONNX's text form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.nesting import nodes_within

# The beginning of every body.
CONSTANTS = """
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        first = Constant <value_ints = [0]> ()
        second = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [9223372036854775807]> ()"""


def function(text: str, doc: str) -> onnx.FunctionProto:
    """The function of a text, with what viewers of models show: `doc`, and nodes named after their outputs."""
    made = onnx.parser.parse_function(text)
    made.doc_string = doc
    for node in nodes_within(made.node):
        node.name = node.output[0]
    return made


def element_type(dtype: np.dtype[Any]) -> int:
    """ONNX's number of a type."""
    return helper.np_dtype_to_tensor_dtype(dtype)


def along_channels(source: str, table: str) -> str:
    """`along_channels`, the shape that lays one value for each row of `table` along attribute `channel_axis`.

    Besides `shape`, that of `source`, `table_shape`, and `channels_1d`, the number of rows.
    """
    return f"""
        axis = Constant <value_int: int = @channel_axis> ()
        shape = Shape ({source})
        rank_1d = Shape (shape)
        rank = Squeeze (rank_1d)
        axes = Range (zero, rank, one)
        axis_from_end = Add (axis, rank)
        channel = Mod (axis_from_end, rank)
        is_channel = Equal (axes, channel)
        table_shape = Shape ({table})
        channels_1d = Slice (table_shape, first, second)
        along_channels = Where (is_channel, channels_1d, second)"""


def channels_of(current: Array, table: Array, channel_axis: int) -> int | None:
    """The axis of `current` that the rows of a table belong to; None if there is one row for all.

    Raises:
        ValueError: there are not as many rows as channels.
    """
    rows = len(table)
    if rows == 1:
        return None
    axis = channel_axis + current.ndim if channel_axis < 0 else channel_axis
    if rows < 1 or not 0 < axis < current.ndim or current.shape[axis] != rows:
        raise ValueError(f"a table has {rows} rows, current of shape {list(current.shape)} has no such channels")
    return axis


def reshape(opset: int, name: str, source: str, shape: tuple[str, str, str]) -> str:
    """`name`, the Reshape of `source` to three joined parts; the second is the number of rows, which may be zero.

    A zero there would mean "as in the input" but for an attribute that came with opset 14. Before, the number is left
    open.
    """
    before, rows, after = shape
    if opset < 14:
        rows = f"{name}_open"
    nodes = f"{rows} = Constant <value_ints = [-1]> ()" if opset < 14 else ""
    allow_zero = " <allowzero = 1>" if opset >= 14 else ""
    return f"""
                {nodes}
                {name}_shape = Concat <axis = 0> ({before}{", " if before else ""}{rows}, {after})
                {name} = Reshape{allow_zero} ({source}, {name}_shape)"""
