"""Values of constants: initializers, Constant nodes, and what operators with one right answer make of them.

Those are operators of layout and type, and arithmetic that IEEE 754 rounds in one way only. What a runtime approximates
(Exp, Softplus, …) has no one value, and counts as computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress

from pconv_onnx.neuron import Array


def is_standard(node: gs.Node) -> bool:
    """Whether a node is an operator of ONNX itself: another domain may use its names for something else."""
    return node.domain in (None, "", "ai.onnx")


def constant(tensor: gs.Tensor) -> Array | None:
    """Value of a constant; None for what depends on an input, or is computed in a way that runtimes may round apart."""
    if isinstance(tensor, gs.Constant):
        return values(tensor)
    if len(tensor.inputs) != 1 or not is_standard(tensor.inputs[0]):
        return None
    node = tensor.inputs[0]
    if node.op == "Constant":
        return _constant_node(node)
    if node.op == "CastLike":
        source, like = constant(node.inputs[0]), node.inputs[1].dtype
        return None if source is None or like is None else source.astype(_numpy_type(like))
    if node.op not in _FOLDED:
        return None
    operands = [constant(operand) for operand in node.inputs]
    if any(operand is None for operand in operands):
        return None
    with np.errstate(all="ignore"):
        return np.asarray(_FOLDED[node.op](node, *operands))


def values(tensor: gs.Constant) -> Array:
    """Value of an initializer."""
    # GraphSurgeon warns of types without a NumPy counterpart of their own; onnx reads them all the same.
    with LoggerSuppress(G_LOGGER, G_LOGGER.ERROR):
        return np.asarray(tensor.values)


def _constant_node(node: gs.Node) -> Array | None:
    if "value" in node.attrs:
        return values(node.attrs["value"])
    types = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return next((np.asarray(node.attrs[name], dtype=types[name]) for name in types if name in node.attrs), None)


def _numpy_type(element: Any) -> np.dtype[Any]:
    """The NumPy type of an ONNX element type, which GraphSurgeon has replaced already where it could."""
    return onnx.helper.tensor_dtype_to_np_dtype(element) if isinstance(element, int) else np.dtype(element)


def _axes(node: gs.Node, axes: tuple[Array, ...]) -> tuple[int, ...]:
    """Axes as a second input, or as an attribute before opset 13."""
    return tuple(int(axis) for axis in (axes[0] if axes else node.attrs.get("axes", ())))


def _reshape(node: gs.Node, x: Array, shape: Array) -> Array:
    copies = not node.attrs.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and copies else int(size) for i, size in enumerate(shape)])


_FOLDED: dict[str, Callable[..., Array]] = {
    "Abs": lambda _, x: np.abs(x),
    "Add": lambda _, x, y: x + y,
    "Cast": lambda node, x: x.astype(_numpy_type(node.attrs["to"])),
    "Div": lambda _, x, y: x / y if x.dtype.kind != "i" else x // y,
    "Expand": lambda _, x, shape: x * np.ones(shape, x.dtype),
    "Identity": lambda _, x: x,
    "Mul": lambda _, x, y: x * y,
    "Neg": lambda _, x: -x,
    "Reciprocal": lambda _, x: x.dtype.type(1) / x,
    "Reshape": _reshape,
    "Squeeze": lambda node, x, *axes: np.squeeze(x, _axes(node, axes) or None),
    "Sub": lambda _, x, y: x - y,
    "Unsqueeze": lambda node, x, *axes: np.expand_dims(x, _axes(node, axes)),
}
