"""Reading and writing of models: thin over onnx and onnx-graphsurgeon."""

from pconv_onnx.graph.files import ModelSource, load, refuse_to_overwrite, require_own_file, save
from pconv_onnx.graph.network import Network

__all__ = [
    "ModelSource",
    "Network",
    "load",
    "refuse_to_overwrite",
    "require_own_file",
    "save",
]
