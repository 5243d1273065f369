"""Operators of ONNX on tensors of PyTorch, so that gradients go through them.

Each takes its inputs, as tensors where they are floats and as NumPy arrays where they are not, and its attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch.nn import functional

from pconv_onnx.graph.windows import windows

# An input: floats that depend on parameters or data, or anything else; None where it is left out.
Value = Any
Attributes = Mapping[str, Any]
Rule = Callable[[Sequence[Value], Attributes], Any]


def _padded(given: torch.Tensor, attributes: Attributes, kernel: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """With what a window of that size adds before and after each of its axes."""
    along = windows(attributes, given.shape[2:], kernel)
    flat = [number for window in reversed(along) for number in (window.start, window.end)]
    return functional.pad(given, flat, value=value) if any(flat) else given


def _of_rank(name: str, given: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The function of that name for one, two or three axes of windows."""
    found: Callable[..., torch.Tensor] = getattr(functional, f"{name}{given.dim() - 2}d")
    return found


def _conv(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    given, weights, bias = (*inputs, None)[:3]
    axes = given.dim() - 2
    stride, dilation = (attributes.get(name, [1] * axes) for name in ("strides", "dilations"))
    given = _padded(given, attributes, weights.shape[2:])
    return _of_rank("conv", given)(given, weights, bias, stride, 0, dilation, attributes.get("group", 1))


def _max_pool(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    (given,), kernel = inputs, attributes["kernel_shape"]
    stride, dilation = (attributes.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    given = _padded(given, attributes, kernel, -math.inf)
    return _of_rank("max_pool", given)(given, kernel, stride, 0, dilation, bool(attributes.get("ceil_mode", 0)))


def _average_pool(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    (given,), kernel = inputs, attributes["kernel_shape"]

    def mean(values: torch.Tensor) -> torch.Tensor:
        stride, ceil = attributes.get("strides", [1] * len(kernel)), bool(attributes.get("ceil_mode", 0))
        return _of_rank("avg_pool", values)(_padded(values, attributes, kernel), kernel, stride, 0, ceil)

    if attributes.get("count_include_pad", 0):
        return mean(given)
    return mean(given) / mean(torch.ones_like(given[:1, :1]))


def _gemm(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    first, second, bias = (*inputs, None)[:3]
    first = first.T if attributes.get("transA", 0) else first
    second = second.T if attributes.get("transB", 0) else second
    product = attributes.get("alpha", 1.0) * (first @ second)
    return product if bias is None else product + attributes.get("beta", 1.0) * bias


def _batch_normalization(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    given, scale, bias, mean, variance = inputs
    return functional.batch_norm(given, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _layer_normalization(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    given, scale, bias = (*inputs, None)[:3]
    shape = given.shape[attributes.get("axis", -1) :]
    return functional.layer_norm(given, shape, scale.expand(shape), bias, attributes.get("epsilon", 1e-5))


def _clip(inputs: Sequence[Value], _: Attributes) -> torch.Tensor:
    given, low, high = (*inputs, None, None)[:3]
    return torch.clamp(given, low, high)


def _hard_sigmoid(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    return torch.clamp(attributes.get("alpha", 0.2) * inputs[0] + attributes.get("beta", 0.5), 0, 1)


def _gelu(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    return functional.gelu(inputs[0], approximate=attributes.get("approximate", b"none").decode())


def _axes(inputs: Sequence[Value], attributes: Attributes) -> list[int] | None:
    """Of an operator that has them as an input or, in older operator sets, as an attribute."""
    given = inputs[1] if len(inputs) > 1 else attributes.get("axes")
    return None if given is None else [int(axis) for axis in np.atleast_1d(given)]


def _reduced(function: Callable[..., torch.Tensor]) -> Rule:
    def reduce_axes(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
        axes = _axes(inputs, attributes)
        if axes is None and attributes.get("noop_with_empty_axes", 0):
            return torch.as_tensor(inputs[0])
        axes = list(range(inputs[0].dim())) if axes is None else axes
        return function(inputs[0], dim=axes, keepdim=bool(attributes.get("keepdims", 1)))

    return reduce_axes


def _split(inputs: Sequence[Value], attributes: Attributes) -> Sequence[torch.Tensor]:
    given, axis = inputs[0], attributes.get("axis", 0)
    sizes = inputs[1] if len(inputs) > 1 else attributes.get("split")
    # Of parts that are told by number alone the last may be smaller.
    each = math.ceil(given.shape[axis] / attributes.get("num_outputs", 1))
    return torch.split(given, each if sizes is None else [int(size) for size in sizes], axis)


def _slice(inputs: Sequence[Value], _: Attributes) -> torch.Tensor:
    given, starts, ends, axes, steps = (*inputs, None, None)[:5]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # Tensors have no steps backwards.
        chosen = np.arange(given.shape[int(axis)])[int(start) : int(end) : int(step)]
        given = given.index_select(int(axis), torch.from_numpy(chosen.copy()))
    return torch.as_tensor(given)


def _pad(inputs: Sequence[Value], attributes: Attributes) -> Any:
    given, pads, value, axes = (*inputs, None, None)[:4]
    before, after = np.split(np.asarray(pads), 2)
    own = np.zeros((given.dim(), 2), int)
    own[range(given.dim()) if axes is None else axes] = np.stack([before, after], axis=1)
    mode = attributes.get("mode", b"constant").decode()
    flat = [int(number) for pair in reversed(own) for number in pair]
    if mode == "constant":
        return functional.pad(given, flat, value=0.0 if value is None else float(value))
    # PyTorch takes the other modes for axes of windows alone.
    if own[:2].any():
        return NotImplemented
    return functional.pad(given, flat[: 2 * (given.dim() - 2)], mode={"edge": "replicate"}.get(mode, mode))


def _reshape(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    given, shape = inputs
    kept = not attributes.get("allowzero", 0)
    return given.reshape([given.shape[i] if kept and size == 0 else int(size) for i, size in enumerate(shape)])


def _flatten(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    shape = inputs[0].shape
    axis = attributes.get("axis", 1) % (len(shape) + 1)
    return inputs[0].reshape(math.prod(shape[:axis]), -1)


def _transpose(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    order = attributes.get("perm", range(inputs[0].dim())[::-1])
    return inputs[0].permute(*order)


def _squeeze(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    axes = _axes(inputs, attributes)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    given, axes = inputs[0], _axes(inputs, attributes) or []
    for axis in sorted(axis % (given.dim() + len(axes)) for axis in axes):
        given = given.unsqueeze(axis)
    return torch.as_tensor(given)


def _expand(inputs: Sequence[Value], _: Attributes) -> torch.Tensor:
    given, shape = inputs
    return given.expand(*torch.broadcast_shapes(given.shape, tuple(int(size) for size in shape)))


def _gather(inputs: Sequence[Value], attributes: Attributes) -> torch.Tensor:
    given, chosen = inputs
    axis = attributes.get("axis", 0) % given.dim()
    chosen = np.asarray(chosen) % given.shape[axis]
    found = given.index_select(axis, torch.from_numpy(chosen.reshape(-1)))
    return found.reshape(*given.shape[:axis], *chosen.shape, *given.shape[axis + 1 :])


# Types between which values hardly change.
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def _cast(inputs: Sequence[Value], attributes: Attributes) -> Any:
    return inputs[0] if attributes["to"] in _FLOATS else NotImplemented


def _elementwise(function: Callable[..., torch.Tensor]) -> Rule:
    return lambda inputs, _: function(*inputs)


def _folded(function: Callable[..., torch.Tensor]) -> Rule:
    return lambda inputs, _: reduce(function, inputs)


# What is not here is computed without gradients.
RULES: Mapping[str, Rule] = {
    "Abs": _elementwise(torch.abs),
    "Add": _elementwise(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda inputs, attributes: torch.cat(list(inputs), attributes["axis"]),
    "Conv": _conv,
    "Div": _elementwise(torch.div),
    "Dropout": lambda inputs, _: inputs[0],
    "Elu": lambda inputs, attributes: functional.elu(inputs[0], attributes.get("alpha", 1.0)),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean(tuple(range(2, inputs[0].dim())), keepdim=True),
    "GlobalMaxPool": lambda inputs, _: inputs[0].amax(tuple(range(2, inputs[0].dim())), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _elementwise(functional.hardswish),
    "Identity": lambda inputs, _: inputs[0],
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda inputs, attributes: functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "Log": _elementwise(torch.log),
    "MatMul": _elementwise(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "Mul": _elementwise(torch.mul),
    "Neg": _elementwise(torch.neg),
    "Pad": _pad,
    "Pow": _elementwise(torch.pow),
    "Reciprocal": _elementwise(torch.reciprocal),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _elementwise(functional.relu),
    "Reshape": _reshape,
    "Sigmoid": _elementwise(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda inputs, attributes: torch.softmax(inputs[0], attributes.get("axis", -1)),
    "Softplus": _elementwise(functional.softplus),
    "Split": _split,
    "Sqrt": _elementwise(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _elementwise(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda inputs, _: torch.where(torch.as_tensor(inputs[0]), inputs[1], inputs[2]),
}
