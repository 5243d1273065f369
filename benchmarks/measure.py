"""What the benchmarks have in common: tables of candidates timed in turns, and their options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pconv_onnx.measure import timing
from pconv_onnx.measure.timing import ratio, rounds, spread


def interleaved(candidates: dict[str, Callable[[], object]], repeats: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of each call by candidate, all in turns."""
    measured = list(rounds(candidates, warm_up + repeats))[warm_up:]
    return {name: [seconds[name] for seconds in measured] for name in candidates}


def rows(seconds: dict[str, list[float]], baseline: str) -> list[dict[str, Any]]:
    """Median, 10th and 90th percentile in ms, and the ratio to the baseline: the median of the ratios of each round."""
    return [
        {"name": name, **spread(values), "ratio": ratio(values, seconds[baseline]), "baseline": baseline}
        for name, values in seconds.items()
    ]


def machine(threads: int) -> dict[str, Any]:
    """What a figure depends on."""
    return timing.machine() | {"threads": threads}


def arguments(description: str, repeats: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds (default: {repeats})")
    parser.add_argument("--threads", type=int, default=2, help="intra-op threads (default: 2)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    return parser


def report(title: str, document: dict[str, Any], output: Path | None) -> None:
    """Print a table, and write the document if a file was given."""
    print(f"\n{title}")
    for row in document["rows"]:
        spread = f"(10 % {row['p10_ms']:.2f}, 90 % {row['p90_ms']:.2f})"
        print(f"  {row['name']:<58} {row['median_ms']:9.2f} ms {spread:<28} {row['ratio']:6.2f} × {row['baseline']}")
    write(document, output)


def write(document: dict[str, Any], output: Path | None) -> None:
    """Write raw figures as JSON, if a file was given."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(document, indent=1) + "\n")


def read(output: Path | None, new: dict[str, Any]) -> dict[str, Any]:
    """The document of that file, which others' figures are added to; a new one where there is none."""
    return json.loads(output.read_text()) if output is not None and output.exists() else new


def fill(page: Path, section: str, text: str) -> None:
    """Write a section of a page, between its two marks; the others stay."""
    start, end = f"<!-- {section} -->\n", f"<!-- end of {section} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, closed, behind = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"'{page}' has no section between {start.strip()} and {end}")
    page.write_text(f"{before}{start}{text}{closed}{behind}", encoding="utf-8")
