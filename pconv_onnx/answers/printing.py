"""Sentences and tables as text and as HTML, and results that print themselves so."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pconv_onnx.basics.errors import cut, printable

# Characters of a cell: a column is as wide as the widest, in each of its rows. The first has names that options take.
_WIDEST_NAME, _WIDEST = 512, 120


@dataclass(frozen=True)
class Table:
    """Rows of as many cells each, none so wide that the others are out of sight; the first is the header."""

    rows: Sequence[Sequence[str]]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as they are shown."""
        return [[cut(name, _WIDEST_NAME), *(cut(cell, _WIDEST) for cell in cells)] for name, *cells in self.rows]

    def text(self) -> Iterator[str]:
        """A line a row, with the cells of a column under each other."""
        rows = self.cells
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    def html(self) -> str:
        """A table of HTML."""
        header, *rows = self.cells
        body = "".join(_row(row, "td") for row in rows)
        return f"<table><thead>{_row(header, 'th')}</thead><tbody>{body}</tbody></table>"


def _row(cells: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


# Of an answer: a sentence, or a table.
Part = str | Table
# From the JSON document of a result to what it says.
Answer = Callable[[dict[str, Any]], Iterator[Part]]


def as_text(answer: Answer, document: dict[str, Any]) -> str:
    """What an answer says, as lines that a terminal can be given, whatever names a model has."""
    parts = answer(with_texts(printable, document))
    return "\n".join(line for part in parts for line in (part.text() if isinstance(part, Table) else (part,)))


def as_html(answer: Answer, document: dict[str, Any]) -> str:
    """The same for a notebook."""
    told = (
        part.html() if isinstance(part, Table) else _paragraph(part) for part in answer(with_texts(printable, document))
    )
    return "\n".join(part for part in told if part)


def _paragraph(sentence: str) -> str:
    text = sentence.strip()
    return f"<div>{html.escape(text)}</div>" if text else ""


def with_texts(change: Callable[[str], str], value: Any) -> Any:
    """A document in which each text is changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: with_texts(change, entry) for key, entry in value.items()}
    return [with_texts(change, entry) for entry in value] if isinstance(value, list | tuple) else value


class Printed:
    """A result whose `str` is the text of its command, and which a notebook shows as tables."""

    def summary(self) -> dict[str, Any]:
        """Its JSON document."""
        raise NotImplementedError

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        """What it says."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self._answer, self.summary())

    def _repr_html_(self) -> str:
        return as_html(self._answer, self.summary())


class Document(Printed, dict[str, Any]):
    """A JSON document that prints itself."""

    def summary(self) -> dict[str, Any]:
        """The same as a plain dict."""
        return dict(self)
