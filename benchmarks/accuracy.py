"""ResNet-20 on CIFAR-10 test images: accuracy against time-steps, in parallel and in serial.

The repository holds 1,000 images; --images takes more, in the same form.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from agreement import EXAMPLES, RESNET, prepare, read_npz
from measure import machine, write

import pconv_onnx
from pconv_onnx.basics.choices import ModeName

# Folded computes at the price of one step what parallel does.
MODES: tuple[ModeName, ...] = ("folded", "serial")


def main() -> None:
    """Evaluate each mode, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=EXAMPLES / "resnet20" / "cifar10-test-1000.npz", metavar="FILE")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="T")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    images, labels = read_npz(options.images)
    data = {"image": prepare(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW"), "labels": labels}
    results = {mode: pconv_onnx.evaluate(RESNET, data, steps=options.steps, mode=mode).summary() for mode in MODES}
    print(f"ANN {results['folded']['ann']['top1']:.2%}, {len(labels)} images")
    for folded, serial in zip(*(results[mode]["rows"] for mode in MODES), strict=True):
        print(f"T = {folded['steps']:<3} folded {folded['top1']:.2%}  serial {serial['top1']:.2%}")
    write({"benchmark": "accuracy", "machine": machine(threads=0), "results": results}, options.output)


if __name__ == "__main__":
    main()
