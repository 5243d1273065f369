"""Time and memory of calibrating a ReLU network by the default method, against the number of images, and several T.

Each number of images is measured in a process of its own, since a process tells only the most that it ever had. Several
numbers of time-steps in one call are compared with a call for each, in CPU seconds of one process, whose sessions have
one thread each, and must give the same networks. The images are uint8 `images` [N, 32, 32, 3] in an .npz.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from calibration import read
from measure import machine, write

from pconv_onnx import calibrate, calibrate_each
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.measure.timing import OtherWork
from pconv_onnx.runtime.side_by_side import limit_threads

SEVERAL, METHODS = (4, 8, 12, 16, 32), ("refit", "mse")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ReLU network that takes `image` [N, 3, 32, 32]")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="images to calibrate on")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 2000], metavar="N")
    parser.add_argument("--steps", type=int, default=4, metavar="T")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    parser.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)  # the child's: images in a file of their own
    options = parser.parse_args()
    if options.prepared is not None:
        print(json.dumps(cost(options.model, options.prepared, options.steps)))
        return
    quiet = OtherWork()
    images, _ = read(options.calibration)
    rows = []
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "images.npy"
            np.save(prepared, images[:count])
            command = [sys.executable, __file__, str(options.model), "--prepared", str(prepared)]
            done = subprocess.run([*command, "--steps", str(options.steps)], stdout=subprocess.PIPE, check=True)
        rows.append({"images": count, **json.loads(done.stdout.splitlines()[-1])})
        print("{images:>6} images: {seconds:6.1f} s, {peak_mib:.0f} MiB at the most".format(**rows[-1]), flush=True)
    few = images[: options.counts[0]]
    several = [at_once(options.model, few, method) for method in METHODS]
    where = machine(threads=0) | quiet.summary()
    document = {"benchmark": "calibration cost", "machine": where, "steps": options.steps, "rows": rows}
    write(document | {"several": several}, options.output)


def cost(model: Path, prepared: Path, steps: int) -> dict[str, float]:
    """Seconds, and the most memory that this process had, in MiB."""
    images = np.load(prepared, mmap_mode="r")
    start = time.perf_counter()
    calibrate(model, {"image": images}, steps=steps)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_memory()}


def at_once(model: Path, images: np.ndarray, method: str) -> dict[str, object]:
    """CPU seconds of a call for each T, and of one for all."""
    limit_threads(1)

    def timed(call: Callable[[], Any]) -> tuple[Any, float]:
        start = time.process_time()
        return call(), time.process_time() - start

    alone = {T: timed(lambda T=T: calibrate(model, images, steps=T, method=method)) for T in SEVERAL}
    together, seconds = timed(lambda: calibrate_each(model, images, steps=SEVERAL, method=method))
    if any(together[T].model != found.model for T, (found, _) in alone.items()):
        raise SystemExit(f"error: {method} finds other networks for several T at once")
    each = {T: taken for T, (_, taken) in alone.items()}
    mean = sum(each.values()) / len(each)
    row = {"method": method, "images": len(images), "each": each, "at_once": seconds, "ratio_to_one": seconds / mean}
    print(f"{method}: {len(each)} T at once {seconds:.1f} CPU s, {seconds / mean:.2f} times one", flush=True)
    return row


if __name__ == "__main__":
    main()
