"""What a spiking network needs wherever it runs: its files, the native library, its interface."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx

from pconv_onnx.errors import PconvError
from pconv_onnx.graph import ModelSource, load
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.tensors import references
from pconv_onnx.operator import DOMAIN, has_cuda_kernels, library_path
from pconv_onnx.provenance import potentials, recorded
from pconv_onnx.providers import PROVIDERS
from pconv_onnx.serial_operator import is_neuron

MODEL = "model.onnx"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network.

    Attributes:
        name: its name.
        type: its element type, a number of `onnx.TensorProto.DataType`.
        shape: sizes; the name of an open dimension, or None for one without a name.
    """

    name: str
    type: int
    shape: list[int | str | None]


@dataclass(frozen=True, eq=False)
class Package:
    """A spiking network and what runs it.

    Attributes:
        name: the model's file name without its end; `model` for one in memory.
        model: the network.
        model_files: `MODEL` and its external data: content, or the file to copy, by path beside each other.
        library: the native library.
        providers: names, as in `PROVIDERS`, of those that the library has kernels for.
        inputs: of the network.
        outputs: of the network.
        mode: how it was rewritten.
        steps: T; None where neurons differ.
        potentials: of a serial network, by input the output that the next step takes.
    """

    name: str
    model: onnx.ModelProto
    model_files: dict[str, bytes | Path]
    library: Path
    providers: list[str]
    inputs: list[Tensor]
    outputs: list[Tensor]
    mode: str
    steps: int | None
    potentials: dict[str, str]

    def operators(self) -> list[str]:
        """The operators of the library that the network has, as `domain::name`."""
        return sorted({f"{DOMAIN}::{node.op_type}" for node in every_node(self.model.graph) if is_neuron(node)})


def package(source: ModelSource) -> Package:
    """What deploys a network that `rewrite` wrote.

    Raises:
        PconvError: it cannot be read, `rewrite` did not write it, or this installation has no native library.
    """
    network = load(source)
    model, entries = network.proto, recorded(network.proto)
    try:
        mode, steps, carried = entries["mode"], entries["steps"], potentials(entries)
    except (KeyError, ValueError) as error:
        raise PconvError(f"{network.name} is no spiking network", "rewrite it first: pconv-onnx rewrite") from error
    in_memory = isinstance(source, onnx.ModelProto)
    return Package(
        name="model" if isinstance(source, onnx.ModelProto) else Path(source).stem,
        model=model,
        model_files={MODEL: model.SerializeToString()} if in_memory else _files(Path(os.fspath(source))),
        library=library_path(),
        providers=[name for name in PROVIDERS if name != "cuda" or has_cuda_kernels()],
        inputs=_tensors(model.graph.input),
        outputs=_tensors(model.graph.output),
        mode=mode,
        steps=json.loads(steps),
        potentials=carried,
    )


def _files(path: Path) -> dict[str, bytes | Path]:
    """A model's file under the name `MODEL`, and its external data under the names that it has for them."""
    model = onnx.load(path, load_external_data=False)
    entries = (entry for tensor in references(model) for entry in tensor.external_data)
    names = {Path(entry.value).as_posix() for entry in entries if entry.key == "location"}
    if MODEL in names:
        raise PconvError(f"'{path}' keeps tensors in a file named {MODEL}", "save it with another name for them")
    return {MODEL: path, **{name: path.parent / name for name in sorted(names)}}


def _tensors(infos: Iterable[onnx.ValueInfoProto]) -> list[Tensor]:
    found = []
    for info in infos:
        tensor = info.type.tensor_type
        shape = [
            int(size.dim_value) if size.HasField("dim_value") else size.dim_param or None for size in tensor.shape.dim
        ]
        found.append(Tensor(info.name, tensor.elem_type, shape))
    return found
