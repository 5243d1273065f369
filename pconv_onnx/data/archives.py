"""Reads `.npz` files from outside safely: plain arrays only, and without far more memory than the file's size."""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from itertools import pairwise
from tokenize import TokenError
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.limits import require_moderate

# The first bytes of an archive, with and without entries.
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
# What `numpy.savez` writes. Of these zipfile expands as much as is asked for, of others whole pieces.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
# Bytes in front of an entry's name and content, at least.
_LOCAL_HEADER = 30
# Bytes in front of an array's values, of which NumPy takes 10,000 for a header.
_HEADER = 10_240
_SUFFIX = ".npy"


def read_npz(path: str | os.PathLike[str], names: Container[str] | None = None) -> dict[str, Array]:
    """The arrays of an archive, by name; other files in it are not read.

    Before anything is unpacked, each must be as large as its header says, and all together must not be absurdly larger
    than the file. Pickled objects are refused.

    Args:
        path: the archive.
        names: names of the arrays to read, as far as they are there; None reads all.

    Raises:
        OSError: it cannot be read.
        MemoryError: it does not fit in memory.
        ValueError: it is not an archive, an array is not plain, or they expand to too much.
    """
    with _opened(path) as archive:
        entries = [entry for name, entry in _entries(archive) if names is None or name in names]
        return {name: _array(archive, name + _SUFFIX) for name in _shapes(archive, entries)}


def shapes_in_npz(path: str | os.PathLike[str], names: Container[str]) -> dict[str, tuple[int, ...] | None]:
    """The shapes of the named arrays, from their headers only; None for the others.

    Raises:
        OSError: it cannot be read.
        ValueError: as `read_npz` does.
    """
    with _opened(path) as archive:
        held = _entries(archive)
        return dict.fromkeys(name for name, _ in held) | _shapes(
            archive, [entry for name, entry in held if name in names]
        )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    try:
        with open_file(path) as file:
            if file.read(4) not in _MAGIC:
                raise ValueError("it is not an archive")
            with zipfile.ZipFile(file) as archive:
                yield archive
    # RuntimeError is zipfile's for versions of the format that it does not know.
    except (EOFError, OverflowError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error


def _entries(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    """Those that are arrays, with the names of these."""
    return [
        (entry.filename.removesuffix(_SUFFIX), entry)
        for entry in archive.infolist()
        if entry.filename.endswith(_SUFFIX)
    ]


def _shapes(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> dict[str, tuple[int, ...]]:
    """By name, of arrays that can be read together."""
    _require_apart(entries)
    _require_known(entries)
    assert archive.fp is not None
    # Deflate reaches 1,032 times.
    require_moderate(sum(entry.file_size for entry in entries), os.fstat(archive.fp.fileno()).st_size)
    return {entry.filename.removesuffix(_SUFFIX): _shape(archive, entry) for entry in entries}


def _require_apart(entries: list[zipfile.ZipInfo]) -> None:
    """Raise if entries overlap or share a name."""
    for entry, following in pairwise(sorted(entries, key=lambda entry: entry.header_offset)):
        if entry.header_offset + _LOCAL_HEADER + entry.compress_size > following.header_offset:
            raise ValueError(f"'{entry.filename}' and '{following.filename}' overlap")
    for entry, following in pairwise(sorted(entries, key=lambda entry: entry.filename)):
        if entry.filename == following.filename:
            raise ValueError(f"it has two entries '{entry.filename}'")


def _require_known(entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise ValueError(f"'{entry.filename}' is encrypted")
        if entry.compress_type not in _METHODS:
            raise ValueError(f"'{entry.filename}' is compressed by another method than deflate")


def _shape(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """That of an array, which is a plain one and as large as it says."""
    with archive.open(entry) as file:
        head = io.BytesIO(file.read(_HEADER))
    shape, dtype = _described(head, entry.filename)
    # Of a type that takes no bytes there may be any number.
    if dtype.hasobject or dtype.names or dtype.subdtype or not dtype.itemsize:
        raise ValueError(f"'{entry.filename}' holds objects or records, not a plain array")
    if min(shape, default=0) < 0 or head.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f"'{entry.filename}' does not hold the array {list(shape)} that it says")
    return shape


def _described(head: io.BytesIO, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(head)
    if version not in _READERS:
        raise ValueError(f"'{name}' is of format {version}")
    try:
        shape, _, dtype = _READERS[version](head)
    # Python's, for literals that are none, or too deep.
    except (MemoryError, RecursionError, SyntaxError, TokenError, TypeError) as error:
        raise ValueError(f"'{name}' has a header that cannot be read") from error
    return shape, dtype


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-any-return]


_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
