"""Limits on how many bytes of memory a file may expand to."""

from __future__ import annotations

# What any may expand to; and beyond, how many times its own size.
_ALWAYS = 1 << 28
_MOST_TIMES = 200


class TooLargeError(ValueError):
    """A file would become absurdly more than it is."""


def require_moderate(expanded: int, size: int) -> None:
    """Raise where a file of so many bytes would become absurdly more.

    Raises:
        TooLargeError: it would.
    """
    most = max(_ALWAYS, _MOST_TIMES * size)
    if expanded > most:
        raise TooLargeError(f"it would expand from {size:,} to {expanded:,} bytes, and may to {most:,}")
