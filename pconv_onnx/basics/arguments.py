"""Arguments that may be one value or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def each(given: T | Iterable[T] | None) -> tuple[T, ...]:
    """The values given, as a list. A string is one value, not a sequence of letters; None is no value."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        return (given,)  # type: ignore[return-value]
    return tuple(given)


def each_number(given: int | Iterable[int] | None) -> tuple[int, ...]:
    """The numbers given, each once, as Python's numbers, which JSON can hold (NumPy's cannot be)."""
    return tuple(dict.fromkeys(np.asarray(each(given.tolist() if isinstance(given, np.ndarray) else given)).tolist()))
