"""Rules for operators that sum or multiply: convolutions, matrix products, additions, means over time.

A partial sum, in any order, lies between the sum of all negative terms and that of all positive ones. It is exact if
both, in units of the largest power of two that divides every term, are integers that the type holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.view import Node, called
from pconv_onnx.integer.proof.site import Finding, Island, Site, Sum
from pconv_onnx.integer.proof.values import ZERO, Float, Span, Whole, product
from pconv_onnx.neuron.theory import SUM_TYPES

_FLOATS = Island("it sums floats")
_NO_INTEGERS = Island("its weights are not integers")
_NO_CONSTANTS = Island("its weights are not constants")
_NO_SIZE = Island("it is not known how many numbers it sums")


def limit_of(dtype: np.dtype[Any]) -> int:
    """The number from which on a type does not hold every integer."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max) + 1
    return int(2 ** (ml_dtypes.finfo(dtype).nmant + 1))


def _sum(total: Whole) -> Sum:
    return Sum(total, total.reach.in_units)


def conv(site: Site) -> Finding:
    """Conv with constant weights `[M, C/g, …]`."""
    weights = site.constant(1)
    if weights is None:
        return _NO_CONSTANTS
    groups, (outputs, inputs) = site.attribute("group", 1), weights.shape[:2]
    return _weighted(site, weights.reshape(groups, outputs // groups, inputs, -1), weights.ndim - 2)


def conv_transpose(site: Site) -> Finding:
    """ConvTranspose with constant weights `[C, M/g, …]`; every tap counts, whether windows overlap or not."""
    weights = site.constant(1)
    if weights is None:
        return _NO_CONSTANTS
    groups, (inputs, outputs) = site.attribute("group", 1), weights.shape[:2]
    taps = weights.reshape(groups, inputs // groups, outputs, -1)
    return _weighted(site, taps.swapaxes(1, 2), weights.ndim - 2)


def gemm(site: Site) -> Finding:
    """Gemm by constant weights."""
    weights = site.constant(1)
    if weights is None:
        return _NO_CONSTANTS
    if site.attribute("transA", 0) or site.attribute("alpha", 1.0) != 1 or site.attribute("beta", 1.0) != 1:
        return Island("it has a transA, alpha or beta of its own")
    return _by_matrix(site, weights if site.attribute("transB", 0) else weights.T)


def matmul(site: Site) -> Finding:
    """MatMul by a constant matrix, or of any two tensors of integers."""
    weights = site.constant(1)
    if weights is not None and weights.ndim == 2:
        return _by_matrix(site, weights.T)
    if site.wholes is None:
        return _FLOATS
    ends = [sizes[axis] for index, axis in enumerate((-1, -2)) if len(sizes := site.sizes(index) or ()) >= -axis]
    count = next((size for size in ends if isinstance(size, int)), None)
    if count is None:
        return _NO_SIZE
    products = _products(site, *(whole.mapped(Span.as_one) for whole in site.wholes))
    return _sum(products.mapped(partial(Span.repeated, count=count), site.node))


def _by_matrix(site: Site, matrix: Array) -> Finding:
    """Products by a matrix `[N, K]`."""
    return _weighted(site, matrix[np.newaxis, :, :, np.newaxis], 0)


def _weighted(site: Site, weights: Array, windows: int) -> Finding:
    """Sums of products by weights `[g, M/g, C/g, taps]` and a bias, with so many axes for windows behind channels."""
    whole, factors = site.whole(0), Span.of(weights)
    if whole is None:
        return _FLOATS
    if factors is None:
        return _NO_INTEGERS
    bias = site.whole(2) if site.given(2) else Whole.of(ZERO)
    if bias is None:
        return Island("its bias is not an integer")
    wide = weights.astype(np.float64)
    raising, lowering = np.maximum(wide, 0).sum(axis=-1), np.maximum(-wide, 0).sum(axis=-1)
    shape = weights.shape[0], 1, weights.shape[2]

    def summed(span: Span) -> Span:
        """The terms below zero and those above; what is in the padding, or has no input there, is zero."""
        one = span.with_zero.along(-1 - windows)
        low, high = (np.broadcast_to(bound, shape[0] * shape[2]).reshape(shape) for bound in (one.low, one.high))
        least = (product(raising, low) - product(lowering, high)).sum(axis=-1)
        most = (product(raising, high) - product(lowering, low)).sum(axis=-1)
        return Span(least, most, span.grain * factors.grain).reshaped(-1, *[1] * windows)

    if windows and site.given(2):
        bias = bias.mapped(lambda span: span.reshaped(-1, *[1] * windows))
    rows = summed(whole.rows)
    return _sum(Whole(rows, summed(whole.mean), rows).plus(bias, site.node))


def add(site: Site) -> Finding:
    """Add, Sub, Sum: of two a single operation, but kernels of the product before it may start from what is added."""
    if site.wholes is None:
        return _folded(site.product) or (Float.FIXED if len(site.operands) <= 2 else _FLOATS)
    first, *others = site.wholes
    if site.node.op == "Sub":
        others = [other.mapped(Span.negated) for other in others]
    total = reduce(partial(Whole.plus, product=site.into), others, first)
    return _sum(total) if total.rows.bounded or len(others) > 1 else total


def _folded(into: Node | None) -> Island | None:
    """An operation on what are no integers, where onnxruntime may fold it into a sum of products."""
    return into and Island(f"onnxruntime may fold it into {called(into)}, whose numbers are then not integers")


def multiply(site: Site) -> Finding:
    """Mul of integers, by constants as if folded. One product that is rounded is the same everywhere for all that."""
    if site.wholes is None:
        return _folded(site.into) or _inverse(site) or Float.FIXED
    products = _products(site, *site.wholes)
    found = _sum(products)
    exact = site.dtype is not None and found.largest < limit_of(site.dtype)
    if exact or site.into is not None or site.steps > 1:
        return found
    return Float.FIXED if products.rows.bounded else products


def _inverse(site: Site) -> Island | None:
    """A product by the inverse of a tensor, which onnxruntime makes one division."""
    for node in (maker for tensor in site.node.inputs for maker in tensor.inputs if maker.op == "Div"):
        dividend = constant(node.inputs[0])
        if dividend is not None and dividend.size == 1 and (dividend == 1).all():
            return Island(f"onnxruntime may make one division of it and {called(node)}")
    return None


def _products(site: Site, left: Whole, right: Whole) -> Whole:
    """Products of two; their means are those of the means where one has no time axis."""
    rows, reach = left.rows.times(right.rows), left.reach.times(right.reach).with_zero
    both = min(known.steps for known in site.operands[:2]) > 1
    mean = site.by_rows(rows).mean if both else left.mean.times(right.mean)
    return Whole(rows, mean, reach, site.into)


def divide(site: Site) -> Finding:
    """Div, a single operation: only behind a MatMul onnxruntime folds it, by one number, which it inverts."""
    into, divisor = site.into, site.constant(1)
    inverted = into is not None and into.op == "MatMul" and divisor is not None and divisor.size == 1
    return _folded(into if inverted else None) or Float.FIXED


def reduce_sum(site: Site) -> Finding:
    """ReduceSum over axes of known sizes."""
    whole, count = site.whole(0), _reduced(site)
    if whole is None:
        return _FLOATS
    return _NO_SIZE if count is None else _sum(whole.mapped(Span.as_one).mapped(partial(Span.repeated, count=count)))


def reduce_mean(site: Site) -> Finding:
    """ReduceMean, GlobalAveragePool."""
    return _mean(site, _reduced(site), Span.as_one)


def average_pool(site: Site) -> Finding:
    """AveragePool, where all windows have one divisor."""
    padded = any(site.attribute("pads") or ()) or site.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if site.attribute("ceil_mode", 0) or (padded and not site.attribute("count_include_pad", 0)):
        return Island("its divisor may differ at the border")
    by_channel = partial(Span.by_channel, rank=site.rank(0))
    over = (lambda span: by_channel(span.with_zero)) if padded else by_channel
    return _mean(site, math.prod(site.attribute("kernel_shape")), over)


def _mean(site: Site, count: int | None, over: Callable[[Span], Span]) -> Finding:
    """The mean of so many: their sum, divided by a power of two."""
    whole = site.whole(0)
    if whole is None:
        return _FLOATS
    if count is None:
        return _NO_SIZE
    if count < 1 or count & (count - 1):
        return Island(f"it divides by {count}, which is no power of two")
    total = whole.mapped(over).mapped(partial(Span.repeated, count=count))
    return Sum(total.mapped(partial(Span.over, count=count)), total.reach.in_units)


def _reduced(site: Site) -> int | None:
    """How many numbers of the first input one of the result comes from; None where that is not known."""
    sizes, axes = site.sizes(0), site.numbers(1, "axes")
    if sizes is None:
        return None
    if site.node.op == "GlobalAveragePool":
        axes = np.arange(2, len(sizes))
    elif axes is None:
        if site.given(1) or site.attribute("noop_with_empty_axes", 0):
            return None
        axes = np.arange(len(sizes))
    found = [sizes[int(axis)] for axis in np.ravel(axes)]
    return math.prod(found) if all(isinstance(size, int) for size in found) else None


def temporal_mean(site: Site) -> Finding:
    """TemporalMean: a sum over time, divided by T and rounded once, the same everywhere; exact where T divides it.

    The means of trains are levels, and what is linear makes integers of these: T divides then, whether or not it
    divides what a bias adds to each row.
    """
    steps = site.attribute("steps")
    mean = _mean_of_rows(site, steps)
    return over_time(site, steps, Whole.of(mean) if mean is not None and mean.even else Float.FIXED)


def over_time(site: Site, steps: int, value: Whole | Float) -> Finding:
    """What comes of the sum of rows over time, in order and in a wider type, and rounded to its own once divided.

    Rows may be multiples of more than their mean is, which then takes more of the type.
    """
    whole, mean, dtype = site.whole(0), _mean_of_rows(site, steps), site.dtype
    if whole is None or mean is None:
        return value
    if dtype is not None and mean.even and mean.in_units >= limit_of(dtype):
        return Sum(value, mean.in_units)
    return Sum(value, steps * whole.rows.in_units, None if dtype is None else SUM_TYPES.get(dtype))


def _mean_of_rows(site: Site, steps: int) -> Span | None:
    """The mean over time of what a node reads; None of floats."""
    whole = site.whole(0)
    if whole is None:
        return None
    return whole.mean if steps == site.steps else Whole.of(whole.rows, steps).mean
