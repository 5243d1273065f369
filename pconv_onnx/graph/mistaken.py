"""Recognises files that are given as a model but are something else, and says what to do."""

from __future__ import annotations

GIT_LFS = b"version https://git-lfs.github.com/spec/"
GIT_LFS_HINT = "git lfs pull"

_EXPORT = "export the network with torch.onnx.export"
# The first bytes of such files.
_BEGINNINGS = (
    (GIT_LFS, "a Git LFS pointer", GIT_LFS_HINT),
    (b"PK\x03\x04", "a zip archive", f"unpack it; if it is a checkpoint of PyTorch, {_EXPORT}"),
    *((bytes([0x80, protocol]), "a pickle, perhaps a checkpoint of PyTorch", _EXPORT) for protocol in range(2, 6)),
    (b"\x89HDF\r\n", "an HDF5 file, perhaps of Keras", "convert it with tf2onnx; `from_nir` reads one of NIR"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
)
# Flatbuffers have their identifier after four bytes.
_FLATBUFFERS = (
    (b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx"),
    (b"ORTM", "in onnxruntime's own format", "pass the ONNX model that it was made of"),
)
_PAGES = (b"<!doctype html", b"<html")


def mistaken(content: bytes) -> tuple[str, str] | None:
    """Message and hint if a file is known not to be a model; None if it may be one."""
    for beginning, told, hint in _BEGINNINGS:
        if content.startswith(beginning):
            return told, hint
    for identifier, told, hint in _FLATBUFFERS:
        if content[4:8] == identifier:
            return told, hint
    if content[:1000].lstrip().lower().startswith(_PAGES):
        return "an HTML page", "download the file itself, not the page that shows it"
    if content[:1000].lstrip().startswith(b"{"):
        return "a text, such as JSON", "pass the ONNX model"
    return None
