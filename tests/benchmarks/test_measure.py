"""What benchmarks have in common."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from measure import fill, write

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_figures_are_written_where_they_are_wanted(tmp_path):
    document = {"benchmark": "this", "rows": [{"median_ms": 0.5}]}
    write(document, tmp_path / "results" / "this.json")
    assert json.loads((tmp_path / "results" / "this.json").read_text()) == document
    write(document, None)
    assert os.listdir(tmp_path) == ["results"]


def test_a_section_of_a_page_is_written_and_the_others_stay(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end of one -->\n\n<!-- two -->\n<!-- end of two -->\n")
    fill(page, "one", "new\n")
    fill(page, "two", "more\n")
    written = "a\n<!-- one -->\nnew\n<!-- end of one -->\n\n<!-- two -->\nmore\n<!-- end of two -->\n"
    assert page.read_text() == written
    with pytest.raises(ValueError, match="no section"):
        fill(page, "three", "")
    assert page.read_text() == written


def test_each_file_of_figures_has_its_command():
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| ([\w-]+\.json) \|", page, re.MULTILINE)
    found = {path.name for path in (BENCHMARKS / "results").glob("*.json")}
    # What a reader measured on another GPU may lie there as well.
    of_others = {name for name in found if name.startswith("nvidia-") and not name.startswith("nvidia-h200")}
    assert sorted(told) == sorted(found - of_others)
    scripts = re.findall(r"python (benchmarks/\w+\.py)", page)
    assert scripts and all((BENCHMARKS.parent / script).exists() for script in scripts)
