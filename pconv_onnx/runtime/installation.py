"""Examines the installation: what is there, what works, what is missing and how to get it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.answers.lines import installation_lines
from pconv_onnx.answers.printing import Document, Part
from pconv_onnx.basics.domain import DOMAIN, MIN_OPSET, VERSION
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.operators.domain import OP_TYPE
from pconv_onnx.operators.library import has_cuda_kernels, library_path, register
from pconv_onnx.operators.parallel_spike import reference
from pconv_onnx.runtime.device_memory import CUDA
from pconv_onnx.runtime.opening import import_onnxruntime

# What the extras of `setup.cfg` for users are for, and the packages that they install.
_EXTRAS = {
    "torch": ("train networks with quantised activations and export them", ("torch", "onnxscript")),
    "data": ("read Parquet files and pictures", ("pyarrow", "pillow")),
    "report": ("draw the report of bench and the curve of evaluate", ("jinja2", "matplotlib")),
    "completion": ("complete commands and options in a shell", ("shtab",)),
    "ray": ("spread calibrate and evaluate over processes and machines", ("ray",)),
    "nir": ("deploy for NIR", ("nir",)),
}


class Installation(Document):
    """What `doctor` found: the JSON document of `pconv-onnx doctor`."""

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return installation_lines(document)


def doctor() -> Installation:
    """Examine this installation.

    Returns:
        The JSON document of `pconv-onnx doctor`. `problems` is empty if all is well; missing extras are no problem.
    """
    problems: list[str] = []
    if installed("onnxruntime") and installed("onnxruntime-gpu"):
        problems.append("onnxruntime and onnxruntime-gpu provide one module; uninstall both and install one")
    providers: list[str] = []
    runtime = None
    try:
        ort = import_onnxruntime()
        runtime, providers = ort.__version__, ort.get_available_providers()
    except PconvError as error:
        problems.append(str(error))
    path = None
    works = cuda = False
    try:
        path = str(library_path())
        works = bool(providers) and kernel_works("CPUExecutionProvider")
        if providers and not works:
            problems.append(f"{path} gives wrong values on this machine; reinstall pconv-onnx")
        cuda = has_cuda_kernels()
        if CUDA in providers:
            if not cuda:
                problems.append(f"{path} has no CUDA kernels; install the CUDA toolkit and reinstall pconv-onnx")
            elif not (cuda := kernel_works(CUDA)):
                problems.append(f"{path} gives wrong values on this machine's GPU; reinstall pconv-onnx")
    except PconvError as error:
        problems.append(str(error))
    return Installation(
        {
            "pconv_onnx": installed("pconv-onnx"),
            "python": platform.python_version(),
            "onnx": onnx.__version__,
            "numpy": np.__version__,
            "onnxruntime": runtime,
            "providers": providers,
            "library": {"path": path, "cpu": works, "cuda": cuda},
            "extras": {
                extra: {"for": purpose, "missing": [package for package in packages if installed(package) is None]}
                for extra, (purpose, packages) in _EXTRAS.items()
            },
            "problems": problems,
        }
    )


def installed(package: str) -> str | None:
    """The version of an installed package; None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def kernel_works(provider: str) -> bool:
    """Run the kernel, without a function body to fall back on, against the NumPy reference.

    Raises:
        PconvError: the library does not load, the provider does not start, or the kernel refuses to run.
    """
    attributes: dict[str, Any] = {"input_steps": 2, "channel_axis": 1, "spikes": 1}
    tensors: dict[str, Any] = {
        "current": np.linspace(-1, 2, 24, dtype=np.float32).reshape(4, 3, 2),
        "thresholds": np.array([[0.25, 0.75], [0.5, 1.0], [0.0, 1.5]], dtype=np.float32),
        "levels": np.array([[0, 0.5, 1]] * 3, dtype=np.float32),
    }
    node = helper.make_node(OP_TYPE, list(tensors), ["trains"], domain=DOMAIN, **attributes)
    element = onnx.TensorProto.FLOAT
    infos = [helper.make_tensor_value_info(name, element, array.shape) for name, array in tensors.items()]
    output = helper.make_tensor_value_info("trains", element, None)
    opsets = [helper.make_opsetid("", MIN_OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    model = helper.make_model(helper.make_graph([node], "doctor", infos, [output]), opset_imports=opsets, ir_version=8)
    ort = import_onnxruntime()
    options = register(ort.SessionOptions())
    try:
        runner = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
        started = provider in runner.get_providers()
        (found,) = runner.run(None, tensors)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        raise PconvError(f"the kernel of {library_path()} does not run: {error}", "reinstall pconv-onnx") from error
    if not started:
        raise PconvError(f"onnxruntime's '{provider}' does not start on this machine", "onnxruntime has logged why")
    return bool(np.array_equal(found, reference(**tensors, **attributes)))
