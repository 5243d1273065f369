"""onnxruntime's GroupQueryAttention in parts: causal attention with past keys and rotary positions.

Past keys are in a buffer of P places, of which each sample fills the first ones; its new keys follow them. Scores are
computed for all places and all new keys, since their order does not change a sum; empty places are masked.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import helper

from pconv_onnx.graph.passes import heads, rotary
from pconv_onnx.graph.passes.whole import Whole, require

_INT64 = helper.np_dtype_to_tensor_dtype(np.dtype(np.int64))
# Inputs: past keys, the number of keys of each sample less one, and of the longest; cosines and positions.
_PAST, _LAST, _TOTAL, _COS, _SIN, _POSITIONS = 3, 5, 6, 7, 8, 9
# Attributes of features that cannot be written in parts, with the values that leave them off.
_ELSEWISE = {"local_window_size": -1, "smooth_softmax": 0, "qk_output": 0, "k_quant_type": "NONE",
             "v_quant_type": "NONE"}  # fmt: skip


def grouped(whole: Whole) -> None:
    """GroupQueryAttention: `(q, k, v, past_key?, past_value?, last, total, cos?, sin?, positions?) → (y, present, …)`.

    Queries, keys and values may be one tensor. With windows, sinks, quantised keys or a bias of scores it stays whole.
    """
    require(all(whole.attribute(name, usual) == usual for name, usual in _ELSEWISE.items()))
    require(not any(whole[index] for index in range(10, 14)) and not whole.read(3))
    require(bool(whole[_PAST]) == bool(whole[_PAST + 1]) and len(whole.shape(0)) == 3)
    count, shared = whole.attribute("num_heads"), whole.attribute("kv_num_heads")
    q, k, v = whole[0], whole[1], whole[2]
    size = heads.share(whole.size(0, 2), count if k else count + 2 * shared)
    if not k:
        ends = (0, count * size, (count + shared) * size, (count + 2 * shared) * size)
        q, k, v = (
            whole.slice(q, start, end, axis=2, what=f"{what}_part")
            for start, end, what in zip(ends[:-1], ends[1:], ("query", "key", "value"), strict=True)
        )
    filled = _filled(whole) if whole[_PAST] else ""
    q, k, v = (whole.reshape(x, 0, 0, n, size) for x, n in ((q, count), (k, shared), (v, shared)))
    if whole.flag("do_rotary"):
        q, k = _rotated(whole, q, k, size, filled)
    q, k, v = (whole.transpose(x, 0, 2, 1, 3, what=what) for x, what in ((q, "query"), (k, "key"), (v, "value")))
    bias = _bias(whole, filled)
    k, v = (_with_past(whole, x, index, filled) for x, index in ((k, 0), (v, 1)))
    scores = heads.scores_of(whole, q, heads.repeated(whole, k, shared, count, size), whole.attribute("scale"), size)
    capped = heads.capped_at(whole, scores, whole.attribute("softcap", 0.0))
    weights = heads.weights_of(whole, heads.plus(whole, capped, bias))
    v = heads.repeated(whole, v, shared, count, size)
    heads.by_sample(whole, whole.write("MatMul", weights, v, what="attended"), count * size)


def _filled(whole: Whole) -> str:
    """`[B, 1]`: how many past keys each sample has; empty if all keys are new."""
    last = whole.write("Cast", whole.reshape(whole[_LAST], -1, 1), to=_INT64)
    past = whole.write("Sub", whole.write("Add", last, whole.constant(1)), _new(whole))
    all_new = whole.write("Equal", _total(whole), _new(whole))
    return whole.write("Where", all_new, whole.constant(0), past, what="filled")


def _new(whole: Whole) -> str:
    """S."""
    return whole.length(whole[0], 1)


def _total(whole: Whole) -> str:
    """How many keys the sample with the most has, as a scalar."""
    return whole.write("Cast", whole.reshape(whole[_TOTAL]), to=_INT64)


def _numbers(whole: Whole, end: str) -> str:
    return whole.write("Range", whole.constant(0), end, whole.constant(1))


def _rotated(whole: Whole, q: str, k: str, size: int, filled: str) -> tuple[str, str]:
    """Queries and keys `[B, S, heads, size]`, turned by the places of their tokens."""
    places = whole[_POSITIONS]
    if not places:
        places = whole.write("Add", filled or whole.constant([[0]]), _numbers(whole, _new(whole)))
    cos, sin = (
        whole.write("Unsqueeze", whole.write("Gather", whole[table], places), whole.constant([2]))
        for table in (_COS, _SIN)
    )
    pairs = whole.size(_COS, -1)
    q, k = (rotary.turned(whole, x, size, (cos, sin), pairs, "rotary_interleaved") for x in (q, k))
    return q, k


def _bias(whole: Whole, filled: str) -> str:
    """`[S, S]` or `[B, 1, S, P + S]`: −∞ for keys that come later and for empty places, zero for others."""
    rows = columns = _numbers(whole, _new(whole))
    if filled:
        past = whole.length(whole[_PAST], 2)
        rows = whole.write("Add", rows, past)
        columns = _numbers(whole, whole.write("Add", past, _new(whole)))
    seen = whole.write("LessOrEqual", columns, whole.write("Unsqueeze", rows, whole.constant([1])))
    if filled:
        full = whole.write("Less", columns, filled)
        there = whole.write("Or", full, whole.write("GreaterOrEqual", columns, past))
        seen = whole.write("And", seen, whole.write("Unsqueeze", there, whole.constant([1, 2])))
    return whole.write("Where", seen, whole.number(0), whole.number(-math.inf), what="bias")


def _with_past(whole: Whole, x: str, index: int, filled: str) -> str:
    """Past keys or values, then the new ones `[B, heads, S, size]`, behind all places of the buffer."""
    read = whole.read(index + 1)
    if not filled:
        if read:
            whole.write("Identity", x, gives=index + 1)
        return x
    joined = whole.write("Concat", whole[_PAST + index], x, axis=2)
    if read:
        _present(whole, joined, filled, index)
    return joined


def _present(whole: Whole, joined: str, filled: str, index: int) -> None:
    """Write the buffer `[B, heads, max(P, total), size]`, with zeros in places that are still empty."""
    past, new = whole.length(whole[_PAST], 2), _new(whole)
    places = _numbers(whole, whole.write("Max", past, _total(whole)))
    behind = whole.write("Sub", whole.write("Add", places, past), filled)
    source = whole.write("Where", whole.write("Less", places, filled), places, behind)
    last = whole.write("Sub", whole.write("Add", past, new), whole.constant(1))
    inside = whole.write("Unsqueeze", whole.write("Min", source, last), whole.constant([2]))
    moved = whole.write("GatherND", whole.transpose(joined, 0, 2, 1, 3), inside, batch_dims=1)
    there = whole.write("Less", places, whole.write("Add", filled, new))
    kept = whole.write("Where", whole.write("Unsqueeze", there, whole.constant([2, 3])), moved, whole.number(0))
    whole.transpose(kept, 0, 2, 1, 3, gives=index + 1)
