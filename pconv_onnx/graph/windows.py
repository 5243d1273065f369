"""Windows of convolutions and pools, axis by axis: where their taps lie, and which of them in the padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A window along one axis.

    Attributes:
        taps: how many elements it covers.
        stride: how far apart windows are.
        dilation: how far apart taps are.
        start: padding before the first element.
        end: padding behind the last.
        count: how many windows there are.
    """

    taps: int
    stride: int
    dilation: int
    start: int
    end: int
    count: int

    def positions(self) -> Array:
        """Indices of the taps, `[count, taps]`; those outside the tensor are in the padding."""
        return np.add.outer(np.arange(self.count) * self.stride, np.arange(self.taps) * self.dilation) - self.start


def windows(attributes: Mapping[str, Any], sizes: Sequence[int], taps: Sequence[int]) -> list[Window]:
    """The windows of a convolution or a pool, one for each axis.

    Args:
        attributes: those of its node.
        sizes: the input's sizes along the axes that windows move along.
        taps: the window's sizes along these axes.
    """
    found = []
    for axis, (size, length) in enumerate(zip(sizes, taps, strict=True)):
        stride, dilation = _entry(attributes, "strides", axis, 1), _entry(attributes, "dilations", axis, 1)
        extent = (length - 1) * dilation + 1
        start, end = _pads(attributes, axis, len(sizes), (-(-size // stride) - 1) * stride + extent - size)
        count = (size + start + end - extent) // stride + 1
        found.append(Window(length, stride, dilation, start, end, count))
    return found


def transposed_windows(
    attributes: Mapping[str, Any], sizes: Sequence[int], taps: Sequence[int]
) -> list[tuple[Window, int]]:
    """The windows of a transposed convolution, one for each element of its input, and the sizes of its output."""
    found = []
    for axis, (size, length) in enumerate(zip(sizes, taps, strict=True)):
        stride, dilation = _entry(attributes, "strides", axis, 1), _entry(attributes, "dilations", axis, 1)
        full = (size - 1) * stride + (length - 1) * dilation + 1 + _entry(attributes, "output_padding", axis, 0)
        outputs = _entry(attributes, "output_shape", axis, None)
        if outputs is None:
            start, end = _pads(attributes, axis, len(sizes), full - size * stride)
        else:
            start, end = _halves(attributes, full - outputs)
        found.append((Window(length, stride, dilation, start, end, size), full - start - end))
    return found


def _pads(attributes: Mapping[str, Any], axis: int, axes: int, same: int) -> tuple[int, int]:
    """Padding at the start and the end; `same` is the sum that `auto_pad` distributes."""
    mode = _auto_pad(attributes)
    if mode.startswith("SAME"):
        return _halves(attributes, same)
    return (
        (0, 0) if mode == "VALID" else (_entry(attributes, "pads", axis, 0), _entry(attributes, "pads", axes + axis, 0))
    )


def _halves(attributes: Mapping[str, Any], pads: int) -> tuple[int, int]:
    """Padding divided between start and end; `auto_pad` says which of the two gets the odd element."""
    smaller, larger = max(pads, 0) // 2, (max(pads, 0) + 1) // 2
    return (smaller, larger) if _auto_pad(attributes) == "SAME_UPPER" else (larger, smaller)


def _auto_pad(attributes: Mapping[str, Any]) -> str:
    mode = attributes.get("auto_pad", "NOTSET")
    # onnx gives bytes here.
    return mode.decode() if isinstance(mode, bytes) else str(mode)


def _entry(attributes: Mapping[str, Any], name: str, axis: int, default: Any) -> Any:
    """The entry for one axis of an attribute that has one for each."""
    values = attributes.get(name)
    return values[axis] if values else default
