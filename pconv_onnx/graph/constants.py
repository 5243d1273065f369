"""Values of initializers and Constant nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.view import Constant, Node, Tensor


def is_standard(node: Node | onnx.NodeProto) -> bool:
    """Whether a node is an operator of ONNX itself; other domains may use the same names for something else."""
    return node.domain in (None, "", "ai.onnx")


def element_type(value: Any) -> np.dtype[Any] | None:
    """The NumPy type of an attribute that names an element type; None if no type has that number.

    GraphSurgeon has replaced the number where it could.
    """
    if value is None:
        return None
    if not isinstance(value, int):
        return np.dtype(value)
    return onnx.helper.tensor_dtype_to_np_dtype(value) if value in onnx.helper.get_all_tensor_dtypes() else None


def constant(tensor: Tensor) -> Array | None:
    """Value of an initializer or a Constant node; None if the tensor is computed, or has no real numbers."""
    if isinstance(tensor, Constant):
        return _values(tensor)
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant" and is_standard(tensor.inputs[0]):
        attributes = tensor.inputs[0].attrs
        if "value" in attributes:
            return _values(attributes["value"])
        for name, dtype in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64),
                            ("value_ints", np.int64)):  # fmt: skip
            if name in attributes:
                return np.asarray(attributes[name], dtype=dtype)
    return None


def _values(tensor: Constant) -> Array | None:
    values = tensor._values
    if not isinstance(values, np.ndarray):  # not read yet
        # GraphSurgeon warns of types without a NumPy counterpart of their own; onnx reads them all the same.
        with LoggerSuppress(G_LOGGER, G_LOGGER.ERROR):
            values = np.asarray(tensor.values)
    return None if values.dtype.kind in "cOSU" else values
