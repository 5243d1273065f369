"""Reading `.npz` files that others wrote: plain arrays alone, and no more memory than the file is worth."""

from __future__ import annotations

import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from tokenize import TokenError

import numpy as np
from numpy.lib.npyio import NpzFile

from pconv_onnx.basics.arrays import Array

# What an archive may always expand to; and beyond, how many times its own size. Deflate reaches 1,032 times.
_ALWAYS = 1 << 28
_MOST_TIMES = 200
# How an archive begins, one without entries as well.
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of an archive by name.

    Before anything is unpacked, each must be as large as its header says and all of them together not absurdly larger
    than the file. Pickled objects are refused.

    Raises:
        OSError: it cannot be read.
        MemoryError: it does not fit in memory.
        ValueError: it is no archive of plain arrays, or expands to too much.
    """
    with _opened(path) as (archive, _):
        return {name: archive[name] for name in archive.files}


def shapes_in_npz(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """Their shapes, from their headers alone.

    Raises:
        OSError: it cannot be read.
        ValueError: as `read_npz` does.
    """
    with _opened(path) as (_, shapes):
        return shapes


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[NpzFile, dict[str, tuple[int, ...]]]]:
    # NumPy takes what is no archive for an array or a pickle, and would tell how to load that unsafely.
    with open(path, "rb") as file:
        if file.read(4) not in _MAGIC:
            raise ValueError("it is no archive")
    try:
        with np.load(path, allow_pickle=False) as archive:
            assert archive.zip is not None
            yield archive, _moderate_shapes(archive.zip, os.path.getsize(path))
    # RuntimeError is zipfile's for encryption and for ways of compression that it does not know, the errors of syntax
    # are NumPy's for headers.
    except (
        EOFError,
        OverflowError,
        RuntimeError,
        SyntaxError,
        TokenError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(str(error)) from error


def _moderate_shapes(archive: zipfile.ZipFile, size: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    entries = archive.infolist()
    for entry in entries:
        if entry.filename.endswith(".npy"):
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
                if version not in _HEADERS:
                    raise ValueError(f"'{entry.filename}' is of format {version}")
                shape, _, dtype = _HEADERS[version](file)  # type: ignore[arg-type]
                if not dtype.hasobject and file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
                    raise ValueError(f"'{entry.filename}' does not hold the array {list(shape)} that it says")
                shapes[entry.filename.removesuffix(".npy")] = shape
    expanded = sum(entry.file_size for entry in entries)
    if expanded > max(_ALWAYS, _MOST_TIMES * size):
        raise ValueError(f"it would expand from {size:,} to {expanded:,} bytes")
    return shapes


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
