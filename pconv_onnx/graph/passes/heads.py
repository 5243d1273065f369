"""The parts that all kinds of attention have in common: heads, scores, weights, and the causal mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.passes.whole import Whole, require

# Element types that a Softmax may be computed in.
_PRECISIONS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
# The most elements of a mask that is written as a constant.
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Lengths:
    """The numbers of queries and keys, as far as they are known.

    Attributes:
        queries: S.
        past: P, the number of past keys.
        new: the number of keys of a sample that are not past.
    """

    queries: Dimension
    past: Dimension
    new: Dimension


def share(hidden: int, heads: Any) -> int:
    """The size of each head."""
    require(heads > 0 and hidden % heads == 0)
    return int(hidden // heads)


def by_head(whole: Whole, x: str, heads: int, size: int, what: str) -> str:
    """`[B, S, heads·size]` as `[B, heads, S, size]`."""
    return whole.transpose(whole.reshape(x, 0, 0, heads, size, what=f"{what}_heads"), 0, 2, 1, 3, what=what)


def by_sample(whole: Whole, x: str, hidden: int) -> None:
    """`[B, heads, S, size]` as `[B, S, hidden]`, the operator's output."""
    whole.reshape(whole.transpose(x, 0, 2, 1, 3, what="by_sample"), 0, 0, hidden, gives=0)


def lengths_of(whole: Whole, axis: int, past: int) -> Lengths:
    """The lengths, of keys along this axis; input number `past` has the past keys by head."""
    queries = whole.shape(0)[1 if len(whole.shape(0)) == 3 else 2]
    return Lengths(queries, whole.shape(past)[2] if whole[past] else 0, whole.shape(1)[axis])


def with_past(whole: Whole, k: str, v: str, past: int) -> tuple[str, str]:
    """Keys and values by head, behind the past ones of inputs `past` and the next; they become outputs 1 and 2.

    Raises:
        StaysWhole: only one of the two past inputs is there.
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


def repeated(whole: Whole, x: str, shared: int, heads: int, size: int) -> str:
    """`[B, shared, S, size]` as `[B, heads, S, size]`; the repetitions of a head stand side by side."""
    require(heads % shared == 0)
    if heads == shared:
        return x
    apart = whole.write("Unsqueeze", x, whole.constant([2]))
    return whole.reshape(
        whole.write("Expand", apart, whole.constant([1, 1, heads // shared, 1, 1])), 0, heads, -1, size
    )


def scores_of(whole: Whole, q: str, k: str, scale: float | None, size: int) -> str:
    """Scores `[B, heads, S, T]`: q·scale times keys; in onnxruntime's operators a scale of 0 means the default."""
    scaled = whole.write("Mul", q, whole.number(scale or 1 / math.sqrt(size)), what="scaled")
    return whole.write("MatMul", scaled, whole.transpose(k, 0, 1, 3, 2, what="transposed"), what="scores")


def capped_at(whole: Whole, scores: str, cap: float) -> str:
    """Scores softly bounded to ±cap; unchanged if cap is zero."""
    require(cap >= 0)
    if not cap:
        return scores
    share = whole.write("Tanh", whole.write("Div", scores, whole.number(cap)))
    return whole.write("Mul", share, whole.number(cap), what="capped")


def plus(whole: Whole, scores: str, bias: str) -> str:
    """Scores with a bias, if there is one."""
    return whole.write("Add", scores, bias, what="biased") if bias else scores


def weights_of(whole: Whole, scores: str, precision: int | None = None) -> str:
    """Softmax of scores, computed in another element type if there is one."""
    own = helper.np_dtype_to_tensor_dtype(whole.floats)
    if precision in (None, own):
        return whole.write("Softmax", scores, what="weights", axis=-1)
    require(precision in _PRECISIONS)
    precise = whole.write("Softmax", whole.write("Cast", scores, to=precision), axis=-1)
    return whole.write("Cast", precise, what="weights", to=own)


def no_later(whole: Whole, q: str, k: str, past: str, lengths: Lengths) -> str:
    """`[S, P + T]`: whether a key is of the past, or stands no later than the query."""
    known = [length for length in (lengths.queries, lengths.past, lengths.new) if isinstance(length, int)]
    if len(known) == 3 and known[0] * (known[1] + known[2]) <= _LARGEST:
        rows, before, columns = known
        return whole.constant(np.tri(rows, before + columns, before), np.bool_, what="causal")
    rows_, columns_ = numbered(whole, q), numbered(whole, k)
    if past:
        rows_ = whole.write("Add", rows_, whole.length(past, 2))
    return whole.write("LessOrEqual", columns_, whole.write("Unsqueeze", rows_, whole.constant([1])), what="causal")


def numbered(whole: Whole, x: str) -> str:
    """The indices 0, 1, … along axis 2."""
    return whole.write("Range", whole.constant(0), whole.length(x, 2), whole.constant(1))
