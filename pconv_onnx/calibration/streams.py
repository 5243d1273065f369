"""What flows at the cuts of a network, for all samples: kept on disk, and only as long as it is needed."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.samples import from_first, to_first

# Instead of an axis along which samples lie: they lie along none, and some of them can only be kept together.
MIXED = -1
# None: the whole of a tensor is of one sample.
Axis = int | None


class _File(NamedTuple):
    """Values of all samples, one sample behind the other, without a header.

    Attributes:
        path: the file.
        shape: of one sample.
        dtype: of all.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, first: int, samples: int) -> Array:
        """The values of some samples. Not mapped: pages that were looked at would count as memory of this process."""
        each = math.prod(self.shape)
        values = np.fromfile(self.path, self.dtype, samples * each, offset=first * each * self.dtype.itemsize)
        return values.reshape(samples, *self.shape)

    def write(self, first: int, values: Array) -> None:
        """Keep those of some samples. Not mapped: a page tells of a full disk by a signal, which ends the process."""
        with open(self.path, "r+b") as file:
            file.seek(first * math.prod(self.shape) * self.dtype.itemsize)
            file.write(values.data)


class Stream:
    """Tensors of all samples by name, in files of a folder that goes with it.

    Of one whose samples are `MIXED` parts are given out as they were put in.
    """

    def __init__(self, given: dict[str, Array], samples: int, axes: Mapping[str, Axis]) -> None:
        """Begin with tensors that are in memory; all have `samples` samples, along their first axis.

        In the network they lie along those of `axes`.

        Raises:
            PconvError: there is no folder for temporary files.
        """
        self._given = dict(given)
        self._axes = axes
        self._samples = samples
        self._files: dict[str, _File] = {}
        self._parts: dict[str, dict[int, Path]] = {}
        self._numbers = count()
        with _telling():
            self._folder = tempfile.TemporaryDirectory(prefix="pconv-calibration-")

    def __enter__(self) -> Stream:
        """Itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def batch(self, name: str, part: slice) -> Array:
        """A tensor of some samples, as the network has it."""
        if name in self._parts:
            return np.asarray(np.load(self._parts[name][part.start]))
        if name in self._files:
            first, end, _ = part.indices(self._samples)
            values = self._files[name].read(first, end - first)
        else:
            values = self._given[name][part]
        return np.asarray(from_first(values, self._axes[name]), order="C")

    def put(self, name: str, part: slice, values: Array) -> None:
        """Keep a tensor of some samples, as the network has it.

        Raises:
            PconvError: it cannot be written, or has another shape or type than the same tensor of other samples.
        """
        with _telling():
            if self._axes[name] == MIXED:
                paths = self._parts.setdefault(name, {})
                np.save(paths.setdefault(part.start, self._path(".npy")), values)
                return
            values = np.ascontiguousarray(to_first(values, self._axes[name]))
            first, end, _ = part.indices(self._samples)
            if name not in self._files:
                self._files[name] = _File(self._path(".raw"), values.shape[1:], values.dtype)
                self._files[name].path.touch()
            file = self._files[name]
            expected = (end - first, *file.shape)
            if (values.shape, values.dtype) != (expected, file.dtype):
                raise PconvError(
                    f"'{name}' is {values.dtype} {values.shape} for some samples, where {file.dtype} {expected} was "
                    "expected from others",
                    "calibrate on samples that give one shape",
                )
            file.write(first, values)

    def drop(self, name: str) -> None:
        """Forget a tensor, and remove its file."""
        file = self._files.pop(name, None)
        for kept in (*([file.path] if file is not None else ()), *self._parts.pop(name, {}).values()):
            kept.unlink(missing_ok=True)

    def _path(self, suffix: str) -> Path:
        return Path(self._folder.name) / f"{next(self._numbers)}{suffix}"


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Say of files that cannot be written where they are, and what helps."""
    try:
        yield
    except OSError as error:
        raise PconvError(
            f"cannot keep what activations receive in temporary files: {error.strerror or error}",
            "let the variable TMPDIR name a folder with more room, or pass fewer samples",
        ) from error
