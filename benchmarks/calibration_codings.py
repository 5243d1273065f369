"""Accuracy of a ReLU network that is calibrated, against time-steps in coding `radix`.

In `rate` as many levels, 2^T − 1 time-steps, are the same network. Each spiking network is made by `rewrite` with the
first images of one file, without their labels, and run on those of another: uint8 `images` [N, H, W, 3] with `labels`
in an .npz.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from calibration import read
from measure import machine, write

import pconv_onnx

STEPS = (1, 2, 3, 4)


def main() -> None:
    """Calibrate and evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ReLU network that takes `image` [N, 3, 32, 32]")
    parser.add_argument("--calibration", type=Path, required=True, metavar="FILE")
    parser.add_argument("--images", type=Path, required=True, metavar="FILE", help="test images")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="images to calibrate on")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    given = {"image": read(options.calibration)[0][: options.count]}
    images, labels = read(options.images)
    found = pconv_onnx.evaluate(
        options.model, {"image": images, "labels": labels}, steps=STEPS, coding="radix", calibration=given
    ).summary()
    print(f"ANN {found['ann']['top1']:.2%}", *(f"T={row['steps']} {row['top1']:.2%}" for row in found["rows"]))
    document = {
        "benchmark": "calibration_codings",
        "machine": machine(threads=0),
        "model": options.model.name,
        "calibration_images": options.count,
        **found,
    }
    write(document, options.output)


if __name__ == "__main__":
    main()
