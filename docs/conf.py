"""Sphinx configuration: `make docs` builds the pages of this folder, and those that they link to, into build/docs.

The source folder is the root of the repository, so that links between pages are the same here and on GitHub.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

_HERE = Path(__file__).parent
_ROOT = _HERE.parent
sys.path.insert(0, str(_HERE / "extensions"))

# Notebooks call `pconv-onnx` as their reader does.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

project = "pconv-onnx"
author = "the pconv-onnx contributors"
copyright = author
version = release = next(
    line.split("=")[1].strip() for line in (_ROOT / "setup.cfg").read_text().splitlines() if line.startswith("version")
)

extensions = ["commands", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "README.md",
    "CHANGELOG.md",
    "RELEASING.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "examples/*/README.md",
]
exclude_patterns = [".*", "build", "dist", "custom_ops", "pconv_onnx", "tests", "**/node_modules", "**/*.egg-info"]

# Docstrings put code between single backticks.
default_role = "code"

# Headings have the anchors that GitHub gives them.
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"pconv-onnx {release}"
html_static_path = ["site"]
html_css_files = ["pages.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["site"]


def _mend_folders(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a folder, which a browser of the repository follows, leads to its README on the site."""
    folder = (_ROOT / page).parent

    def mended(link: re.Match[str]) -> str:
        path = folder / link[1]
        return f"]({link[1].rstrip('/')}/README.md)" if (path / "README.md").is_file() else link[0]

    source[0] = re.sub(r"\]\(([^):#]+)\)", mended, source[0])


def setup(app: Sphinx) -> None:
    """Add what is above."""
    app.connect("source-read", _mend_folders)
