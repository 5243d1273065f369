"""What a target is: one kind of place that a spiking network is deployed to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pconv_onnx.deployment.package import Package


@dataclass(frozen=True, eq=False)
class Contents:
    """What a target puts into the folder.

    Attributes:
        files: what each is to hold, or which file to copy, by path in the folder.
        providers: those that a library among them has kernels for.
        losses: what of the network the target cannot express, a sentence each.
        notes: what a user should know of this network there, a sentence each.
    """

    files: dict[str, bytes | Path]
    providers: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Target(Protocol):
    """One kind of place.

    Attributes:
        every_device: what decides where the network runs there, in words; empty where that is said when it is deployed.
        may_lose: whether there are networks that it can only express in part.
    """

    every_device: str
    may_lose: bool

    def contents(self, packed: Package, gpu: bool) -> Contents:
        """What goes into the folder, for the CPU or for a GPU.

        Raises:
            PconvError: the target cannot have this network.
        """
