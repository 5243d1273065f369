"""Mode `serial`: one time-step a run, against stepwise computation in PyTorch, and what it refuses."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import network, qcfs, weight
from onnxruntime import SessionOptions
from refusals import refusal_of

from pconv_onnx import SerialSession, evaluate, inspect, rewrite, verify
from pconv_onnx.operators.library import register

serial = partial(rewrite, mode="serial")
refusal = partial(refusal_of, serial)


def dyadic(*shape: int, seed: int = 0, scale: int = 4) -> np.ndarray:
    """Values with which sums are exact in float32."""
    return (np.random.default_rng(seed).integers(-8, 9, shape) / scale).astype(np.float32)


WEIGHTS = {"w": dyadic(16, 3, 3, 3), "v": dyadic(16, 16, 3, 3, seed=1), "u": dyadic(16 * 64, 5, seed=2)}
RESIDUAL = f"""
    c = Conv <pads = [1, 1, 1, 1]> (x, w) {qcfs("c", "a")}
    d = Conv <pads = [1, 1, 1, 1]> (a, v)
    e = Add (d, a) {qcfs("e", "b")}
    f = Flatten (b)
    y = MatMul (f, u)
"""


@pytest.fixture(scope="module")
def source() -> onnx.ModelProto:
    """Two activations with θ = 2 and a shortcut, in values that add up exactly."""
    return network(RESIDUAL, outputs="float[N, 5] y", weights=WEIGHTS)


def stepwise(x: np.ndarray, steps: int) -> np.ndarray:
    """The outputs of each time-step as a loop in PyTorch gives them: θ = 2, initial charge θ/2."""
    w, v, u = (torch.tensor(WEIGHTS[name]) for name in ("w", "v", "u"))
    image, potentials, outputs = torch.tensor(x), [torch.tensor(1.0)] * 2, []

    def fire(index: int, current: torch.Tensor) -> torch.Tensor:
        charge = potentials[index] + current
        spikes = 2.0 * (charge >= 2.0)
        potentials[index] = charge - spikes
        return spikes

    for _ in range(steps):
        first = fire(0, torch.nn.functional.conv2d(image, w, padding=1))
        second = fire(1, torch.nn.functional.conv2d(first, v, padding=1) + first)
        outputs.append(second.flatten(1) @ u)
    return torch.stack(outputs).numpy()


@pytest.mark.parametrize("steps", [1, 4, 9])
@pytest.mark.parametrize("batch", [1, 3])
def test_time_steps_are_those_of_a_loop_in_pytorch(source, steps, batch):
    x = dyadic(batch, 3, 8, 8, seed=3)
    session = SerialSession(serial(source, steps=steps).model)
    expected = stepwise(x, steps)
    (found,) = session.run_per_step(None, {"x": x})
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(session.run(["y"], {"x": x})[0], expected.astype(np.float64).mean(0).astype("f4"))
    assert session.steps == steps


def plainly(model: onnx.ModelProto, options: SessionOptions, x: np.ndarray, steps: int) -> np.ndarray:
    """The outputs of each time-step in an ordinary session, as another language would step it: zeros at first."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [info.name for info in session.get_inputs()]
    assert names[0] == "x" and session.get_outputs()[0].name == "y"
    state = {name: np.zeros((len(x), 16, 8, 8), np.float32) for name in names[1:]}
    outputs = []
    for _ in range(steps):
        output, *potentials = session.run(None, {"x": x, **state})
        state = dict(zip(state, potentials, strict=True))
        outputs.append(output)
    return np.stack(outputs)


@pytest.mark.parametrize("options", [register, lambda options: options], ids=["kernel", "function body"])
def test_stock_onnxruntime_steps_it_with_zeros_at_first(source, options):
    x = dyadic(2, 3, 8, 8, seed=4)
    found = plainly(serial(source).model, options(SessionOptions()), x, 4)
    np.testing.assert_array_equal(found, stepwise(x, 4))


def test_a_stream_goes_on_where_it_stopped_until_it_is_reset(source):
    x = dyadic(2, 3, 8, 8, seed=5)
    session = SerialSession(serial(source).model)
    expected = stepwise(x, 6)
    for _ in range(2):
        found = [session.step(None, {"x": x})[0] for _ in range(6)]
        np.testing.assert_array_equal(found, expected)
        session.reset()
    # A run starts anew, whatever came before, and what it gave stays.
    session.step(None, {"x": -x})
    (kept,) = session.run_per_step(None, {"x": x}, steps=6)
    session.run(None, {"x": -x})
    np.testing.assert_array_equal(kept, expected)
    # Inputs need not lie in one piece, and are not written.
    turned = np.asfortranarray(x)
    np.testing.assert_array_equal(session.run_per_step(["y"], {"x": turned}, steps=6)[0], expected)
    session.step(None, {"x": -x})
    np.testing.assert_array_equal(x, dyadic(2, 3, 8, 8, seed=5))


def test_a_shift_of_its_own_and_a_bias_are_the_sources(source):
    """With an input of its own at T = L, one layer fires as its source quantises: no time for unevenness."""
    nodes = "b = Add (x, psi)" + qcfs("b", "a") + "y = Identity (a)"
    psi = dyadic(3, 1, 1, seed=6, scale=16)
    ann = network(nodes, weights={"psi": psi})
    x = dyadic(4, 3, 8, 8, seed=7)
    (expected,) = onnxruntime.InferenceSession(ann.SerializeToString()).run(None, {"x": x})
    np.testing.assert_array_equal(SerialSession(serial(ann).model).run(None, {"x": x})[0], expected)


def test_potentials_lie_in_the_layout_of_convolutions_with_the_same_bits():
    x = np.random.default_rng(8).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)
    weights = {"w": weight(16, 3, 3, 3), "v": 3 * weight(16, 16, 3, 3), "u": weight(1024, 5)}
    model = serial(network(RESIDUAL, outputs="float[N, 5] y", weights=weights)).model
    np.testing.assert_array_equal(
        SerialSession(model).run_per_step(None, {"x": x}, 8)[0], plainly(model, register(SessionOptions()), x, 8)
    )


def test_trains_of_different_neurons_lie_side_by_side():
    nodes = qcfs("x", "a") + qcfs("x", "b").replace("theta", "other") + "y = Concat <axis = 1> (a, b)"
    ann = network(nodes, outputs="float[N, 6, 8, 8] y", weights={"other": 4.0})
    x = dyadic(2, 3, 8, 8, seed=11)
    found = SerialSession(serial(ann).model).run(None, {"x": x})[0]
    np.testing.assert_array_equal(found, onnxruntime.InferenceSession(ann.SerializeToString()).run(None, {"x": x})[0])


def test_outputs_are_in_the_order_that_is_asked_for():
    nodes = qcfs("x", "a") + "y = Neg (a) z = Add (a, a)"
    session = SerialSession(serial(network(nodes, outputs="float[N, 3, 8, 8] y, float[N, 3, 8, 8] z")).model)
    x = {"x": dyadic(2, 3, 8, 8)}
    y, z = session.run(None, x)
    np.testing.assert_array_equal(session.run(["z", "y", "z"], x), [z, y, z])
    assert "no output 'w'; the network has y, z" in refusal_of(session.run, ["y", "w"], x)


def test_an_input_may_be_a_number():
    nodes = qcfs("x", "a") + "y = Mul (a, k)"
    session = SerialSession(serial(network(nodes, inputs="float[N, 3, 8, 8] x, float k")).model)
    x = dyadic(2, 3, 8, 8)
    once, twice = (session.run(None, {"x": x, "k": np.float32(k)})[0] for k in (1, 2))
    assert once.any() and np.array_equal(twice, 2 * once)


def test_potentials_have_the_shape_that_the_inputs_tell():
    ann = network(qcfs("x", "a") + "y = Neg (a)", inputs="float[N, 3, H, W] x", outputs="float[N, 3, H, W] y")
    session = SerialSession(serial(ann).model)
    assert session.run(None, {"x": dyadic(2, 3, 8, 6)})[0].shape == (2, 3, 8, 6)
    for info in (*ann.graph.input, *ann.graph.output):
        for dim in info.type.tensor_type.shape.dim[2:]:
            dim.ClearField("dim_param")
    session = SerialSession(serial(ann).model)
    told = refusal_of(session.run, None, {"x": dyadic(2, 3, 8, 6)})
    assert "['N', 3, None, None], does not follow" in told and "fixed sizes" in told
    nodes = "r = Reshape (x, shape)" + qcfs("r", "a") + "y = Neg (a)"
    ann = network(nodes, inputs="float[N, 3, 8, 8] x, int64[K] shape", outputs="float[N, 3, H] y")
    told = refusal_of(serial, ann)
    assert "'a_code': how many axes its input has is not known; modes 'parallel' and 'folded' convert it" in told


def test_in_float16_inputs_and_outputs_stay_float32(source):
    session = SerialSession(serial(source, precision="float16").model)
    assert [info.type for info in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float)"] * 2
    x = dyadic(2, 3, 8, 8, seed=9)
    (found,) = session.run_per_step(None, {"x": x})
    np.testing.assert_array_equal(found, stepwise(x, 4))


def test_evaluate_runs_serial_networks(source):
    x = dyadic(8, 3, 8, 8, seed=10)
    labels = stepwise(x, 4).mean(0).argmax(1)
    result = evaluate(source, {"x": x, "labels": labels}, steps=[np.int64(4)], mode="serial").summary()
    json.dumps(result)
    assert result["rows"][0]["mode"] == "serial" and result["rows"][0]["top1"] == 1


POOLED = f"{qcfs('x', 'a')} p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a) {qcfs('p', 'y')}"
SOFTMAX = f"{qcfs('x', 'a')} y = Softmax (a)"


@pytest.mark.parametrize(
    "nodes, told",
    [
        (POOLED, "MaxPool 'p' takes a maximum over spikes"),
        (SOFTMAX, "Softmax 'y' needs the temporal mean of 'a'"),
        (f"{qcfs('x', 'a')} g = Gelu (a) y = Neg (g)", "activation 'g' needs the temporal mean of 'a': GELU has no"),
    ],
)
def test_what_one_time_step_cannot_do_is_refused(nodes, told):
    message = refusal(network(nodes, outputs="float[N, 3, H, W] y"))
    assert "mode 'serial' cannot take" in message and told in message and "'parallel' and 'folded'" in message


def test_a_calibrated_network_is_refused_for_what_the_calibration_left():
    told = refusal(network("a = Relu (x) g = Gelu (a) y = Neg (g)"), steps=4, calibration="random", method="mse")
    assert "activation 'g/analog' needs the temporal mean of 'a': Gelu does not ascend throughout" in told
    assert "calibration=" not in told


def test_an_activation_of_a_calibrated_network_has_the_name_that_it_had():
    told = refusal(network("a = Relu (x) g = Tanh (a) y = Neg (g)"), steps=4, calibration="random", method="mse")
    assert "activation 'g' needs the temporal mean of 'a': its thresholds are not evenly spaced" in told


def test_activations_of_different_levels_need_steps():
    other = qcfs("a", "y").replace(", count)", ", eight)")
    ann = network(qcfs("x", "a") + other, weights={"eight": 8.0})
    assert "have 4 and 8 levels" in refusal(ann) and "`steps=`" in refusal(ann)
    assert SerialSession(serial(ann, steps=4).model).steps == 4


def test_steps_may_be_a_number_of_numpys(source):
    assert SerialSession(serial(source, steps=np.int64(3)).model).steps == 3


def test_uneven_thresholds_have_no_soft_reset():
    nodes = """
        u = Unsqueeze (x, last) r = GreaterOrEqual (u, tau) f = Cast <to = 1> (r)
        s = ReduceSum <keepdims = 0> (f, last) y = Mul (s, amplitude)
    """
    weights = {"last": np.array([-1]), "tau": np.array([0.5, 1, 4], np.float32), "amplitude": 0.5}
    ann = network(nodes, weights=weights)
    assert inspect(ann)["counts"]["converted"] == 1
    assert "not evenly spaced, and a soft reset" in refusal(ann)


def test_a_serial_network_is_not_compared_with_its_source(source, tmp_path):
    onnx.save(source, tmp_path / "ann.onnx")
    serial(tmp_path / "ann.onnx", tmp_path / "snn.onnx")
    message = refusal_of(verify, tmp_path / "ann.onnx", tmp_path / "snn.onnx")
    assert "serial" in message and "evaluate" in message


def test_faults_of_a_run_are_told(source):
    session = SerialSession(serial(source).model)
    assert "input 'x' is missing" in refusal_of(session.run, None, {})
    session.step(None, {"x": dyadic(2, 3, 8, 8)})
    assert "reset()" in refusal_of(session.step, None, {"x": dyadic(3, 3, 8, 8)})
    assert "0 is not a number of time-steps" in refusal_of(session.run, None, {"x": dyadic(2, 3, 8, 8)}, 0)
    assert "float64; the network takes float32" in refusal_of(session.run, None, {"x": np.zeros((2, 3, 8, 8))})
    assert "onnxruntime cannot run" in refusal_of(session.run, None, {"x": dyadic(2, 4, 8, 8)})
    assert "not a serial network" in refusal_of(SerialSession, rewrite(source).model)


def test_shapes_are_those_of_one_step():
    nodes = f"""
        {qcfs("x", "a")}
        s = Shape (a) h = Slice (s, from, to) b = Resize (x, , , s) c = Add (a, b)
        f = ConstantOfShape (h) y = Add (c, f)
    """
    model = network(nodes, weights={"from": np.array([2]), "to": np.array([4])})
    x = {"x": np.tile(dyadic(2, 3, 1, 1), (1, 1, 8, 8))}
    (found,) = SerialSession(serial(model).model).run(None, x)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, x)
    np.testing.assert_array_equal(found, expected)


def test_channels_of_unequal_amplitudes_side_by_side():
    weights = {"theta": np.array([1, 2, 4], np.float32).reshape(3, 1, 1), "w": dyadic(5, 6, 1, 1)}
    nodes = f"""
        {qcfs("x", "a")} {qcfs("x", "b")}
        c = Concat <axis = 1> (a, b)
        y = Conv (c, w)
    """
    model = network(nodes, outputs="float[N, 5, 8, 8] y", weights=weights)
    x = {"x": np.tile(dyadic(2, 3, 1, 1), (1, 1, 8, 8))}
    # Each neuron has the same input at each step, so that what is uneven is its remainder alone.
    (found,) = SerialSession(serial(model).model).run(None, x)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, x)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "key, value",
    [("potentials", "?"), ("potentials", "[1]"), ("potentials", '{"a": "b"}'), ("steps", "null"), ("steps", None)],
)
def test_a_record_that_is_not_that_of_rewrite_is_told(source, key, value):
    model = serial(source).model
    for index, entry in reversed(list(enumerate(model.metadata_props))):
        if entry.key == f"pconv_onnx.{key}":
            del model.metadata_props[index]
    if value is not None:
        model.metadata_props.add(key=f"pconv_onnx.{key}", value=value)
    assert "not a serial network as rewrite writes it" in refusal_of(SerialSession, model)


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_a_potential_that_no_memory_has_room_for_is_one_line(source, size):
    model = rewrite(source, mode="serial").model
    for info in model.graph.input[1:]:
        info.type.tensor_type.shape.dim[1].dim_value = size
    session = SerialSession(model)
    (info,) = session.get_inputs()
    x = np.zeros([entry if isinstance(entry, int) else 2 for entry in info.shape], np.float32)
    assert "there is no room for" in refusal_of(session.run, None, {info.name: x})
