"""Seconds and memory by number of nodes: chains, a fan, a node that takes all, initializers, each up to 100,000 nodes.

Each task is a process of its own, which is ended after a limit; imports are not in the seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import onnx
from measure import write
from shapes import SHAPES

import pconv_onnx
import pconv_onnx.rewriting
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.measure.timing import OtherWork, machine

TASKS = ("inspect", "folded", "parallel")


def task(name: str, path: str) -> None:
    """One task in this process; prints what was measured."""
    warnings.simplefilter("ignore")
    start, cpu, refused = time.perf_counter(), time.process_time(), ""
    try:
        if name == "inspect":
            pconv_onnx.inspect(path)
        else:
            pconv_onnx.rewrite(path, f"{path}.snn", mode=name)
    except pconv_onnx.PconvError as error:
        refused = error.message.replace(f"'{path}'", "the model")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_memory_mib": peak_memory(), "refused": refused}))


def in_a_process(name: str, path: Path, limit: float) -> dict[str, Any]:
    """The same in a fresh one; no seconds where it was ended."""
    command = [sys.executable, __file__, "--task", name, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True)
    except subprocess.TimeoutExpired:
        return {"seconds": None, "ended_after_s": limit}
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a task is ended (default: 600)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    parser.add_argument("--task", nargs=2, metavar=("TASK", "MODEL"), help="do one task in this process, and print")
    options = parser.parse_args()
    if options.task:
        task(*options.task)
        return
    rows, work = [], OtherWork()
    with tempfile.TemporaryDirectory() as folder:
        for nodes in options.nodes:
            for shape, make in SHAPES.items():
                path = Path(folder, "model.onnx")
                onnx.save(make(nodes), path)
                for name in options.tasks:
                    row = {"shape": shape, "nodes": nodes, "task": name, **in_a_process(name, path, options.limit)}
                    rows.append(row)
                    told = f"{row['seconds']:8.2f} s" if row["seconds"] is not None else "   ended"
                    print(f"  {shape:<14} {nodes:>9,} {name:<9} {told}", flush=True)
    document = {"benchmark": "many nodes", "machine": machine() | work.summary(), "rows": rows}
    write(document, options.output)


if __name__ == "__main__":
    main()
