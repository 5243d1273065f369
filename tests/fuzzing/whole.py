"""A spiking network of integers, node by node in exact arithmetic: what every runtime must give, to the bit.

Tensors of integers are int64, in which no sum of these networks overflows; thresholds are compared as fractions. Only
what stands before the first codes and behind a Cast or a Round is float32, elementwise as IEEE has it. Nothing of the
package is used but the names of its operators.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Inputs = list[Array]
Operator = Callable[[onnx.NodeProto, Inputs], "Array | Inputs"]

# Up to so many times a power of two float32 holds each multiple of it.
_CARRIED, _UNIT = 1 << 24, 1 << 20
_NEVER = np.iinfo(np.int64).max


def whole(model: onnx.ModelProto, feed: dict[str, Array]) -> Inputs:
    """The outputs of a spiking network of integers, in float32.

    Raises:
        NotImplementedError: an operator, or what is asked of it, is not known here.
        AssertionError: a number that should be whole is not, or a sum is one that float32 may round.
    """
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} | feed
    for node in model.graph.node:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if name not in _OPERATORS:
            raise NotImplementedError(f"operator {name}")
        try:
            results = _OPERATORS[name](node, [held[one] if one else None for one in node.input])
        except AssertionError as error:
            raise AssertionError(f"{name} '{node.output[0]}': {error}") from error
        results = results if isinstance(results, list) else [results]
        held |= zip(node.output, results, strict=True)
    return [_carried(held[output.name]) for output in model.graph.output]


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = [helper.get_attribute_value(one) for one in node.attribute if one.name == name]
    return found[0] if found else default


def _expect(node: onnx.NodeProto, **values: Any) -> None:
    """Refuse attributes that have other values than these."""
    for name, value in values.items():
        if (found := _attribute(node, name, value)) != value:
            raise NotImplementedError(f"{node.op_type} with {name} {found}")


def _integers(value: Array) -> Array:
    """As int64: what is said to be whole has to be."""
    if value.dtype.kind in "iu":
        return value.astype(np.int64)
    assert np.isfinite(value).all(), "a number that is not finite"
    assert (value == np.rint(value)).all(), f"{value[value != np.rint(value)].flat[0]!r} is no integer"
    _require_held(_largest(value))
    return value.astype(np.int64)


def _carried(value: Array) -> Array:
    """In float32, which has to hold it."""
    if value.dtype != np.int64:
        return value
    result = value.astype(np.float32)
    assert (result.astype(np.int64) == value).all(), "an integer that float32 does not hold"
    return result


def _is_whole(value: Array) -> bool:
    return bool((value == np.rint(value)).all() and _largest(value) < _CARRIED)


def _is_float(*values: Array) -> bool:
    return all(value.dtype == np.float32 for value in values)


def _require_exact(terms: Array) -> None:
    """Raise where some order in which terms `[…, K]` are added goes through a sum that float32 rounds.

    Every partial sum is a multiple of the greatest power of two that divides all terms, and lies between the sum of the
    negative ones and that of the positive ones.
    """
    bits = np.bitwise_or.reduce(np.abs(terms), axis=-1)
    grain = np.where(bits == 0, 1, bits & -bits)
    reach = np.maximum(np.maximum(terms, 0).sum(axis=-1), np.maximum(-terms, 0).sum(axis=-1))
    assert (reach <= _CARRIED * grain).all(), f"a sum reaches {(reach / grain).max() / _CARRIED:.3g} times 2^24 grains"


def _require_held(bound: float) -> None:
    assert bound < 2.0**62, "an integer beyond 62 bits"


def _largest(value: Array) -> float:
    return float(np.abs(value).max(initial=0))


def _dot(rows: Array, columns: Array, bias: Array) -> Array:
    """`[M, K] · [K, N] + [N]`, no sum of which may depend on its order."""
    _require_held(_largest(rows) * float(np.abs(columns).sum(axis=0).max(initial=0)) + _largest(bias))
    result = np.empty((len(rows), len(bias)), np.int64)
    for index, column in enumerate(columns.T):
        terms = np.column_stack([rows * column, np.full(len(rows), bias[index])])
        _require_exact(terms)
        result[:, index] = terms.sum(axis=1)
    return result


# The neuron.


def _parallel_spike(node: onnx.NodeProto, inputs: Inputs) -> Array:
    current, thresholds, levels = inputs
    levels = _integers(levels) if _is_whole(levels) else levels
    axis = _attribute(node, "channel_axis") % current.ndim if len(thresholds) > 1 else 1
    counts = _counts(current, thresholds, _attribute(node, "input_steps"), axis)
    if not _attribute(node, "spikes"):
        return _of_channel(levels, counts, axis)
    table = _trains(node, levels) if levels.dtype == np.int64 else _trains_of_floats(node, levels)
    steps = [_of_channel(table[:, :, step], counts, axis) for step in range(table.shape[2])]
    return np.concatenate(steps, axis=0)


def _counts(current: Array, thresholds: Array, input_steps: int, axis: int) -> Array:
    """How many thresholds the mean over time reaches: `[I·B, …]` and `[R, S]` to `[B, …]`."""
    never = np.isnan(thresholds)
    finite = np.where(never, np.float32(np.inf), thresholds)
    assert (finite[:, 1:] >= finite[:, :-1]).all(), "thresholds that do not ascend"
    if _is_float(current):
        return _reached(_mean_of_floats(current, input_steps), finite, axis, never)
    integers = [[_whole_threshold(value) for value in row] for row in finite]
    return _reached(_mean(current, input_steps), np.array(integers, np.int64), axis, never)


def _mean(current: Array, steps: int) -> Array:
    total = np.asarray(current.reshape(steps, -1, *current.shape[1:]).sum(axis=0))
    assert not (total % steps).any(), "a mean over time that is no integer"
    _carried(total // steps)
    return total // steps


def _mean_of_floats(current: Array, steps: int) -> Array:
    """Summed in order in float64, and rounded once."""
    total = sum(current.astype(np.float64).reshape(steps, -1, *current.shape[1:]))
    return np.asarray((total / steps).astype(np.float32))


def _whole_threshold(value: np.float32) -> int:
    """The smallest integer that reaches a threshold."""
    if np.isinf(value):
        return _NEVER if value > 0 else -_NEVER
    return max(-_NEVER, min(_NEVER, ceil(Fraction(float(value)))))


def _reached(value: Array, thresholds: Array, axis: int, unreachable: Array) -> Array:
    counts = np.zeros(value.shape, np.int64)
    for row, never in zip(thresholds.T, unreachable.T, strict=True):
        counts += (value >= _along(row, value.ndim, axis)) & ~_along(never, value.ndim, axis)
    return counts


def _along(row: Array, rank: int, axis: int) -> Array:
    return row.reshape([-1 if index == axis and len(row) > 1 else 1 for index in range(rank)])


def _of_channel(table: Array, counts: Array, axis: int) -> Array:
    """Entries of `[R, S+1]` by counts."""
    rows = _along(np.arange(len(table)), counts.ndim, axis)
    return np.asarray(table[np.broadcast_to(rows, counts.shape), counts])


def _trains(node: onnx.NodeProto, levels: Array) -> Array:
    """`[R, S+1, T]`: what each count emits at each step; its mean has to be the level of the count."""
    signed, silent = _signed_digits(node, levels.shape[1])
    steps, spacing = signed.shape[1], np.diff(levels, axis=1)[:, :1]
    table = levels[:, [silent], None] + steps * spacing[:, :, None] * signed
    assert (table.sum(axis=2) == steps * levels).all(), "trains whose mean is not the level"
    _carried(table)
    return table


def _trains_of_floats(node: onnx.NodeProto, levels: Array) -> Array:
    """`[R, S+1, T]` in float32, as the operator defines it."""
    signed, silent = _signed_digits(node, levels.shape[1])
    steps = signed.shape[1]
    radix = bool(_attribute(node, "coding", 0))
    table = np.empty((len(levels), *signed.shape), np.float32)
    resting = levels[:, silent]
    for step in range(steps):
        distance = 1 << (steps - 1 - step) if radix else steps
        if silent + distance < levels.shape[1]:
            worth = levels[:, silent + distance]
        elif silent >= distance:
            worth = -levels[:, silent - distance]
        else:
            worth = resting
        if radix:
            worth = resting + np.float32(steps) * (worth - resting)
        sign = np.sign(signed[:, step])
        table[:, :, step] = np.where(sign == 0, resting[:, None], np.where(sign > 0, worth[:, None], -worth[:, None]))
    return table


def _signed_digits(node: onnx.NodeProto, counts: int) -> tuple[Array, int]:
    """`[S+1, T]`, how many spacings each count's spikes are worth at each step, by T; and the count of silence."""
    radix, silent = bool(_attribute(node, "coding", 0)), _attribute(node, "zero", 0)
    offset = np.arange(counts) - silent
    steps = _attribute(node, "steps", 0) or int(np.abs(offset).max())
    digits = [_binary(abs(int(m)), steps) if radix else _sorted(abs(int(m)), steps) for m in offset]
    return np.array(digits) * np.sign(offset)[:, None], silent


def _sorted(count: int, steps: int) -> list[int]:
    return [1] * count + [0] * (steps - count)


def _binary(count: int, steps: int) -> list[int]:
    assert count < 1 << steps, f"{count} does not fit in {steps} digits"
    return [int(digit) << (steps - 1 - place) for place, digit in enumerate(f"{count:0{steps}b}")]


def _temporal_mean(node: onnx.NodeProto, inputs: Inputs) -> Array:
    return (_mean_of_floats if _is_float(*inputs) else _mean)(inputs[0], _attribute(node, "steps"))


# Sums of products.


def _conv(node: onnx.NodeProto, inputs: Inputs) -> Array:
    x, w = map(_integers, inputs[:2])
    bias = np.broadcast_to(_bias(inputs), len(w))
    groups, spatial = _attribute(node, "group", 1), w.shape[2:]
    windows = _windows(node, x, spatial, 0)
    size = [len(w) // groups, w.shape[1]]
    parts = []
    for group in range(groups):
        rows = windows[:, group * size[1] : (group + 1) * size[1]]
        kernel = w[group * size[0] : (group + 1) * size[0]].reshape(size[0], -1)
        own = bias[group * size[0] : (group + 1) * size[0]]
        rows = np.moveaxis(rows, (1, 2), (-2, -1))
        y = _dot(rows.reshape(-1, kernel.shape[1]), kernel.T, own)
        parts.append(np.moveaxis(y.reshape(*rows.shape[:-2], size[0]), -1, 1))
    return np.concatenate(parts, axis=1)


def _bias(inputs: Inputs) -> Array:
    return _integers(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else np.zeros(1, np.int64)


def _windows(node: onnx.NodeProto, x: Array, kernel: tuple[int, ...], beside: float) -> Array:
    """`[B, C, K, …]`: the K elements under a kernel at each of its places; padded with the value beside."""
    rank = len(kernel)
    strides, dilations = (_attribute(node, name, [1] * rank) for name in ("strides", "dilations"))
    pads = _pads(node, x.shape[2:], kernel, strides, dilations)
    padded = np.pad(x, [(0, 0)] * 2 + pads, constant_values=beside)
    places = [
        (size - dilation * (extent - 1) - 1) // stride + 1
        for size, dilation, extent, stride in zip(padded.shape[2:], dilations, kernel, strides, strict=True)
    ]
    elements = []
    for offset in np.ndindex(*kernel):
        starts = [at * dilation for at, dilation in zip(offset, dilations, strict=True)]
        at = tuple(
            slice(start, start + stride * (count - 1) + 1, stride)
            for start, stride, count in zip(starts, strides, places, strict=True)
        )
        elements.append(padded[(slice(None), slice(None), *at)])
    return np.stack(elements, axis=2)


def _pads(
    node: onnx.NodeProto, sizes: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> list[tuple[int, int]]:
    how, rank = _attribute(node, "auto_pad", b"NOTSET"), len(kernel)
    if how == b"NOTSET":
        pads = _attribute(node, "pads", [0] * 2 * rank)
        return list(zip(pads[:rank], pads[rank:], strict=True))
    assert how in (b"SAME_UPPER", b"SAME_LOWER"), how
    found = []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        # A window begins at each stride of the image.
        last = (size - 1) // stride * stride
        missing = max(last + dilation * (taps - 1) + 1 - size, 0)
        less, more = missing // 2, missing - missing // 2
        found.append((less, more) if how == b"SAME_UPPER" else (more, less))
    return found


def _gemm(node: onnx.NodeProto, inputs: Inputs) -> Array:
    _expect(node, alpha=1.0, beta=1.0)
    a, b = map(_integers, inputs[:2])
    a, b = a.T if _attribute(node, "transA", 0) else a, b.T if _attribute(node, "transB", 0) else b
    return _dot(a, b, np.broadcast_to(_bias(inputs), b.shape[1:]))


def _matmul(node: onnx.NodeProto, inputs: Inputs) -> Array:
    a, b = map(_integers, inputs)
    if b.ndim != 2:
        raise NotImplementedError(f"MatMul with an operand of {b.ndim} axes")
    return _dot(a.reshape(-1, a.shape[-1]), b, np.zeros(b.shape[1], np.int64)).reshape(*a.shape[:-1], b.shape[1])


def _reduce_sum(node: onnx.NodeProto, inputs: Inputs) -> Array:
    x = _integers(inputs[0])
    axes = _axes(node, inputs, x.ndim) or range(x.ndim)
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.transpose([*kept, *axes]).reshape(prod(x.shape[axis] for axis in kept), -1)
    _require_exact(rows)
    return np.asarray(x.sum(axis=tuple(axes), keepdims=bool(_attribute(node, "keepdims", 1))))


def _axes(node: onnx.NodeProto, inputs: Inputs, rank: int) -> list[int]:
    given = inputs[1] if len(inputs) > 1 and inputs[1] is not None else _attribute(node, "axes", [])
    return sorted(int(axis) % rank for axis in given)


# Elementwise: floats as IEEE has them where all operands are, and exactly where one is an integer.


def _sum(_: onnx.NodeProto, inputs: Inputs) -> Array:
    if _is_float(*inputs):
        return np.asarray(sum(inputs[1:], start=inputs[0]))
    terms = np.stack(np.broadcast_arrays(*map(_integers, inputs)), axis=-1)
    _require_held(_largest(terms) * len(inputs))
    _require_exact(terms)
    return np.asarray(terms.sum(axis=-1))


def _sub(node: onnx.NodeProto, inputs: Inputs) -> Array:
    return _sum(node, [inputs[0], -inputs[1]])


def _mul(_: onnx.NodeProto, inputs: Inputs) -> Array:
    """A product of integers, or of what integers stand for: units are no integers, or greater than any multiplier."""
    if not all(value.dtype == np.int64 or _is_whole(value) and _largest(value) < _UNIT for value in inputs):
        return np.asarray(np.multiply(*map(_carried, inputs)))
    a, b = map(_integers, inputs)
    _require_held(_largest(a) * _largest(b))
    _carried(a * b)
    return np.asarray(a * b)


def _div(_: onnx.NodeProto, inputs: Inputs) -> Array:
    """A single operation on floats, whatever it divides."""
    return np.asarray(_carried(inputs[0]) / _carried(inputs[1]))


def _round(_: onnx.NodeProto, inputs: Inputs) -> Array:
    """What is behind it is float32."""
    return np.asarray(np.rint(_carried(inputs[0])))


def _cast(node: onnx.NodeProto, inputs: Inputs) -> Array:
    """To integers, and from these to float32: numbers stay what they are."""
    to = _attribute(node, "to")
    if to == onnx.TensorProto.FLOAT:
        return _carried(inputs[0])
    if to not in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        raise NotImplementedError(f"Cast to {onnx.TensorProto.DataType.Name(to)}")
    value = _integers(inputs[0])
    assert to == onnx.TensorProto.INT64 or _largest(value) < 2**31, "an integer beyond 32 bits"
    return value


def _clip(_: onnx.NodeProto, inputs: Inputs) -> Array:
    """What has passed it are codes."""
    value = inputs[0]
    for bound, nearest in zip(inputs[1:], (np.maximum, np.minimum), strict=False):
        value = value if bound is None else nearest(value, bound)
    return _integers(value)


def _relu(_: onnx.NodeProto, inputs: Inputs) -> Array:
    return np.maximum(inputs[0], inputs[0].dtype.type(0))


# Moves.


def _max_pool(node: onnx.NodeProto, inputs: Inputs) -> Array:
    _expect(node, auto_pad=b"NOTSET", ceil_mode=0, storage_order=0)
    lowest = -np.inf if _is_float(*inputs) else -_NEVER
    return np.asarray(_windows(node, inputs[0], tuple(_attribute(node, "kernel_shape")), lowest).max(axis=2))


def _global_max_pool(_: onnx.NodeProto, inputs: Inputs) -> Array:
    return np.asarray(inputs[0].max(axis=tuple(range(2, inputs[0].ndim)), keepdims=True))


def _concat(node: onnx.NodeProto, inputs: Inputs) -> Array:
    return np.concatenate(inputs if _is_float(*inputs) else [*map(_integers, inputs)], axis=_attribute(node, "axis"))


def _pad(node: onnx.NodeProto, inputs: Inputs) -> Array:
    _expect(node, mode=b"constant")
    if len(inputs) > 3:
        raise NotImplementedError("Pad with axes")
    x, pads = inputs[0], inputs[1].tolist()
    value = inputs[2] if len(inputs) > 2 and inputs[2] is not None else x.dtype.type(0)
    if not _is_float(x):
        value = _integers(np.asarray(value))
    widths = list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
    cut = tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(x.shape, widths, strict=True))
    return np.pad(x[cut], [(max(0, a), max(0, b)) for a, b in widths], constant_values=value.item())


def _slice(_: onnx.NodeProto, inputs: Inputs) -> Array:
    x, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else np.arange(len(starts))
    steps = inputs[4] if len(inputs) > 4 else np.ones(len(starts), np.int64)
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(*(values.tolist() for values in (starts, ends, axes, steps)), strict=True):
        if step < 0:
            raise NotImplementedError("Slice backwards")
        cut[axis] = slice(start, end, step)
    return np.asarray(x[tuple(cut)])


def _split(node: onnx.NodeProto, inputs: Inputs) -> Inputs:
    axis, count = _attribute(node, "axis", 0), len(node.output)
    size = inputs[0].shape[axis]
    sizes = inputs[1] if len(inputs) > 1 else [min(-(-size // count), size)] * (count - 1)
    return np.split(inputs[0], np.cumsum(sizes)[: count - 1], axis=axis)


def _reshape(node: onnx.NodeProto, inputs: Inputs) -> Array:
    _expect(node, allowzero=0)
    x, sizes = inputs[0], inputs[1].tolist()
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)])


def _flatten(node: onnx.NodeProto, inputs: Inputs) -> Array:
    axis = _attribute(node, "axis", 1) % (inputs[0].ndim + 1)
    return inputs[0].reshape(prod(inputs[0].shape[:axis]), -1)


def _squeeze(node: onnx.NodeProto, inputs: Inputs) -> Array:
    return np.squeeze(inputs[0], tuple(_axes(node, inputs, inputs[0].ndim)) or None)


def _unsqueeze(node: onnx.NodeProto, inputs: Inputs) -> Array:
    given = inputs[1] if len(inputs) > 1 else np.array(_attribute(node, "axes"))
    return np.expand_dims(inputs[0], tuple(given.tolist()))


_OPERATORS: dict[str, Operator] = {
    "pconv.ParallelSpike": _parallel_spike,
    "pconv.TemporalMean": _temporal_mean,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "ReduceSum": _reduce_sum,
    "Add": _sum,
    "Sum": _sum,
    "Sub": _sub,
    "Mul": _mul,
    "Neg": lambda _, inputs: -inputs[0],
    "Div": _div,
    "Round": _round,
    "Cast": _cast,
    "Clip": _clip,
    "Relu": _relu,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _global_max_pool,
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Transpose": lambda node, inputs: inputs[0].transpose(_attribute(node, "perm")),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Tile": lambda _, inputs: np.tile(inputs[0], inputs[1].tolist()),
    "Identity": lambda _, inputs: inputs[0],
    "Constant": lambda node, _: numpy_helper.to_array(_attribute(node, "value")),
}
