"""Time and memory of calibrating a ReLU network by the default method, against the number of images.

Each number of images is measured in a process of its own, since a process tells only the most that it ever had. The
images are uint8 `images` [N, 32, 32, 3] in an .npz.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from calibration import read
from measure import machine, write

from pconv_onnx import calibrate
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.measure.timing import OtherWork


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
    where = machine(threads=0) | quiet.summary()
    write({"benchmark": "calibration cost", "machine": where, "steps": options.steps, "rows": rows}, options.output)


def cost(model: Path, prepared: Path, steps: int) -> dict[str, float]:
    """Seconds, and the most memory that this process had, in MiB."""
    images = np.load(prepared, mmap_mode="r")
    start = time.perf_counter()
    calibrate(model, {"image": images}, steps=steps)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_memory()}


if __name__ == "__main__":
    main()
