"""Attention in parts: softmax(scale·q·kᵀ + bias)·v for each head, with the sums and products of each operator around.

The operator of ONNX as its reference computes it, and those of onnxruntime as version 1.32 does. Each product is of two
stacks `[B, heads, …]`; keys and values that several queries share are repeated for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.passes.whole import Whole, require

# What onnxruntime adds to the score of a key that a mask leaves out.
_FILTER = -10000.0


@dataclass(frozen=True)
class _Lengths:
    """How many queries and keys there are, as far as that is known.

    Attributes:
        queries: S.
        past: P, zero where no keys are past.
        new: of the keys of a sample, those that are not past.
    """

    queries: Dimension
    past: Dimension
    new: Dimension


def standard(whole: Whole) -> None:
    """Attention, from opset 23 on: `(q, k, v, mask?, past_key?, past_value?) → (y, present_key?, present_value?, qk?)`.

    Those with a number of keys for each sample, and with windows, stay whole.
    """
    windows = [whole.attribute(f"{side}_window_size", -1) for side in ("left", "right")]
    require(not whole[6] and all(window < 0 for window in windows))
    by_sample = len(whole.shape(0)) == 3
    if by_sample:
        count, shared = whole.attribute("q_num_heads"), whole.attribute("kv_num_heads")
        size, value_size = _share(whole.size(0, 2), count), _share(whole.size(2, 2), shared)
        q = _by_head(whole, whole[0], count, size, "query")
        k = _by_head(whole, whole[1], shared, size, "key")
        v = _by_head(whole, whole[2], shared, value_size, "value")
    else:
        q, k, v = whole[0], whole[1], whole[2]
        count, shared, size, value_size = whole.size(0, 1), whole.size(1, 1), whole.size(0, 3), whole.size(2, 3)
    lengths = _lengths(whole, 1 if by_sample else 2, 4)
    k, v = _with_past(whole, k, v, 4)
    bias = _standard_bias(whole, q, k, lengths)
    scores = _scores(whole, q, _repeated(whole, k, shared, count, size), whole.attribute("scale"), size)
    capped = _capped(whole, scores, whole.attribute("softcap", 0.0))
    # Where every key is left out, y is zero: the weights there, which have no value, are those of no bias.
    keyless = _keyless(whole, bias)
    added = whole.write("Where", keyless, whole.number(0), bias, what="bias") if keyless else bias
    weights = _weights(whole, _plus(whole, capped, added), whole.attribute("softmax_precision"))

    def without_keyless(x: str, gives: int | None = None) -> str:
        return whole.write("Where", keyless, whole.number(0), x, what="attended", gives=gives) if keyless else x

    if whole.read(3):
        # That of mode 2, with masks, has other values of what is left out in onnxruntime than in onnx.
        mode = whole.attribute("qk_matmul_output_mode", 0)
        require(mode in (0, 1, 3))
        stage = (scores, capped)[mode] if mode != 3 else without_keyless(weights)
        whole.write("Identity", stage, gives=3)
    last = None if by_sample else 0
    v = _repeated(whole, v, shared, count, value_size)
    y = without_keyless(whole.write("MatMul", weights, v, what="attended", gives=None if keyless else last), last)
    if by_sample:
        _by_sample(whole, y, count * value_size)


def multi_head(whole: Whole) -> None:
    """MultiHeadAttention of onnxruntime: `(q, k, v, bias?, mask?, scores' bias?, past_key?, past_value?) → (y, …)`.

    Those whose queries, keys and values are one tensor, and those that share a buffer for past keys, stay whole.
    """
    require(bool(whole[1] and whole[2]) and not any(whole[index] for index in (8, 9)) and not whole.read(3))
    require(len(whole.shape(0)) == 3)
    count, hidden = whole.attribute("num_heads"), whole.size(0, 2)
    size = _share(hidden, count)
    q, k, v = whole[0], whole[1], whole[2]
    by_sample = len(whole.shape(1)) == 3
    require(by_sample or not whole[3])
    value_size = _share(whole.size(2, 2), count) if by_sample else whole.size(2, 3)
    if whole[3]:
        ends = (0, hidden, 2 * hidden, 2 * hidden + count * value_size)
        q, k, v = (
            whole.write("Add", x, whole.slice(whole[3], start, end, axis=0, what=f"{what}_bias"), what=f"{what}_sum")
            for x, start, end, what in zip((q, k, v), ends[:-1], ends[1:], ("query", "key", "value"), strict=True)
        )
    q = _by_head(whole, q, count, size, "query")
    if by_sample:
        k, v = _by_head(whole, k, count, size, "key"), _by_head(whole, v, count, value_size, "value")
    lengths = _lengths(whole, 1 if by_sample else 2, 6)
    k, v = _with_past(whole, k, v, 6)
    _attended(whole, q, k, v, lengths, mask=4, bias=5, sizes=(count, size, value_size))


def projected(whole: Whole) -> None:
    """Attention of onnxruntime: `(x, weights of q, k and v, bias?, mask?, _, scores' bias?) → (y, _)`.

    Those with past keys, and those that rotate queries and keys, stay whole.
    """
    require(not any(whole[index] for index in (4, 6)) and not whole.read(1) and not whole.attribute("do_rotary", 0))
    require(len(whole.shape(0)) == 3)
    count = whole.attribute("num_heads")
    hidden = list(whole.attribute("qkv_hidden_sizes", ())) or [_share(whole.size(1, 1), 3)] * 3
    require(len(hidden) == 3 and hidden[0] == hidden[1] and sum(hidden) == whole.size(1, 1))
    x = whole.write("MatMul", whole[0], whole[1], what="projected")
    x = whole.write("Add", x, whole[2], what="projected") if whole[2] else x
    size, value_size = _share(hidden[0], count), _share(hidden[2], count)
    starts = (0, hidden[0], 2 * hidden[0])
    q, k, v = (
        _by_head(
            whole,
            whole.slice(x, start, start + length, axis=2, what=f"{what}_part"),
            count,
            _share(length, count),
            what,
        )
        for start, length, what in zip(starts, hidden, ("query", "key", "value"), strict=True)
    )
    length = whole.shape(0)[1]
    _attended(whole, q, k, v, _Lengths(length, 0, length), mask=3, bias=5, sizes=(count, size, value_size))


def _attended(
    whole: Whole, q: str, k: str, v: str, lengths: _Lengths, *, mask: int, bias: int, sizes: tuple[int, int, int]
) -> None:
    """What onnxruntime's operators have in common: which inputs are masks, and how many heads of which sizes."""
    count, size, value_size = sizes
    left_out = _padding(whole, k, mask)
    if whole.attribute("unidirectional", 0):
        # Of other keys than there are queries onnxruntime leaves out none for the last query.
        require(lengths.queries is not None and lengths.queries == lengths.new)
        lowest = whole.number(float(np.finfo(whole.dtype()).min))
        seen = _no_later(whole, q, k, whole[6] if lengths.past != 0 else "", lengths)
        left_out = whole.write("Where", seen, left_out or whole.number(0), lowest, what="bias")
    added = _plus(whole, left_out, whole[bias]) if left_out else whole[bias]
    scores = _scores(whole, q, k, whole.attribute("scale"), size)
    weights = _weights(whole, _plus(whole, scores, added), None)
    _by_sample(whole, whole.write("MatMul", weights, v, what="attended"), count * value_size)


def _share(hidden: int, heads: Any) -> int:
    """The size of each head."""
    require(heads > 0 and hidden % heads == 0)
    return int(hidden // heads)


def _by_head(whole: Whole, x: str, heads: int, size: int, what: str) -> str:
    """`[B, S, heads·size]` as `[B, heads, S, size]`."""
    return whole.transpose(whole.reshape(x, 0, 0, heads, size, what=f"{what}_heads"), 0, 2, 1, 3, what=what)


def _by_sample(whole: Whole, x: str, hidden: int) -> None:
    """`[B, heads, S, size]` as `[B, S, hidden]`, which the operator gives."""
    whole.reshape(whole.transpose(x, 0, 2, 1, 3, what="by_sample"), 0, 0, hidden, gives=0)


def _lengths(whole: Whole, axis: int, past: int) -> _Lengths:
    """Along this axis of keys; input `past` is past keys by head."""
    queries = whole.shape(0)[1 if len(whole.shape(0)) == 3 else 2]
    return _Lengths(queries, whole.shape(past)[2] if whole[past] else 0, whole.shape(1)[axis])


def _with_past(whole: Whole, k: str, v: str, past: int) -> tuple[str, str]:
    """Keys and values by head behind those of inputs `past` and the next, which the operator gives as outputs 1 and 2.

    Raises:
        StaysWhole: only one of both is there.
    """
    require(bool(whole[past]) == bool(whole[past + 1]))
    found = []
    for x, index, what in ((k, 1, "present_key"), (v, 2, "present_value")):
        gives = index if whole.read(index) else None
        if whole[past]:
            x = whole.write("Concat", whole[past + index - 1], x, what=what, gives=gives, axis=2)
        elif gives is not None:
            whole.write("Identity", x, what=what, gives=gives)
        found.append(x)
    return found[0], found[1]


def _repeated(whole: Whole, x: str, shared: int, heads: int, size: int) -> str:
    """`[B, shared, S, size]` as `[B, heads, S, size]`, each head in a row with its repetitions."""
    require(heads % shared == 0)
    if heads == shared:
        return x
    apart = whole.write("Unsqueeze", x, whole.constant([2]))
    return whole.reshape(
        whole.write("Expand", apart, whole.constant([1, 1, heads // shared, 1, 1])), 0, heads, -1, size
    )


def _scores(whole: Whole, q: str, k: str, scale: float | None, size: int) -> str:
    """`[B, heads, S, T]`: q·scale by keys; onnxruntime's operators say 0 for no scale of their own."""
    scaled = whole.write("Mul", q, whole.number(scale or 1 / math.sqrt(size)), what="scaled")
    return whole.write("MatMul", scaled, whole.transpose(k, 0, 1, 3, 2, what="transposed"), what="scores")


def _capped(whole: Whole, scores: str, cap: float) -> str:
    if not cap:
        return scores
    share = whole.write("Tanh", whole.write("Div", scores, whole.number(cap)))
    return whole.write("Mul", share, whole.number(cap), what="capped")


def _plus(whole: Whole, scores: str, bias: str) -> str:
    return whole.write("Add", scores, bias, what="biased") if bias else scores


def _weights(whole: Whole, scores: str, precision: int | None) -> str:
    own = helper.np_dtype_to_tensor_dtype(whole.dtype())
    if precision in (None, own):
        return whole.write("Softmax", scores, what="weights", axis=-1)
    precise = whole.write("Softmax", whole.write("Cast", scores, to=precision), axis=-1)
    return whole.write("Cast", precise, what="weights", to=own)


def _standard_bias(whole: Whole, q: str, k: str, lengths: _Lengths) -> str:
    """What masks add to scores: zero, or −∞ for a key that is left out; empty where there are none."""
    bias = whole[3]
    if bias:
        total = None
        if isinstance(lengths.past, int) and isinstance(lengths.new, int):
            total = lengths.past + lengths.new
        given = whole.shape(3)[-1]
        # One that is too short leaves out the last keys; onnxruntime has no such ones.
        require(not isinstance(given, int) or total is None or given == total)
        if whole.dtype(3) == np.bool_:
            bias = whole.write("Where", bias, whole.number(0), whole.number(-math.inf), what="bias")
    if whole.attribute("is_causal", 0):
        seen = _no_later(whole, q, k, whole[4], lengths)
        bias = whole.write("Where", seen, bias or whole.number(0), whole.number(-math.inf), what="bias")
    return bias


def _keyless(whole: Whole, bias: str) -> str:
    """`[…, S, 1]`: queries that have no key left; empty where there are none, as of the causal mask alone."""
    if not whole[3]:
        return ""
    mask = whole.value(3)
    if mask is not None and not whole.attribute("is_causal", 0):
        left = mask if mask.dtype == np.bool_ else mask > -math.inf
        if left.any(axis=-1).all():
            return ""
    highest = whole.write("ReduceMax", bias, whole.constant([-1]), keepdims=1)
    return whole.write("Equal", highest, whole.number(-math.inf), what="keyless")


def _no_later(whole: Whole, q: str, k: str, past: str, lengths: _Lengths) -> str:
    """`[S, P + T]`: whether a key is of the past, or stands no later than the query."""
    known = (lengths.queries, lengths.past, lengths.new)
    if all(isinstance(length, int) for length in known):
        rows, before, columns = (int(length) for length in known)  # type: ignore[arg-type]
        return whole.constant(np.tri(rows, before + columns, before), np.bool_, what="causal")
    rows_, columns_ = _range(whole, q), _range(whole, k)
    if past:
        rows_ = whole.write("Add", rows_, whole.length(past, 2))
    return whole.write("LessOrEqual", columns_, whole.write("Unsqueeze", rows_, whole.constant([1])), what="causal")


def _range(whole: Whole, x: str) -> str:
    """Numbers of what is along axis 2."""
    return whole.write("Range", whole.constant(0), whole.length(x, 2), whole.constant(1))


def _padding(whole: Whole, k: str, index: int) -> str:
    """What onnxruntime adds to the scores of keys that a mask of integers leaves out; empty where there is none.

    `[B, T]`, `[B, S, T]`: those that are not above zero. `[B]`: those from this one on; `[2·B]`: and those before.

    Raises:
        StaysWhole: the mask has another form.
    """
    if not whole[index]:
        return ""
    shape, batch = whole.shape(index), whole.shape(0)[0]
    if len(shape) in (2, 3):
        seen = whole.write("Greater", whole[index], whole.constant(0, whole.dtype(index)))
        axes = [1, 2] if len(shape) == 2 else [1]
    else:
        require(len(shape) == 1)
        twice = isinstance(batch, int) and shape[0] == 2 * batch
        require(twice or (batch is not None and shape[0] == batch))
        ends = whole.write("Cast", whole[index], to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int64)))
        ends = whole.reshape(ends, 2 if twice else 1, -1, 1)
        columns, end = _range(whole, k), whole.write("Gather", ends, whole.constant(0))
        seen = whole.write("Less", columns, end)
        if twice:
            start = whole.write("Gather", ends, whole.constant(1))
            seen = whole.write("And", seen, whole.write("GreaterOrEqual", columns, start))
        axes = [1, 2]
    kept = whole.write("Unsqueeze", seen, whole.constant(axes))
    left_out = whole.number(whole.attribute("mask_filter_value", _FILTER))
    return whole.write("Where", kept, whole.number(0), left_out, what="bias")
