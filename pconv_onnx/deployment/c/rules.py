"""What each operator of a network of integers becomes in C: one row an operator.

Integers are kept in uint8 or int32, also where ONNX has them in floats: a network of integers has only such floats as
hold them exactly. Images have their channels last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.deployment.c.program import HELD, LARGEST, Program, Sum, Window
from pconv_onnx.deployment.c.views import CType, Span, View, span_of
from pconv_onnx.graph.view import Node
from pconv_onnx.graph.windows import windows
from pconv_onnx.operators.domain import (
    INTEGER_CONV,
    INTEGER_GEMM,
    INTEGER_SPIKE,
    INTEGER_SPIKE_CONV,
    INTEGER_SPIKE_GEMM,
    OP_TYPE,
)
from pconv_onnx.operators.parallel_spike import neuron_of

Value: TypeAlias = "View | Array"


class Refused(Exception):
    """Why an operator cannot be written in C, in words that follow its name."""


class Site:
    """A node with what its inputs are.

    Attributes:
        program: that it is written into.
        node: with its attributes.
        proto: the same.
        inputs: one an input: a constant as an array, else where it lies; None of one that is absent.
        tables: the network's initializers by name.
    """

    def __init__(
        self,
        program: Program,
        node: Node,
        proto: onnx.NodeProto,
        inputs: Sequence[Value | None],
        tables: Mapping[str, onnx.TensorProto],
    ) -> None:
        """Bind them."""
        self.program, self.node, self.proto, self.inputs, self.tables = program, node, proto, inputs, tables

    def view(self, index: int) -> View:
        """An input as a tensor; a constant becomes a table."""
        value = self.inputs[index]
        assert value is not None
        return value if isinstance(value, View) else self.program.constant(value)

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int, default: Array | None = None) -> Array:
        """A constant input, or what it is where it is left out.

        Raises:
            Refused: it is computed.
        """
        if not self.given(index):
            if default is None:
                raise Refused("lacks an input")
            return default
        value = self.inputs[index]
        if isinstance(value, View):
            raise Refused(f"computes its input {index} when it runs")
        assert value is not None
        return value

    def integers(self, index: int) -> View:
        """An input in uint8 or int32.

        Raises:
            Refused: it is no integer.
        """
        view = self.view(index)
        if view.span is None or max(map(abs, view.span)) > LARGEST:
            raise Refused("reads floats where C has integers")
        return view if view.buffer.ctype == "uint8_t" else self.program.converted(view, "int32_t")

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        return self.node.attrs.get(name, default)

    def axes(self, index: int, rank: int) -> list[int]:
        """Axes, which earlier opsets have as an attribute."""
        value = self.attribute("axes") if not self.given(index) else self.constant(index)
        return sorted(int(axis) % rank for axis in np.ravel(value)) if value is not None else list(range(rank))


# Layers of integers, channels last


def _conv(site: Site) -> View:
    counts, weights = site.view(0), site.constant(1)
    names = {"groups": "group", "strides": "strides", "dilations": "dilations", "pads": "pads"}
    settings = {key: site.attribute(name) for key, name in names.items()}
    window = Window.over(counts.shape, len(weights), weights.shape[2:], **settings)
    return _layer(site, window, counts, weights.transpose(0, 2, 3, 1))


def _gemm(site: Site) -> View:
    """Images of one column, each row a sample of its own."""
    counts, weights = site.view(0), site.constant(1)
    window = Window.over((1, counts.count // weights.shape[1], 1, weights.shape[1]), len(weights), (1, 1))
    return _layer(site, window, counts, weights[:, np.newaxis, np.newaxis]).reshaped((*counts.shape[:-1], len(weights)))


def _layer(site: Site, window: Window, counts: View, weights: Array) -> View:
    program, zero = site.program, int(site.attribute("zero"))
    factor, bias, multiplier = (site.constant(index).astype(np.int64) for index in (3, 2, 5))
    residual_zero, added = int(site.attribute("residual_zero")), site.inputs[4]
    residual = None
    if isinstance(added, View):
        residual = program.dense(added)
    elif added is not None and added.size == 1:
        bias = bias + multiplier * (int(added.reshape(-1)[0]) - residual_zero)
    else:
        raise Refused("adds a constant tensor")
    thresholds = site.constant(6) if len(site.inputs) > 6 else None
    total = Sum(factor, bias, residual, residual_zero, multiplier, thresholds)
    span = _reach(weights, counts.span, zero, total)
    if thresholds is not None:
        span = 0, thresholds.shape[1]
    return program.conv(window, program.dense(counts), zero, weights, total, span)


def _reach(weights: Array, span: Span, zero: int, total: Sum) -> tuple[float, float]:
    """The least and largest sum.

    Raises:
        Refused: a partial one may be more than int32 holds.
    """
    assert span is not None
    rows = weights.astype(np.float64).reshape(len(weights), -1)
    low, high = min(span[0] - zero, 0), max(span[1] - zero, 0)
    ends = np.stack([np.minimum(rows * low, rows * high).sum(axis=1), np.maximum(rows * low, rows * high).sum(axis=1)])
    products = np.sort(ends * total.factor, axis=0)
    added = np.zeros((2, 1))
    if total.residual is not None and total.multiplier is not None:
        assert total.residual.span is not None
        values = np.array(total.residual.span) - total.residual_zero
        added = np.sort(values[:, np.newaxis] * total.multiplier, axis=0)
    largest = (np.abs(products).max(axis=0) + np.abs(added).max(axis=0) + np.abs(total.bias)).max()
    if largest > LARGEST or np.abs(ends).max() > LARGEST:
        raise Refused(f"may reach sums of {largest:,.0f}, which is more than int32 holds")
    sums = products + added + total.bias
    return float(sums[0].min()), float(sums[1].max())


def _spike(site: Site) -> View:
    sums, thresholds = site.program.dense(site.integers(0)), site.constant(1)
    return site.program.spike(site.program.converted(sums, "int32_t"), thresholds, *_around(sums, len(sums.shape) - 1))


def _around(view: View, axis: int) -> tuple[int, int]:
    """How often an axis is there, and its size."""
    return math.prod(view.shape[:axis]), view.shape[axis]


# The same on integers that ONNX has in floats, channels second


def _float_conv(site: Site) -> View:
    images, weights = site.integers(0), site.constant(1)
    axes = weights.ndim - 2
    if axes not in (1, 2):
        raise Refused(f"has {axes} spatial axes")
    settings = _spatial(site, images, weights.shape[2:])
    if axes == 1:
        images, weights = images.unsqueezed([2]), weights[:, :, np.newaxis]
    images = site.program.dense(images.transposed((0, 2, 3, 1)))
    window = Window.over(
        images.shape, len(weights), weights.shape[2:], groups=int(site.attribute("group", 1)), **settings
    )
    out = _products(site, window, images, weights.transpose(0, 2, 3, 1), 2).transposed((0, 3, 1, 2))
    return out.squeezed([2]) if axes == 1 else out


def _spatial(site: Site, images: View, taps: Sequence[int]) -> dict[str, Any]:
    """Strides, dilations and pads of a window, as of images one row high where there is one axis."""
    along = windows(site.node.attrs, images.shape[2:], taps)
    settings = {"strides": [one.stride for one in along], "dilations": [one.dilation for one in along]}
    starts, ends = [one.start for one in along], [one.end for one in along]
    if len(along) == 2:
        return {**settings, "pads": [*starts, *ends]}
    return {name: [1, *values] for name, values in settings.items()} | {"pads": [0, *starts, 0, *ends]}


def _float_gemm(site: Site) -> View:
    weights = site.constant(1)
    plain = site.attribute("alpha", 1.0) == 1 and site.attribute("beta", 1.0) == 1 and not site.attribute("transA", 0)
    if not plain or weights.ndim != 2:
        raise Refused("has an alpha, beta or transA of its own, or weights that are no matrix")
    return _matrix(site, weights if site.attribute("transB", 0) else weights.T)


def _matmul(site: Site) -> View:
    weights = site.constant(1)
    if weights.ndim != 2:
        raise Refused("has weights that are no matrix")
    return _matrix(site, weights.T)


def _matrix(site: Site, rows: Array) -> View:
    values = site.program.dense(site.integers(0))
    window = Window.over((1, values.count // rows.shape[1], 1, rows.shape[1]), len(rows), (1, 1))
    out = _products(site, window, values, rows[:, np.newaxis, np.newaxis], 2)
    return out.reshaped((*values.shape[:-1], len(rows)))


def _products(site: Site, window: Window, images: View, weights: Array, bias: int) -> View:
    outputs = window.outputs
    offset = np.broadcast_to(site.constant(bias, np.zeros(1)).reshape(-1), (outputs,))
    if span_of(weights) is None or span_of(offset) is None:
        raise Refused("has weights that are no integers")
    total = Sum(np.ones(outputs, np.int64), offset.astype(np.int64))
    span = _reach(weights, images.span, 0, total)
    return replace(site.program.conv(window, images, 0, weights, total, span), is_float=True)


def _neuron(site: Site) -> View:
    """Neurons that no layer of integers has taken: what they read is compared, and their levels are looked up."""
    neuron, program, current = neuron_of(site.proto, site.tables), site.program, site.program.dense(site.view(0))
    whole = current.span is not None and max(map(abs, current.span)) <= LARGEST
    table = np.nan_to_num(neuron.thresholds.astype(np.float64), nan=np.inf)
    if whole:
        thresholds = np.clip(np.ceil(table), -LARGEST, LARGEST).astype(np.int32)
        # What is never reached lies above all that there is.
        current = program.converted(current, "int32_t")
    else:
        thresholds = table.astype(np.float32)
        current = program.converted(current, "float")
    axis = 0 if neuron.channel_axis is None else neuron.channel_axis % len(current.shape)
    around = _around(current, axis) if neuron.channel_axis is not None else (1, 1)
    counts = program.spike(current, thresholds, *around)
    return program.levels(counts, np.asarray(neuron.levels), *around)


def _reduce_sum(site: Site) -> View:
    values = site.integers(0)
    axes = site.axes(1, len(values.shape))
    kept = [1 if axis in axes else size for axis, size in enumerate(values.shape)]
    assert values.span is not None
    number = values.count // math.prod(kept)
    low, high = min(values.span[0], 0) * number, max(values.span[1], 0) * number
    if max(-low, high) > LARGEST:
        raise Refused("may reach sums that int32 does not hold")
    out = site.program.new("int32_t", kept, (low, high), is_float=values.is_float)
    site.program.each("a", out, _scalar(site, 0))
    site.program.each("a", out.expanded(values.shape), values, assign="+=")
    return out if site.attribute("keepdims", 1) else out.squeezed(axes)


def _max_pool(site: Site) -> View:
    images, taps = site.view(0), [int(tap) for tap in site.attribute("kernel_shape")]
    if len(taps) > 2:
        raise Refused(f"has {len(taps)} spatial axes")
    settings = _spatial(site, images, taps)
    if len(taps) == 1:
        images, taps = images.unsqueezed([2]), [1, *taps]
    last = site.program.dense(images.transposed((0, 2, 3, 1)))
    ceil = bool(site.attribute("ceil_mode", 0))
    out = site.program.maxpool(Window.over(last.shape, last.shape[3], taps, ceil=ceil, **settings), last)
    out = out.transposed((0, 3, 1, 2))
    return out.squeezed([2]) if len(site.attribute("kernel_shape")) == 1 else out


# Elementwise


def _binary(expression: str, combine: Callable[[float, float], float] | None) -> Rule:
    """An operation on integers where it gives such, else on floats, rounded once."""

    def rule(site: Site) -> View:
        left, right = site.view(0), site.view(1)
        return _combined(site, expression, combine, left, right)

    return rule


def _combined(
    site: Site, expression: str, combine: Callable[[float, float], float] | None, left: View, right: View
) -> View:
    program, shape = site.program, np.broadcast_shapes(left.shape, right.shape)
    is_float, span = left.is_float or right.is_float, None
    if combine is not None and left.span is not None and right.span is not None:
        ends = [combine(one, other) for one in left.span for other in right.span]
        span = (min(ends), max(ends)) if np.isfinite(ends).all() or combine in (max, min) else None
    if span is not None and max(map(abs, (*span, *left.span, *right.span))) < (HELD if is_float else LARGEST):  # type: ignore[misc]
        out = program.new("int32_t", shape, span, is_float=is_float)
    elif is_float:
        left, right = program.converted(left, "float"), program.converted(right, "float")
        out = program.new("float", shape, span, is_float=True)
    else:
        raise Refused("may reach integers that int32 does not hold")
    program.each(expression, out, left, right)
    return out


_LARGER, _SMALLER = "a > b ? a : b", "a < b ? a : b"


def _relu(site: Site) -> View:
    return _combined(site, _LARGER, max, site.view(0), _scalar(site, 0))


def _negated(site: Site) -> View:
    return _combined(site, "a * b", lambda a, b: a * b, site.view(0), _scalar(site, -1))


def _clip(site: Site) -> View:
    found = site.view(0)
    for index, name, expression in ((1, "min", _LARGER), (2, "max", _SMALLER)):
        end = site.constant(index) if site.given(index) else site.attribute(name)
        if end is None:
            continue
        bound = site.program.constant(np.asarray(end))
        span = found.span
        found = _combined(site, expression, max if index == 1 else min, found, bound)
        if span is not None and found.span is None:
            raise Refused("has bounds that are no integers")
    return found


def _scalar(site: Site, number: int) -> View:
    return site.program.constant(np.asarray(number, np.float32))


def _round(site: Site) -> View:
    values = site.view(0)
    if values.span is not None:
        return values
    site.program.require("rounded", "rounded.c")
    out = site.program.new("float", values.shape, (-np.inf, np.inf), is_float=True)
    site.program.each("rounded(a)", out, values)
    return out


def _quantize(site: Site) -> View:
    values, scale = site.program.converted(site.view(0), "float"), site.constant(1)
    zero = site.constant(2, np.zeros(1, np.uint8))
    if scale.size != 1 or zero.dtype != np.uint8:
        raise Refused("has a scale for each channel, or gives another type than uint8")
    offset = int(zero.reshape(-1)[0])
    out = site.program.new("uint8_t", values.shape, (0, 255), is_float=False)
    for function in ("rounded", "rounded_within"):
        site.program.require(function, f"{function}.c")
    expression = f"(uint8_t)(rounded_within(a / b, {-offset}, {255 - offset}) + {offset})"
    site.program.each(expression, out, values, site.program.constant(scale.reshape(())))
    return out


def _cast(site: Site) -> View:
    values, dtype = site.view(0), onnx.helper.tensor_dtype_to_np_dtype(site.attribute("to"))
    if dtype.kind == "f":
        return replace(values, is_float=True)
    if dtype not in (np.uint8, np.int32):
        raise Refused(f"gives {dtype}")
    ends = (0, 255) if dtype == np.uint8 else (-LARGEST, LARGEST)
    ctype: CType = "uint8_t" if dtype == np.uint8 else "int32_t"
    if values.span is not None and ends[0] <= values.span[0] and values.span[1] <= ends[1]:
        kept = values if values.buffer.ctype == "uint8_t" else site.program.converted(values, ctype)
        return replace(kept, is_float=False)
    if dtype != np.uint8:
        raise Refused("cuts floats to integers")
    # What is beyond a byte has no meaning, but must do no harm.
    out = site.program.new("uint8_t", values.shape, ends, is_float=False)
    site.program.each("(uint8_t)(a > 0 ? a < 255 ? (int32_t)a : 255 : 0)", out, values)
    return out


# Moves


def _same(site: Site) -> View:
    return site.view(0)


def _transpose(site: Site) -> View:
    values = site.view(0)
    return values.transposed(site.attribute("perm", range(len(values.shape))[::-1]))


def _reshape(site: Site) -> View:
    values, sizes = site.program.dense(site.view(0)), [int(size) for size in site.constant(1)]
    if not site.attribute("allowzero", 0):
        sizes = [values.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    return values.reshaped([values.count // known if size == -1 else size for size in sizes])


def _flatten(site: Site) -> View:
    values = site.program.dense(site.view(0))
    axis = int(site.attribute("axis", 1))
    rows = math.prod(values.shape[: axis % len(values.shape) if axis < 0 else axis])
    return values.reshaped((rows, values.count // rows))


def _squeeze(site: Site) -> View:
    values = site.view(0)
    if not site.given(1) and site.attribute("axes") is None:
        return values.squeezed([axis for axis, size in enumerate(values.shape) if size == 1])
    return values.squeezed(site.axes(1, len(values.shape)))


def _unsqueeze(site: Site) -> View:
    values = site.view(0)
    count = np.size(site.constant(1) if site.given(1) else site.attribute("axes"))
    return values.unsqueezed(site.axes(1, len(values.shape) + int(count)))


def _expand(site: Site) -> View:
    values = site.view(0)
    return values.expanded(np.broadcast_shapes(values.shape, tuple(int(size) for size in site.constant(1))))


def _slice(site: Site) -> View:
    found = site.view(0)
    starts, ends = site.constant(1), site.constant(2)
    axes = site.constant(3, np.arange(len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, site.constant(4, np.ones(len(starts), int)), strict=True):
        axis = int(axis) % len(found.shape)
        chosen = range(found.shape[axis])[int(start) : int(end) : int(step)]
        found = found.sliced(axis, chosen.start, len(chosen), chosen.step)
    return found


def _split(site: Site) -> list[View]:
    values, axis = site.view(0), int(site.attribute("axis", 0))
    axis %= len(values.shape)
    number, size = len(site.node.outputs), values.shape[axis]
    given = site.constant(1) if site.given(1) else site.attribute("split")
    each = -(-size // number)
    sizes = [each] * (number - 1) + [size - each * (number - 1)] if given is None else [int(one) for one in given]
    starts = np.cumsum([0, *sizes])
    return [values.sliced(axis, int(start), part) for start, part in zip(starts, sizes, strict=False)]


def _joined(site: Site, parts: Sequence[View], shape: Sequence[int]) -> View:
    """Room for a tensor that takes values from several."""
    spans = [part.span for part in parts]
    known = [span for span in spans if span is not None]
    span = (min(low for low, _ in known), max(high for _, high in known)) if len(known) == len(spans) else None
    ctypes = {part.buffer.ctype for part in parts}
    narrow = ctypes == {"uint8_t"} or (span is not None and span[0] >= 0 and span[1] <= 255)
    held = span is not None and max(map(abs, span)) <= LARGEST
    ctype: CType = "uint8_t" if narrow else "int32_t" if held else "float"
    return site.program.new(ctype, shape, span, is_float=parts[0].is_float)


def _concat(site: Site) -> View:
    parts = [site.view(index) for index in range(len(site.inputs))]
    axis = int(site.attribute("axis")) % len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    out, start = _joined(site, parts, shape), 0
    for part in parts:
        _put(site, out.sliced(axis, start, part.shape[axis]), part)
        start += part.shape[axis]
    return out


def _put(site: Site, place: View, values: View) -> None:
    ctype = place.buffer.ctype
    site.program.each("a" if values.buffer.ctype == ctype else f"({ctype})a", place, values)


def _pad(site: Site) -> View:
    values, rank = site.view(0), len(site.view(0).shape)
    if site.attribute("mode", "constant") not in ("constant", b"constant"):
        raise Refused("pads with other values than a constant")
    given = site.constant(1) if site.given(1) else np.asarray(site.attribute("pads"))
    axes = [int(axis) % rank for axis in site.constant(3, np.arange(rank))]
    filling = site.constant(2) if site.given(2) else np.asarray(site.attribute("value", 0.0), np.float32)
    pads = np.zeros((2, rank), int)
    pads[:, axes] = np.asarray(given).reshape(2, -1)
    if (pads < 0).any():
        raise Refused("cuts by pads below zero")
    constant = site.program.constant(filling.reshape(()))
    shape = [size + int(before) + int(after) for size, before, after in zip(values.shape, *pads, strict=True)]
    out = _joined(site, [values, constant], shape)
    _put(site, out, constant)
    place = out
    for axis, size in enumerate(values.shape):
        place = place.sliced(axis, int(pads[0, axis]), size)
    _put(site, place, values)
    return out


Rule: TypeAlias = Callable[[Site], "View | list[View]"]
OWN_RULES: Mapping[str, Rule] = {
    INTEGER_CONV: _conv,
    INTEGER_GEMM: _gemm,
    INTEGER_SPIKE: _spike,
    INTEGER_SPIKE_CONV: _conv,
    INTEGER_SPIKE_GEMM: _gemm,
    OP_TYPE: _neuron,
}
RULES: Mapping[str, Rule] = {
    "Add": _binary("a + b", lambda a, b: a + b),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _float_conv,
    "Div": _binary("a / b", None),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gemm": _float_gemm,
    "Identity": _same,
    "MatMul": _matmul,
    "Max": _binary(_LARGER, max),
    "MaxPool": _max_pool,
    "Min": _binary(_SMALLER, min),
    "Mul": _binary("a * b", lambda a, b: a * b),
    "Neg": _negated,
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceSum": _reduce_sum,
    "Relu": _relu,
    "Reshape": _reshape,
    "Round": _round,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _binary("a - b", lambda a, b: a - b),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
