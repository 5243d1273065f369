"""Rotary positions in parts: pairs of entries of each head, turned by the angle of a token's place.

A pair (a, b) becomes (a·cos − b·sin, a·sin + b·cos); it is an entry of the first and of the second half, or two in a
row. Entries behind the last pair stay. Source: Su et al., "RoFormer: Enhanced transformer with rotary position
embedding" (2021).
"""

from __future__ import annotations

from pconv_onnx.graph.passes.whole import Whole, require


def standard(whole: Whole) -> None:
    """RotaryEmbedding, from opset 23 on: `(x, cos, sin, positions?) → y`.

    Without positions cos and sin have a row for each token.
    """
    cos, sin = (whole.write("Gather", table, whole[3]) if whole[3] else table for table in (whole[1], whole[2]))
    _turned(whole, cos, sin, 1)


def of_onnxruntime(whole: Whole) -> None:
    """RotaryEmbedding of onnxruntime: `(x, positions, cos, sin) → y`; one position is that of the first token.

    Those with a scale, which onnxruntime does not use either, and of packed batches stay whole.
    """
    require(whole.attribute("scale", 1.0) == 1.0 and not whole.attribute("is_packed_batching", 0))
    positions = whole[1]
    if len(whole.shape(1)) == 1:
        require(whole.size(1, 0) == 1)
        tokens = whole.length(whole[0], 1 if len(whole.shape(0)) == 3 else 2)
        first = whole.write("Unsqueeze", positions, whole.constant([0]))
        positions = whole.write("Add", first, whole.write("Range", whole.constant(0), tokens, whole.constant(1)))
    cos, sin = (whole.write("Gather", table, positions) for table in (whole[2], whole[3]))
    _turned(whole, cos, sin, 2)


def _turned(whole: Whole, cos: str, sin: str, table: int) -> None:
    """Turn by angles `[B, S, pairs]`, of which input `table` has as many in a row."""
    by_sample = len(whole.shape(0)) == 3
    turned = 2 * whole.size(table, -1)
    require(whole.attribute("rotary_embedding_dim", 0) in (0, turned))
    if by_sample:
        hidden, count = whole.size(0, 2), whole.attribute("num_heads", 0)
        size = hidden // count if count else turned
        require(hidden % size == 0)
        x = whole.reshape(whole[0], 0, 0, hidden // size, size, what="heads")
    else:
        x, size = whole[0], whole.size(0, 3)
    heads = whole.constant([2 if by_sample else 1])
    cos, sin = (whole.write("Unsqueeze", angles, heads) for angles in (cos, sin))
    interleaved = whole.attribute("interleaved", 0)
    half, step = (1, 2) if interleaved else (turned // 2, 1)
    a, b = (whole.slice(x, start, end, axis=3, step=step) for start, end in ((0, turned - half), (half, turned)))
    pair = [
        whole.write("Sub", whole.write("Mul", a, cos), whole.write("Mul", b, sin)),
        whole.write("Add", whole.write("Mul", a, sin), whole.write("Mul", b, cos)),
    ]
    if interleaved:
        apart = (whole.write("Unsqueeze", part, whole.constant([4])) for part in pair)
        pair = [whole.reshape(whole.write("Concat", *apart, axis=4), 0, 0, 0, turned)]
    if turned < size:
        pair.append(whole.slice(x, turned, size, axis=3))
    if by_sample:
        whole.reshape(whole.write("Concat", *pair, axis=3, what="turned"), 0, 0, hidden, gives=0)
    else:
        whole.write("Concat", *pair, axis=3, gives=0)
