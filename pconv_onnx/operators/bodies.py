"""What the functions that stand for the operators have in common: pieces of their bodies, in ONNX's text form."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

# What every body begins with.
CONSTANTS = """
        zero = Constant <value = int64 {0}> ()
        one = Constant <value = int64 {1}> ()
        first = Constant <value_ints = [0]> ()
        second = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [9223372036854775807]> ()"""


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
