"""Accuracy of a ReLU network that is calibrated, for each method and number of time-steps.

The images that it is calibrated on and those that it is tested on are uint8 `images` [N, H, W, 3] with `labels` in an
.npz; methods are to be compared on images of the first kind (--validation counts those at the file's end).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from measure import machine, write

from pconv_onnx import calibrate
from pconv_onnx.basics.choices import METHODS

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from prepare_images import prepare, read_npz  # noqa: E402  # a script beside the networks, not a module


def main() -> None:
    """Calibrate, test, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ReLU network that takes `image` [N, 3, 32, 32]")
    parser.add_argument("--calibration", type=Path, required=True, metavar="FILE")
    parser.add_argument("--images", type=Path, metavar="FILE", help="test images (default: none)")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="images to calibrate on")
    parser.add_argument("--validation", type=int, default=0, metavar="N", help="images of the same file to compare on")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8, 16, 32], metavar="T")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--mixed", action="store_true", help="T is the mean; each activation has its own")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    images, labels = read(options.calibration)
    sets = {}
    if options.images is not None:
        sets["test"] = read(options.images)
    if options.validation:
        sets["validation"] = (images[-options.validation :], labels[-options.validation :])
    ann = options.model.read_bytes()
    results: list[dict[str, Any]] = [{"method": "ANN", **{name: accuracy(ann, *pair) for name, pair in sets.items()}}]
    print(results[0], flush=True)
    for method in options.methods:
        for steps in options.steps:
            start = time.perf_counter()
            data = {"image": images[: options.count]}
            result = calibrate(options.model, data, steps=steps, mixed=options.mixed, method=method)
            seconds = time.perf_counter() - start
            model = result.model.SerializeToString()
            found = {name: accuracy(model, *pair) for name, pair in sets.items()}
            results.append({"method": method, "steps": steps, "seconds": seconds, **found})
            print(results[-1], flush=True)
    document = {
        "benchmark": "calibration",
        "machine": machine(threads=0),
        "model": options.model.name,
        "calibration_images": options.count,
        "mixed": options.mixed,
        "images": {name: len(pair[0]) for name, pair in sets.items()},
        "results": results,
    }
    write(document, options.output)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `[N, 3, 32, 32]` as the networks take them, and labels."""
    images, labels = read_npz(path)
    return prepare(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW"), labels


def accuracy(model: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose label is the first output's largest entry."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batches = (session.run(None, {"image": images[i : i + 100]})[0] for i in range(0, len(images), 100))
    return float((np.concatenate([batch.argmax(axis=1) for batch in batches]) == labels).mean())


if __name__ == "__main__":
    main()
