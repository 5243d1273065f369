"""onnxruntime's attention operators in parts, as version 1.32 computes them: biases, past keys, projections."""

from __future__ import annotations

import numpy as np
from onnx import helper

from pconv_onnx.graph.passes import heads
from pconv_onnx.graph.passes.whole import Whole, require

# What it adds to the score of a masked key.
_FILTER = -10000.0


def multi_head(whole: Whole) -> None:
    """MultiHeadAttention of onnxruntime: `(q, k, v, bias?, mask?, scores' bias?, past_key?, past_value?) → (y, …)`.

    It stays whole if queries, keys and values are one tensor, or if past keys share a buffer.
    """
    require(bool(whole[1] and whole[2]) and not any(whole[index] for index in (8, 9)) and not whole.read(3))
    require(len(whole.shape(0)) == 3)
    count, hidden = whole.attribute("num_heads"), whole.size(0, 2)
    size = heads.share(hidden, count)
    q, k, v = whole[0], whole[1], whole[2]
    by_sample = len(whole.shape(1)) == 3
    require(by_sample or not whole[3])
    value_size = heads.share(whole.size(2, 2), count) if by_sample else whole.size(2, 3)
    if whole[3]:
        ends = (0, hidden, 2 * hidden, 2 * hidden + count * value_size)
        require(whole.shape(3) == ends[-1:])
        q, k, v = (
            whole.write("Add", x, whole.slice(whole[3], start, end, axis=0, what=f"{what}_bias"), what=f"{what}_sum")
            for x, start, end, what in zip((q, k, v), ends[:-1], ends[1:], ("query", "key", "value"), strict=True)
        )
    q = heads.by_head(whole, q, count, size, "query")
    if by_sample:
        k, v = heads.by_head(whole, k, count, size, "key"), heads.by_head(whole, v, count, value_size, "value")
    lengths = heads.lengths_of(whole, 1 if by_sample else 2, 6)
    # Where there are more keys than queries, onnxruntime masks none for the last query.
    as_many = lengths.queries is not None and lengths.queries == lengths.new
    require(as_many or not whole.flag("unidirectional"))
    k, v = heads.with_past(whole, k, v, 6)
    _attended(whole, q, k, v, lengths, mask=4, bias=5, sizes=(count, size, value_size))


def projected(whole: Whole) -> None:
    """Attention of onnxruntime: `(x, weights of q, k and v, bias?, mask?, _, scores' bias?) → (y, _)`.

    It stays whole if it has past keys, or rotates queries and keys.
    """
    require(not any(whole[index] for index in (4, 6)) and not whole.read(1) and not whole.flag("do_rotary"))
    count = whole.attribute("num_heads")
    hidden = list(whole.attribute("qkv_hidden_sizes", ())) or [heads.share(whole.size(1, 1), 3)] * 3
    require(len(hidden) == 3 and hidden[0] == hidden[1] and sum(hidden) == whole.size(1, 1))
    x = whole.write("MatMul", whole[0], whole[1], what="projected")
    x = whole.write("Add", x, whole[2], what="projected") if whole[2] else x
    size, value_size = heads.share(hidden[0], count), heads.share(hidden[2], count)
    starts = (0, hidden[0], 2 * hidden[0])
    q, k, v = (
        heads.by_head(
            whole,
            whole.slice(x, start, start + length, axis=2, what=f"{what}_part"),
            count,
            heads.share(length, count),
            what,
        )
        for start, length, what in zip(starts, hidden, ("query", "key", "value"), strict=True)
    )
    length = whole.network.shapes.get(whole[0], (None, None))[1]
    _attended(whole, q, k, v, heads.Lengths(length, 0, length), mask=3, bias=5, sizes=(count, size, value_size))


def _attended(
    whole: Whole, q: str, k: str, v: str, lengths: heads.Lengths, *, mask: int, bias: int, sizes: tuple[int, int, int]
) -> None:
    """The part that onnxruntime's attention operators have in common, after their inputs are split into heads."""
    count, size, value_size = sizes
    left_out = _padding(whole, k, mask)
    if whole.flag("unidirectional"):
        lowest = whole.number(float(np.finfo(whole.floats).min))
        seen = heads.no_later(whole, q, k, whole[6] if lengths.past != 0 else "", lengths)
        left_out = whole.write("Where", seen, left_out or whole.number(0), lowest, what="bias")
    added = heads.plus(whole, left_out, whole[bias]) if left_out else whole[bias]
    scores = heads.scores_of(whole, q, k, whole.attribute("scale"), size)
    weights = heads.weights_of(whole, heads.plus(whole, scores, added))
    heads.by_sample(whole, whole.write("MatMul", weights, v, what="attended"), count * value_size)


def _padding(whole: Whole, k: str, index: int) -> str:
    """What onnxruntime adds to the scores of keys that an integer mask leaves out; empty if there is no mask.

    `[B, T]`, `[B, S, T]`: keys with an entry of zero or less. `[B]`: keys from this index on; `[2·B]`: and before
    another.

    Raises:
        StaysWhole: the mask has another form.
    """
    if not whole[index]:
        return ""
    shape = whole.shape(index)
    if len(shape) in (2, 3):
        seen = whole.write("Greater", whole[index], whole.constant(0, whole.dtype(index)))
        axes = [1, 2] if len(shape) == 2 else [1]
    else:
        require(len(shape) == 1)
        batch = whole.shape(0)[0]
        twice = isinstance(batch, int) and shape[0] == 2 * batch
        require(twice or (batch is not None and shape[0] == batch))
        ends = whole.write("Cast", whole[index], to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))
        ends = whole.reshape(ends, 2 if twice else 1, -1, 1)
        columns, end = heads.numbered(whole, k), whole.write("Gather", ends, whole.constant(0))
        seen = whole.write("Less", columns, end)
        if twice:
            start = whole.write("Gather", ends, whole.constant(1))
            seen = whole.write("And", seen, whole.write("GreaterOrEqual", columns, start))
        axes = [1, 2]
    kept = whole.write("Unsqueeze", seen, whole.constant(axes))
    left_out = whole.number(whole.attribute("mask_filter_value", _FILTER))
    return whole.write("Where", kept, whole.number(0), left_out, what="bias")
