"""The tables of docs/real.md, of the catalogue and of the files of figures in a folder."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# In the place of this folder, whose modules are those of `real`.
if not __package__:
    sys.path[0] = str(Path(__file__).parents[1])

from measure import fill  # noqa: E402  # a script beside this folder, not a module
from real.catalogue import METRICS, NETWORKS, Metric, packages  # noqa: E402

from pconv_onnx.basics.choices import METHODS  # noqa: E402

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "real", ROOT / "docs" / "real.md"
_HEADS = ("network", "coding, neurons, T", "share, energy", "calibrated on", "metric", "ANN", "spiking", "samples")
# What entries of one network go by.
_ORDER = ("neurons", "coding", "steps", "mixed", "method", "samples")
# What else there is to count in samples, by its key in the answers.
_COUNTS = {
    "ann_boxes": "boxes",
    "characters": "characters",
    "ann_classes": "classes",
    "ann_positive": "with a score of 0.5 or more",
}


def networks() -> str:
    """What there is, and what it needs."""
    rows = [
        (
            one.title,
            f"`{name}`",
            one.source,
            "; ".join(METRICS[key].title for key in one.metrics),
            ", ".join((*(f"{file}.txt" for file in one.with_dependencies), *packages(name))),
        )
        for name, one in NETWORKS.items()
    ]
    return _table(("network", "name", "weights", "metrics", "requirements"), rows)


def measured(entries: Sequence[dict[str, Any]]) -> str:
    """What was measured: networks in the order of the catalogue, a row for each metric."""
    order = [*NETWORKS]
    chosen = sorted(
        (entry for entry in entries if entry["network"] in NETWORKS),
        key=lambda entry: (order.index(entry["network"]), *(entry.get(key, False) for key in _ORDER)),
    )
    return _table(_HEADS, [row for entry in chosen for row in _rows(entry)])


def _rows(entry: dict[str, Any]) -> Iterator[Sequence[str]]:
    network = NETWORKS[entry["network"]]
    mean = " in the mean" if entry.get("mixed") else ""
    how = f"{entry['coding']}, {entry['neurons']}, {entry['steps']}{mean}"
    if "refused" in entry:
        yield network.title, how, "", str(entry["samples"]), f"refused: {entry['refused']}", "", "", ""
        return
    figures = entry["answers"]
    by = "" if entry["method"] == METHODS[0] else f", `{entry['method']}`"
    taken = f"{entry['samples']}, {entry['calibration']['seconds']:.0f} s{by}"
    lead: Sequence[str] = (network.title, how, f"{_share(entry)}, {entry['energy_ratio']:.2f} ×", taken)
    counted = [str(figures.get("samples", figures.get("images")))]
    counted += [f"{figures[key]:,} {name}" for key, name in _COUNTS.items() if key in figures]
    for key in network.metrics:
        metric = METRICS[key]
        ann = "" if metric.ann is None else told(figures, metric.ann, metric)
        yield *lead, metric.title, ann, told(figures, key, metric), ", ".join(counted)
        lead, counted = [""] * len(lead), [""]


def told(figures: dict[str, Any], key: str, metric: Metric) -> str:
    """A figure with its interval or its standard error."""
    value = figures[key]
    if value is None:
        return "none"
    scale, digits, unit = (100, 1, " %") if metric.unit == "%" else (1, 4, "")
    if f"{key}_interval" in figures:
        low, high = (f"{scale * end:.{digits}f}" for end in figures[f"{key}_interval"])
        return f"{scale * value:.{digits}f}{unit} [{low}, {high}]"
    return f"{scale * value:.{digits}f} ± {scale * figures[f'{key}_error']:.{digits}f}{unit}"


def _share(entry: dict[str, Any]) -> str:
    """Of the multiply-accumulates that read spikes; rounded down, as 100 % is all."""
    share = entry["spike_driven"]["share"]
    return "unknown" if share is None else f"{math.floor(100 * share)} %"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = (heads, ["---"] * len(heads), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main() -> None:
    """Read the files, write the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    options = parser.parse_args()
    files = sorted(options.results.glob("*.json"))
    fill(options.page, "networks", networks())
    fill(options.page, "measured", measured([one for file in files for one in json.loads(file.read_text())["entries"]]))


if __name__ == "__main__":
    main()
