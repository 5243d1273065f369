"""The file of an evaluation's curve against time-steps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pconv_onnx.errors import WrongArguments
from pconv_onnx.graph import make_folder, require_place, write_atomically
from pconv_onnx.report import figures

_SUFFIXES = (".png", ".svg", ".pdf")


def destination(output: str | os.PathLike[str]) -> Path:
    """The file that a curve goes to; to be asked before anything takes long.

    Args:
        output: a .png, .svg or .pdf file, or a directory (there already, or a name without an ending).

    Raises:
        PconvError: it has another ending, or lies where nothing can be written, or matplotlib is missing.
    """
    path = Path(output)
    if path.is_dir() or not path.suffix or os.fspath(output).endswith(os.sep):
        path /= "curve.png"
    if path.suffix not in _SUFFIXES:
        told = f"'{output}' is no place for a curve"
        raise WrongArguments(told, f"choose a directory or a {', '.join(_SUFFIXES)} file")
    figures.available()
    require_place(path)
    return path


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw what `Evaluation.summary` gives: accuracy, or without labels agreement, or without classes the error.

    Args:
        summary: the document.
        path: the file, as `destination` gives it; folders that are not there are made.

    Raises:
        PconvError: the document has no curve, matplotlib is missing, or the file cannot be written.
    """
    content = figures.rendered(figures.accuracy, summary, path.suffix[1:])
    make_folder(path.parent)
    write_atomically(path, lambda file: file.write(content))
