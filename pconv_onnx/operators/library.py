"""The native library: where it lies, what it has kernels for, and its registration with onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.operators.library_name import LIBRARY_NAME

if TYPE_CHECKING:
    import onnxruntime


# The entry that marks session options with the library: onnxruntime refuses models if it is registered twice.
_REGISTERED = "pconv_onnx.library"
_LIBRARY_FOLDER = Path(__file__).parents[1] / "lib"
# The file in which its build notes what it has kernels for.
_FACTS_NAME = "pconv_ops.json"


def library_path() -> Path:
    """Where the native library lies.

    Raises:
        PconvError: this installation has none.
    """
    path = _LIBRARY_FOLDER / LIBRARY_NAME
    if path.is_file():
        return path
    raise PconvError(
        "this installation of pconv-onnx has no native library",
        "models run through their function body, more slowly; to build it install a C++ compiler and reinstall",
    )


def has_cuda_kernels() -> bool:
    """Whether the native library was built with kernels for onnxruntime's CUDA provider.

    Raises:
        PconvError: this installation has no native library, or one without the file that tells.
    """
    facts = library_path().with_name(_FACTS_NAME)
    try:
        return "cuda" in json.loads(facts.read_bytes())["providers"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PconvError(
            f"'{facts}' is missing or damaged: it says whether the native library has CUDA kernels",
            "reinstall pconv-onnx, or copy that file too; until then models on CUDA run through their function body",
        ) from error


def register(options: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
    """Register the native library with session options, once however often this is called, and return them.

    Raises:
        PconvError: there is no library, or onnxruntime cannot load it.
    """
    path = library_path()
    try:
        options.get_session_config_entry(_REGISTERED)
        return options
    except RuntimeError:  # no such entry
        pass
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # onnxruntime raises its own types for this, without a common base
        raise PconvError(
            f"onnxruntime cannot load {path}: {reason_of(error)}", "reinstall pconv-onnx on this machine"
        ) from error
    options.add_session_config_entry(_REGISTERED, str(path))
    return options
