"""QuantizeLinear and DequantizeLinear: every pair that is a staircase from zero is converted bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, weight
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from opsets import opsets

from pconv_onnx import inspect, rewrite, session, verify
from pconv_onnx.graph import load
from pconv_onnx.recognise import recognise

RELU = "r = Relu (x) q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z)"
NO_RELU = "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"
PER_CHANNEL = np.array([0.013, 0.4, 2.3], dtype=np.float32)


def pair(nodes: str, scale, zero, *, opset: int = 21, **weights) -> onnx.ModelProto:
    return network(
        nodes,
        inputs="float[N, 3, 1, 1] x",
        outputs="float[N, 3, 1, 1] y",
        weights={"s": np.asarray(scale, dtype=np.float32), "z": zero, **weights},
        opset=opset,
    )


def zeros(dtype, value: int = 0, shape: tuple[int, ...] = ()) -> np.ndarray:
    return np.full(shape, value, dtype=dtype)


CONVERTED = {
    "uint8 after Relu": (RELU, 0.0237, zeros(np.uint8), 255),
    "uint8 without Relu": (NO_RELU, 0.0237, zeros(np.uint8), 255),
    "int8 whose lowest code is zero": (NO_RELU, 0.0237, zeros(np.int8, -128), 255),
    "int8 after Relu": (RELU, 0.0237, zeros(np.int8), 127),
    "a zero-point between, after Relu": (RELU, 0.0237, zeros(np.uint8, 5), 250),
    "per channel": (RELU, PER_CHANNEL, zeros(np.uint8, 0, (3,)), 255),
    "int8 per channel after Relu": (RELU, PER_CHANNEL, zeros(np.int8, 0, (3,)), 127),
    "no zero-point": (RELU.replace(", z)", ")"), 0.0237, zeros(np.uint8), 255),
}


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_the_type_of_codes_may_be_an_attribute(mode):
    """Without a zero-point, from opset 21 on."""
    nodes = "r = Relu (x) q = QuantizeLinear <output_dtype = 3> (r, s) y = DequantizeLinear (q, s)"
    source = pair(nodes, 0.0237, zeros(np.int8))
    result = rewrite(source, mode=mode)
    (neuron,) = result.plan.neurons.values()
    assert neuron.steps == 127
    x = boundaries(neuron)
    x = x[(np.abs(x) < 1e6).all(axis=(1, 2, 3))]
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    np.testing.assert_array_equal(session(result.model).run(None, {"x": x})[0], expected)


def test_axes_that_differ_are_refused():
    nodes = "r = Relu (x) q = QuantizeLinear <axis = 1> (r, s, z) y = DequantizeLinear <axis = 2> (q, s, z)"
    weights = {"s": PER_CHANNEL, "z": zeros(np.uint8, 0, (3,))}
    shape = "float[N, 3, 3, 1]"
    (activation,) = (
        a for a in recognise(load(network(nodes, inputs=f"{shape} x", outputs=f"{shape} y", weights=weights)))
        if a.encoding == "qdq"
    )  # fmt: skip
    assert "unequal scales, zero-points or axes" in activation.reason


def test_a_quantiser_that_divides_in_another_type_is_refused():
    nodes = "r = Relu (x) q = QuantizeLinear <precision = 10> (r, s, z) y = DequantizeLinear (q, s, z)"
    found = recognise(load(pair(nodes, 0.1, zeros(np.uint8), opset=23)))
    assert any("has precision float16; float32 is supported" in activation.reason for activation in found)


@pytest.mark.parametrize("element, zero, nodes, levels", [
    ("uint4", 0, NO_RELU, 15), ("uint4", 3, RELU, 12), ("int4", -8, NO_RELU, 15), ("int4", 0, RELU, 7),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_codes_of_four_bits_are_converted_bit_by_bit(element, zero, nodes, levels, mode):
    dtype = np.dtype(getattr(ml_dtypes, element))
    source = pair(nodes, 0.3, np.full((), zero).astype(dtype), opset=21)
    result = rewrite(source, mode=mode)
    (neuron,) = result.plan.neurons.values()
    assert neuron.steps == levels
    x = boundaries(neuron)
    x = x[(np.abs(x) < 1e6).all(axis=(1, 2, 3))]
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    np.testing.assert_array_equal(session(result.model).run(None, {"x": x})[0], expected)


def boundaries(neuron) -> np.ndarray:
    """`[n, 3, 1, 1]`: thresholds, the floats on either side of them, and floats of every size."""
    generator = np.random.default_rng(0)
    at = np.broadcast_to(neuron.thresholds, (3, neuron.steps))
    sides = [np.nextafter(at, np.float32(side)) for side in (-np.inf, np.inf)]
    bits = generator.integers(0, 2**32, (3, 4000), dtype=np.uint32).view(np.float32)
    values = np.concatenate([at, *sides, generator.normal(0, 3, (3, 4000)).astype(np.float32), bits], axis=1)
    # ONNX leaves the code of a NaN to the runtime.
    values = values[:, ~np.isnan(values).any(axis=0)]
    return np.ascontiguousarray(values.T).reshape(-1, 3, 1, 1)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("opset", opsets(13, 19, 21, 23))
@pytest.mark.parametrize("case", CONVERTED)
def test_pairs_are_converted_bit_by_bit(case, opset, mode):
    nodes, scale, zero, levels = CONVERTED[case]
    source = pair(nodes, scale, zero, opset=opset)
    result = rewrite(source, mode=mode)
    (activation,) = result.plan.activations
    assert (activation.encoding, activation.input.name, activation.output.name) == ("qdq", "x", "y")
    (neuron,) = result.plan.neurons.values()
    assert neuron.steps == levels
    x = boundaries(neuron)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = onnxruntime.InferenceSession(source.SerializeToString(), options).run(None, {"x": x})
    np.testing.assert_array_equal(session(result.model).run(None, {"x": x})[0], expected)
    if opset >= 19:  # the evaluator knows no earlier version of the operators; of codes it wants integers of 32 bits
        small = np.abs(x / np.min(scale)) < 2**30
        (defined,) = ReferenceEvaluator(source).run(None, {"x": np.where(small, x, 0)})
        np.testing.assert_array_equal(defined[small], expected[small])
    assert verify(source, result.model, {"x": x[:100]}).passed


REFUSED = {
    "scale zero": (RELU, 0.0, zeros(np.uint8), {}, "'s', the scale of 'q', is not positive and finite"),
    "scale negative": (RELU, -1.0, zeros(np.uint8), {}, "'s', the scale of 'q', is not positive and finite"),
    "scale infinite": (RELU, np.inf, zeros(np.uint8), {}, "'s', the scale of 'q', is not positive and finite"),
    "scale NaN": (RELU, np.nan, zeros(np.uint8), {}, "'s', the scale of 'q', is not positive and finite"),
    "shapes": (RELU, PER_CHANNEL, zeros(np.uint8), {}, "a scale of shape [3] and a zero-point of []"),
    "another scale": (RELU.replace("DequantizeLinear (q, s, z)", "DequantizeLinear (q, t, z)"), 0.1, zeros(np.uint8),
                      {"t": np.float32(0.2)}, "have unequal scales, zero-points or axes"),
    "computed scale": ("t = Exp (s)" + RELU.replace("s, z", "t, z"), 0.1, zeros(np.uint8), {},
                       "'t', an operand of 'q', is computed; quantise statically"),
    "codes used elsewhere": (RELU.replace("y =", "d =") + "c = Cast <to = 1> (q) y = Add (c, d)", 0.1,
                             zeros(np.uint8), {}, "its codes are also read by Cast 'c'"),
    "two readers": (RELU.replace("y =", "d =") + "e = DequantizeLinear (q, s, z) y = Add (d, e)", 0.1, zeros(np.uint8),
                    {}, "its codes are read by 2 DequantizeLinear"),
    "unequal channels": (RELU, PER_CHANNEL, np.array([0, 1, 2], np.uint8), {}, "from 253 to 255 levels"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_pairs_are_refused_with_the_reason(case):
    nodes, scale, zero, weights, reason = REFUSED[case]
    found = recognise(load(pair(nodes, scale, zero, **weights)))
    (activation,) = (a for a in found if a.encoding == "qdq")
    assert activation.status == "refused"
    assert reason in activation.reason


@pytest.mark.parametrize("before", ["", "t = Transpose <perm = [0, 1, 3, 2]> (w) "])
def test_quantised_weights_are_no_activation(before):
    weights = "t" if before else "w"
    nodes = f"{before} q = QuantizeLinear ({weights}, s, z) d = DequantizeLinear (q, s, z) y = Conv (x, d)"
    model = network(nodes, outputs="float[N, 3, 8, 8] y",
                    weights={"w": weight(3, 3, 1, 1), "s": np.float32(0.1), "z": zeros(np.int8)})  # fmt: skip
    assert recognise(load(model)) == []


class Images(CalibrationDataReader):
    """Calibration data for onnxruntime's quantiser."""

    def __init__(self) -> None:
        self.batches = iter(np.random.default_rng(1).normal(0, 1, (4, 8, 3, 8, 8)).astype(np.float32))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("activations, per_channel", [(QuantType.QUInt8, False), (QuantType.QInt8, True)])
def test_a_network_of_onnxruntime_s_quantiser_is_converted(tmp_path, activations, per_channel, mode):
    nodes = """
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w) r = Relu (a)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) b = Conv <kernel_shape = [3, 3]> (p, v) t = Relu (b)
        g = GlobalAveragePool (t) f = Flatten (g) y = Gemm (f, u)
    """
    weights = {"w": 2 * weight(8, 3, 3, 3), "v": 2 * weight(8, 8, 3, 3, seed=1), "u": weight(8, 5, seed=2)}
    onnx.save(network(nodes, outputs="float[N, 5] y", weights=weights, opset=17), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "qdq.onnx", Images(), quant_format=QuantFormat.QDQ,
        activation_type=activations, per_channel=per_channel,
    )  # fmt: skip
    summary = inspect(tmp_path / "qdq.onnx")
    converted = [row for row in summary["activations"] if row["status"] == "converted"]
    assert [row["levels"] for row in converted] == [255] * len(converted)
    assert len(converted) >= 2
    assert all(
        "its lowest value is not zero" in row["reason"] for row in summary["activations"] if row["status"] == "refused"
    )
    rewrite(tmp_path / "qdq.onnx", tmp_path / "snn.onnx", mode=mode)
    x = np.random.default_rng(2).normal(0, 1, (20, 3, 8, 8)).astype(np.float32)
    verification = verify(tmp_path / "qdq.onnx", tmp_path / "snn.onnx", {"x": x})
    assert verification.passed
    assert verification.unoptimised.agreeing >= 19
