"""Timing of candidates against each other, and the record of where it was done."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import pconv_onnx


def interleaved(candidates: dict[str, Callable[[], object]], repeats: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of each call, all candidates in turn: a drift of the machine's speed meets them all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(warm_up + repeats):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if round_ >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def rows(seconds: dict[str, list[float]], baseline: str) -> list[dict[str, Any]]:
    """Median, 10th and 90th percentile in ms, and the ratio to the baseline: the median of the ratios of each round."""
    reference = np.array(seconds[baseline])
    table = []
    for name, values in seconds.items():
        p10, median, p90 = (float(v) for v in np.percentile(np.array(values) * 1e3, [10, 50, 90]))
        ratio = float(np.median(np.array(values) / reference))
        table.append(
            {"name": name, "median_ms": median, "p10_ms": p10, "p90_ms": p90, "ratio": ratio, "baseline": baseline}
        )
    return table


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options for sessions that take turns: the threads of one must not spin while another is measured."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def machine(threads: int) -> dict[str, Any]:
    """What a figure depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line] \
        if cpuinfo.exists() else []  # fmt: skip
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "library": pconv_onnx.library_path().name,
    }


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
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(document, indent=1) + "\n")
