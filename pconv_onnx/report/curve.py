"""Writes the curve of an evaluation against time-steps to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.basics.places import make_folder, require_place
from pconv_onnx.basics.writing import write_atomically
from pconv_onnx.report import figures

_SUFFIXES = (".png", ".svg", ".pdf")


def destination(output: str | os.PathLike[str]) -> Path:
    """The file that a curve goes to; to be asked before anything takes long.

    Args:
        output: a .png, .svg or .pdf file, or a directory (there already, or a name without an ending). A directory is
            made where it is not there, that of a file is not.

    Raises:
        PconvError: it has another ending, or lies where nothing can be written, or a file in a directory that is not
            there, or matplotlib is missing.
    """
    path = Path(output)
    is_folder = os.path.isdir(path) or not path.suffix or os.fspath(output).endswith(os.sep)
    if is_folder:
        path /= "curve.png"
    if path.suffix not in _SUFFIXES:
        told = f"'{output}' is no place for a curve"
        raise WrongArguments(told, f"choose a directory or a {', '.join(_SUFFIXES)} file")
    figures.available()
    require_place(path)
    if not is_folder and not path.parent.exists():
        told = f"cannot write '{path}': there is no folder '{path.parent}'"
        raise PconvError(told, "make it, or choose another place with `output=`")
    return path


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw what `Evaluation.summary` gives: accuracy or error against targets, or without labels agreement or error.

    Args:
        summary: the document.
        path: the file, as `destination` gives it; its folder is made where it is not there.

    Raises:
        PconvError: the document has no curve, matplotlib is missing, or the file cannot be written.
    """
    content = figures.rendered(figures.accuracy, summary, path.suffix[1:])
    make_folder(path.parent)
    write_atomically(path, lambda file: file.write(content))
