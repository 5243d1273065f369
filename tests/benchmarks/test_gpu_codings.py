"""What is measured of codings on a GPU: all its networks compute the source, on the CPU provider here."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from calibration import EXAMPLES, read
from codings import RELU, quantised
from gpu import Provider
from gpu_codings import DIGITS, LEVELS, forms, verified

from pconv_onnx import inspect
from pconv_onnx.graph.record import Record


@pytest.mark.usefixtures("library")
def test_every_spiking_form_has_the_counts_of_the_quantised_network(tmp_path):
    images, _ = read(EXAMPLES / "resnet20" / "cifar10-test-1000.npz")
    source = onnx.load(quantised("uint8", images[:8], tmp_path))
    relu, ann, *spiking = forms(source, onnx.load(RELU))
    assert (relu.mode, ann.model) == ("ReLU ANN", source)
    layers = inspect(source)["counts"]["converted"]
    assert [(form.mode, form.steps, form.runs) for form in spiking] == [
        ("serial", LEVELS, LEVELS), ("parallel, rate", LEVELS, 1), ("parallel, radix", DIGITS, 1),
        ("folded, radix", DIGITS, 1),
    ]  # fmt: skip
    assert max(kind.steps for kind in Record.read(spiking[2].model).kinds.values()) == DIGITS
    provider = Provider("CPUExecutionProvider", "cpu")
    for form in spiking[2:]:
        assert verified(source, form, provider, np.asarray(images[:2])) == {
            "mode": form.mode, "verdict": "equal", "layers": layers, "layers_equal": layers,
        }  # fmt: skip
