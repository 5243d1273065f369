"""Totals: a current as a sum of products with integer weights, tensors with multipliers, and an offset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.graph.windows import windows

# The range of int8.
_LOWEST, _HIGHEST = -128, 127
_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Product:
    """A convolution or matrix product with integer weights.

    Attributes:
        node: Conv, Gemm or MatMul.
        name: name of its weights, which two nodes may share.
        weights: `[M, C/group, kH, kW]` or `[M, C]`, int8.
        input: name of its data input.
        pads: padding of a convolution, in its operator's form, including that of a Pad before it.
        factor: how many units of the total a product counts; like all numbers it broadcasts against the node's output.
    """

    node: Node
    name: str
    weights: Array
    input: str
    pads: Sequence[int]
    factor: Array

    @property
    def is_convolution(self) -> bool:
        """Whether its channels lie along axis 1."""
        return bool(self.node.op == "Conv")


@dataclass(frozen=True, eq=False)
class Total:
    """A sum of integers.

    Attributes:
        products: the products that are summed.
        added: tensors of integers by name, each with a multiplier.
        offset: constant numbers that are added.
    """

    products: Sequence[Product] = ()
    added: Sequence[tuple[str, Array]] = ()
    offset: Array = field(default_factory=lambda: np.zeros(()))

    def __add__(self, other: Total) -> Total:
        """The sum of two totals."""
        return Total((*self.products, *other.products), (*self.added, *other.added), np.add(self.offset, other.offset))

    def times(self, factor: Array) -> Total:
        """The total times a factor."""
        return Total(
            [replace(product, factor=product.factor * factor) for product in self.products],
            [(name, multiplier * factor) for name, multiplier in self.added],
            self.offset * factor,
        )


def total_of(
    tensor: Tensor, is_term: Callable[[Tensor], bool], shapes: Mapping[str, Sequence[int | str | None]]
) -> Total | None:
    """What a tensor is the sum of, as far as single operators make it; None where some of it is no integer.

    Args:
        tensor: of the network.
        is_term: whether a tensor is to be taken as it is.
        shapes: of tensors, by name; a size that is not known is no number.
    """
    value = constant(tensor)
    if value is not None:
        return Total(offset=value.astype(np.float64)) if _whole(value) else None
    node = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if node is None or not is_standard(node) or len(node.outputs) != 1:
        return None

    def term(source: Tensor) -> Total | None:
        if is_term(source):
            return Total(added=[(source.name, np.ones(()))])
        return total_of(source, is_term, shapes)

    if node.op in _PRODUCTS:
        return _product(node, shapes)
    if node.op == "Identity":
        return term(node.inputs[0])
    if node.op == "Neg":
        found = term(node.inputs[0])
        return None if found is None else found.times(np.array(-1.0))
    if node.op in ("Add", "Sub"):
        left, right = map(term, node.inputs)
        if left is None or right is None:
            return None
        return left + right.times(np.array(1.0 if node.op == "Add" else -1.0))
    if node.op == "Mul":
        for source, other in (node.inputs, node.inputs[::-1]):
            factor = constant(other)
            if factor is not None and _whole(factor):
                found = term(source)
                return None if found is None else found.times(factor.astype(np.float64))
    return None


def along(values: Array, axis: int, rank: int, channels: int) -> Array | None:
    """Numbers that broadcast against a tensor, as `[M]`, one a channel along an axis; None where they are no such."""
    shape = (1,) * (rank - values.ndim) + values.shape
    if len(shape) > rank or any(size != 1 for place, size in enumerate(shape) if place != axis):
        return None
    found = np.broadcast_to(values.reshape(-1), (channels,)) if shape[axis] in (1, channels) else None
    return None if found is None else found.astype(np.int64)


def _whole(values: Array) -> bool:
    return values.dtype.kind in "fiu" and bool((np.rint(values) == values).all())


def _product(node: Node, shapes: Mapping[str, Sequence[int | str | None]]) -> Total | None:
    weights = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
    if weights is None or bias is None or not _whole(weights) or not _whole(bias) or not _is_plain(node):
        return None
    shape = shapes.get(node.inputs[0].name)
    rank = None if shape is None else len(shape)
    source, pads = node.inputs[0], list[int]()
    if node.op == "Conv":
        if shape is None or rank not in (3, 4) or weights.ndim != rank:
            return None
        padding = _padding(node, shape[2:], weights.shape[2:])
        if padding is None:
            return None
        source, pads = _padded(node, rank, padding)
        rows = weights if rank == 4 else weights[:, :, np.newaxis]
        bias = bias.reshape(-1, *[1] * (rank - 2))
    else:
        if rank is None or rank < 1 + (node.op == "Gemm") or weights.ndim != 2:
            return None
        rows = weights if node.attrs.get("transB", 0) else weights.T
        if bias.ndim > 1 and bias.shape[-1] != bias.size:
            return None
        bias = bias.reshape(-1)
    flat = rows.reshape(len(rows), -1).astype(np.int64)
    divisor = np.maximum(np.gcd.reduce(flat, axis=1), 1) if flat.size else np.ones(len(flat), np.int64)
    small = flat // divisor[:, np.newaxis]
    if small.size and not _LOWEST <= small.min() <= small.max() <= _HIGHEST:
        return None
    factor = divisor.astype(np.float64).reshape(-1, *[1] * (rank - 2 if node.op == "Conv" else 0))
    found = Product(node, node.inputs[1].name, small.reshape(rows.shape).astype(np.int8), source.name, pads, factor)
    return Total([found], offset=bias.astype(np.float64))


def _padding(node: Node, sizes: Sequence[int | str | None], taps: Sequence[int]) -> list[int] | None:
    """A convolution's own, all starts and then all ends; None where it depends on sizes that are not known."""
    known = [size if isinstance(size, int) else None for size in sizes]
    if None in known and node.attrs.get("auto_pad", "NOTSET").startswith("SAME"):
        return None
    # Otherwise it is the same for all sizes.
    along = windows(node.attrs, [size or 0 for size in known], taps)
    return [window.start for window in along] + [window.end for window in along]


def _padded(node: Node, rank: int, pads: list[int]) -> tuple[Tensor, list[int]]:
    """The tensor that a convolution reads before a Pad by zeros, and the padding by both."""
    source = node.inputs[0]
    before = source.inputs[0] if len(source.inputs) == 1 else None
    if before is None or before.op != "Pad" or not is_standard(before) or len(before.inputs) > 3:
        return source, pads
    more = constant(before.inputs[1]) if len(before.inputs) > 1 else None
    value = constant(before.inputs[2]) if len(before.inputs) > 2 and before.inputs[2].name else np.zeros(1)
    by_zeros = value is not None and not value.any() and before.attrs.get("mode", "constant") == "constant"
    if more is None or not by_zeros or more.size != 2 * rank or (more < 0).any() or more.reshape(2, -1)[:, :2].any():
        return source, pads
    added = more.reshape(2, -1)[:, 2:].reshape(-1)
    return before.inputs[0], [pad + int(other) for pad, other in zip(pads, added, strict=True)]


def _is_plain(node: Node) -> bool:
    """Whether no attribute scales it."""
    attributes: Mapping[str, Any] = node.attrs
    scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0
    return not scaled and not attributes.get("transA", 0)
