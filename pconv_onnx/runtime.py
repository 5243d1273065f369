"""Running models in onnxruntime, with the native library where there is one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx

from pconv_onnx.errors import PconvError
from pconv_onnx.operator import library_path, register

if TYPE_CHECKING:
    import onnxruntime


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        PconvError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PconvError(
            f"onnxruntime cannot be imported: {error}", "pip install 'pconv-onnx[cpu]', or 'pconv-onnx[gpu]'"
        ) from error
    return onnxruntime


def session(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    providers: Sequence[Any] | None = None,
    options: onnxruntime.SessionOptions | None = None,
) -> onnxruntime.InferenceSession:
    """An onnxruntime session that knows the ParallelSpike operator.

    Without a native library the model runs through its function body, with a warning.

    Args:
        model: path of an ONNX file, or a model in memory.
        providers: execution providers as onnxruntime takes them; by default the CPU's.
        options: session options to use; the library is registered with them.

    Raises:
        PconvError: onnxruntime is missing, or refuses the model or the providers.
    """
    ort = import_onnxruntime()
    if options is None:
        options = ort.SessionOptions()
    try:
        library_path()
    except PconvError as error:
        warnings.warn(str(error), stacklevel=2)
    else:
        register(options)
    providers = list(providers or ["CPUExecutionProvider"])
    for provider in providers:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in ort.get_available_providers():
            available = ", ".join(ort.get_available_providers())
            raise PconvError(f"this onnxruntime has no provider '{name}'", f"it has {available}")
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(model)
    try:
        return ort.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        name = "the model" if isinstance(model, onnx.ModelProto) else f"'{model}'"
        raise PconvError(f"onnxruntime cannot load {name}: {error}", "") from error
