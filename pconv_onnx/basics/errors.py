"""What is told to a user as a sentence, without a traceback; texts that a terminal can be given."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Collection
from itertools import islice

# Characters of a name, and of a text that quotes names, that tell which it is; a file may have names of megabytes.
_LONGEST_NAME, _LONGEST_TEXT = 200, 2000
# Of a word of such a text, and of one that is a path, which is of no use in part.
_LONGEST_WORD, _LONGEST_PATH = 512, 4096
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")
# Paths that a text quotes whole: where from and where to.
_MOST_PATHS = 2
# Names that a list tells of.
_MOST_NAMES = 5
# Whose lines a warning is not of.
_INSIDE = ("pconv_onnx", "contextlib")

_log = logging.getLogger("pconv_onnx")


class PconvError(Exception):
    """A fault that a user can mend.

    Attributes:
        message: what is wrong and where, one line.
        hint: what to do about it, one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep both parts on one line each that a terminal can be given, whatever they quote."""
        # What is quoted from elsewhere may end in a full stop, or be empty and leave a colon.
        self.message, self.hint = (printable(" ".join(text.split())).rstrip(" .:") for text in (message, hint))
        super().__init__(f"{self.message}; {self.hint}" if self.hint else self.message)


class WrongArguments(PconvError):
    """Arguments that are wrong by themselves, or beside each other, whatever model and data are."""


def printable(text: str) -> str:
    """The text, at most 2000 characters and two paths, with what is no letter, mark or space as an escape.

    Names in a model may be of any length, and hold control characters, which a terminal would act on, and marks that
    have it read in the other direction. What is too long keeps its first and last characters.
    """
    text = shortened(text)
    most = max(len(text), _LONGEST_TEXT)
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
        )
    return cut(text, most)


def shortened(text: str) -> str:
    """The text, its words and the whole of a bounded length."""
    if len(text) <= _LONGEST_WORD:
        return text
    text = _LONG_WORD.sub(lambda word: word[0] if _is_path(word[0]) else cut(word[0], _LONGEST_WORD), text)
    paths = _LONG_WORD.findall(text)[:_MOST_PATHS]
    return cut(text, _LONGEST_TEXT + sum(map(len, paths)))


def _is_path(word: str) -> bool:
    return "/" in word and len(word) <= _LONGEST_PATH


def cut(text: str, most: int = _LONGEST_NAME) -> str:
    """The text, or so many characters of its beginning and its end."""
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def listed(names: Collection[str]) -> str:
    """Names for a message: all of a few, of more the first and how many others there are."""
    if len(names) <= _MOST_NAMES + 1:
        return ", ".join(map(cut, names))
    told = ", ".join(map(cut, islice(names, _MOST_NAMES)))
    return f"{told} and {len(names) - _MOST_NAMES:,} others"


def warn(message: str) -> None:
    """Warn in one line that a terminal can be given, of the line outside this package that is being run."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(_line(message), stacklevel=level)


def note(message: str) -> None:
    """Log in such a line what a user may want to know, and need not act on."""
    _log.info(_line(message))


def _line(message: str) -> str:
    return printable(" ".join(message.split()))
