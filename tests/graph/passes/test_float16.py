"""Networks in half types: converted as they are, or turned into float16 by `precision`."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONSTANTS, network, qcfs, weight
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from refusals import refusal_of

from pconv_onnx import rewrite, session, verify
from pconv_onnx.neuron.parallel import ParallelNeuron

F16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
EVERY_HALF = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(np.float16)
NODES = qcfs("x", "s") + "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s, w)" + qcfs("c", "y")


def in_type(dtype: np.dtype, nodes: str = NODES, **weights) -> onnx.ModelProto:
    """A network that computes in that type throughout."""
    shape = f"{dtype}[N, 3, 8, 8]"
    constants = {name: np.array(value).astype(dtype) for name, value in CONSTANTS.items()}
    weights = {name: value.astype(dtype) for name, value in ({"w": 3 * weight(3, 3, 3, 3)} | weights).items()}
    return network(nodes, inputs=f"{shape} x", outputs=f"{dtype}[N, C, H, W] y", weights=constants | weights)


def samples(dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng(0).normal(1, 1, (4, 3, 8, 8)).astype(dtype)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_float16_network_is_converted_and_verified(mode, channels):
    theta = np.array([0.7, 2.1, 3.3][:channels]).reshape(-1, 1, 1)
    ann = in_type(F16, theta=theta)
    result = rewrite(ann, mode=mode)
    onnx.checker.check_model(result.model, full_check=True)
    assert result.summary()["precision"] == "float16"
    verification = verify(ann, result.model, {"x": samples(F16)})
    assert verification.passed
    assert sum(layer.elements for layer in verification.layers) == 2 * samples(F16).size


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_half_networks_run_through_their_function_body_as_onnx_defines_them(dtype):
    """No Conv, whose sums differ between implementations: every value is the source's."""
    nodes = qcfs("x", "s") + "p = MaxPool <kernel_shape = [2, 2]> (s) c = Concat <axis = 1> (p, p)" + qcfs("c", "z")
    ann = in_type(dtype, nodes + "y = Identity (z)", theta=np.array(1.7))
    snn = rewrite(ann).model
    x = samples(dtype)
    (expected,) = ReferenceEvaluator(ann).run(None, {"x": x})
    (found,) = ReferenceEvaluator(snn).run(None, {"x": x})
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 64), st.floats(2**-10, 2**10, width=32))
def test_a_narrower_neuron_has_the_same_count_for_every_value_of_its_type(steps, threshold):
    wide = ParallelNeuron.even(steps, np.float64(threshold), np.float64(threshold / 3), np.float64(threshold))
    wide = ParallelNeuron(wide.thresholds.astype(np.float32), wide.levels.astype(np.float32))
    narrow = wide.astype(F16)
    x = EVERY_HALF[~np.isnan(EVERY_HALF)]
    np.testing.assert_array_equal(narrow.search_form(x), wide.search_form(x.astype(np.float32)))
    np.testing.assert_array_equal(narrow.levels, wide.levels.astype(F16))


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_precision_keeps_inputs_and_outputs_and_every_count(mode, small_network):
    result = rewrite(small_network, mode=mode, precision="float16")
    onnx.checker.check_model(result.model, full_check=True)
    graph = result.model.graph
    assert [info.SerializeToString() for info in (*graph.input, *graph.output)] == [
        info.SerializeToString() for info in (*small_network.graph.input, *small_network.graph.output)
    ]
    assert not any(tensor.data_type == TensorProto.FLOAT for tensor in graph.initializer)
    x = np.random.default_rng(0).normal(0, 1, (50, 3, 8, 8)).astype(np.float32)
    verification = verify(small_network, result.model, {"x": x})
    assert verification.passed
    # Weights of 11 bits, sums of a few products.
    assert verification.as_run.max_abs_diff < 4
    assert verification.as_run.agreeing >= 45


def test_precision_keeps_the_accuracy_of_a_real_network(qcfs_resnet, every_sample):
    """Single answers change, as values that float16 rounds across a threshold do, in either direction."""
    snn = rewrite(qcfs_resnet, mode="folded", precision="float16").model
    verification = verify(qcfs_resnet, snn, {name: values[:300] for name, values in every_sample.items()})
    assert verification.passed
    accuracy = verification.summary()["accuracy"]
    assert abs(accuracy["snn"] - accuracy["ann"]) <= 0.02


def test_operators_without_a_float16_form_stay_in_float32():
    nodes = qcfs("x", "s") + "m = Min (s, x) c = Conv (m, w)" + qcfs("c", "y")
    ann = network(nodes, weights={"w": weight(3, 3, 1, 1)})
    snn = rewrite(ann, precision="float16").model
    onnx.checker.check_model(snn, full_check=True)
    assert verify(ann, snn).passed


def test_a_body_keeps_its_types():
    nodes = (
        qcfs("x", "s")
        + """
        c = Conv (s, w)
        z = If (yes) <
            then_branch = a () => (float[N, 3, 8, 8] p) { p = Mul (s, c) },
            else_branch = b () => (float[N, 3, 8, 8] q) { q = Identity (c) }
        >
        y = Mul (z, half)
    """
    )
    ann = network(nodes, weights={"w": weight(3, 3, 1, 1), "yes": np.array(True)})
    snn = rewrite(ann, precision="float16").model
    onnx.checker.check_model(snn, full_check=True)
    expected, found = (session(m).run(None, {"x": samples(np.dtype("f4"))})[0] for m in (ann, snn))
    # A value that float16 rounds across a threshold is one spike off.
    assert (np.abs(found - expected) < 0.02).mean() > 0.99


def test_weights_beyond_float16_are_refused_by_name():
    ann = network(qcfs("x", "s") + "y = Conv (s, w)", weights={"w": np.full((3, 3, 1, 1), 1e5, dtype=np.float32)})
    told = refusal_of(rewrite, ann, precision="float16")
    assert told == "'w' of the model holds 100000; float16 ends at 65504; leave this network in float32"


def test_constants_beyond_float16_are_refused_wherever_they_are():
    nodes = qcfs("x", "s") + "big = Constant <value = float {1e9}> () y = Sub (s, big)"
    assert "'big' of the model holds 1e+09; float16 ends at 65504" in refusal_of(
        rewrite, network(nodes), precision="float16"
    )


def test_small_weights_are_rounded_and_not_raised():
    tiny = np.array([1e-9, 3e-8, 1e-7, -1e-9], dtype=np.float32).reshape(1, 4, 1, 1)
    ann = network("c = Conv (x, w)" + qcfs("c", "y"), inputs="float[N, 4, 8, 8] x", outputs="float[N, 1, 8, 8] y",
                  weights={"w": tiny})  # fmt: skip
    weights = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in rewrite(ann, precision="float16").model.graph.initializer
    }
    np.testing.assert_array_equal(weights["w"], tiny.astype(np.float16))


NOT_IN_FLOAT16 = {
    "an operator without float16 in a body": (
        qcfs("x", "s") + """y = If (yes) <
            then_branch = a () => (float[N, 3, 8, 8] p) { p = Max (s, half) },
            else_branch = b () => (float[N, 3, 8, 8] q) { q = Identity (s) }
        >""", {}),
    "an input that is an output": (qcfs("x", "y"), {"outputs": "float[N, 3, 8, 8] y, float[N, 3, 8, 8] x"}),
    "a name that the converter takes": ("graph_input_cast_0 = Neg (x)" + qcfs("graph_input_cast_0", "y"), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_IN_FLOAT16)
def test_what_the_converter_would_break_is_refused(case):
    """Nothing is written that no runtime loads."""
    nodes, arguments = NOT_IN_FLOAT16[case]
    ann = network(nodes, weights={"yes": np.array(True)} if "yes" in nodes else {}, **arguments)
    told = refusal_of(rewrite, ann, precision="float16")
    assert told.startswith("the model cannot be written in float16: ")
    assert told.endswith("leave this network in float32")


def test_levels_that_float16_does_not_tell_apart_are_refused():
    ann = network(qcfs("x", "s") + qcfs("s", "y").replace("theta", "tiny"), weights={"tiny": 1e-8})
    result = rewrite(ann, precision="float16")
    assert [activation.status for activation in result.plan.activations] == ["converted", "refused"]
    assert "its levels are not finite and ascending in float16" in result.plan.activations[1].reason


def test_precision_is_for_float32_networks():
    told = refusal_of(rewrite, in_type(F16), precision="float16")
    assert "it computes in float16; precision float16 is for networks that compute in float32" in told
    assert refusal_of(rewrite, in_type(F16), precision="int8").startswith("there is no precision 'int8'")


def test_neurons_of_one_model_have_one_type():
    """A model carries one function body, which has one type; the rest still converts."""
    nodes = (
        qcfs("x", "s") + qcfs("s", "t").replace("theta", "theta_").replace("t_scaled = Div (s", "t_scaled = Mul (s")
        + "h = Cast <to = 10> (t) g = Neg (h)" + qcfs("g", "u") + "n = Neg (u) y = Cast <to = 1> (n)"
    )  # fmt: skip
    for name in CONSTANTS:
        before, after = nodes.split("h = Cast")
        nodes = before + "h = Cast" + after.replace(f" {name})", f" {name}16)").replace(f" {name},", f" {name}16,")
    halves = {f"{name}16": np.array(value, dtype=np.float16) for name, value in CONSTANTS.items()}
    result = rewrite(network(nodes, weights={"theta_": 1.5, **halves}))
    refused = [activation for activation in result.plan.activations if activation.status == "refused"]
    assert len(refused) == 1
    assert "it computes in float16 and most others in float32" in refused[0].reason
    x = samples(np.dtype("f4"))
    source = onnxruntime.InferenceSession(network(nodes, weights={"theta_": 1.5, **halves}).SerializeToString())
    np.testing.assert_array_equal(session(result.model).run(None, {"x": x})[0], source.run(None, {"x": x})[0])
