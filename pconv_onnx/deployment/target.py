"""Targets: the kinds of place to which a spiking network is deployed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pconv_onnx.deployment.package import Package


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of the folder that a target writes.

    Attributes:
        files: content of each file, or the file to copy, by path in the folder.
        providers: execution providers that the library among them has kernels for.
        losses: parts of the network that the target cannot express, one sentence each.
        notes: what a user should know about the deployed network, one sentence each.
    """

    files: dict[str, bytes | Path]
    providers: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Target(Protocol):
    """One kind of place to deploy to.

    Attributes:
        every_device: how users choose the device there, in words; empty if the device is chosen on deployment.
        may_lose: whether it can express some networks only in part.
    """

    every_device: str
    may_lose: bool

    def contents(self, packed: Package, gpu: bool) -> Contents:
        """The contents of the folder, for the CPU or for a GPU.

        Raises:
            PconvError: the target cannot have this network.
        """
