"""Footers of Parquet files and headers of their pages: what these expand to, which the footer may say otherwise.

A column of a row group is pages in a row, each behind a header in Thrift's compact protocol. Source: parquet.thrift of
Apache Parquet, `PageHeader`.
"""

from __future__ import annotations

import os
from typing import IO, Any, NamedTuple

# Fields of a header: sizes of the page, and structs that have the number of its values first.
_EXPANDED, _STORED, _KINDS, _VALUES = 2, 3, (5, 7, 8), 1
# Kinds of values of the protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 7, 8, 9, 12
_INTEGERS = (4, 5, 6)
# Structs and lists within each other: a footer has its groups, their columns, statistics of these, and some more.
_DEEPEST = 12
# Bytes at the end of a file: how long the footer is, and a mark.
_END = 8
# Fields of a footer, of its groups, of their columns, and of what is said of these.
_GROUPS, _COLUMNS, _ABOUT = 4, 1, 3
_HELD, _LENGTH, _PAGES, _DICTIONARY = 5, 7, 9, 11
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


class Chunk(NamedTuple):
    """Of a column in a row group.

    Attributes:
        values: that the footer says it has.
        start: of its pages.
        stop: of its pages.
    """

    values: int
    start: int
    stop: int


def chunks(file: IO[bytes]) -> list[tuple[Chunk, ...]]:
    """What the footer of a Parquet file says of each row group, column by column as in its schema.

    pyarrow's own answer ends the process where a footer contradicts itself.

    Raises:
        ValueError: it is none.
    """
    size = file.seek(-_END, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    if length > size:
        raise ValueError("its footer is cut short")
    file.seek(size - length)
    try:
        return [tuple(_chunk(column[_ABOUT]) for column in group[_COLUMNS]) for group in _struct(file, 1)[_GROUPS]]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError("its footer is not one") from error


def _chunk(about: dict[int, Any]) -> Chunk:
    places = [about[_PAGES], about.get(_DICTIONARY)]
    start = min((place for place in places if place), default=0)
    if start < 0 or about[_LENGTH] < 0:
        raise ValueError("its footer has a negative place")
    return Chunk(about[_HELD], start, start + about[_LENGTH])


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
    """Fields by number."""
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
    if kind == _LIST:
        return _list(file, depth + 1)
    if kind not in (_DOUBLE, _BINARY):
        raise ValueError("a page has a header that is none")
    return file.read(8 if kind == _DOUBLE else _sound(_varint(file)))


def _list(file: IO[bytes], depth: int) -> list[Any]:
    if depth > _DEEPEST:
        raise ValueError("a page has a header that is nested too deeply")
    head = _byte(file)
    size, kind = head >> 4, head & 15
    size = _sound(_varint(file)) if size == 15 else size
    # Of these there is a byte each, while of a field its kind says all.
    kind = _BYTE if kind in (_TRUE, _FALSE) else kind
    return [_value(file, kind, depth) for _ in range(size)]


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
