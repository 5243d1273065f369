"""docs/gpu.md has the tables of what was measured, and nothing else in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from gpu_tables import tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_tables_are_those_of_the_file():
    page = (ROOT / "docs" / "gpu.md").read_text()
    made = list(tables(json.loads((RESULTS / "nvidia-h200.json").read_text())))
    assert all(f"\n\n{one}\n\n" in page for one in made)
    rest = page
    for one in made:
        rest = rest.replace(one, "")
    # What is left is of the other file.
    rows = json.loads((RESULTS / "nvidia-h200-search.json").read_text())["rows"]
    cells = [re.findall(r"[\d.]+ ms", line) for line in rest.splitlines() if line.startswith("| `parallel`")]
    expected = [
        [
            f"{row['median_ms']:.3g} ms"
            for row in rows
            if row["network"] == "ResNet-20"
            and (row["mode"], row["precision"], row["cudnn_conv_algo_search"]) == ("parallel", precision, search)
        ]
        for precision in ("float32", "float16")
        for search in ("EXHAUSTIVE", "HEURISTIC")
    ]
    assert cells == expected and len(expected[0]) == 4
