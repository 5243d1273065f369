"""What functions take where there may be one of something or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def each(given: T | Iterable[T] | None) -> tuple[T, ...]:
    """All that are given, or the only one: a string is one, and no sequence of letters; None is none."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (given,)  # type: ignore[return-value]
    return tuple(given)


def each_number(given: int | Iterable[int] | None) -> tuple[int, ...]:
    """Each of the numbers once, or the only one, as numbers that a document can hold (NumPy's are none)."""
    return tuple(dict.fromkeys(np.asarray(each(given.tolist() if isinstance(given, np.ndarray) else given)).tolist()))
