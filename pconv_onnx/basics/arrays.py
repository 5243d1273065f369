"""Arrays, and objects that hold arrays: their type in signatures, and when two are equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal. Arrays in them are compared bit by bit, so a NaN equals itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if is_dataclass(left) and type(left).__eq__ is object.__eq__:
        return same_fields(left, right)
    return bool(left == right)


def same_fields(left: Any, right: Any) -> bool:
    """Whether two objects are of one data class, with equal fields."""
    return type(left) is type(right) and all(
        same(getattr(left, field.name), getattr(right, field.name)) for field in fields(left)
    )
