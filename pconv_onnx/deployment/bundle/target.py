"""The target `bundle`: a network, its library, a manifest of hashes, and programs in Python and C++ that run them."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

from onnx.helper import tensor_dtype_to_np_dtype

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.version import own_version
from pconv_onnx.deployment.package import MODEL, Package, Tensor
from pconv_onnx.deployment.target import Contents
from pconv_onnx.runtime.opening import oldest_version

FORMAT = 1
MANIFEST = "manifest.json"
# Bytes read at once: a file of weights may be larger than memory.
_CHUNK = 1 << 20
_HERE = Path(__file__).parent
# As they lie in this package.
_PROGRAMS = (
    "run.py",
    "cpp/CMakeLists.txt",
    "cpp/main.cpp",
    "cpp/npy.h",
    "cpp/pconv/ort_abi.h",
    "cpp/text.h",
)


class Bundle:
    """Files that run on every device: `run.py` chooses."""

    every_device = "run.py has --provider"
    may_lose = False

    def contents(self, packed: Package, gpu: bool) -> Contents:
        """The folder.

        Raises:
            PconvError: external data of the model has the name of another file.
        """
        return Contents(_files(packed), packed.providers, notes=packed.told_of_potentials() + packed.told_of_library())


def _files(packed: Package) -> dict[str, bytes | Path]:
    """The files of a bundle, by path in it.

    Raises:
        PconvError: external data of the model has the name of another file.
    """
    own: dict[str, bytes | Path] = {name: _HERE / name for name in _PROGRAMS}
    if packed.library is not None:
        own[packed.library.name] = packed.library
    for name in packed.model_files:
        if name in own or name == MANIFEST:
            raise PconvError(f"the model's external data '{name}' has the name of a file of the bundle", "rename it")
    found = packed.model_files | own
    manifest = _manifest(packed, {name: _sha256(content) for name, content in found.items()})
    return found | {MANIFEST: f"{json.dumps(manifest, indent=1)}\n".encode()}


def _manifest(packed: Package, hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "pconv_onnx": own_version(),
        "onnxruntime": f">={oldest_version(packed.model)}",
        "platform": {"system": platform.system(), "machine": platform.machine()},
        "model": MODEL,
        "mode": packed.mode.name,
        "steps": packed.steps,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in packed.model.opset_import},
        "inputs": [_described(tensor) for tensor in packed.inputs],
        "outputs": [_described(tensor) for tensor in packed.outputs],
        "potentials": packed.potentials,
        "library": None if packed.library is None else packed.library.name,
        "operators": packed.operators(),
        "providers": packed.providers,
        "files": hashes,
    }


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "type": tensor_dtype_to_np_dtype(tensor.type).name, "shape": tensor.shape}


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
