"""CIFAR-10 and CIFAR-100 in the pickles of their Python version. No code in the pickles is run."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.decoding import resized
from pconv_onnx.data.limits import require_moderate
from pconv_onnx.data.parts import LABELS
from pconv_onnx.data.pictures import Recipe, number_at_once

# The training pictures of a folder, of CIFAR-10 or CIFAR-100; test pictures are in another file.
_TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6)), ("train",)
_TEST = ("test_batch", "test")
_SIDE = 32
# Names that a batch may have for its labels, if the recipe gives none.
_LABELS = (LABELS, "fine_labels")


def batches_in(path: Path) -> list[Path]:
    """The files of training pictures of a folder, or a file that may be one of pictures itself."""
    if os.path.isfile(path):
        return [path] if path.name in (*_TRAINING[0], *_TRAINING[1], *_TEST) else []
    return next((files for names in _TRAINING if (files := _there(path, names))), [])


def _there(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if os.path.isfile(folder / name)]


@dataclass(frozen=True)
class CifarPictures:
    """Some pictures of a batch, and their classes."""

    path: Path
    recipe: Recipe
    rows: range

    @classmethod
    def parts(cls, path: Path, recipe: Recipe) -> list[CifarPictures]:
        """All of a batch, in parts of as many as may be in memory at once.

        Raises:
            PconvError: it is not a batch.
        """
        count, a_part = len(read_batch(path, recipe.labels)[0]), number_at_once(recipe, lambda: _SIDE * _SIDE)
        return [cls(path, recipe, range(start, min(start + a_part, count))) for start in range(0, count, a_part)]

    @property
    def where(self) -> str:
        """Its file."""
        return f"'{self.path}'"

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """As many pictures as labels."""
        return dict.fromkeys([self.recipe.input, LABELS], len(self.rows))

    def read(self, names: Container[str]) -> dict[str, Array]:
        """Read, decode and normalise them."""
        images, labels = read_batch(self.path, self.recipe.labels)
        side = None if self.recipe.size in (None, _SIDE) else self.recipe.size
        chosen = (image if side is None else resized(image, side) for image in images[self.rows.start : self.rows.stop])
        return {
            self.recipe.input: self.recipe.prepared(chosen, len(self.rows), self.where),
            LABELS: labels[self.rows.start : self.rows.stop],
        }


def read_batch(path: Path, labels: str = LABELS) -> tuple[Array, Array]:
    """Read one file of the Python version.

    Args:
        path: of the file.
        labels: the entry that holds the labels; where there is none of that name, `labels` or `fine_labels`.

    Returns:
        Images uint8 `[N, 32, 32, 3]` and labels int64 `[N]`.

    Raises:
        PconvError: the file cannot be read, or is not such a batch.
    """
    try:
        with open_file(path) as file:
            content = file.read()
        batch = _PlainUnpickler(content).load()
        # In files of Python 2 keys are bytes.
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        images = entries["data"].array("u1").reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
        name = next((name for name in (labels, *_LABELS) if name in entries), labels)
        found = entries[name]
        numbers = found.array("i8") if isinstance(found, _PickledArray) else np.array(found, np.int64)
        if numbers.shape != images.shape[:1] or not len(images):
            raise ValueError(f"it has {len(images)} pictures and {numbers.size} labels")
    except OSError as error:
        raise PconvError(f"cannot read '{path}': {error.strerror}", "check it") from error
    except Exception as error:  # bytes that are no pickle raise anything
        told = f"it has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise PconvError(f"'{path}' is not a batch of CIFAR in its Python version: {told}", "fetch it again") from error
    return images, numbers


class _PickledArray:
    """An array in a pickle. NumPy gets only its bytes and shape, no other state from the file."""

    def __init__(self, *_: Any) -> None:
        self.kind: str | bytes = ""
        self.shape: tuple[int, ...] = ()
        self.content: bytes = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, kind, self.in_fortran_order, self.content = state
        self.kind = kind.name

    in_fortran_order = False

    def array(self, kind: str) -> Array:
        """The array, which has to be of one type."""
        if self.in_fortran_order or self.kind not in (kind, kind.encode()):
            raise ValueError(f"an array is of type {self.kind!r}, not {kind}")
        return np.frombuffer(self.content, np.dtype(f"<{kind}")).reshape(self.shape)


class _PickledType:
    """The type of such an array, by its name."""

    def __init__(self, name: str | bytes = "", *_: Any) -> None:
        self.name = name

    def __setstate__(self, _: object) -> None:
        pass


# The unpickler in Python: that in C allocates as many objects as an entry of a few bytes claims.
class _PlainUnpickler(pickle._Unpickler):
    """Makes dicts, lists, texts, numbers and arrays of these, by this module's own functions.

    A pickle may name any function to be called. This finds only those that make arrays.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._size, self._encoded = len(content), 0

    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a function that arrays are made with."""
        found = {
            ("numpy", "ndarray"): _PickledArray,
            ("numpy", "dtype"): _PickledType,
            ("multiarray", "_reconstruct"): _PickledArray,
            ("numeric", "_frombuffer"): self._from_buffer,
            ("_codecs", "encode"): self._encode,
        }.get((module.removeprefix("numpy.core.").removeprefix("numpy._core."), name))
        if found is None:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no batch does")
        return found

    def persistent_load(self, _: object) -> Any:
        """Refused, since a batch refers to nothing outside of it."""
        raise pickle.UnpicklingError("it names an object outside of it")

    def _encode(self, text: str, encoding: str) -> bytes:
        """Decode bytes as Python 3 writes them for Python 2, and count them: a text may be referred to many times."""
        self._encoded += len(text)
        require_moderate(self._encoded, self._size)
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it has bytes in {encoding!r}")
        return text.encode(encoding)

    def _from_buffer(self, content: bytes, kind: _PickledType, shape: tuple[int, ...], order: str) -> _PickledArray:
        made = _PickledArray()
        made.__setstate__((1, shape, kind, order != "C", content))
        return made
