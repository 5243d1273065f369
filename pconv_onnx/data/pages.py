"""Footers of Parquet files and headers of their pages: what these expand to, which the footer may say otherwise.

A column of a row group is pages in a row, each behind a header in Thrift's compact protocol. Source: parquet.thrift of
Apache Parquet, `FileMetaData` and `PageHeader`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple

# What a file ends with: how long the footer is, and a mark. It begins with the mark as well.
_END, _MARK = 8, b"PAR1"
# Fields of a footer, of an entry of its schema, of a group, of a column of that, and of what is said of it.
_SCHEMA, _GROUPS, _CHILDREN, _COLUMNS, _ABOUT = 2, 4, 5, 1, 3
_HELD, _LENGTH, _PAGES, _DICTIONARY = 5, 7, 9, 11
# Fields of a header: sizes of the page, and structs that have the number of its values first.
_EXPANDED, _STORED, _KINDS, _VALUES = 2, 3, (5, 7, 8), 1
# Kinds of values of the protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 7, 8, 9, 12
_INTEGERS = (4, 5, 6)
# Structs and lists within each other: a footer has its groups, their columns, statistics of these, and some more.
_DEEPEST = 12
_LONGEST_INTEGER = 10
# Entries of a list: Arrow takes no more.
_LONGEST_LIST = 1_000_000
_FIELDS, _LARGEST = 1 << 15, 1 << 31
# Bytes of a header of a page, at first and at most; Arrow takes no longer ones.
_HEADER, _LONGEST_HEADER = 1 << 10, 1 << 24


class Extent(NamedTuple):
    """Of pages together.

    Attributes:
        values: that they hold, in dictionaries as well, with those that are missing.
        expanded: bytes that they are before they are decoded.
        largest: bytes of the largest of them.
    """

    values: int
    expanded: int
    largest: int


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


# What a row group has of each field of the schema: several chunks where the field is a struct.
Group = tuple[tuple[Chunk, ...], ...]


def groups(file: IO[bytes]) -> list[Group]:
    """What the footer of a Parquet file says of each row group.

    pyarrow's own answer ends the process where a footer contradicts itself.

    Raises:
        ValueError: it is none.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END, 0))
    end = file.read(_END)
    length = int.from_bytes(end[:4], "little")
    if size < _END + len(_MARK) or end[4:] != _MARK or length > size - _END:
        raise ValueError("it is no Parquet file, or is cut short")
    file.seek(size - _END - length)
    try:
        footer = _Reader(file.read(length), "its footer").struct(_FOOTER)
        counts = list(_leaves(footer[_SCHEMA]))
        return [_by_field(columns, counts) for columns in footer[_GROUPS]]
    except IndexError as error:
        raise ValueError("its footer is cut short") from error
    except KeyError as error:
        raise ValueError("its footer lacks what it must have") from error


def _leaves(children: list[int]) -> Iterator[int]:
    """How many columns each field of a schema has, from the numbers of children of its entries, the root first."""
    place = 1
    for _ in range(children[0]):
        leaves, open_entries = 0, 1
        while open_entries:
            open_entries += children[place] - 1
            leaves += not children[place]
            place += 1
        yield leaves


def _by_field(columns: list[Chunk], counts: list[int]) -> Group:
    if sum(counts) != len(columns):
        raise ValueError("its footer has a group of other columns than its schema")
    chunks = iter(columns)
    return tuple(tuple(next(chunks) for _ in range(count)) for count in counts)


def extent(file: IO[bytes], start: int, stop: int) -> Extent:
    """That of the pages between two places of a file, by their own headers.

    Raises:
        ValueError: there are no such pages.
    """
    values = expanded = largest = 0
    while start < stop:
        header, length = _page(file, start)
        if _EXPANDED not in header or _STORED not in header:
            raise ValueError("a page has no size where it should")
        # A page may claim to be of several kinds, of which its reader takes one.
        values += sum(header[kind] for kind in _KINDS if kind in header)
        expanded += header[_EXPANDED]
        largest = max(largest, header[_EXPANDED])
        start += length + header[_STORED]
    return Extent(values, expanded, largest)


def _page(file: IO[bytes], start: int) -> tuple[dict[int, Any], int]:
    """A header, and how long it is."""
    size = _HEADER
    while True:
        file.seek(start)
        reader = _Reader(file.read(size), "a page")
        try:
            return reader.struct(_PAGE), reader.place
        except IndexError as error:
            if len(reader.content) < size or size >= _LONGEST_HEADER:
                raise ValueError("a page is cut short") from error
        size *= 8


class _Reader:
    """Thrift's compact protocol. What is behind the end of the content raises IndexError.

    Attributes:
        content: what is read.
        what: how to call it in messages.
        place: of what is read next.
    """

    __slots__ = ("content", "place", "what")

    def __init__(self, content: bytes, what: str) -> None:
        self.content, self.what, self.place = content, what, 0

    def struct(self, wanted: Mapping[int, Callable[[_Reader, int, int], Any]], depth: int = 1) -> dict[int, Any]:
        """Those fields by number that are wanted, each as its function reads one of its kind."""
        if depth > _DEEPEST:
            raise ValueError(f"{self.what} is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            # Numbers are of 16 bits: others would be read as one of these.
            if number in found or not 0 < number < _FIELDS:
                raise ValueError(f"{self.what} has a field twice, or of a number that there is not")
            read = wanted.get(number)
            if read is None:
                self.skip(head & 15, depth)
            else:
                found[number] = read(self, head & 15, depth)
        return found

    def list(self) -> tuple[int, int]:
        """The kind of the entries of a list that begins here, and how many there are."""
        head = self._byte()
        size, kind = head >> 4, head & 15
        if size == 15:
            size = self._varint()
        if size > _LONGEST_LIST:
            raise ValueError(f"{self.what} has a list of {size:,} entries")
        # Of these there is a byte each, while of a field its kind says all.
        return _BYTE if kind in (_TRUE, _FALSE) else kind, size

    def skip(self, kind: int, depth: int) -> None:
        """Go on behind a value."""
        if kind in _INTEGERS:
            self._varint()
        elif kind == _STRUCT:
            self.struct({}, depth + 1)
        elif kind == _LIST:
            if depth >= _DEEPEST:
                raise ValueError(f"{self.what} is nested too deeply")
            inner, size = self.list()
            for _ in range(size):
                self.skip(inner, depth + 1)
        elif kind == _BINARY:
            length = self._varint()
            self.place += length
        elif kind in (_BYTE, _DOUBLE):
            self.place += 1 if kind == _BYTE else 8
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"{self.what} has a value of no kind")

    def integer(self) -> int:
        """One that may be negative."""
        number = self._varint()
        return number >> 1 ^ -(number & 1)

    def _varint(self) -> int:
        first = self._byte()
        if first < 128:
            return first
        number = first & 127
        for place in range(1, _LONGEST_INTEGER):
            byte = self._byte()
            number |= (byte & 127) << 7 * place
            if byte < 128:
                break
        return number

    def _byte(self) -> int:
        byte = self.content[self.place]
        self.place += 1
        return byte


def _require_kind(reader: _Reader, kind: int, *kinds: int) -> None:
    if kind not in kinds:
        raise ValueError(f"{reader.what} has a value of another kind than it should")


def _size(reader: _Reader, kind: int, _: int) -> int:
    """A number of bytes or of values, or a place."""
    _require_kind(reader, kind, *_INTEGERS)
    size = reader.integer()
    if size < 0:
        raise ValueError(f"{reader.what} has no size where it should")
    return size


def _size_of_a_page(reader: _Reader, kind: int, depth: int) -> int:
    size = _size(reader, kind, depth)
    if size >= _LARGEST:
        raise ValueError(f"{reader.what} has no size where it should")
    return size


def _listed(
    entry: Callable[[_Reader, int], Any],
) -> Callable[[_Reader, int, int], list[Any]]:
    """What reads a list of structs, each as a function does."""

    def read(reader: _Reader, kind: int, depth: int) -> list[Any]:
        _require_kind(reader, kind, _LIST)
        inner, size = reader.list()
        _require_kind(reader, inner, _STRUCT)
        return [entry(reader, depth + 1) for _ in range(size)]

    return read


def _children(reader: _Reader, depth: int) -> int:
    return int(reader.struct(_ENTRY, depth).get(_CHILDREN, 0))


def _columns(reader: _Reader, depth: int) -> list[Chunk]:
    return reader.struct(_GROUP, depth)[_COLUMNS]  # type: ignore[no-any-return]


def _column(reader: _Reader, depth: int) -> Chunk:
    return reader.struct(_COLUMN, depth)[_ABOUT]  # type: ignore[no-any-return]


def _chunk(reader: _Reader, kind: int, depth: int) -> Chunk:
    _require_kind(reader, kind, _STRUCT)
    about = reader.struct(_CHUNK, depth + 1)
    places = [about[_PAGES], about.get(_DICTIONARY)]
    start = min((place for place in places if place), default=0)
    return Chunk(about[_HELD], start, start + about[_LENGTH])


def _values(reader: _Reader, kind: int, depth: int) -> int:
    _require_kind(reader, kind, _STRUCT)
    held = reader.struct({_VALUES: _size_of_a_page}, depth + 1)
    if _VALUES not in held:
        raise ValueError(f"{reader.what} has no size where it should")
    return int(held[_VALUES])


_ENTRY = {_CHILDREN: _size}
_CHUNK = dict.fromkeys((_HELD, _LENGTH, _PAGES, _DICTIONARY), _size)
_COLUMN = {_ABOUT: _chunk}
_GROUP = {_COLUMNS: _listed(_column)}
_FOOTER = {_SCHEMA: _listed(_children), _GROUPS: _listed(_columns)}
_PAGE = {_EXPANDED: _size_of_a_page, _STORED: _size_of_a_page} | dict.fromkeys(_KINDS, _values)
