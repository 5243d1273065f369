"""Reads the constants of a chain of operators, along one channel axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant, element_type
from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.view import Node, Tensor, node_name
from pconv_onnx.neuron.quantiser import FloatOperation
from pconv_onnx.recognise.base import Refusal
from pconv_onnx.recognise.chain import LETTERS, Foreign, data_input, selection

# How far thresholds may deviate from even spacing, in units in the last place of their type.
_TOLERANCE = 16

# The bounds of an operator that does not clip on this side.
_BELOW, _ABOVE = np.full(1, -np.inf), np.full(1, np.inf)


class ConstantReader:
    """Reads the constants of one activation and finds the channel axis that they share."""

    def __init__(self, shape: tuple[Dimension, ...] | None) -> None:
        """Begin, for an activation of this shape, as far as it is known."""
        self.shape = shape
        self.channel_axis: int | None = None
        self.dtype: np.dtype[Any] | None = None

    def operation(self, node: Node) -> FloatOperation:
        """The operation of a node. Every operator that clips becomes a Clip, with infinity on an open side.

        Raises:
            Refusal: one of its constants is wrong; the text says which.
        """
        if node.op == "Where":
            return self._selection(node)
        if node.op == "Cast":
            return FloatOperation("Cast", dtype=element_type(node.attrs["to"]))
        data = data_input(node)
        operands = [tensor for tensor in node.inputs if tensor is not data]
        if LETTERS[node.op] != "C":
            return FloatOperation(node.op, tuple(self.vector(node, tensor) for tensor in operands))
        if node.op == "Relu":
            return FloatOperation("Clip", (np.zeros(1), _ABOVE))
        low, high = (*([None] if node.op == "Min" else []), *operands, None, None)[:2]
        return FloatOperation("Clip", (self._bound(node, low, _BELOW), self._bound(node, high, _ABOVE)))

    def _selection(self, node: Node) -> FloatOperation:
        chosen = selection(node)
        assert chosen is not None
        compared, value = (self.vector(node, tensor) for tensor in (chosen.compared, chosen.chosen))
        if not np.array_equal(compared, value):
            raise Refusal(
                f"'{node_name(node)}' compares with {some(compared)} and gives {some(value)}; one is expected"
            )
        return FloatOperation("Clip", (value, _ABOVE) if chosen.op_type == "Max" else (_BELOW, value))

    def _bound(self, node: Node, tensor: Tensor | None, otherwise: Array) -> Array:
        return otherwise if tensor is None or not tensor.name else self.vector(node, tensor)

    def vector(self, node: Node, tensor: Tensor) -> Array:
        """A constant as `[1]` or `[C]`.

        Raises:
            Foreign: it is added, and not finite.
            Refusal: it is computed, not finite, or does not run along the channel axis.
        """
        value = constant(tensor)
        if value is None:
            raise Refusal(f"'{tensor.name}', an operand of '{node_name(node)}', is computed; a constant is needed")
        if not np.isfinite(value.astype(np.float64)).all():
            refusal = Foreign if LETTERS.get(node.op) == "A" else Refusal
            raise refusal(f"'{tensor.name}', an operand of '{node_name(node)}', is not finite")
        self.dtype = value.dtype
        self.settle(tensor, value.shape)
        return value.reshape(-1)

    def settle(self, tensor: Tensor, shape: tuple[int, ...]) -> None:
        """Find the channel axis from a constant of this shape, if it is more than one number.

        Raises:
            Refusal: it has no values, runs along another axis than other constants, or along several axes.
        """
        name = f"'{tensor.name}'"
        if 0 in shape:
            raise Refusal(f"{name} of shape {list(shape)} has no values")
        rank = None if self.shape is None else len(self.shape)
        if len(shape) > (1 if rank is None else rank):
            raise Refusal(f"{name} of shape {list(shape)} has more dimensions than the activation")
        long = [axis for axis, size in enumerate(shape) if size != 1]
        if not long:
            return
        if len(long) != 1 or self.shape is None:
            raise Refusal(f"{name} of shape {list(shape)} does not run along one axis of the activation")
        axis, size = len(self.shape) - len(shape) + long[0], shape[long[0]]
        if axis == 0 or self.channel_axis not in (None, axis):
            raise Refusal(f"{name} runs along axis {axis}, which is not the activation's channel axis")
        if self.shape[axis] != size:
            own = self.shape[axis] if isinstance(self.shape[axis], int) else "a size that is open"
            raise Refusal(f"{name} holds {size} values along axis {axis}, where the activation has {own}")
        self.channel_axis = axis


def factor(node: Node, operation: FloatOperation) -> Array:
    """The factor that a Mul or Div scales by, in float64.

    Raises:
        Refusal: it is not positive.
    """
    value = operation.constants[0].astype(np.float64)
    if (value <= 0).any():
        raise Refusal(
            f"'{node_name(node)}' scales by {some(value[value <= 0])}; a scale must be positive: train on with its "
            "absolute value, and keep it above zero"
        )
    return np.asarray(1 / value if operation.op_type == "Div" else value)


def some(values: Array) -> str:
    """A constant for a message."""
    numbers = np.unique(values.astype(np.float64))
    return f"{numbers[0]:.6g}" + (f" … {numbers[-1]:.6g}" if numbers.size > 1 else "")


def spacing(thresholds: Array) -> tuple[Array, Array, Array] | None:
    """θ, b and ψ of ascending thresholds `[R, L]`, `[R]` each in float64; None if they are not evenly spaced."""
    levels = thresholds.shape[1]
    exact = thresholds.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a threshold that is never reached is infinite
        step = (exact[:, -1] - exact[:, 0]) / max(levels - 1, 1)
        even = exact[:, :1] + np.arange(levels) * step[:, np.newaxis]
        rounding = _TOLERANCE * float(np.finfo(np.float32).eps) * abs(exact).max(axis=1, keepdims=True)
        if not (step > 0).all() or not (abs(even - exact) <= rounding).all():
            return None
    return levels * step, levels * step / 2, step / 2 - exact[:, 0]
