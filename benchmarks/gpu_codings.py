"""Codings on a GPU, into benchmarks/results/<gpu>-codings.json.

The operator with 255 levels in 8 binary digits, by the GPU's clock, against copies of as many bytes; then an 8-bit QDQ
form of the example ResNet-20, which onnxruntime's quantiser makes: with trains of 8 weighted steps, with trains of up
to 255 equal ones, and stepped through 255. Each layer's counts on the GPU are compared with the source's first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
from calibration import EXAMPLES, read
from codings import RELU, quantised
from gpu import Document, Form, Provider, Train, operator_rows

import pconv_onnx
from pconv_onnx.neuron.coding import Radix

LEVELS, DIGITS = 255, 8
TRAIN = Train("radix, 255 levels", LEVELS, Radix.number)
OPERATOR_MIB = (64, 256, 1024)
BATCHES = (1, 128)
FEW = 32


def forms(source: onnx.ModelProto, relu: onnx.ModelProto) -> list[Form]:
    """What is compared: all of it computes the same as the source, but for the ReLU ANN."""
    serial, rate, radix, folded = (
        pconv_onnx.rewrite(source, mode=mode, coding=coding, signed=mode == "serial").model
        for mode, coding in (("serial", "rate"), ("parallel", "rate"), ("parallel", "radix"), ("folded", "radix"))
    )
    return [
        Form("ReLU ANN", relu),
        Form("QDQ ANN", source),
        Form("serial", serial, LEVELS, runs=LEVELS),
        Form("parallel, rate", rate, LEVELS),
        Form("parallel, radix", radix, DIGITS),
        Form("folded, radix", folded, DIGITS),
    ]


def verified(source: onnx.ModelProto, form: Form, provider: Provider, images: Any) -> dict[str, Any]:
    """How many of its layers give the source's counts on every element there."""
    found = pconv_onnx.verify(source, form.model, {"image": images}, providers=provider.entry()).summary()
    equal = sum(layer["count_mismatch_rate"] == 0 for layer in found["layers"])
    return {"mode": form.mode, "verdict": found["verdict"], "layers": len(found["layers"]), "layers_equal": equal}


def main() -> None:
    """Measure, print, write."""
    document = Document(__doc__, "-codings")
    images, _ = read(EXAMPLES / "resnet20" / "cifar10-test-1000.npz")
    with tempfile.TemporaryDirectory() as folder:
        source = onnx.load(quantised("uint8", images[:256], Path(folder)))
    measured = forms(source, onnx.load(RELU))
    document.content["verified"] = [
        verified(source, form, document.provider, images[:FEW]) for form in measured if "radix" in form.mode
    ]
    print(document.content["verified"])
    document.take(
        operator_rows(document.device, [size << 20 for size in OPERATOR_MIB], document.options.repeats, TRAIN)
    )
    for batch in BATCHES:
        document.take(document.networks("8-bit ResNet-20", measured, batch))
    document.report()


if __name__ == "__main__":
    main()
