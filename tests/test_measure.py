"""What benchmarks have in common."""

from __future__ import annotations

import json
import os

from measure import write


def test_figures_are_written_where_they_are_wanted(tmp_path):
    document = {"benchmark": "this", "rows": [{"median_ms": 0.5}]}
    write(document, tmp_path / "results" / "this.json")
    assert json.loads((tmp_path / "results" / "this.json").read_text()) == document
    write(document, None)
    assert os.listdir(tmp_path) == ["results"]
