"""Tests that need a GPU; where something is missing they are skipped, and the summary says what."""

from __future__ import annotations

import onnxruntime
import pytest
from cuda_device import Device

from pconv_onnx import PconvError
from pconv_onnx.operators.library import has_cuda_kernels
from pconv_onnx.runtime.device_memory import CUDA
from pconv_onnx.runtime.installation import kernel_works


@pytest.fixture(scope="session")
def device() -> Device:
    try:
        return Device()
    except RuntimeError as error:
        pytest.skip(f"needs a GPU: {error}")


@pytest.fixture(scope="session")
def cuda_provider() -> str:
    """The name of onnxruntime's CUDA provider, once it runs the kernel."""
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip("needs a GPU and onnxruntime-gpu: this onnxruntime has no CUDA provider")
    try:
        if not has_cuda_kernels():
            pytest.skip("needs CUDA kernels: the library was built without nvcc")
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        kernel_works(CUDA)
    except PconvError as error:
        pytest.skip(f"needs a GPU: {error}")
    return CUDA
