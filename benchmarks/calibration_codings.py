"""Accuracy of a ReLU network that is calibrated, against time-steps in each coding.

Each spiking network is made by `rewrite` with the first images of one file, without their labels, and run on those of
another: uint8 `images` [N, H, W, 3] with `labels` in an .npz.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from calibration import read
from measure import machine, write

import pconv_onnx
from pconv_onnx.basics.choices import CodingName

# As many levels in one coding as in the other.
STEPS: dict[CodingName, list[int]] = {"radix": [1, 2, 3, 4], "rate": [1, 3, 7, 15]}


def main() -> None:
    """Calibrate and evaluate in each coding, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ReLU network that takes `image` [N, 3, 32, 32]")
    parser.add_argument("--calibration", type=Path, required=True, metavar="FILE")
    parser.add_argument("--images", type=Path, required=True, metavar="FILE", help="test images")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="images to calibrate on")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    given = {"image": read(options.calibration)[0][: options.count]}
    images, labels = read(options.images)
    results = {}
    for coding, steps in STEPS.items():
        found = pconv_onnx.evaluate(
            options.model, {"image": images, "labels": labels}, steps=steps, coding=coding, calibration=given
        )
        results[coding] = found.summary()
        rows = results[coding]["rows"]
        print(coding, f"ANN {results[coding]['ann']['top1']:.2%}", *(f"T={r['steps']} {r['top1']:.2%}" for r in rows))
    document = {
        "benchmark": "calibration_codings",
        "machine": machine(threads=0),
        "model": options.model.name,
        "calibration_images": options.count,
        "results": results,
    }
    write(document, options.output)


if __name__ == "__main__":
    main()
