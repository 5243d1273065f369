"""ONNX's Attention written in parts, as its reference computes it: softmax(scale·q·kᵀ + bias)·v for each head.

Each product has two operands `[B, heads, …]`; keys and values that several queries share are repeated for each.
"""

from __future__ import annotations

import math

import numpy as np

from pconv_onnx.graph.passes import heads
from pconv_onnx.graph.passes.whole import Whole, require


def attention(whole: Whole) -> None:
    """Attention, from opset 23 on: `(q, k, v, mask?, past_key?, past_value?) → (y, present_key?, present_value?, qk?)`.

    Attention with a number of keys for each sample, or with windows, stays whole.
    """
    windows = [whole.attribute(f"{side}_window_size", -1) for side in ("left", "right")]
    require(not whole[6] and all(window < 0 for window in windows))
    by_sample = len(whole.shape(0)) == 3
    if by_sample:
        count, shared = whole.attribute("q_num_heads"), whole.attribute("kv_num_heads")
        size, value_size = heads.share(whole.size(0, 2), count), heads.share(whole.size(2, 2), shared)
        q = heads.by_head(whole, whole[0], count, size, "query")
        k = heads.by_head(whole, whole[1], shared, size, "key")
        v = heads.by_head(whole, whole[2], shared, value_size, "value")
    else:
        q, k, v = whole[0], whole[1], whole[2]
        count, shared, size, value_size = whole.size(0, 1), whole.size(1, 1), whole.size(0, 3), whole.size(2, 3)
    lengths = heads.lengths_of(whole, 1 if by_sample else 2, 4)
    k, v = heads.with_past(whole, k, v, 4)
    bias = _bias(whole, q, k, lengths)
    scores = heads.scores_of(whole, q, heads.repeated(whole, k, shared, count, size), whole.attribute("scale"), size)
    capped = heads.capped_at(whole, scores, whole.attribute("softcap", 0.0))
    # Where every key is masked, y is zero; softmax has no value there, so it is computed without the bias.
    keyless = _keyless(whole, bias)
    added = whole.write("Where", keyless, whole.number(0), bias, what="bias") if keyless else bias
    weights = heads.weights_of(whole, heads.plus(whole, capped, added), whole.attribute("softmax_precision"))

    def without_keyless(x: str, gives: int | None = None) -> str:
        return whole.write("Where", keyless, whole.number(0), x, what="attended", gives=gives) if keyless else x

    if whole.read(3):
        # Mode 2 with masks: onnxruntime and onnx give different values for masked scores.
        mode = whole.attribute("qk_matmul_output_mode", 0)
        require(mode in (0, 1, 3))
        stage = (scores, capped)[mode] if mode != 3 else without_keyless(weights)
        whole.write("Identity", stage, gives=3)
    last = None if by_sample else 0
    v = heads.repeated(whole, v, shared, count, value_size)
    y = without_keyless(whole.write("MatMul", weights, v, what="attended", gives=None if keyless else last), last)
    if by_sample:
        heads.by_sample(whole, y, count * value_size)


def _bias(whole: Whole, q: str, k: str, lengths: heads.Lengths) -> str:
    """What masks add to scores: zero, or −∞ for a masked key; empty if there are no masks."""
    bias = whole[3]
    if bias:
        total = None
        if isinstance(lengths.past, int) and isinstance(lengths.new, int):
            total = lengths.past + lengths.new
        given = whole.shape(3)[-1]
        # A mask that is too short masks the last keys; onnxruntime does not take such masks.
        require(not isinstance(given, int) or total is None or given == total)
        if whole.dtype(3) == np.bool_:
            bias = whole.write("Where", bias, whole.number(0), whole.number(-math.inf), what="bias")
    if whole.flag("is_causal"):
        seen = heads.no_later(whole, q, k, whole[4], lengths)
        bias = whole.write("Where", seen, bias or whole.number(0), whole.number(-math.inf), what="bias")
    return bias


def _keyless(whole: Whole, bias: str) -> str:
    """`[…, S, 1]`: queries whose keys are all masked; empty if there can be none, as with the causal mask alone."""
    if not whole[3]:
        return ""
    mask = whole.value(3)
    if mask is not None and not whole.flag("is_causal"):
        left = mask if mask.dtype == np.bool_ else mask > -math.inf
        if left.any(axis=-1).all():
            return ""
    highest = whole.write("ReduceMax", bias, whole.constant([-1]), keepdims=1)
    return whole.write("Equal", highest, whole.number(-math.inf), what="keyless")
