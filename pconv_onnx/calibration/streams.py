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

    def __init__(self, given: dict[str, Array]) -> None:
        """Begin with tensors that are in memory."""
        self._tensors: dict[str, Array] = dict(given)
        self._files: dict[str, Path] = {}
        self._numbers = count()
        self._folder = tempfile.TemporaryDirectory(prefix="pconv-calibration-")

    def __enter__(self) -> Stream:
        """Itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Remove the files."""
        self._tensors.clear()
        self._folder.cleanup()

    def __getitem__(self, name: str) -> Array:
        """A tensor `[N, …]`."""
        return self._tensors[name]

    def put(self, name: str, part: slice, values: Array, samples: int) -> None:
        """Keep the rows of some samples of a tensor that has `samples` of them."""
        if name not in self._tensors:
            path = Path(self._folder.name) / f"{next(self._numbers)}.npy"
            shape = (samples, *values.shape[1:])
            self._tensors[name] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
            self._files[name] = path
        self._tensors[name][part] = values

    def drop(self, name: str) -> None:
        """Forget a tensor, and remove its file."""
        self._tensors.pop(name, None)
        path = self._files.pop(name, None)
        if path is not None:
            path.unlink(missing_ok=True)
