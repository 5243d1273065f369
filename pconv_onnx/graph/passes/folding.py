"""Constant folding: what can be computed before a graph runs becomes a constant.

An operator on constants is folded if it has one right answer: operators of layout and type, and arithmetic that
IEEE 754 rounds in one way only; quantisers and bounds if the result is a single number. Functions that a runtime
approximates (Exp, Softplus, …) stay. Sizes that a graph computes from shapes are folded as far as the shapes are
known, and so are shapes that follow from such sizes and that onnx's inference does not find.
"""

from __future__ import annotations

import functools
import math
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.network import Dimension, Network
from pconv_onnx.graph.stand_ins import OF_ITS_INPUT_SHAPE
from pconv_onnx.graph.view import Node, Tensor

_Result = TypeVar("_Result")

# The most elements of a result that is folded: thresholds and sizes, not weights.
_LARGEST = 1 << 16
# Each pass over a network may find what the next one needs. A small network gets as many passes as it takes; a large
# one gets so many that they visit no more nodes than this altogether.
_LEAST_PASSES, _MOST_VISITS = 8, 200_000


def fold(network: Network) -> Network:
    """The network with such values as Constant nodes, and with the shapes that follow from them.

    Its `sizes` are filled in.
    """
    for left in reversed(range(max(_LEAST_PASSES, _MOST_VISITS // max(1, len(network.nodes))))):
        walk = _Walk(network)
        network.sizes = walk.sizes
        if not left or (not walk.known and not walk.hints):
            break
        model = onnx.ModelProto()
        model.CopyFrom(network.proto)
        for node in every_node(model.graph):
            name = node.output[0] if node.output else ""
            if name in walk.known:
                value = numpy_helper.from_array(walk.known[name], name)
                node.CopyFrom(helper.make_node("Constant", [], [name], node.name, value=value))
        network = replace(network, proto=model, hints={**network.hints, **walk.hints})
    return network


class _Walk:
    """One pass in topological order.

    Attributes:
        known: values that nodes other than Constant compute, by name of the tensor.
        sizes: entries of integer scalars and vectors: numbers, names of dimensions, None if unknown.
        hints: tensors whose shapes are better known, for example from such sizes, than by inference.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.known: dict[str, Array] = {}
        self.sizes: dict[str, Array] = {}
        self.hints: dict[str, onnx.ValueInfoProto] = {}
        self._constants: dict[str, Array | None] = {}
        self._names = {dim.dim_param for info in network.proto.graph.input for dim in info.type.tensor_type.shape.dim}
        self._names.discard("")
        for node in network.every_node():
            if not node.inputs or not node.outputs:
                continue
            typed = OF_ITS_INPUT_SHAPE.get("" if is_standard(node) else node.domain, {})
            if node.op in typed:
                # onnx infers nothing for operators that are not its own.
                self._note(node, self.network.shape(node.inputs[0]) or (), typed[node.op])
            elif is_standard(node) and len(node.outputs) == 1 and node.op != "Constant":
                self._visit(node, node.outputs[0].name)

    def _visit(self, node: Node, name: str) -> None:
        value = self._folded(node)
        if value is not None:
            self.known[name] = value
            return
        self._hint(node)
        sizes = self._computed_sizes(node)
        if sizes is None:
            return
        self.sizes[name] = sizes
        dtype = self.network.dtypes.get(name)
        if dtype is not None and _is_plain(dtype) and _are_numbers(sizes):
            self.known[name] = sizes.astype(dtype)

    def _value(self, tensor: Tensor) -> Array | None:
        name = tensor.name
        if name in self.known:
            return self.known[name]
        if name not in self._constants:
            shape = self.network.shape(tensor)
            small = shape is not None and all(isinstance(size, int) for size in shape) and math.prod(shape) <= _LARGEST  # type: ignore[arg-type]
            self._constants[name] = constant(tensor) if small else None
        return self._constants[name]

    def _folded(self, node: Node) -> Array | None:
        """Value of an operator on constants."""
        if node.op == "CastLike":
            source, dtype = self._value(node.inputs[0]), self.network.dtypes.get(node.outputs[0].name)
            return source.astype(dtype) if source is not None and _is_plain(dtype) else None
        rule = _EXACT.get(node.op) or _OF_NUMBERS.get(node.op)
        if rule is None:
            return None
        operands = []
        for tensor in node.inputs:
            operands.append(self._value(tensor) if tensor.name else None)
            if tensor.name and operands[-1] is None:
                return None
        with np.errstate(all="ignore"):
            value = _applied(rule, node, *operands)
        if value is None:
            return None
        result = np.asarray(value)
        return result if node.op in _EXACT or (result.size == 1 and result.ndim <= 1) else None

    def _computed_sizes(self, node: Node) -> Array | None:
        """Entries of what a node computes from shapes; None if it computes something else."""
        if node.op == "Shape":
            shape = self.network.shape(node.inputs[0])
            if shape is None:
                return None
            return _objects(shape)[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
        rule = _SIZES.get(node.op)
        if rule is None or not any(tensor.name in self.sizes for tensor in node.inputs):
            return None
        operands = [self._entries(tensor) for tensor in node.inputs]
        return None if any(operand is None for operand in operands) else _applied(rule, node, *operands)

    def _hint(self, node: Node) -> None:
        """Note the shape of a node's output, if the node gives it from computed sizes."""
        if node.op not in _MADE_TO_SIZE:
            return
        rule, index = _MADE_TO_SIZE[node.op]
        before = self.network.shape(node.inputs[0])
        sizes = self._entries(node.inputs[index]) if len(node.inputs) > index else None
        if before is None or sizes is None:
            return
        self._note(node, _applied(rule, node, before, np.atleast_1d(sizes).tolist()) or ())

    def _note(self, node: Node, shape: Sequence[Dimension], typed: int = 0) -> None:
        """Note a better known shape of a node's output, which has the type of an input."""
        name, found = node.outputs[0].name, [self._told(size) for size in shape]
        inferred = [self._told(size) for size in self.network.shapes.get(name, [None] * len(found))]
        if len(found) != len(inferred):
            return
        merged = [old if new is None else new for new, old in zip(found, inferred, strict=True)]
        if merged.count(None) < inferred.count(None):
            dtype = self.network.dtype(node.inputs[typed]) if typed < len(node.inputs) else None
            element = onnx.TensorProto.UNDEFINED if dtype is None else helper.np_dtype_to_tensor_dtype(dtype)
            self.hints[name] = helper.make_tensor_value_info(name, element, merged)

    def _told(self, size: Dimension) -> Dimension:
        """A dimension; None if it has neither a number nor a name (names that inference invents do not count)."""
        names = {size, _factors(size)[1]} if isinstance(size, str) else set()
        known = size >= 0 if isinstance(size, int) else not names.isdisjoint(self._names)
        return size if known else None

    def _entries(self, tensor: Tensor) -> Array | None:
        if tensor.name in self.sizes:
            return self.sizes[tensor.name]
        value = self._value(tensor)
        return _objects(value.tolist()) if value is not None and value.ndim <= 1 and value.dtype.kind in "bi" else None


def _applied(rule: Callable[..., _Result], node: Node, *operands: object) -> _Result | None:
    """The result of a rule; None if the operator has none, so that a runtime would refuse it too."""
    try:
        return rule(node, *operands)
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError):
        return None


def _is_plain(dtype: np.dtype[Any] | None) -> bool:
    """Whether NumPy casts to a type as ONNX does, which is not so for floats of 8 bits or fewer."""
    return dtype is not None and (dtype.kind in "fiub" or dtype == ml_dtypes.bfloat16)


def _cast(node: Node, x: Array) -> Array:
    dtype = element_type(node.attrs["to"])
    if not _is_plain(dtype) or x.dtype.kind not in "fiubV":
        raise TypeError
    return x.astype(dtype)


def _divide(_: Node, x: Array, y: Array) -> Array:
    if x.dtype.kind not in "iu":
        return np.asarray(x / y)
    if not y.all():
        raise ZeroDivisionError
    # Towards zero.
    return np.asarray(x // y + ((x % y != 0) & ((x < 0) != (y < 0))).astype(x.dtype))


def _remainder(node: Node, x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu" and not y.all():
        raise ZeroDivisionError
    # With the sign of the divisor, or of what is divided.
    return np.asarray(np.fmod(x, y) if node.attrs.get("fmod", 0) else np.mod(x, y))


def _expand(_: Node, x: Array, shape: Array) -> Array:
    sizes = np.broadcast_shapes(x.shape, tuple(int(size) for size in shape))
    if math.prod(sizes) > _LARGEST:
        raise MemoryError
    return np.broadcast_to(x, sizes)


def _filled(node: Node, shape: Array) -> Array:
    value = node.attrs.get("value")
    return _expand(node, np.zeros(1, np.float32) if value is None else np.asarray(value.values), shape)


def _reshape(node: Node, x: Array, shape: Array) -> Array:
    copies = not node.attrs.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and copies else int(size) for i, size in enumerate(shape)])


def _sliced(_: Node, x: Array, starts: Array, ends: Array, *others: Array) -> Array:
    axes = others[0] if others else np.arange(len(starts))
    steps = others[1] if len(others) > 1 else np.ones(len(starts), np.int64)
    parts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(int(start), int(end), int(step))
    return x[tuple(parts)]


def _axes(axes: Array) -> tuple[int, ...]:
    return tuple(int(axis) for axis in axes)


def _one_hot(node: Node, indices: Array, depth: Array, values: Array) -> Array:
    size, axis = int(depth.reshape(())), node.attrs.get("axis", -1)
    if size * indices.size > _LARGEST:
        raise MemoryError
    hot = np.arange(size) == np.where(indices < 0, indices + size, indices)[..., np.newaxis]
    return np.asarray(np.moveaxis(np.where(hot, values[1], values[0]), -1, axis))


def _clipped(_: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    raised = x if low is None else np.maximum(x, low)
    return raised if high is None else np.minimum(raised, high)


def _quantised(node: Node, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    """As onnxruntime quantises in float32; other types, and those that the zero-point does not show, are not folded."""
    zero = np.uint8(0) if zero_point is None else zero_point
    if (
        not {x.dtype, scale.dtype} == {np.dtype(np.float32)}
        or not _is_code(zero.dtype)
        or node.attrs.get("output_dtype")
    ):
        raise TypeError
    if np.isnan(x).any():
        raise ValueError
    limits = np.iinfo(zero.dtype)
    codes = np.rint(x / scale.reshape(())) + zero.reshape(())
    return np.clip(codes, limits.min, limits.max).astype(zero.dtype)


def _dequantised(_: Node, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    if scale.dtype != np.float32 or not _is_code(x.dtype):
        raise TypeError
    zero = np.int32(0) if zero_point is None else zero_point.astype(np.int32).reshape(())
    return np.asarray((x.astype(np.int32) - zero).astype(np.float32) * scale.reshape(()))


def _is_code(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


_EXACT: dict[str, Callable[..., Array]] = {
    "Abs": lambda _, x: np.abs(x),
    "Add": lambda _, x, y: x + y,
    "Cast": _cast,
    "Concat": lambda node, *parts: np.concatenate(parts, node.attrs["axis"]),
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": lambda _, x, y: x == y,
    "Expand": _expand,
    "Identity": lambda _, x: x,
    "Mod": _remainder,
    "Mul": lambda _, x, y: x * y,
    "Neg": lambda _, x: -x,
    "OneHot": _one_hot,
    "Reciprocal": lambda _, x: x.dtype.type(1) / x,
    "Reshape": _reshape,
    "Slice": _sliced,
    "Sqrt": lambda _, x: np.sqrt(x),
    "Squeeze": lambda _, x, *axes: np.squeeze(x, _axes(*axes) if axes else None),
    "Sub": lambda _, x, y: x - y,
    "Transpose": lambda node, x: np.transpose(x, node.attrs.get("perm")),
    "Unsqueeze": lambda _, x, axes: np.expand_dims(x, _axes(axes)),
    "Where": lambda _, *operands: np.asarray(np.where(*operands)),
}

# Further operators with one right answer, folded if it is a single number, such as a bound: weights stay quantised.
_OF_NUMBERS: dict[str, Callable[..., Array]] = {
    "Ceil": lambda _, x: np.ceil(x),
    "Clip": _clipped,
    "DequantizeLinear": _dequantised,
    "Floor": lambda _, x: np.floor(x),
    "Max": lambda _, *operands: functools.reduce(np.maximum, operands),
    "Min": lambda _, *operands: functools.reduce(np.minimum, operands),
    "QuantizeLinear": _quantised,
    "Relu": lambda _, x: np.maximum(x, x.dtype.type(0)),
    "Round": lambda _, x: np.rint(x),
}


def _objects(entries: object) -> Array:
    return np.array(entries, dtype=object)


def _are_numbers(sizes: Array) -> bool:
    return all(isinstance(entry, int) for entry in sizes.flat)


def _arithmetic(operation: Callable[[int, int], int | None]) -> Callable[..., Array]:
    def entry(left: object, right: object) -> int | None:
        return operation(left, right) if isinstance(left, int) and isinstance(right, int) else None

    return lambda _, left, right: np.asarray(np.frompyfunc(entry, 2, 1)(left, right), dtype=object)


def _factors(size: int | str) -> tuple[int, str]:
    """A dimension as a number times a name (empty if there is none), as exporters write products of sizes."""
    if isinstance(size, int):
        return size, ""
    number, times, name = size.partition("*")
    return (int(number), name) if times and number.isdecimal() else (1, size)


def _scaled(number: int, name: str) -> int | str:
    return number if not name or not number else name if number == 1 else f"{number}*{name}"


def _times(left: object, right: object) -> Dimension:
    if not isinstance(left, int | str) or not isinstance(right, int | str):
        return None
    (first, one), (second, other) = _factors(left), _factors(right)
    # Names stand for sizes, which are not negative.
    return None if one and other or (first * second < 0 and (one or other)) else _scaled(first * second, one or other)


def _gather(_: Node, sizes: Array, indices: Array) -> Array | None:
    inside = _are_numbers(indices) and all(-len(sizes) <= index < len(sizes) for index in indices.flat)
    return np.asarray(sizes[indices.astype(np.int64)], dtype=object) if inside else None


def _slice(_: Node, sizes: Array, *bounds: Array) -> Array | None:
    if not all(map(_are_numbers, bounds)) or sizes.ndim != 1:
        return None
    start, end = (int(bound[0]) for bound in bounds[:2])
    return sizes[start : end : int(bounds[3][0]) if len(bounds) > 3 else 1]


def _same(left: object, right: object) -> bool | None:
    """Whether two entries are equal; a dimension with a name is not negative."""
    if left is None or right is None:
        return None
    if isinstance(left, str) == isinstance(right, str):
        return True if left == right else None if isinstance(left, str) else False
    number = right if isinstance(left, str) else left
    return False if isinstance(number, int) and number < 0 else None


def _chosen(condition: object, left: object, right: object) -> object:
    return None if condition is None else left if condition else right


def _flat(_: Node, sizes: Array, shape: Array) -> Array | None:
    return sizes.reshape(-1) if shape.tolist() in ([-1], [sizes.size]) else None


_SIZES: dict[str, Callable[..., Array | None]] = {
    "Add": _arithmetic(operator.add),
    "Cast": lambda node, sizes: None if element_type(node.attrs["to"]) == np.bool_ else sizes,
    "Concat": lambda _, *parts: np.concatenate(parts),
    # Towards zero or down: no size is negative.
    "Div": _arithmetic(lambda left, right: left // right if left >= 0 and right > 0 else None),
    "Equal": lambda _, left, right: np.asarray(np.frompyfunc(_same, 2, 1)(left, right), dtype=object),
    "Gather": _gather,
    "Identity": lambda _, sizes: sizes,
    "Mul": lambda _, left, right: np.asarray(np.frompyfunc(_times, 2, 1)(left, right), dtype=object),
    "Reshape": _flat,
    "Slice": _slice,
    "Squeeze": lambda _, sizes, *axes: sizes.reshape(()) if sizes.size == 1 else None,
    "Sub": _arithmetic(operator.sub),
    "Unsqueeze": lambda _, sizes, *axes: sizes.reshape(1) if sizes.ndim == 0 else None,
    "Where": lambda _, *operands: np.asarray(np.frompyfunc(_chosen, 3, 1)(*operands), dtype=object),
}


def _reshaped(node: Node, before: Sequence[Dimension], sizes: Sequence[Dimension]) -> list[Dimension]:
    copies = not node.attrs.get("allowzero", 0)
    after = [before[i] if size == 0 and copies and i < len(before) else size for i, size in enumerate(sizes)]
    if -1 in after:
        after[after.index(-1)] = _left_over(before, [size for size in after if size != -1])
    return after


def _left_over(before: Sequence[Dimension], taken: Sequence[Dimension]) -> Dimension:
    """The size that is left for −1 once the other sizes are divided out; equal names cancel."""
    known = [[_factors(size) for size in sizes if size is not None] for sizes in (before, taken)]
    numbers = [[number for number, _ in factors] for factors in known]
    if len(known[0]) < len(before) or len(known[1]) < len(taken) or any(number <= 0 for number in sum(numbers, [])):
        return None
    names, others = (Counter(name for _, name in factors if name) for factors in known)
    left = list((names - others).elements())
    number, rest = divmod(math.prod(numbers[0]), math.prod(numbers[1]))
    return None if rest or others - names or len(left) > 1 else _scaled(number, left[0] if left else "")


def _expanded(_: Node, before: Sequence[Dimension], sizes: Sequence[Dimension]) -> list[Dimension]:
    if len(before) != len(sizes):
        return []
    return [
        old if new in (1, old) or (isinstance(old, int) and old > 1) else new if old == 1 else None
        for old, new in zip(before, sizes, strict=True)
    ]


def _resized(node: Node, _: Sequence[Dimension], sizes: Sequence[Dimension]) -> list[Dimension]:
    plain = "axes" not in node.attrs and node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    return list(sizes) if plain else []


def _tiled(_: Node, before: Sequence[Dimension], repeats: Sequence[Dimension]) -> list[Dimension]:
    return list(map(_times, before, repeats)) if len(before) == len(repeats) else []


def _kept(node: Node, before: Sequence[Dimension], starts: Sequence[Dimension]) -> list[Dimension]:
    """The shape behind a Slice; nothing is known of axes that are cut, since their ends may be computed."""
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3].name else np.arange(len(starts))
    cut = {int(axis) % len(before) for axis in np.asarray(axes).reshape(-1)}
    return [None if axis in cut else size for axis, size in enumerate(before)]


def _counted(node: Node, _: Sequence[Dimension], limit: Sequence[Dimension]) -> list[Dimension]:
    """The size of a Range 0, 1, 2, … up to its limit."""
    start, step = (constant(node.inputs[index]) for index in (0, 2))
    plain = start is not None and step is not None and (start == 0).all() and (step == 1).all()
    return list(limit) if plain else []


# Operators whose output shape is given by sizes: the shape, and which input has the sizes.
_MADE_TO_SIZE: dict[str, tuple[Callable[..., list[Dimension]], int]] = {
    "Expand": (_expanded, 1),
    "Range": (_counted, 1),
    "Reshape": (_reshaped, 1),
    "Resize": (_resized, 3),
    "Slice": (_kept, 1),
    "Tile": (_tiled, 1),
}
