"""Where tensors of a C program lie: buffers, and views of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from pconv_onnx.basics.arrays import Array

CType = Literal["int8_t", "int16_t", "uint8_t", "int32_t", "float"]
SIZES: dict[CType, int] = {"int8_t": 1, "int16_t": 2, "uint8_t": 1, "int32_t": 4, "float": 4}
# The least and largest integer that a tensor may have; None of floats that are no integers.
Span: TypeAlias = "tuple[float, float] | None"


@dataclass(eq=False)
class Buffer:
    """Elements of one type, side by side.

    Attributes:
        ctype: of an element.
        count: of elements.
        name: of the pointer or table that they are; empty of a part of the arena.
    """

    ctype: CType
    count: int
    name: str = ""

    @property
    def bytes(self) -> int:
        """How long it is."""
        return self.count * SIZES[self.ctype]


@dataclass(frozen=True, eq=False)
class View:
    """A tensor.

    Attributes:
        buffer: that holds it.
        shape: sizes of its axes.
        strides: how many elements apart neighbours lie, by axis.
        offset: of its first element.
        span: the integers that it may have, whatever they are kept in.
        is_float: whether ONNX has it in floats.
    """

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    span: Span = None
    is_float: bool = field(default=True, kw_only=True)

    @classmethod
    def of(cls, buffer: Buffer, shape: Sequence[int], span: Span = None, *, is_float: bool = True) -> View:
        """All of a buffer, in row-major order."""
        return cls(buffer, tuple(shape), _row_major(shape), 0, span, is_float=is_float)

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def dense(self) -> bool:
        """Whether its elements lie side by side in row-major order."""
        own = [stride for stride, size in zip(self.strides, self.shape, strict=True) if size > 1]
        expected = [stride for stride, size in zip(_row_major(self.shape), self.shape, strict=True) if size > 1]
        return own == expected

    def transposed(self, order: Sequence[int]) -> View:
        """With axes in another order."""
        shape, strides = (tuple(sizes[axis] for axis in order) for sizes in (self.shape, self.strides))
        return replace(self, shape=shape, strides=strides)

    def sliced(self, axis: int, start: int, size: int, step: int = 1) -> View:
        """Some of the elements of an axis."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = size, strides[axis] * step
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=offset)

    def expanded(self, shape: Sequence[int]) -> View:
        """Repeated along axes, as ONNX broadcasts."""
        more = len(shape) - len(self.shape)
        strides = [0] * more + [
            0 if size == 1 else stride for size, stride in zip(self.shape, self.strides, strict=True)
        ]
        return replace(self, shape=tuple(shape), strides=tuple(strides))

    def reshaped(self, shape: Sequence[int]) -> View:
        """With other axes, of a dense one."""
        return replace(self, shape=tuple(shape), strides=_row_major(shape))

    def squeezed(self, axes: Sequence[int]) -> View:
        """Without axes of size 1."""
        kept = [axis for axis in range(len(self.shape)) if axis not in axes]
        return self.transposed(kept)

    def unsqueezed(self, axes: Sequence[int]) -> View:
        """With axes of size 1, in the places that they then have."""
        shape, strides = list(self.shape), list(self.strides)
        for axis in sorted(axes):
            shape.insert(axis, 1)
            strides.insert(axis, 0)
        return replace(self, shape=tuple(shape), strides=tuple(strides))


def span_of(values: Array) -> Span:
    """The integers of a constant."""
    if values.size and np.isfinite(values).all() and (values == np.rint(values)).all():
        return float(values.min()), float(values.max())
    return None


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
