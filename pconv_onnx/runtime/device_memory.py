"""Memory on a device for the inputs and outputs of a session, as onnxruntime's `OrtValue`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

CUDA = "CUDAExecutionProvider"


def place_of(session: Any) -> tuple[str, int]:
    """Where a session computes: the name of the device as onnxruntime has it, and its number."""
    options = session.get_provider_options()
    return ("cuda", int(options[CUDA].get("device_id", 0))) if CUDA in options else ("cpu", 0)


def zeros(shape: Sequence[int], type_name: str, place: tuple[str, int]) -> Any:
    """An `OrtValue` of zeros, of what onnxruntime calls `tensor(float)` and the like."""
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype_of(type_name)), *place)


def dtype_of(type_name: str) -> np.dtype[Any]:
    """The NumPy type of what onnxruntime calls `tensor(float)`."""
    element = type_name.removeprefix("tensor(").removesuffix(")")
    return helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(element.upper()))
