"""The networks in full size that the onnx package ships, with weights that are all alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from suites.onnx_backend import DATA


def files(_: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each."""
    yield from ((path.stem, path) for path in sorted((DATA / "light").glob("*.onnx")))
