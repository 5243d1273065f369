"""Windows of convolutions and pools: their attributes axis by axis."""

from __future__ import annotations

from typing import Any

from pconv_onnx.graph.view import Node

Shape = tuple[int, ...]


def pads(node: Node, axis: int, axes: int, same: int) -> tuple[int, int]:
    """Padding at the start and the end; `same` is what `auto_pad` has to share out."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return halves(node, same)
    return (0, 0) if mode == "VALID" else (entry(node, "pads", axis, 0), entry(node, "pads", axes + axis, 0))


def halves(node: Node, pads: int) -> tuple[int, int]:
    """Padding shared out between the start and the end, which gets what is left over where `auto_pad` says so."""
    smaller, larger = max(pads, 0) // 2, (max(pads, 0) + 1) // 2
    return (smaller, larger) if node.attrs.get("auto_pad") == "SAME_UPPER" else (larger, smaller)


def entry(node: Node, name: str, axis: int, default: Any) -> Any:
    """One number of an attribute that has one for each axis."""
    values = node.attrs.get(name)
    return values[axis] if values else default
