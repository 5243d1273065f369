"""How many output elements each input element of a product is multiplied into.

The sum over all input elements is the operator's number of multiply-accumulates. The sum over the elements that are
not zero is the number of operations that remain. Products with padding are not counted, also where a Pad in front of
the operator adds the zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.graph.windows import Shape, transposed_windows, windows

_KEEP_ZEROS = ("DequantizeLinear", "Identity", "QuantizeLinear")


def fan_out(node: Node, operand: int, shapes: Sequence[Shape]) -> Array:
    """The fan-out of each element of one operand: how many products it takes part in.

    Args:
        node: an operator of `FAN_OUTS`.
        operand: 0 or, of Gemm, MatMul and Mul, 1.
        shapes: those of its first two inputs.

    Returns:
        Integers in the shape of the operand's last axes; along the axes before them the fan-out is the same.
    """
    fan = FAN_OUTS[node.op](node, operand, *shapes)
    return _inside(node.inputs[operand], fan) if fan.ndim else fan


def total(fan: Array, shape: Shape) -> int:
    """The sum of the fan-out over all elements of an operand of that shape."""
    return int(fan.sum()) * (math.prod(shape) // fan.size) if fan.size else 0


def _inside(tensor: Tensor, fan: Array) -> Array:
    """The fan-out without the zeros that a Pad puts around a tensor; `fan` is along that tensor's last axes."""
    maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    while maker is not None and _keeps_zeros(maker):
        maker = maker.inputs[0].inputs[0] if len(maker.inputs[0].inputs) == 1 else None
    pads = zeros_around(maker, fan.ndim + 2) if maker is not None else None
    if pads is None:
        return fan
    inside = np.zeros_like(fan)
    region = tuple(slice(start, size - end) for (start, end), size in zip(pads[2:], fan.shape, strict=True))
    inside[region] = fan[region]
    return inside


def _keeps_zeros(node: Node) -> bool:
    """Whether an operator maps zeros to what stands for zero, as quantisers and neurons do."""
    return node.domain == DOMAIN or (is_standard(node) and node.op in _KEEP_ZEROS)


def zeros_around(node: Node, rank: int) -> list[tuple[int, int]] | None:
    """How many zeros a Pad puts before and behind each axis; None for other nodes, and if that is not constant."""
    if node.op != "Pad" or not is_standard(node) or node.attrs.get("mode", "constant") != "constant":
        return None
    pads, value, axes = (constant(node.inputs[index]) if _given(node, index) else None for index in (1, 2, 3))
    if pads is None or (_given(node, 2) and (value is None or value.any())) or (_given(node, 3) and axes is None):
        return None
    found = [(0, 0)] * rank
    padded = range(rank) if axes is None else (int(axis) for axis in axes.reshape(-1))
    for axis, start, end in zip(padded, *np.maximum(pads.reshape(2, -1), 0).tolist(), strict=True):
        found[axis] = start, end
    return found


def _given(node: Node, index: int) -> bool:
    return index < len(node.inputs) and bool(node.inputs[index].name)


def _conv(node: Node, _: int, shape: Shape, weight: Shape) -> Array:
    """Weights `[M, C/group, …]`."""
    fans = []
    for size, window in zip(shape[2:], windows(node.attrs, shape[2:], weight[2:]), strict=True):
        positions = window.positions()
        fans.append(np.bincount(positions[(0 <= positions) & (positions < size)], minlength=size))
    return _product(fans) * (weight[0] // node.attrs.get("group", 1))


def _conv_transpose(node: Node, _: int, shape: Shape, weight: Shape) -> Array:
    """Weights `[C, M/group, …]`."""
    fans = []
    for window, size in transposed_windows(node.attrs, shape[2:], weight[2:]):
        positions = window.positions()
        fans.append(np.count_nonzero((0 <= positions) & (positions < size), axis=1))
    return _product(fans) * weight[1]


def _product(fans: Iterable[Array]) -> Array:
    """Windows are boxes, so the number of pairs at a position is the product of those along each axis."""
    product = np.ones((), np.int64)
    for fan in fans:
        product = np.multiply.outer(product, fan)
    return product


def _gemm(node: Node, operand: int, left: Shape, right: Shape) -> Array:
    """Columns of the other matrix, or its rows."""
    columns = right[0] if node.attrs.get("transB", 0) else right[1]
    rows = left[1] if node.attrs.get("transA", 0) else left[0]
    return np.array((columns, rows)[operand])


def _matmul(node: Node, operand: int, left: Shape, right: Shape) -> Array:
    """Columns of the other matrix, or its rows, once for each matrix of the stack that the element is used in."""
    stacks = (left[:-2], right[:-2])
    across = (right[-1] if len(right) > 1 else 1, left[-2] if len(left) > 1 else 1)[operand]
    uses = math.prod(np.broadcast_shapes(*stacks)) // max(math.prod(stacks[operand]), 1)
    return np.array(across * uses)


def _mul(_: Node, operand: int, left: Shape, right: Shape) -> Array:
    """Once for each element that broadcasting makes of it."""
    shapes = (left, right)
    return np.array(math.prod(np.broadcast_shapes(*shapes)) // max(math.prod(shapes[operand]), 1))


FAN_OUTS: dict[str, Callable[..., Array]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Mul": _mul,
}
