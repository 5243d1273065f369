"""What is quantised or dequantised several times in the same way becomes one, and the network's values stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from harness import onnxruntime_of
from networks import MODES, network, weight
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from pconv_onnx import inspect, rewrite, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.passes.duplicates import without_duplicates

RELU = "r = Relu (x) q = QuantizeLinear (r, s, z)"
# Powers of two, so that sums of spikes are exact.
CONSTANTS = {"s": 0.125, "z": np.array(0, np.uint8), "t": 0.125, "u": np.array(0, np.uint8), "v": 0.25}
X = np.random.default_rng(0).normal(0, 9, (50, 3, 8, 8)).astype(np.float32)

EQUAL = {
    "equal constants": f"{RELU} d = DequantizeLinear (q, s, z) e = DequantizeLinear (q, t, u) n = Neg (e)"
                       " y = Add (d, n)",
    "twins of each operator": f"{RELU} p = QuantizeLinear (r, t, u) d = DequantizeLinear (q, s, z)"
                              " e = DequantizeLinear (p, t, z) y = Add (d, e)",
    "a Cast each": f"{RELU} c = Cast <to = 2> (q) d = DequantizeLinear (c, s, z) f = Cast <to = 2> (q)"
                   " e = DequantizeLinear (f, s, z) y = Add (d, e)",
    "a Clip each": f"{RELU} c = Clip (q, z) d = DequantizeLinear (c, s, z) f = Clip (q, u)"
                   " e = DequantizeLinear (f, s, z) y = Add (d, e)",
    "the output of the model": f"{RELU} d = DequantizeLinear (q, s, z) y = DequantizeLinear (q, t, u)",
    "an axis each": f"{RELU} d = DequantizeLinear <axis = 1> (q, s, z) e = DequantizeLinear <axis = 1> (q, s, z)"
                    " y = Add (d, e)",
    "one read in a body": f"{RELU} d = DequantizeLinear (q, s, z) e = DequantizeLinear (q, t, u) l = Size (d)"
                          " b = Cast <to = 9> (l) y = If (b) <then_branch = g () => (o) { o = Neg (e) },"
                          " else_branch = h () => (o) { o = Neg (d) }>",
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", EQUAL)
def test_what_is_equal_becomes_one_neuron(case, mode):
    source = network(EQUAL[case], weights=CONSTANTS)
    result = rewrite(source, mode=mode)
    (neuron,) = result.plan.neurons.values()
    assert neuron.highest == 255
    kinds = [node.op_type for node in result.model.graph.node]
    assert "QuantizeLinear" not in kinds
    assert "DequantizeLinear" not in kinds
    np.testing.assert_array_equal(onnxruntime_of(result.model)(X), onnxruntime_of(source)(X))


@pytest.mark.parametrize("reader", [
    "", "c = Cast <to = 1> (p) n = Neg (c)", "i = Identity (p) c = Shape (i)",
    "l = Size (x) b = Cast <to = 9> (l) c = If (b) <then_branch = g () => (o) { o = DequantizeLinear (p, s, z) },"
    " else_branch = h () => (o) { o = Neg (x) }>",
])  # fmt: skip
def test_codes_that_are_looked_at_leave_an_equal_quantiser_alone(reader):
    nodes = f"{RELU} y = DequantizeLinear (q, s, z) p = QuantizeLinear (r, s, z) {reader}"
    outputs = "float[N, 3, 8, 8] y" + ("" if reader else ", uint8[N, 3, 8, 8] p")
    rows = inspect(network(nodes, weights=CONSTANTS, outputs=outputs))["activations"]
    assert [row["status"] for row in rows if row["encoding"] == "qdq"][:2] == ["converted", "refused"]


DIFFERENT = {
    "scales": f"{RELU} d = DequantizeLinear (q, s, z) e = DequantizeLinear (q, v, z) y = Add (d, e)",
    "inputs": "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) n = Neg (x) p = QuantizeLinear (n, s, z)"
              " e = DequantizeLinear (p, s, z) y = Add (d, e)",
    "attributes": "q = QuantizeLinear <axis = 1> (x, s, z) p = QuantizeLinear <axis = 2> (x, s, z)"
                  " d = DequantizeLinear (q, s, z) e = DequantizeLinear (p, s, z) y = Add (d, e)",
    "clips": "q = QuantizeLinear (x, s, z) c = Clip (q, z) d = DequantizeLinear (c, s, z) f = Clip (q, , z)"
             " e = DequantizeLinear (f, s, z) y = Add (d, e)",
    "quantised weights": "q = QuantizeLinear (s, s, z) p = QuantizeLinear (s, t, u) d = DequantizeLinear (q, s, z)"
                         " e = DequantizeLinear (p, s, z) m = Mul (d, e) y = Mul (x, m)",
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_or_is_constant_stays(case):
    source = load(network(DIFFERENT[case], weights=CONSTANTS))
    assert without_duplicates(source) is source


class Images(CalibrationDataReader):
    """Calibration data for onnxruntime's quantiser."""

    def __init__(self) -> None:
        self.batches = iter(X.reshape(5, 10, 3, 8, 8))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.fixture(scope="module")
def float_network() -> onnx.ModelProto:
    """A residual block: one activation with two consumers."""
    nodes = """
        a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) b = Conv (r, v) c = Conv (r, u) t = Add (b, c) y = Relu (t)
    """
    weights = {"w": 2 * weight(4, 3, 3, 3), "v": weight(4, 4, 3, 3, seed=1), "u": weight(4, 4, 3, 3, seed=2)}
    return network(nodes, outputs="float[N, 4, 6, 6] y", weights=weights, opset=17)


@pytest.mark.parametrize("dedicated", [False, True])
@pytest.mark.parametrize("optimised", [False, True])
def test_a_network_of_onnxruntime_has_one_neuron_for_each_activation(tmp_path, float_network, dedicated, optimised):
    onnx.save(float_network, tmp_path / "float.onnx")
    path = tmp_path / "qdq.onnx"
    quantize_static(
        tmp_path / "float.onnx", path, Images(), per_channel=True,
        extra_options={"DedicatedQDQPair": dedicated},
    )  # fmt: skip
    if optimised:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        path = tmp_path / "optimised.onnx"
        model = onnx.load(path)
        assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) > 8
    converted = [row for row in inspect(path)["activations"] if row["status"] == "converted"]
    # The input, both ReLUs, and what is added in front of the second.
    assert len(converted) == 5
    rewrite(path, tmp_path / "snn.onnx")
    verification = verify(path, tmp_path / "snn.onnx", {"x": X})
    assert verification.passed
