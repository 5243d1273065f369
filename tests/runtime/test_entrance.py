"""What inspect, calibrate, rewrite and verify are given is one, and what it took runs to know is in it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from networks import network, weight
from notes import noted
from refusals import refusal_of

from pconv_onnx import calibrate, inspect, rewrite, session, verify
from pconv_onnx.graph.passes import old_operators
from pconv_onnx.runtime.entrance import prepared, runnable

SCALES = {"s": np.array([1, 1, 2, 2], np.float32)}
QDQ = "q = QuantizeLinear (r, step, zero) d = DequantizeLinear (q, step, zero)"


def resized() -> onnx.ModelProto:
    """A quantised network of opset 10 that enlarges its images, linearly, as PyTorch wrote it."""
    weights = {"w": weight(3, 3, 1, 1), "step": np.float32(0.05), "zero": np.array(0, np.uint8), **SCALES}
    return network(
        f'c = Conv (x, w) r = Relu (c) {QDQ} e = Resize <mode = "linear"> (d, s) y = Conv (e, w)',
        weights=weights,
        outputs="float[N, 3, 16, 16] y",
        opset=10,
        ir_version=5,
    )


def fused(element: str = "float") -> onnx.ModelProto:
    """A GELU between layers as onnxruntime's optimiser writes it."""
    dtype = {"float": np.float32, "float16": np.float16}[element]
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
        f"test ({element}[N, S, 8] x) => ({element}[N, S, 8] y) {{"
        "n = com.microsoft.SkipLayerNormalization (x, x, g, b) h = MatMul (n, w)"
        "a = com.microsoft.BiasGelu (h, c) y = MatMul (a, v) }"
    )
    weights = {"g": np.ones(8), "b": np.zeros(8), "w": weight(8, 16), "c": np.zeros(16), "v": weight(16, 8)}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()
    )
    return model


def test_a_network_of_an_old_opset_gives_what_it_gave():
    source = resized()
    with noted("uses opset 10; what is written uses opset 17"):
        spiking = rewrite(source).model
    x = np.random.default_rng(0).normal(0, 2, (4, 3, 8, 8)).astype(np.float32)
    (expected,), (found,) = (session(model).run(None, {"x": x}) for model in (source, spiking))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert verify(source, spiking).passed


@pytest.mark.parametrize("door", [inspect, rewrite, prepared])
def test_a_conversion_that_changes_it_is_refused_everywhere(monkeypatch, door):
    monkeypatch.setitem(old_operators._RULES, "Resize", (0, old_operators._RULES["Resize"][1]))
    assert "its conversion to 17 changes what it computes (output 'y' by up to" in refusal_of(door, resized())


def test_what_is_run_is_what_was_given():
    source = resized()
    assert runnable(source).proto == source


def test_shapes_that_a_run_shows_are_enough_to_calibrate():
    (listed,) = inspect(fused())["activations"]
    assert listed["status"] == "needs-calibration"
    x = np.random.default_rng(0).normal(0, 1, (16, 5, 8)).astype(np.float32)
    (row,) = calibrate(fused(), {"x": x}, steps=8).summary()["activations"]
    assert (row["status"], row["channels"]) == ("calibrated", 16)
    spiking = rewrite(fused(), calibration={"x": x}, steps=8).model
    assert verify(fused(), spiking, data={"x": x}).verdict == "measured"


def test_what_keeps_half_types_from_calibration_is_their_type():
    x = np.zeros((4, 5, 8), np.float16)
    assert "it computes in float16, and float32 is calibrated" in refusal_of(
        calibrate, fused("float16"), {"x": x}, steps=8
    )
