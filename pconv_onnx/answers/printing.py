"""Sentences and tables as text and as HTML, and results that print themselves with these."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pconv_onnx.basics.errors import cut, printable

# The most characters of a cell, since a column is as wide as its widest cell; the first column has names for options.
_WIDEST_NAME, _WIDEST = 512, 120


@dataclass(frozen=True)
class Table:
    """Rows of equally many cells, none too wide; the first row is the header."""

    rows: Sequence[Sequence[str]]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as they are shown."""
        return [[cut(name, _WIDEST_NAME), *(cut(cell, _WIDEST) for cell in cells)] for name, *cells in self.rows]

    def text(self) -> Iterator[str]:
        """One line for each row, with columns aligned."""
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
    """An answer as lines that are safe to print on a terminal, whatever names a model has."""
    parts = answer(with_texts(printable, document))
    return "\n".join(line for part in parts for line in (part.text() if isinstance(part, Table) else (part,)))


def as_html(answer: Answer, document: dict[str, Any]) -> str:
    """An answer as HTML, for a notebook."""
    told = (
        part.html() if isinstance(part, Table) else _paragraph(part) for part in answer(with_texts(printable, document))
    )
    return "\n".join(part for part in told if part)


def _paragraph(sentence: str) -> str:
    text = sentence.strip()
    return f"<div>{html.escape(text)}</div>" if text else ""


def with_texts(change: Callable[[str], str], value: Any) -> Any:
    """A document in which a function has changed each text."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: with_texts(change, entry) for key, entry in value.items()}
    return [with_texts(change, entry) for entry in value] if isinstance(value, list | tuple) else value


class Printed:
    """A result whose `str` is the text that its command prints, and which a notebook shows as tables."""

    def summary(self) -> dict[str, Any]:
        """The JSON document of the result."""
        raise NotImplementedError

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        """The sentences and tables of the result."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self._answer, self.summary())

    def _repr_html_(self) -> str:
        return as_html(self._answer, self.summary())


class Document(Printed, dict[str, Any]):
    """A JSON document that prints itself."""

    def summary(self) -> dict[str, Any]:
        """The document as a plain dict."""
        return dict(self)
