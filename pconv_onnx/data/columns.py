"""Columns of Parquet files as arrays, of numbers, tensors or nested lists, without far more memory than the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.limits import require_moderate
from pconv_onnx.data.pages import Chunk, Extent, extent

# Bytes of a number at least where it lies in lists: of how deep in these it does.
BYTES_OF_LEVELS = 4
# How often bytes are in memory while they are read: a page, its dictionary, a batch, as it grows, and Python's own.
_COPIES_OF_BYTES = 6


class Numbers(NamedTuple):
    """What a type of numbers or lists of them takes.

    Attributes:
        a_row: how many of them a row has, as far as the type says; at least 1.
        size: bytes that one takes.
    """

    a_row: int
    size: int


def require_worth(path: Path, held: Sequence[Chunk], column: str, numbers: Numbers, rows: int) -> None:
    """Raise if a column of a row group would take absurdly more memory than the file.

    Args:
        path: of the file.
        held: what the row group has of the column.
        column: its name.
        numbers: what it holds.
        rows: of the row group; they may become more than is stored, where lists of one length are missing.

    Raises:
        OSError: it cannot be read.
        ValueError: it would, or has no such pages.
    """
    with open_file(path) as content:
        found = _extent(content, held, column)
        values = max(found.values, rows * numbers.a_row)
        # Pages are expanded one by one: together they take no more than the larger of the two some times.
        require_moderate(max(values * numbers.size, found.expanded), os.fstat(content.fileno()).st_size)


def largest_page(path: Path, held: Sequence[Chunk], column: str) -> int:
    """Bytes of the largest page of a column of byte strings in a row group, of which no value has more.

    Raises:
        OSError: it cannot be read.
        ValueError: the column would take absurdly more memory than the file, or has no such pages.
    """
    with open_file(path) as content:
        found = _extent(content, held, column)
        require_moderate(
            found.values * BYTES_OF_LEVELS + found.expanded * _COPIES_OF_BYTES, os.fstat(content.fileno()).st_size
        )
    return found.largest


def _extent(content: IO[bytes], held: Sequence[Chunk], column: str) -> Extent:
    """That of all chunks of a column together."""
    values = expanded = largest = 0
    for chunk in held:
        found = extent(content, chunk.start, chunk.stop)
        # Where pages have less than the footer says, more is looked for behind them.
        if found.values < chunk.values:
            raise ValueError(f"column '{column}' has {found.values:,} values, and should have {chunk.values:,}")
        values, expanded, largest = values + found.values, expanded + found.expanded, max(largest, found.largest)
    return Extent(values, expanded, largest)


def numbers_of(kind: Any, where: str, hint: str) -> Numbers:
    """What a type holds.

    Args:
        kind: Arrow's.
        where: how to call the column in messages.
        hint: what to do where it holds none.

    Raises:
        PconvError: it is of no numbers.
    """
    from pyarrow import types

    count, levels, inner = 1, 1, _storage(kind)
    while _is_list(inner):
        count *= inner.list_size if types.is_fixed_size_list(inner) else 1
        levels, inner = BYTES_OF_LEVELS, _storage(inner.value_type)
    if types.is_nested(inner):
        raise _no_lists(where, kind)
    if types.is_dictionary(inner):
        inner = inner.value_type
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        raise PconvError(f"{where} is {kind}, not numbers or lists of them", hint)
    return Numbers(max(count, 1), max(levels, inner.bit_width // 8))


def dense(column: Any, where: str) -> Array:
    """Arrow's values, which may be tensors or lists of lists, as one array.

    Raises:
        PconvError: a value is missing, or lists differ in length.
    """
    import pyarrow
    import pyarrow.compute

    values = column.combine_chunks()
    shape = [len(values)]
    if isinstance(values, pyarrow.ExtensionArray):
        _require_all(values, where)
        if isinstance(values, pyarrow.FixedShapeTensorArray):
            return np.asarray(values.to_numpy_ndarray())
    values = _stored(values)
    while _is_list(values.type):
        lengths = pyarrow.compute.list_value_length(values).unique().to_pylist()
        if len(lengths) != 1 or None in lengths:
            raise _no_lists(where, values.type)
        shape.append(lengths[0])
        values = _stored(values.flatten())
    _require_all(values, where)
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _require_all(values: Any, where: str) -> None:
    if values.null_count:
        raise PconvError(f"{where} has missing values", "fill them in, or leave these rows out")


def _no_lists(where: str, kind: Any) -> PconvError:
    return PconvError(f"{where} is {kind}, not lists of one length", "store tensors of one shape")


def _storage(kind: Any) -> Any:
    """What a type that extends others, as that of tensors does, is stored as, or a type itself."""
    import pyarrow

    return kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def _stored(values: Any) -> Any:
    import pyarrow

    return values.storage if isinstance(values, pyarrow.ExtensionArray) else values


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
