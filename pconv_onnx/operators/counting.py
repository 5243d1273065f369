"""How function bodies count the thresholds that values reach."""

from __future__ import annotations

# Up to so many thresholds, comparing with each is faster than a search, whose Gathers are slow.
_FEW = 16


def counting(values: str, highest: int) -> tuple[str, str]:
    """Tables in the text of a body, and what computes `count` from them, int32, of each element of a tensor in float32.

    The tables are made outside of an If whose branches count: onnxruntime 1.24 to 1.27 loses constants of 128 bytes and
    more that it folded within a branch when it replaces the If by the branch.

    The text reads `threshold_rows`, `[R, S]` in float32, `highest_1d`, S, `channels_1d`, R, and `along_channels`, the
    shape that lays a column of R values along the channels of the tensor.

    Args:
        values: the name of the tensor.
        highest: the largest S of the model; bounds the depth of the search.
    """
    few = highest <= _FEW
    width = highest if few else (1 << highest.bit_length()) - 1
    tables, count = _comparing(values, width) if few else _searching(values, width)
    return (
        f"""
        width = Constant <value_ints = [{width}]> ()
        unused = Sub (width, highest_1d)
        padding_shape = Concat <axis = 0> (channels_1d, unused)
        nothing = Constant <value = float {{0.0}}> ()
        never = Div (nothing, nothing)
        padding = Expand (never, padding_shape)
        padded = Concat <axis = 1> (threshold_rows, padding)
        flat = Constant <value_ints = [-1]> ()
        row_count = Squeeze (channels_1d)
        channel_index = Range (zero, row_count, one)
        {tables}""",
        count,
    )


def _comparing(values: str, highest: int) -> tuple[str, str]:
    """Tables, and `count` of each element: how many of the `padded` thresholds `[R, highest]` it reaches."""
    tables = "".join(
        f"""
        start_{t} = Constant <value_ints = [{t - 1}]> ()
        end_{t} = Constant <value_ints = [{t}]> ()
        column_{t} = Slice (padded, start_{t}, end_{t}, second)
        threshold_{t} = Reshape (column_{t}, along_channels)"""
        for t in range(1, highest + 1)
    )
    # Counts are small enough to be exact in floats, which onnxruntime casts and adds fastest.
    compared = "".join(
        f"""
                reached_{t} = GreaterOrEqual ({values}, threshold_{t})
                step_{t} = Cast <to = 1> (reached_{t})
                count_{t} = {f"Add (count_{t - 1}, step_{t})" if t > 1 else f"Identity (step_{t})"}"""
        for t in range(1, highest + 1)
    )
    return (
        tables,
        f"""{compared}
                count = Cast <to = 6> (count_{highest})""",
    )


def _searching(values: str, width: int) -> tuple[str, str]:
    """The same by binary search among `width = 2^n − 1` padded thresholds; positions count from the first row."""
    strides = [1 << bit for bit in reversed(range(width.bit_length()))]
    before = dict(zip(strides, ["row", *(f"after_{stride}" for stride in strides)], strict=False))
    probes = {
        stride: f"""
        probe_{stride} = Constant <value = int32 {{{stride - 1}}}> ()
        position_{stride} = Add ({before[stride]}, probe_{stride})
        threshold_{stride} = Gather (table, position_{stride})"""
        for stride in strides
    }
    # The first probe is the same for all elements of a channel, and so a table.
    tables = f"""
        table = Reshape (padded, flat)
        row_start = Mul (channel_index, width)
        row_start_32 = Cast <to = 6> (row_start)
        row = Reshape (row_start_32, along_channels)
        {probes.pop(strides[0])}"""
    halvings = "".join(
        f"""
                {probes.get(stride, "")}
                reached_{stride} = GreaterOrEqual ({values}, threshold_{stride})
                bit_{stride} = Cast <to = 6> (reached_{stride})
                stride_{stride} = Constant <value = int32 {{{stride}}}> ()
                step_{stride} = Mul (bit_{stride}, stride_{stride})
                after_{stride} = Add ({before[stride]}, step_{stride})"""
        for stride in strides
    )
    return (
        tables,
        f"""{halvings}
                count = Sub (after_1, row)""",
    )
