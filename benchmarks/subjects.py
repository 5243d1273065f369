"""What a network is measured on: samples by its inputs, its task, and how it is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from answers import Task
from pictures import Pictures

Feed = Mapping[str, np.ndarray]
# A run of a network: all outputs, in its order.
Run = Callable[[Feed], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Samples:
    """Values of each input by its name, `[N, …]`, as many of each; a slice is a feed."""

    inputs: Mapping[str, np.ndarray | Pictures]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, chosen: slice) -> dict[str, np.ndarray]:
        return {name: values[chosen] for name, values in self.inputs.items()}


def first_output(run: Run, feed: Feed) -> np.ndarray:
    """Of a run of the network."""
    return run(feed)[0]


@dataclass(frozen=True)
class Subject:
    """A network `model`, samples to calibrate it on, others to test it on, and its task.

    `output` gets from a feed of `tests` what the task reads, in as many runs as it wants. Verified, counted and timed
    is one run: of `tests`, or of the samples `run` where a test takes several.
    """

    model: Path
    calibration: Samples
    tests: Samples
    task: Task
    output: Callable[[Run, Feed], np.ndarray] = first_output
    run: Samples | None = None

    @property
    def runs(self) -> Samples:
        return self.tests if self.run is None else self.run


@dataclass(frozen=True)
class Folders:
    """Where things are: networks, data sets, and networks that are made. The first two only where a recipe needs them.

    The names of the fields are those of the options.
    """

    models: Path | None
    data: Path | None
    folder: Path


@dataclass(frozen=True)
class Recipe:
    """How to measure one: for `steps`, calibrated on so many samples (0: it has levels), of which `make` is told."""

    steps: tuple[int, ...]
    samples: int
    make: Callable[[Folders, int], Subject]
    needs: tuple[str, ...] = ()


def spread(count: int, total: int) -> np.ndarray:
    """Which of so many in order to take: so many, evenly."""
    return np.arange(min(count, total)) * total // min(count, total) if count else np.arange(0)


def package(name: str) -> Path:
    """Its folder; it is not imported, as what it needs is not needed."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)
    return Path(found.origin).parent


def kept(path: Path, make: Callable[[Path], None]) -> Path:
    """The file, made where it is not there yet."""
    if not path.exists():
        make(path)
    return path
