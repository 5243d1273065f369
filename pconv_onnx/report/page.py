"""Writes a report: one self-contained page, its figures, and the JSON document that it was made from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pconv_onnx.answers.spike_driven import kind_of_network, told_of
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.places import make_folder, require_place
from pconv_onnx.basics.writing import write_into
from pconv_onnx.report import figures
from pconv_onnx.report.sections import FIGURES, Figure, findings, sections, warnings

PAGE, DOCUMENT = "index.html", "bench.json"
_TEMPLATE = "page.html.j2"
_KINDS = ("png", "svg")


def destination(output: str | os.PathLike[str]) -> Path:
    """The folder for a report, checked before anything takes long.

    Raises:
        PconvError: it is a file, or lies where nothing can be made, or jinja2 or matplotlib is missing.
    """
    _template()
    figures.available()
    folder = Path(output)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise PconvError(f"'{output}' is no folder for a report", "choose another place with `output=`")
    require_place(folder / PAGE)
    return folder


def write(document: dict[str, Any], folder: Path) -> Path:
    """Write the report of a benchmark's document. No file appears before all are made.

    Figures of an earlier report there that this one does not have are removed.

    Args:
        document: a document of `Benchmark.summary`.
        folder: the folder, from `destination`; it is made if it does not exist.

    Returns:
        The page.

    Raises:
        PconvError: jinja2 or matplotlib is missing, or the files cannot be written.
    """
    files = {DOCUMENT: f"{json.dumps(document, indent=1, allow_nan=False)}\n".encode()}
    parts = sections(document)
    drawn: dict[str, str] = {}
    for figure in (figure for part in parts for figure in part.figures):
        for kind in _KINDS:
            files[f"{figure.name}.{kind}"] = figures.rendered(figure.draw, figure.part, kind)
        drawn[figure.name] = _element(figure, files[f"{figure.name}.svg"])
    text = _template().render(
        document=document,
        networks=f"{kind_of_network(told_of(document))} networks",
        warnings=list(warnings(document)),
        findings=list(findings(document)),
        sections=parts,
        drawn=drawn,
    )
    # Letters that no encoding has, in the names of a model, must not cost the report.
    files[PAGE] = text.encode(errors="replace")
    make_folder(folder)
    # Where no report was before, a file of that name is somebody's own.
    before = {f"{name}.{kind}" for name in FIGURES for kind in _KINDS} if (folder / DOCUMENT).exists() else set()
    write_into(folder, files, before - files.keys())
    return folder / PAGE


def _element(figure: Figure, svg: bytes) -> str:
    return figures.inline(svg, figure.name, figure.title, figure.description)


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise PconvError(f"jinja2 cannot be imported: {error}", "pip install 'pconv-onnx[report]'") from error
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8"))
