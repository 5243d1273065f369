"""The curve of an evaluation against time-steps, drawn by matplotlib."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pconv_onnx.errors import PconvError
from pconv_onnx.graph import write_atomically

_SUFFIXES = (".png", ".svg", ".pdf")
_LABELS = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "agreement": "top-1 agreement with the ANN",
    "mse": "mean squared error",
}


def destination(output: str | os.PathLike[str]) -> Path:
    """The file that a curve goes to; to be asked before anything takes long.

    Args:
        output: a .png, .svg or .pdf file, or a directory (there already, or a name without an ending).

    Raises:
        PconvError: it has another ending, or lies where nothing can be written, or matplotlib is missing.
    """
    _figure()
    path = Path(output)
    if path.is_dir() or not path.suffix or os.fspath(output).endswith(os.sep):
        path /= "curve.png"
    if path.suffix not in _SUFFIXES:
        raise PconvError(f"'{output}' is no place for a curve", f"choose a directory or a {', '.join(_SUFFIXES)} file")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PconvError(f"cannot write '{path}': nothing can be made in '{there}'", "choose another place with -o")
    return path


def draw(summary: dict[str, Any], path: Path) -> None:
    """Draw what `Evaluation.summary` gives: accuracy, or without labels agreement, or without classes the error.

    Args:
        summary: the document.
        path: the file, as `destination` gives it; folders that are not there are made.

    Raises:
        PconvError: the document has no curve, matplotlib is missing, or the file cannot be written.
    """
    rows = sorted((row for row in summary["rows"] if row["steps"]), key=lambda row: int(row["steps"]))
    kinds = ("top1", "top5") if summary["labels"] else ("agreement", "mse")
    shown = [kind for kind in kinds if any(row[kind] is not None for row in rows)]
    if not shown:
        raise PconvError("there is no curve without time-steps", "evaluate at some --steps")
    figure = _figure()
    axes = figure.subplots()
    # Agreement and error have no common axis; agreement says more.
    for number, kind in enumerate(shown if summary["labels"] else shown[:1]):
        points = [row for row in rows if row[kind] is not None]
        steps, values = [row["steps"] for row in points], [row[kind] for row in points]
        errors = [row["top1_standard_error"] for row in points] if kind == "top1" else None
        colour = f"C{number}"
        axes.errorbar(steps, values, errors, color=colour, marker="o", capsize=3, label=f"spiking: {_LABELS[kind]}")
        if summary["labels"] and summary["ann"]:
            axes.axhline(summary["ann"][kind], color=colour, linestyle="--", label=f"ANN: {_LABELS[kind]}")
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["steps"] for row in rows], [str(row["steps"]) for row in rows])
    axes.set_xlabel("time-steps T")
    if shown[0] != "mse":
        axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_title(f"{summary['samples']} samples, each T rewritten, mode {rows[0]['mode']}")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PconvError(f"cannot make '{path.parent}': {error.strerror}", "choose another place with -o") from error
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:]))


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PconvError(f"matplotlib cannot be imported: {error}", "pip install 'pconv-onnx[report]'") from error
    return Figure(figsize=(6.4, 4.4), layout="constrained", dpi=150)
