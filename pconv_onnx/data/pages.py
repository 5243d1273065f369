"""Headers of the pages of a Parquet file: what they expand to, which its footer may say otherwise.

A column of a row group is pages in a row, each behind a header in Thrift's compact protocol. Source: parquet.thrift of
Apache Parquet, `PageHeader`.
"""

from __future__ import annotations

import os
from typing import IO, Any, NamedTuple

# Fields of a header: sizes of the page, and structs that have the number of its values first.
_EXPANDED, _STORED, _KINDS, _VALUES = 2, 3, (5, 7, 8), 1
# Kinds of values of the protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
# Structs within each other: a header, that of its kind, statistics.
_DEEPEST = 3
_LONGEST_INTEGER = 10
_FIELDS, _LARGEST = 1 << 15, 1 << 31


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
        # A page may claim to be of several kinds, of which its reader takes one.
        values += sum(_number(header[kind], _VALUES) for kind in _KINDS if kind in header)
        expanded += _number(header, _EXPANDED)
        file.seek(_number(header, _STORED), os.SEEK_CUR)
    return Extent(values, expanded)


def _number(fields: Any, field: int) -> int:
    return _sound(fields.get(field) if isinstance(fields, dict) else None)


def _sound(size: Any) -> int:
    if type(size) is not int or not 0 <= size < _LARGEST:
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
        # Numbers are of 16 bits: others would be read as one of these.
        if number in fields or not 0 < number < _FIELDS:
            raise ValueError("a page has a header with a field twice, or of a number that there is not")
        fields[number] = _value(file, byte & 15, depth)
    return fields


def _value(file: IO[bytes], kind: int, depth: int) -> Any:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE
    if kind in _INTEGERS:
        return _integer(file)
    if kind == _STRUCT:
        return _struct(file, depth + 1)
    if kind == _BYTE:
        return _byte(file)
    if kind not in (_DOUBLE, _BINARY):
        raise ValueError("a page has a header that is none")
    file.seek(8 if kind == _DOUBLE else _sound(_varint(file)), os.SEEK_CUR)
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
