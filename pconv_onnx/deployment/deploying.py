"""`deploy`: a spiking network as a folder for one place to run it in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pconv_onnx.answers.lines import deployment_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.basics.places import require_new_folder
from pconv_onnx.basics.writing import write_folder
from pconv_onnx.deployment.bundle.target import Bundle
from pconv_onnx.deployment.c.target import C
from pconv_onnx.deployment.nir.target import Nir
from pconv_onnx.deployment.package import package
from pconv_onnx.deployment.target import Target
from pconv_onnx.deployment.triton import Triton
from pconv_onnx.graph import ModelSource

# One row a target, under the name that `choices.TARGETS` has for it.
TARGETS: dict[str, Target] = {"bundle": Bundle(), "triton": Triton(), "nir": Nir(), "c": C()}


@dataclass(frozen=True)
class Deployment(Printed):
    """What `deploy` wrote.

    Attributes:
        output: the folder.
        target: what it is for.
        files: its files, by path in it.
        providers: the places that the library has kernels for: `cpu`, `cuda`; none where there is no library.
        notes: what a user should know of this network there.
        losses: what of the network could not be expressed there.
    """

    output: Path
    target: str
    files: list[str]
    providers: list[str]
    notes: list[str]
    losses: list[str]

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx deploy`."""
        return {**vars(self), "output": str(self.output)}

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return deployment_lines(document)


def deploy(
    source: ModelSource,
    output: str | os.PathLike[str],
    *,
    target: str = "bundle",
    gpu: bool = False,
    allow_lossy: bool = False,
) -> Deployment:
    """Write a spiking network into a folder that needs no pconv-onnx.

    Where this installation has no native library, the folder has none either, and a note says so.

    Args:
        source: path of an ONNX file that `rewrite` wrote, or such a model in memory.
        output: the folder, which appears whole or not at all; not there yet, or empty.
        target: `bundle`, with programs in Python and C++ that run it; `triton`, a model repository of NVIDIA's Triton
            Inference Server; `nir`, a serial network in the Neuromorphic Intermediate Representation; or `c`, a network
            in mode `integer` as plain C99.
        gpu: have Triton run it on a GPU.
        allow_lossy: write for `nir` what NIR can express; it is told what that leaves out.

    Raises:
        PconvError: the model cannot be read or is no spiking network, there are no CUDA kernels for a GPU, the target
            cannot express the network, or the folder cannot be written.
    """
    if target not in TARGETS:
        raise PconvError(f"'{target}' is no target", f"choose one of {', '.join(TARGETS)}")
    chosen = TARGETS[target]
    if gpu and chosen.every_device:
        raise WrongArguments(f"a {target} is for every device", f"leave out `gpu=True`; {chosen.every_device}")
    if allow_lossy and not chosen.may_lose:
        raise WrongArguments(f"a {target} is the network as it is", "leave out `allow_lossy=True`")
    require_new_folder(output)
    packed = package(source)
    if gpu and "cuda" not in packed.providers:
        raise PconvError(
            f"{packed.library or 'this installation of pconv-onnx'} has no CUDA kernels",
            "install the CUDA toolkit and reinstall pconv-onnx",
        )
    contents = chosen.contents(packed, gpu)
    if contents.losses and not allow_lossy:
        raise PconvError(
            f"{target} cannot express all of the network: {'; '.join(contents.losses)}",
            "`allow_lossy=True` writes the rest",
        )
    write_folder(output, contents.files)
    return Deployment(Path(output), target, sorted(contents.files), contents.providers, contents.notes, contents.losses)
