"""What every deployment of a spiking network needs: its files, the native library, its interface."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnx import helper

from pconv_onnx.basics.choices import PROVIDERS
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import ModelSource, Network, load
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.tensors import references
from pconv_onnx.operators.domain import is_integer, is_neuron
from pconv_onnx.operators.library import has_cuda_kernels, library_path
from pconv_onnx.plan.modes import MODES, Mode

MODEL = "model.onnx"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a network.

    Attributes:
        name: its name.
        type: its element type, a number of `onnx.TensorProto.DataType`.
        shape: its sizes; an open dimension has its name, or None if it has none.
    """

    name: str
    type: int
    shape: list[int | str | None]


@dataclass(frozen=True, eq=False)
class Package:
    """A spiking network and the files that it needs.

    Attributes:
        name: the model's file name without its suffix; `model` for one in memory.
        network: the model, loaded.
        model_files: `MODEL` and its external data: content, or the file to copy, by name.
        inputs: the inputs of the network.
        outputs: the outputs of the network.
        mode: the mode in which it was rewritten.
        steps: number of time-steps T; None if neurons differ.
        potentials: membrane potentials of a serial network: for each input, the output that the next step takes there.
    """

    name: str
    network: Network
    model_files: dict[str, bytes | Path]
    inputs: list[Tensor]
    outputs: list[Tensor]
    mode: Mode
    steps: int | None
    potentials: Mapping[str, str]

    @property
    def model(self) -> onnx.ModelProto:
        """The network as ONNX has it."""
        return self.network.proto

    @cached_property
    def library(self) -> Path | None:
        """The native library; None where this installation has none, and networks run through their function body."""
        with contextlib.suppress(PconvError):
            return library_path()
        return None

    @cached_property
    def providers(self) -> list[str]:
        """The execution providers that the library has kernels for, by their names in `PROVIDERS`."""
        if self.library is None:
            return []
        return [name for name in PROVIDERS if name != "cuda" or has_cuda_kernels()]

    def told_of_potentials(self) -> list[str]:
        """A note on membrane potentials, if the network has any."""
        told = "serial: membrane potentials are inputs and outputs; each step takes those that the last one gave"
        return [told] if self.potentials else []

    def told_of_library(self) -> list[str]:
        """A note on the native library, if there is none."""
        told = (
            "this installation of pconv-onnx has no native library, so the folder has none: the network runs through "
            "its function body, more slowly; for the library install a C++ compiler, reinstall and deploy again"
        )
        return [] if self.library else [told]

    def operators(self) -> list[str]:
        """The operators of the library that the network has, as `domain::name`."""
        nodes = every_node(self.model.graph)
        return sorted({f"{DOMAIN}::{node.op_type}" for node in nodes if is_neuron(node) or is_integer(node)})


def package(source: ModelSource) -> Package:
    """The package of a network that `rewrite` wrote.

    Raises:
        PconvError: it cannot be read, or is not as `rewrite` wrote it.
    """
    network = load(source)
    model = network.proto
    try:
        record = Record.read(model)
    except ValueError as error:
        raise PconvError(f"{network.name} is no spiking network", "rewrite it first: pconv-onnx rewrite") from error
    in_memory = isinstance(source, onnx.ModelProto)
    return Package(
        name="model" if isinstance(source, onnx.ModelProto) else Path(source).stem,
        network=network,
        model_files={MODEL: model.SerializeToString()} if in_memory else _files(Path(os.fspath(source))),
        inputs=_tensors(model.graph.input),
        outputs=_tensors(model.graph.output),
        mode=MODES[record.mode],
        steps=record.steps,
        potentials=record.potentials,
    )


def _files(path: Path) -> dict[str, bytes | Path]:
    """A model's file under the name `MODEL`, and its external data under the names that the model has for them."""
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
        if tensor.elem_type not in helper.get_all_tensor_dtypes():
            raise PconvError(
                f"'{info.name}' is declared without an element type that ONNX has", "rewrite the model again"
            )
        shape = [
            int(size.dim_value) if size.HasField("dim_value") else size.dim_param or None for size in tensor.shape.dim
        ]
        found.append(Tensor(info.name, tensor.elem_type, shape))
    return found
