"""Errors and warnings in one sentence, without a traceback, and texts that are safe to print on a terminal."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Collection
from itertools import islice

# Characters that are shown of a name, and of a text that quotes names: a file may have names of megabytes.
_LONGEST_NAME, _LONGEST_TEXT = 200, 2000
# Likewise of a word in such a text, and of a path, which is of no use in part.
_LONGEST_WORD, _LONGEST_PATH = 512, 4096
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")
# Paths that a text quotes whole: where from and where to.
_MOST_PATHS = 2
# Names that a list shows.
_MOST_NAMES = 5
# Packages whose lines a warning is not attributed to.
_INSIDE = ("pconv_onnx", "contextlib")

_log = logging.getLogger("pconv_onnx")


class PconvError(Exception):
    """An error that a user can do something about.

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
    """Arguments that are wrong, or do not go together, whatever the model and the data are."""


class Interrupted(KeyboardInterrupt):
    """An interrupt that lost little; its text says where what was done so far lies."""


def printable(text: str) -> str:
    """The text, at most 2000 characters and two paths, with escapes for characters that cannot be printed.

    Names in a model may be of any length. They may hold control characters, which a terminal would act on, and marks
    that reverse the direction of reading. A text that is too long keeps its first and last characters.
    """
    text = shortened(text)
    most = max(len(text), _LONGEST_TEXT)
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
        )
    return cut(text, most)


def shortened(text: str) -> str:
    """The text with long words cut, and itself cut to a bounded length."""
    if len(text) <= _LONGEST_WORD:
        return text
    text = _LONG_WORD.sub(lambda word: word[0] if _is_path(word[0]) else cut(word[0], _LONGEST_WORD), text)
    paths = _LONG_WORD.findall(text)[:_MOST_PATHS]
    return cut(text, _LONGEST_TEXT + sum(map(len, paths)))


def _is_path(word: str) -> bool:
    return "/" in word and len(word) <= _LONGEST_PATH


def cut(text: str, most: int = _LONGEST_NAME) -> str:
    """The text, or if it is longer than `most` characters its beginning and its end."""
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def listed(names: Collection[str]) -> str:
    """Names for a message: all if they are few, else the first ones and how many others there are."""
    if len(names) <= _MOST_NAMES + 1:
        return ", ".join(map(cut, names))
    told = ", ".join(map(cut, islice(names, _MOST_NAMES)))
    return f"{told} and {len(names) - _MOST_NAMES:,} others"


def warn(message: str) -> None:
    """Warn in one printable line; the warning points to the caller's line outside this package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(_line(message), stacklevel=level)


def note(message: str) -> None:
    """Log, in one printable line, what a user may want to know but need not act on."""
    _log.info(_line(message))


def _line(message: str) -> str:
    return printable(" ".join(message.split()))
