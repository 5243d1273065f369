"""onnxruntime's operators with sums in them, in parts: residuals before a normalisation, embeddings, GELU biases."""

from __future__ import annotations

import numpy as np
from onnx import helper

from pconv_onnx.graph.passes.whole import Whole, require

_DOMAIN = "com.microsoft"
_INT32 = helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
# onnxruntime's value if the attribute is left out.
_EPSILON = 1e-12


def skip_normalisation(whole: Whole) -> None:
    """SkipLayerNormalization: `(x, skip, γ, β?, bias?) → (y, _, _, sum?)`."""
    total = _residual_sum(whole, bias=4)
    _normalised(whole, "LayerNormalization", total, whole[2], *([whole[3]] if whole[3] else []))


def skip_simplified_normalisation(whole: Whole) -> None:
    """SkipSimplifiedLayerNormalization: `(x, skip, γ, bias?) → (y, _, _, sum?)`, by the root of the mean square."""
    _normalised(whole, "SimplifiedLayerNormalization", _residual_sum(whole, bias=3), whole[2])


def embeddings(whole: Whole) -> None:
    """EmbedLayerNormalization: `(tokens, segments?, words, places, kinds?, γ, β, mask?, ids?) → (y, ends?, sum?)`.

    `ends` counts the ones in each row of the mask. If it is read and there is no mask, the node stays whole.
    """
    require(bool(whole[1]) == bool(whole[4]) and bool(whole[5] and whole[6]))
    if whole.read(1):
        require(bool(whole[7]))
        ones = whole.write("Equal", whole[7], whole.constant(1, whole.dtype(7)))
        counted = whole.write("Cast", ones, to=_INT32)
        whole.write("ReduceSum", counted, whole.constant([1]), keepdims=0, gives=1)
    places = whole[8]
    if not places:
        numbers = whole.write("Range", whole.constant(0), whole.length(whole[0], 1), whole.constant(1))
        places = whole.write("Unsqueeze", numbers, whole.constant([0]))
    total = whole.write("Add", whole.write("Gather", whole[2], whole[0]), whole.write("Gather", whole[3], places))
    gives = 2 if whole.read(2) else None
    if whole[1]:
        total = whole.write("Add", total, whole.write("Gather", whole[4], whole[1]), what="sum", gives=gives)
    elif gives is not None:
        whole.write("Identity", total, gives=gives)
    _normalised(whole, "LayerNormalization", total, whole[5], whole[6])


def bias_gelu(whole: Whole) -> None:
    """BiasGelu: `(x, bias) → y`."""
    whole.write("Gelu", whole.write("Add", whole[0], whole[1], what="biased"), domain=_DOMAIN, gives=0)


def fast_gelu(whole: Whole) -> None:
    """FastGelu: `(x, bias?) → y`; it stays whole if it has no bias."""
    require(bool(whole[1]))
    whole.write("FastGelu", whole.write("Add", whole[0], whole[1], what="biased"), domain=_DOMAIN, gives=0)


def _residual_sum(whole: Whole, bias: int) -> str:
    require(not whole.read(1) and not whole.read(2))
    operands = [x for x in (whole[1], whole[bias]) if x]
    total = whole[0]
    for index, operand in enumerate(operands, 1):
        last = index == len(operands) and whole.read(3)
        total = whole.write("Add", total, operand, what="sum", gives=3 if last else None)
    return total


def _normalised(whole: Whole, op_type: str, x: str, *operands: str) -> None:
    whole.write(op_type, x, *operands, axis=-1, epsilon=whole.attribute("epsilon", _EPSILON), gives=0)
