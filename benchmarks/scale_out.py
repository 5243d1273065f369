"""The engine on Ray against one process: evaluation and calibration of ResNet-20, on the same samples in each round.

Workers have sessions of one thread each, the process has as many threads as there are CPUs. Each run starts its workers
anew; starting Ray itself is measured apart. Every run has to give what the process gives.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from agreement import EXAMPLES, RESNET, prepare, read_npz
from measure import arguments, interleaved, machine, report, rows

import pconv_onnx
from pconv_onnx.engine.ray import RayEngine
from pconv_onnx.engine.shards import Engine

RELU = RESNET.with_name("resnet20-relu.onnx")
PROCESS = "one process"
STEPS, METHOD = 8, "max"


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__ or "", repeats=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="on Ray (default: 1 2)")
    parser.add_argument("--samples", type=int, default=1000, help="to evaluate and calibrate on (default: 1000)")
    options = parser.parse_args()
    document: dict[str, Any] = {"samples": options.samples, "steps": STEPS, "method": METHOD, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        shards(Path(folder), options.samples)
        started = time.perf_counter()
        with RayEngine(workers=max(options.workers)):
            document["start_s"] = time.perf_counter() - started
            engines: dict[str, Engine | None] = {PROCESS: None}
            # Ray runs already, and each uses it.
            engines |= {f"Ray, workers: {count}": RayEngine(workers=count) for count in options.workers}
            for title, task in (("evaluate", evaluate), ("calibrate", calibrate)):
                answers: dict[str, str] = {}
                candidates = {name: answer_of(task, folder, name, one, answers) for name, one in engines.items()}
                seconds = interleaved(candidates, options.repeats, warm_up=0)
                if len(set(answers.values())) > 1:
                    raise SystemExit(f"{title}: engines differ: {answers}")
                document["rows"] += [{"task": title, **row} for row in rows(seconds, PROCESS)]
    document["machine"] = machine(options.threads)
    for row in document["rows"]:
        row["name"] = f"{row['task']}, {row['name']}"
    report(f"{options.samples} samples; Ray starts in {document['start_s']:.1f} s", document, options.output)


def shards(folder: Path, samples: int) -> None:
    """Write the first test images into files of 250."""
    images, labels = read_npz(EXAMPLES / "resnet20" / "cifar10-test-1000.npz")
    values = prepare(images[:samples], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW")
    assert labels is not None
    for start in range(0, samples, 250):
        part = slice(start, min(start + 250, samples))
        np.savez(folder / f"{start:05}.npz", image=values[part], labels=labels[part])


def evaluate(folder: str, engine: Engine | None) -> bytes:
    """The accuracies of the ANN and of its folded form."""
    return repr(pconv_onnx.evaluate(RESNET, folder, steps=[STEPS], engine=engine).summary()).encode()


def calibrate(folder: str, engine: Engine | None) -> bytes:
    """The quantised network."""
    model = pconv_onnx.calibrate(RELU, folder, steps=STEPS, method=METHOD, engine=engine).model
    return model.SerializeToString(deterministic=True)


def answer_of(
    task: Callable[[str, Engine | None], bytes],
    folder: str,
    name: str,
    engine: Engine | None,
    answers: dict[str, str],
) -> Callable[[], None]:
    """A run that keeps a digest of what it gives."""

    def run() -> None:
        answers[name] = hashlib.sha256(task(folder, engine)).hexdigest()

    return run


if __name__ == "__main__":
    main()
