"""What a file is worth: how many bytes of memory it may become."""

from __future__ import annotations

# What any may expand to; and beyond, how many times its own size.
_ALWAYS = 1 << 28
_MOST_TIMES = 200


def require_moderate(expanded: int, size: int) -> None:
    """Raise where a file of so many bytes would become absurdly more.

    Raises:
        ValueError: it would.
    """
    if expanded > max(_ALWAYS, _MOST_TIMES * size):
        raise ValueError(f"it would expand from {size:,} to {expanded:,} bytes")
