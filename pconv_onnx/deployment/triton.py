"""The target `triton`: a model repository for the onnxruntime backend of NVIDIA's Triton Inference Server.

The configuration is Triton's ModelConfig in protobuf text form.
"""

from __future__ import annotations

import re
from pathlib import Path

from onnx import TensorProto

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.deployment.package import Package, Tensor
from pconv_onnx.deployment.target import Contents

# The mount point of the repository: onnxruntime takes the library's path relative to where the server started.
MOUNT = "/models"
MAX_BATCH_SIZE = 32
# The name is a folder and a part of URLs.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TYPES: dict[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "STRING",
    TensorProto.BFLOAT16: "BF16",
}


class Triton:
    """A model repository; its configuration says whether the server runs the network on a GPU."""

    every_device = ""
    may_lose = False

    def contents(self, packed: Package, gpu: bool) -> Contents:
        """The folder.

        Raises:
            PconvError: Triton cannot have a model of that name, or a tensor of such a type or shape.
        """
        notes = packed.told_of_potentials() + packed.told_of_library()
        if not _batched(packed):
            notes.append(
                "not every input and output begins with the same open batch, so Triton does not batch requests"
            )
        return Contents(_files(packed, gpu), packed.providers, notes=notes)


def _files(packed: Package, gpu: bool) -> dict[str, bytes | Path]:
    """The files of a repository with this one model, by path in it.

    Raises:
        PconvError: Triton cannot have a model of that name, or a tensor of such a type or shape.
    """
    if not _NAME.fullmatch(packed.name):
        raise PconvError(
            f"'{packed.name}' cannot be the name of a model in Triton",
            "rename the file: letters, digits, '_', '-' and '.', not in front",
        )
    model_files = {f"{packed.name}/1/{name}": content for name, content in packed.model_files.items()}
    library = {} if packed.library is None else {f"{packed.name}/{packed.library.name}": packed.library}
    return {
        **model_files,
        **library,
        f"{packed.name}/config.pbtxt": _config(packed, gpu).encode(),
        "README.md": _readme(packed, gpu).encode(),
    }


def _batched(packed: Package) -> bool:
    """Whether all inputs and outputs begin with the same open dimension, the batch, so Triton may join requests."""
    first = {tensor.shape[0] if tensor.shape else None for tensor in packed.inputs + packed.outputs}
    return len(first) == 1 and all(isinstance(size, str) for size in first)


def _config(packed: Package, gpu: bool) -> str:
    batch = _batched(packed)
    blocks = [
        f'name: "{packed.name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH_SIZE if batch else 0}",
        *(_tensor("input", tensor, batch) for tensor in packed.inputs),
        *(_tensor("output", tensor, batch) for tensor in packed.outputs),
        *(["dynamic_batching { }"] if batch else []),
        f"instance_group [ {{ kind: KIND_{'GPU' if gpu else 'CPU'} }} ]",
    ]
    if gpu:
        # TF32 would round inputs of convolutions to 10 bits.
        blocks.append(
            "optimization { execution_accelerators { gpu_execution_accelerator [ {\n"
            '  name: "cuda" parameters { key: "use_tf32" value: "0" }\n'
            "} ] } }"
        )
    if packed.library is not None:
        blocks.append(f'model_operations {{ op_library_filename: "{MOUNT}/{packed.name}/{packed.library.name}" }}')
    return "\n".join(blocks) + "\n"


def _tensor(role: str, tensor: Tensor, batch: bool) -> str:
    if tensor.type not in _TYPES or 0 in tensor.shape:
        what = "type" if tensor.type not in _TYPES else "shape"
        raise PconvError(f"the {role} '{tensor.name}' has a {what} that Triton cannot have", "change it in the ANN")
    dims = [size if isinstance(size, int) else -1 for size in tensor.shape[batch:]]
    # A tensor without dimensions is one to Triton only by way of another shape.
    shape = f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
    return f"{role} [ {{ name: {_quoted(tensor.name)} data_type: TYPE_{_TYPES[tensor.type]} {shape} }} ]"


def _quoted(text: str) -> str:
    """A string in protobuf text form, with bytes other than plain characters in octal."""
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'


def _readme(packed: Package, gpu: bool) -> str:
    batch = (
        f"Triton joins requests to batches of up to {MAX_BATCH_SIZE} samples (`max_batch_size`)."
        if _batched(packed)
        else "Not every input and output begins with the same open batch, so `max_batch_size` is 0: a request is one "
        "run, and its tensors have all their dimensions."
    )
    carried = "".join(f"- `{after}` is the next step's `{before}`\n" for before, after in packed.potentials.items())
    serial = f"\nA request is one time-step. The client sends zeros at the first; then\n\n{carried}" if carried else ""
    library = (
        "There is no native library here: the model runs through the body of standard operators that it carries."
        if packed.library is None
        else f"""\
`op_library_filename` in `{packed.name}/config.pbtxt` is where the server finds `{packed.library.name}`: change
it where the repository is mounted elsewhere than at `{MOUNT}`. Without the library the model runs as well, more slowly,
through the body of standard operators that it carries: remove the `model_operations` line and the library."""
    )
    return f"""# {packed.name} in Triton Inference Server

From this folder, with the tag of a release that has the onnxruntime backend:

    docker run --rm {"--gpus all " if gpu else ""}-p 8000:8000 -p 8001:8001 --volume "$PWD":{MOUNT}:ro \\
        nvcr.io/nvidia/tritonserver:TAG-py3 tritonserver --model-repository={MOUNT}

`curl localhost:8000/v2/models/{packed.name}/config` shows the model. {batch}
{serial}
{library}
"""
