"""What flows at the cuts of a network, for all samples: kept on disk, and only as long as it is needed."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path
from types import TracebackType

import numpy as np

from pconv_onnx.neuron import Array


class Stream:
    """Tensors of all samples by name, in files of a folder that goes with it."""

    def __init__(self, given: dict[str, Array], samples: int) -> None:
        """Begin with tensors that are in memory; all have `samples` samples."""
        self._given = dict(given)
        self._samples = samples
        self._files: dict[str, Path] = {}
        self._numbers = count()
        self._folder = tempfile.TemporaryDirectory(prefix="pconv-calibration-")

    def __enter__(self) -> Stream:
        """Itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def __getitem__(self, name: str) -> Array:
        """A tensor `[N, …]`, of which only what is looked at is read."""
        # Mapped anew each time: pages that were looked at count as memory of this process until they are unmapped.
        return np.load(self._files[name], mmap_mode="r") if name in self._files else self._given[name]

    def put(self, name: str, part: slice, values: Array) -> None:
        """Keep the rows of some samples of a tensor."""
        if name not in self._files:
            self._files[name] = Path(self._folder.name) / f"{next(self._numbers)}.npy"
            shape = (self._samples, *values.shape[1:])
            np.lib.format.open_memmap(self._files[name], "w+", values.dtype, shape)
        np.load(self._files[name], mmap_mode="r+")[part] = values

    def drop(self, name: str) -> None:
        """Forget a tensor, and remove its file."""
        path = self._files.pop(name, None)
        if path is not None:
            path.unlink(missing_ok=True)
