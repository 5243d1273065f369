"""Reading and writing of models: thin over onnx and onnx-graphsurgeon."""

from pconv_onnx.basics.places import (
    make_folder,
    require_new_folder,
    require_place,
    require_writable,
    write_atomically,
    write_folder,
)
from pconv_onnx.graph.files import ModelSource, load, refuse_to_overwrite, require_own_file, save
from pconv_onnx.graph.network import Network

__all__ = [
    "ModelSource",
    "Network",
    "load",
    "make_folder",
    "refuse_to_overwrite",
    "require_new_folder",
    "require_own_file",
    "require_place",
    "require_writable",
    "save",
    "write_atomically",
    "write_folder",
]
