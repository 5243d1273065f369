"""How much memory and time `verify` and `stats` take on a network, each in a fresh process.

The network is calibrated on random samples and rewritten in mode parallel first; the same samples are verified. Memory
and time do not depend on what they show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import machine, write

import pconv_onnx
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.data.reading import random_samples

TASKS = ("verify", "stats")


def task(name: str, model: str, spiking: str, samples: int, memory: int) -> None:
    """One task in this process; prints what was measured."""
    feed = random_samples(pconv_onnx.session(model)).feed(slice(0, samples))
    before, start = peak_memory(), time.perf_counter()
    if name == "verify":
        found = {"verdict": pconv_onnx.verify(model, spiking, feed, memory=memory).verdict}
    else:
        found = {"firing_rate": pconv_onnx.stats(spiking, feed, memory=memory).summary()["totals"]["firing_rate"]}
    row = {"task": name, "seconds": time.perf_counter() - start, "peak_memory_mib": peak_memory()}
    print(json.dumps(row | {"peak_memory_before_mib": before} | found))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="an ANN with ReLUs, ONNX")
    parser.add_argument("--steps", type=int, default=16, metavar="T", help="time-steps (16)")
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="samples (16)")
    parser.add_argument("--memory", type=int, default=1 << 29, metavar="BYTES", help="as --memory of verify (512 MiB)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    parser.add_argument("--task", nargs=2, metavar=("TASK", "SNN"), help="do one task in this process")
    options = parser.parse_args()
    if options.task:
        task(options.task[0], options.model, options.task[1], options.samples, options.memory)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        spiking = f"{folder}/snn.onnx"
        pconv_onnx.rewrite(options.model, spiking, calibration="random", steps=options.steps, method="max")
        for name in TASKS:
            chosen = ["--samples", str(options.samples), "--memory", str(options.memory), "--task", name, spiking]
            done = subprocess.run(
                [sys.executable, __file__, options.model, *chosen], stdout=subprocess.PIPE, check=True
            )
            rows.append(json.loads(done.stdout))
            print(f"{name:<7} {rows[-1]['seconds']:6.1f} s {rows[-1]['peak_memory_mib'] / 1024:6.2f} GiB")
    settings = {"steps": options.steps, "samples": options.samples, "memory": options.memory}
    document = {"benchmark": "memory", "machine": machine(threads=0), "model": Path(options.model).name, **settings}
    write(document | {"rows": rows}, options.output)


if __name__ == "__main__":
    main()
