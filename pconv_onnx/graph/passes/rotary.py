"""Rotary position embeddings in parts: pairs of entries of each head, rotated by the angle of a token's position.

A pair (a, b) becomes (a·cos − b·sin, a·sin + b·cos). Its entries stand side by side, or one in the first half and one
in the second. Entries behind the last pair stay. Source: Su et al., "RoFormer: Enhanced transformer with rotary
position embedding" (2021).
"""

from __future__ import annotations

from pconv_onnx.graph.passes.whole import Whole, require


def standard(whole: Whole) -> None:
    """RotaryEmbedding, from opset 23 on: `(x, cos, sin, positions?) → y`.

    Without positions, cos and sin have a row for each token.
    """
    cos, sin = (whole.write("Gather", table, whole[3]) if whole[3] else table for table in (whole[1], whole[2]))
    _turned(whole, cos, sin, 1)


def of_onnxruntime(whole: Whole) -> None:
    """RotaryEmbedding of onnxruntime: `(x, positions, cos, sin) → y`; a single position is that of the first token.

    It stays whole if it has a scale, which onnxruntime does not use either, or packed batches.
    """
    require(whole.attribute("scale", 1.0) == 1.0 and not whole.flag("is_packed_batching"))
    positions = whole[1]
    require(len(whole.shape(1)) in (1, 2))
    if len(whole.shape(1)) == 1:
        require(whole.size(1, 0) == 1)
        tokens = whole.length(whole[0], 1 if len(whole.shape(0)) == 3 else 2)
        first = whole.write("Unsqueeze", positions, whole.constant([0]))
        positions = whole.write("Add", first, whole.write("Range", whole.constant(0), tokens, whole.constant(1)))
    cos, sin = (whole.write("Gather", table, positions) for table in (whole[2], whole[3]))
    _turned(whole, cos, sin, 2)


def _turned(whole: Whole, cos: str, sin: str, table: int) -> None:
    """Rotate by angles `[B, S, pairs]`; a row of input number `table` has as many entries."""
    by_sample = len(whole.shape(0)) == 3
    pairs = whole.size(table, -1)
    require(whole.attribute("rotary_embedding_dim", 0) in (0, 2 * pairs))
    if not by_sample:
        cos, sin = (whole.write("Unsqueeze", angles, whole.constant([1])) for angles in (cos, sin))
        turned(whole, whole[0], whole.size(0, 3), (cos, sin), pairs, "interleaved", gives=0)
        return
    hidden, count = whole.size(0, 2), whole.attribute("num_heads", 0)
    size = hidden // count if count else 2 * pairs
    require(hidden % size == 0)
    x = whole.reshape(whole[0], 0, 0, hidden // size, size, what="heads")
    cos, sin = (whole.write("Unsqueeze", angles, whole.constant([2])) for angles in (cos, sin))
    whole.reshape(turned(whole, x, size, (cos, sin), pairs, "interleaved"), 0, 0, hidden, gives=0)


def turned(
    whole: Whole, x: str, size: int, angles: tuple[str, str], pairs: int, interleaved: str, gives: int | None = None
) -> str:
    """Write a rotation of the entries along the last of four axes.

    Args:
        whole: the operator.
        x: name of the entries.
        size: how many entries there are.
        angles: names of the cosines and sines, which broadcast to the pairs.
        pairs: how many pairs there are.
        interleaved: the attribute that says whether the entries of a pair stand side by side.
        gives: which output of the operator it makes; None if it makes none.
    """
    cos, sin = angles
    side_by_side = whole.flag(interleaved)
    apart, step = (1, 2) if side_by_side else (pairs, 1)
    last = 2 * pairs
    a, b = (whole.slice(x, start, end, axis=3, step=step) for start, end in ((0, last - apart), (apart, last)))
    parts = [
        whole.write("Sub", whole.write("Mul", a, cos), whole.write("Mul", b, sin)),
        whole.write("Add", whole.write("Mul", a, sin), whole.write("Mul", b, cos)),
    ]
    if side_by_side:
        paired = (whole.write("Unsqueeze", part, whole.constant([4])) for part in parts)
        parts = [whole.reshape(whole.write("Concat", *paired, axis=4), 0, 0, 0, last)]
    if last < size:
        parts.append(whole.slice(x, last, size, axis=3))
    return whole.write("Concat", *parts, what="turned", gives=gives, axis=3)
