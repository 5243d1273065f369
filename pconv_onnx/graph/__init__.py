"""Reading and writing of models: thin over onnx and onnx-graphsurgeon."""

from pconv_onnx.graph.files import (
    ModelSource,
    load,
    make_folder,
    refuse_to_overwrite,
    require_new_folder,
    require_own_file,
    require_place,
    require_writable,
    save,
    write_atomically,
    write_folder,
)
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
