"""The version of this package, as its installation records it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The installed version; `0+unknown` where the package runs from a source tree that nobody installed."""
    try:
        return version("pconv-onnx")
    except PackageNotFoundError:
        return "0+unknown"
