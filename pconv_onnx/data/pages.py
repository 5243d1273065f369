"""Headers of the pages of a Parquet file: what they expand to, which its footer may say otherwise.

A column of a row group is pages in a row, each behind a header in Thrift's compact protocol. Source: parquet.thrift of
Apache Parquet, `PageHeader`.
"""

from __future__ import annotations

import os
from typing import IO, Any, NamedTuple

# Fields of a header: sizes of the page, and structs that have the number of its values first.
_EXPANDED, _STORED, _DATA, _DICTIONARY, _DATA_2, _VALUES = 2, 3, 5, 7, 8, 1
# Kinds of values of the protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
# Structs within each other: a header, that of its kind, statistics.
_DEEPEST = 3
_LONGEST_INTEGER = 10


class Extent(NamedTuple):
    """Of pages together.

    Attributes:
        values: that they hold, in dictionaries as well, with those that are missing.
        expanded: bytes that they are before they are decoded.
    """

    values: int
    expanded: int


def extent(file: IO[bytes], start: int, stop: int) -> Extent:
    """That of the pages between two places of a file, by their own headers.

    Raises:
        ValueError: there are no such pages.
    """
    values = expanded = 0
    file.seek(start)
    while file.tell() < stop:
        header = _struct(file, 1)
        kind = header.get(_DATA) or header.get(_DATA_2) or header.get(_DICTIONARY)
        values += _size(kind or {_VALUES: 0}, _VALUES)
        expanded += _size(header, _EXPANDED)
        file.seek(_size(header, _STORED), os.SEEK_CUR)
    return Extent(values, expanded)


def _size(fields: Any, field: int) -> int:
    size = fields.get(field) if isinstance(fields, dict) else None
    if type(size) is not int or size < 0:
        raise ValueError("a page has a header without its size")
    return size


def _struct(file: IO[bytes], depth: int) -> dict[int, Any]:
    """Fields by number; those that are texts are None."""
    if depth > _DEEPEST:
        raise ValueError("a page has a header that is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while byte := _byte(file):
        number = number + (byte >> 4) if byte >> 4 else _integer(file)
        fields[number] = _value(file, byte & 15, depth)
    return fields


def _value(file: IO[bytes], kind: int, depth: int) -> Any:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE
    if kind in _INTEGERS:
        return _integer(file)
    if kind == _STRUCT:
        return _struct(file, depth + 1)
    skipped = {_BYTE: lambda: 1, _DOUBLE: lambda: 8, _BINARY: lambda: _varint(file)}.get(kind)
    if skipped is None:
        raise ValueError("a page has a header that is none")
    file.seek(skipped(), os.SEEK_CUR)
    return None


def _integer(file: IO[bytes]) -> int:
    number = _varint(file)
    return number >> 1 ^ -(number & 1)


def _varint(file: IO[bytes]) -> int:
    number = 0
    for place in range(_LONGEST_INTEGER):
        byte = _byte(file)
        number |= (byte & 127) << 7 * place
        if byte < 128:
            break
    return number


def _byte(file: IO[bytes]) -> int:
    read = file.read(1)
    if not read:
        raise ValueError("a page is cut short")
    return read[0]
