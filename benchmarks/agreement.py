"""ResNet-20 on CIFAR-10 test images: does the spiking network give its source's answers?

The repository holds 1,000 images; --images takes more, in the same form.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from measure import machine, write

import pconv_onnx

EXAMPLES = Path(__file__).parent.parent / "examples"
RESNET = EXAMPLES / "resnet20" / "resnet20-qcfs8.onnx"
VARIANTS: dict[str, dict[str, Any]] = {
    "parallel": {"mode": "parallel"},
    "folded": {"mode": "folded"},
    "parallel, float16": {"mode": "parallel", "precision": "float16"},
    "folded, float16": {"mode": "folded", "precision": "float16"},
}
sys.path.insert(0, str(EXAMPLES))

from prepare_images import prepare, read_npz  # noqa: E402  # a script beside the networks, not a module


def main() -> None:
    """Verify each variant, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=EXAMPLES / "resnet20" / "cifar10-test-1000.npz", metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    images, labels = read_npz(options.images)
    data = {"image": prepare(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW"), "labels": labels}
    results = {}
    for name, arguments in VARIANTS.items():
        model = pconv_onnx.rewrite(RESNET, **arguments).model
        results[name] = summary = pconv_onnx.verify(RESNET, model, data).summary()
        wrong = sum(bool(layer["count_mismatch_rate"]) for layer in summary["layers"])
        print(f"\n{name}, {summary['samples']} images")
        print(f"  layers with another spike count than the source's: {wrong} of {len(summary['layers'])}")
        for what, values in (
            ("as onnxruntime runs them", summary),
            ("optimisations disabled", summary["unoptimised"]),
            ("the source against itself", summary["source_against_itself"]),
        ):
            print(f"  {what:<27} top-1 agreement {values['top1_agreement']:.4f}, largest {values['max_abs_diff']:.3g}")
        print(f"  accuracy {summary['accuracy']}")
    write({"benchmark": "agreement", "machine": machine(threads=0), "results": results}, options.output)


if __name__ == "__main__":
    main()
