"""From a ReLU network to a quantised one, and on to a spiking one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from harness import onnxruntime_of
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import calibrate, evaluate, inspect, rewrite, session, verify
from pconv_onnx.basics.choices import CORRECTING, METHODS
from pconv_onnx.calibration import calibrating, sweep

# A stem with BatchNormalization, a residual block, a strided convolution whose output two activations share, a head.
NODES = """
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    n = BatchNormalization (a, scale, shift, mean, variance)
    r = Relu (n)
    b = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
    s = Relu (b)
    c = Conv <pads = [1, 1, 1, 1]> (s, w3)
    t = Add (c, r)
    u = Relu (t)
    d = Conv <strides = [2, 2], kernel_shape = [3, 3]> (u, w4, b4)
    v = Relu (d)
    e = Clip (d, zero, six)
    f = Add (v, e)
    g = GlobalAveragePool (f)
    h = Flatten (g)
    i = Gemm <transB = 1> (h, w5, b5)
    j = Relu (i)
    y = Gemm (j, w6)
"""
WEIGHTS = {
    "w1": 2 * weight(8, 3, 3, 3), "scale": np.linspace(0.5, 2, 8, dtype=np.float32),
    "shift": np.linspace(-1, 1, 8, dtype=np.float32), "mean": np.zeros(8, np.float32),
    "variance": np.full(8, 2, np.float32), "w2": 2 * weight(8, 8, 3, 3, seed=1), "b2": weight(1, 8, seed=2)[0],
    "w3": weight(8, 8, 3, 3, seed=3), "w4": 2 * weight(12, 8, 3, 3, seed=4), "b4": weight(1, 12, seed=5)[0],
    "w5": 2 * weight(16, 12, seed=6), "b5": weight(1, 16, seed=7)[0], "w6": weight(16, 5, seed=8), "six": 1.5,
}  # fmt: skip


def source(nodes: str = NODES, outputs: str = "float[N, 5] y", **weights) -> onnx.ModelProto:
    used = {
        name: value
        for name, value in (WEIGHTS | weights).items()
        if name in nodes.replace("(", " ").replace(",", " ").replace(")", " ").split()
    }
    return network(nodes, outputs=outputs, weights=used)


def data(count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)}


def error(model: onnx.ModelProto, ann: onnx.ModelProto, x: np.ndarray) -> float:
    expected, found = (onnxruntime_of(m)(x) for m in (ann, model))
    return float(np.square(found - expected).mean() / np.square(expected).mean())


@pytest.fixture
def all_seen(monkeypatch):
    """No sample is held out."""
    monkeypatch.setattr(calibrating, "held_out", lambda samples: None)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_a_network_that_is_converted_losslessly(method):
    ann = source()
    result = calibrate(ann, data(), steps=4, method=method)
    onnx.checker.check_model(result.model, full_check=True)
    rows = inspect(result.model)["activations"]
    assert [(row["encoding"], row["levels"], row["status"]) for row in rows] == [("qcfs", 4, "converted")] * 6
    assert [info.name for info in result.model.graph.output] == ["y"]
    x = data(16, seed=1)
    for mode in ("parallel", "folded"):
        snn = rewrite(result.model, mode=mode).model
        verification = verify(result.model, snn, x)
        assert verification.passed and len(verification.layers) == 6
    summary = result.summary()
    assert [row["channels"] for row in summary["activations"]] == [8, 8, 8, 12, 12, 16]
    assert summary["corrected_layers"] == (6 if method in CORRECTING else 0)
    assert (summary["steps"], summary["method"], summary["samples"], summary["random"]) == (4, method, 64, False)


def test_errors_fall_with_time_steps_and_with_better_methods():
    ann, test = source(), data(200, seed=1)["x"]
    errors = {
        (method, steps): error(calibrate(ann, data(256), steps=steps, method=method).model, ann, test)
        for method in ("max", "fit", "refit")
        for steps in (2, 8, 32)
    }
    for method in ("max", "fit", "refit"):
        assert errors[method, 2] > errors[method, 8] > errors[method, 32]
    for steps in (2, 8):
        assert errors["refit", steps] < errors["fit", steps] < errors["max", steps]
    assert errors["refit", 32] < 1e-2


def test_neither_the_order_of_samples_nor_their_parts_matter(tmp_path, all_seen):
    """But for a code that is another because a sum rounds otherwise."""
    ann, x = source(), data(100)["x"]
    order = np.random.default_rng(3).permutation(100)
    np.savez(tmp_path / "a.npz", x=x[order[:30]])
    np.savez(tmp_path / "b.npz", x=x[order[30:]])
    whole, parts = (calibrate(ann, given, steps=8) for given in ({"x": x}, tmp_path))
    for left, right in zip(whole.found.activations, parts.found.activations, strict=True):
        np.testing.assert_allclose(left.staircase.threshold, right.staircase.threshold, rtol=2e-2)
    test = data(50, seed=1)["x"]
    first, second = (onnxruntime_of(found.model)(test) for found in (whole, parts))
    assert np.square(first - second).mean() < 1e-3 * np.square(first).mean()


def test_a_mean_error_counts_where_no_layer_takes_it_back():
    nodes = "a = Conv (x, w) r = Relu (a) e = Elu (r) y = GlobalAveragePool (e)"
    ann = source(nodes, "float[N, 4, 1, 1] y", w=2 * weight(4, 3, 3, 3))
    fit, refit = (calibrate(ann, data(300), steps=8, method=method).found.errors for method in ("fit", "refit"))
    assert refit[0] == pytest.approx(fit[0], rel=1e-3)


def test_a_mean_error_counts_where_the_layer_that_reads_it_is_not_corrected(monkeypatch):
    """Too wide, or settled by an earlier segment that goes through it."""
    wide = "a = Conv (x, w) r = Relu (a) b = Conv (r, v) s = Relu (b) y = GlobalAveragePool (s)"
    shared = "a = Conv (x, w) r = Relu (a) b = Conv (r, v) c = Conv (b, u) s = Relu (c) t = Relu (b) y = Sum (s, t)"
    weights = {"w": 2 * weight(4, 3, 1, 1), "v": weight(4, 4, 3, 3, seed=1), "u": weight(4, 4, 1, 1, seed=2)}
    for nodes, most in ((wide, 20), (shared, 4608)):
        monkeypatch.setattr(sweep, "MOST_INPUTS", most)
        ann = source(nodes, "float[N, 4, m, n] y", **weights)
        fit, refit = (calibrate(ann, data(300), steps=8, method=method) for method in ("fit", "refit"))
        assert "b" not in refit.found.corrections
        assert refit.found.errors[0] == pytest.approx(fit.found.errors[0], rel=1e-3)
        assert refit.found.uncorrected == (["b"] if nodes == wide else [])


def test_a_layer_that_two_activations_share_is_corrected_once():
    result = calibrate(source(), data(), steps=4)
    assert sorted(result.found.corrections) == ["a", "b", "c", "d", "i", "y"]
    corrected = {
        node.output[0]: list(node.input) for node in result.model.graph.node if node.op_type in ("Conv", "Gemm")
    }
    assert corrected["y"] == ["j", "w6.corrected", "y.bias.corrected"]
    names = {tensor.name for tensor in result.model.graph.initializer}
    assert not names & {"w1", "w2", "w3", "w4", "w5", "w6", "b2", "b4", "b5"}


def test_weights_in_constant_nodes_are_corrected_as_initializers_are():
    ann, other = source(), source()
    weights = list(other.graph.initializer)
    nodes = [onnx.helper.make_node("Constant", [], [value.name], value=value) for value in weights]
    nodes += other.graph.node
    for field in (other.graph.initializer, other.graph.node):
        del field[:]
    other.graph.node.extend(nodes)
    expected, result = (calibrate(model, data(), steps=4) for model in (ann, other))
    assert list(result.found.corrections) == list(expected.found.corrections)
    outputs = [onnxruntime_of(found.model)(data(8, seed=1)["x"]) for found in (expected, result)]
    np.testing.assert_array_equal(*outputs)
    left = {node.output[0] for node in result.model.graph.node if node.op_type == "Constant"}
    assert left == {"scale", "shift", "mean", "variance"}


def test_weights_that_others_use_too_stay_for_them():
    conv = "Conv <pads = [1, 1, 1, 1]> (x, w)"
    nodes = f"a = {conv} r = Relu (a) b = {conv} y = Concat <axis = 1> (r, b)"
    ann = source(nodes, "float[N, 6, 8, 8] y", w=weight(3, 3, 3, 3))
    result = calibrate(ann, data(), steps=4)
    assert {"w", "w.corrected"} <= {tensor.name for tensor in result.model.graph.initializer}
    before, after = (onnxruntime_of(model)(data(4, seed=1)["x"]) for model in (ann, result.model))
    np.testing.assert_array_equal(before[:, 3:], after[:, 3:])


def test_channels_that_never_fire_stay_silent_and_are_told():
    nodes = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu (a) y = GlobalAveragePool (r)"
    weights = {"w": weight(4, 3, 3, 3), "b": np.array([0, -100, 0, -100], np.float32)}
    for method in METHODS:
        result = calibrate(source(nodes, "float[N, 4, 1, 1] y", **weights), data(), steps=4, method=method)
        (row,) = result.summary()["activations"]
        assert (row["channels"], row["silent_channels"]) == (4, 2)
        snns = [rewrite(result.model, mode=mode, steps=steps) for mode in ("parallel", "folded") for steps in (4, 3)]
        assert all(snn.summary()["counts"]["converted"] == 1 for snn in snns)
        largest = np.finfo(np.float32).max / 30
        for model in (result.model, *(snn.model for snn in snns)):
            for scale in (np.float32(1e3), largest):
                found = session(model).run(None, {"x": np.clip(scale * data(4)["x"], -largest, largest)})[0]
                assert (found[:, [1, 3]] == 0).all() and (found[:, [0, 2]] > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_activations_does_not_matter(method):
    nodes = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) y = Conv (r, v)"
    w, v = 2 * weight(4, 3, 3, 3), weight(5, 4, 3, 3, seed=1)
    scale = np.float32(2**-24)
    plain, small = (
        calibrate(source(nodes, "float[N, 5, 6, 6] y", w=first, v=v), data(), steps=4, method=method)
        for first in (w, scale * w)
    )
    (row,) = small.summary()["activations"]
    assert row["silent_channels"] == 0
    expected, found = (result.found.activations[0].staircase.threshold for result in (plain, small))
    np.testing.assert_allclose(found, scale * expected, rtol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("operator", ["Relu", "Sigmoid"])
def test_activations_that_never_fire_are_told(operator):
    nodes = f"a = Conv (x, w, b) s = {operator} (a) c = Conv (x, v) r = Relu (c) y = Sum (s, r)"
    weights = {"w": 0 * weight(4, 3, 1, 1), "b": np.full(4, -2, np.float32), "v": weight(4, 3, 1, 1, seed=1)}
    # Around zero what is constant is a level; with an offset it is that.
    result = calibrate(source(nodes, "float[N, 4, 8, 8] y", **weights), data(), steps=4, signed=operator == "Sigmoid")
    assert rewrite(result.model).summary()["counts"]["converted"] == 2
    summary = result.summary()
    assert summary["silent_activations"] == ["s"]
    assert [row["threshold"] is None for row in summary["activations"]] == [True, False]
    lines = str(result).splitlines()
    assert [line.split(": ")[1].split()[:4] for line in lines if line.startswith("silent:")] == [
        ["no", "channel", "of", "s"]
    ]


def test_channels_that_are_constant_fire():
    nodes = "a = Conv (x, w, b) r = Relu (a) c = Conv <pads = [1, 1, 1, 1]> (r, v) y = Relu (c)"
    ann = source(
        nodes, "float[N, 5, 8, 8] y",
        w=weight(4, 3, 1, 1) * np.reshape([0, 1, 1, 1], (4, 1, 1, 1)).astype(np.float32),
        b=np.array([3, 0, 0, 0], np.float32), v=weight(5, 4, 3, 3, seed=1),
    )  # fmt: skip
    for method in ("refit", "fit"):
        result = calibrate(ann, data(), steps=4, method=method)
        assert result.summary()["activations"][0]["silent_channels"] == 0
        staircase = result.found.activations[0].staircase
        code = staircase.codes(np.full((4, 1), 3, np.float32))[0, 0]
        assert code * staircase.constants()[2][0] == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("given", [np.zeros((8, 3, 8, 8)), np.ones((8, 3, 8, 8)), np.ones((1, 3, 8, 8))])
@pytest.mark.parametrize("method", METHODS)
def test_data_that_say_little_do_no_harm(given, method):
    result = calibrate(source(), {"x": given.astype(np.float32)}, steps=4, method=method)
    found = session(rewrite(result.model).model).run(None, data(8, seed=1))[0]
    assert np.isfinite(found).all()


OTHERS = {
    "LeakyReLU": "f = LeakyRelu <alpha = 0.1> (a)",
    "falling LeakyReLU": "f = LeakyRelu <alpha = -0.1> (a)",
    "PReLU": "f = PRelu (a, slope)",
    "PReLU of each pixel": "f = PRelu (a, slopes)",
    "ELU": "f = Elu (a)",
    "HardSwish": "f = HardSwish (a)",
    "HardSigmoid": "f = HardSigmoid (a)",
    "GELU": "f = Gelu (a)",
    "Sigmoid": "f = Sigmoid (a)",
    "Tanh": "f = Tanh (a)",
    "Softsign": "f = Softsign (a)",
    "hard Tanh": "f = Clip (a, minus, one)",
    "SiLU, written out": "g = Sigmoid (a) f = Mul (a, g)",
    "GELU by tanh, written out": """
        p = Mul (a, a) q = Mul (p, a) r = Mul (q, cubic) s = Add (a, r) t = Mul (s, scale) u = Tanh (t) g = Add (u, one)
        h = Mul (a, half) f = Mul (h, g)
    """,
}


def in_turn(cases: Iterable[str], methods: Sequence[str]) -> list[Any]:
    """Each case with each method; but for one method a case, which takes turns, they are slow: each calibrates."""
    return [
        pytest.param(case, method, marks=() if at % len(methods) == turn else pytest.mark.slow)
        for at, case in enumerate(cases)
        for turn, method in enumerate(methods)
    ]


def between_layers(nodes: str) -> onnx.ModelProto:
    """An activation from `a` to `f`, between two convolutions."""
    weights = {"w": 2 * weight(4, 3, 3, 3), "v": weight(5, 4, 3, 3, seed=1), "minus": np.float32(-1)}
    weights |= {"cubic": np.float32(0.044715), "scale": np.float32(0.7978846)}
    slopes = np.array([0, 0.1, 0.2, 1], np.float32).reshape(4, 1, 1)
    each = np.broadcast_to(slopes, (4, 8, 8)).copy()
    nodes = f"a = Conv <pads = [1, 1, 1, 1]> (x, w) {nodes} y = Conv (f, v)"
    return source(nodes, "float[N, 5, 6, 6] y", **weights, slope=slopes, slopes=each)


@pytest.mark.parametrize("case, method", in_turn(OTHERS, ["refit", "mse", "da-qcfs"]))
def test_the_output_of_any_other_activation_is_quantised(case, method):
    ann = between_layers(OTHERS[case])
    result = calibrate(ann, data(200), steps=32, method=method)
    (row,) = result.summary()["activations"]
    assert row["status"] == "calibrated"
    stays = case in ("HardSwish", "GELU", "falling LeakyReLU", "PReLU of each pixel") or "written out" in case
    assert row["reason"].endswith("stays, on the temporal mean, and a neuron encodes its output") == stays
    test = data(50, seed=1)
    # The best uniform quantiser of 32 levels leaves 0.0035 of the power of a Gaussian (J. Max, 1960).
    assert error(result.model, ann, test["x"]) < (3.5e-3 if method == "refit" else 5e-3)
    for mode in ("parallel", "folded"):
        snn = rewrite(result.model, mode=mode)
        assert snn.summary()["counts"] == {"converted": 1, "needs_calibration": int(stays), "refused": 0}
        verification = verify(result.model, snn.model, test)
        assert verification.differences == [] and [layer.exact for layer in verification.layers] == [True]
        found, expected = session(snn.model).run(None, test)[0], onnxruntime_of(result.model)(test["x"])
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("case, method", in_turn([*OTHERS, "ReLU"], ["refit", "mse", "da-qcfs", "percentile"]))
def test_in_radix_zero_is_a_level_and_errors_are_those_of_as_many_levels(case, method):
    ann = between_layers((OTHERS | {"ReLU": "f = Relu (a)"})[case])
    radix, rate = (
        calibrate(ann, data(200), steps=steps, coding=coding, method=method)
        for coding, steps in (("radix", 6), ("rate", 63))
    )
    assert radix.settings.levels == rate.settings.levels == 63
    test = data(50, seed=1)["x"]
    assert error(radix.model, ann, test) < 1.3 * error(rate.model, ann, test)
    if case == "ReLU":
        assert radix.model == rate.model
        return
    (entry,) = radix.found.activations
    level = entry.staircase.constants()[2]
    if case not in ("Sigmoid", "HardSigmoid"):
        assert 0 <= entry.staircase.zero < entry.staircase.steps
        assert (entry.staircase.zero == 0) == (case == "falling LeakyReLU")
        assert entry.staircase.steps - entry.staircase.zero <= 63 >= entry.staircase.zero
        at_zero = np.float32(entry.staircase.zero) * level + entry.offset
        assert (at_zero == 0).all()
    # What onnxruntime gives is these levels, zero in bits among them.
    model = onnx.shape_inference.infer_shapes(radix.model)
    model.graph.output.append(next(info for info in model.graph.value_info if info.name == "f"))
    found = session(model).run(["f"], {"x": np.concatenate([test, np.zeros_like(test[:1])])})[0]
    codes = np.arange(entry.staircase.steps + 1, dtype=np.float32)
    for channel in range(4):
        levels = codes * np.resize(level, 4)[channel] + np.resize(entry.offset, 4)[channel]
        assert np.isin(found[:, channel], levels).all()
    if case not in ("Sigmoid", "HardSigmoid"):
        assert (found[-1] == 0).all()


@pytest.mark.parametrize("operator", ["Gelu", "Tanh"])
def test_silent_channels_are_zero_where_others_are_signed(operator):
    nodes = f"a = Conv (x, w) s = {operator} (a) y = Mul (s, two)"
    w = weight(4, 3, 1, 1) * np.reshape([0, 1, 1, 0], (4, 1, 1, 1)).astype(np.float32)
    ann = source(nodes, "float[N, 4, 8, 8] y", w=w, two=np.float32(2))
    for method in ("refit", "mse"):
        result = calibrate(ann, data(), steps=4, coding="radix", method=method)
        (row,) = result.summary()["activations"]
        assert row["silent_channels"] == 2
        found = onnxruntime_of(result.model)(data(8, seed=1)["x"])
        assert (found[:, [0, 3]] == 0).all() and found[:, [1, 2]].min() < 0 < found[:, [1, 2]].max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operator", ["Relu", "Gelu", "Tanh"])
def test_sixteen_steps_have_as_many_levels_as_there_are(operator, method):
    ann = source(f"a = Conv (x, w) f = {operator} (a) y = Conv (f, v)", "float[N, 5, 6, 6] y",
                 w=weight(4, 3, 3, 3), v=weight(5, 4, 1, 1, seed=1))  # fmt: skip
    result = calibrate(ann, data(), steps=16, coding="radix", method=method)
    (entry,) = result.found.activations
    assert result.settings.levels == 65535 and entry.thresholds is None
    assert 20000 < entry.staircase.steps <= 65535
    (row,) = result.summary()["activations"]
    told = "Tanh has more levels than thresholds are written for: it stays, on the temporal mean, and"
    assert operator != "Tanh" or row["reason"].startswith(told)
    assert error(result.model, ann, data()["x"]) < (1e-2 if "percentile" in method else 1e-5)


def test_levels_that_there_are_not_are_told():
    ann = source()
    for steps in (0, 17, 256):
        told = refusal_of(calibrate, ann, data(), steps=steps, coding="radix")
        assert told.startswith(f"{steps} is not a number of time-steps to calibrate to in coding 'radix'")
        assert told.endswith("choose 1 to 16")
    assert "choose 1 to 256" in refusal_of(calibrate, ann, data(), steps=257)
    assert "there is no coding 'binary'" in refusal_of(calibrate, ann, data(), steps=4, coding="binary")


def test_an_activation_that_stays_is_told_of_once_it_is_calibrated():
    nodes = "a = Conv <pads = [1, 1, 1, 1]> (x, w) f = Gelu (a) b = Conv (f, v) g = Gelu (b) y = Conv (g, u)"
    ann = source(nodes, "float[N, 5, 6, 6] y", w=weight(4, 3, 3, 3), v=weight(5, 4, 3, 3, seed=1), u=weight(5, 5, 1, 1))
    result = rewrite(ann, steps=4, calibration=data())
    summary = result.summary()
    stays = [row for row in summary["activations"] if row["status"] == "refused"]
    assert [row["reason"] for row in stays] == 2 * [
        "Gelu does not ascend throughout: it stays, on the temporal mean, and a neuron encodes its output"
    ]
    # The first has no neuron before it.
    assert summary["hybrid"] == [stays[1]["name"]]
    told = "stays analog: f and 1 more: Gelu does not ascend throughout: it stays, on the temporal mean, and a neuron"
    assert any(line.startswith(told) for line in str(result).splitlines())


def test_an_activation_that_stays_is_told_of_in_the_file_as_well():
    """Without advice to calibrate, which was done; one that was not is advised so."""
    nodes = "a = Conv <pads = [1, 1, 1, 1]> (x, w) f = Gelu (a) b = Conv (f, v) r = Relu (b) y = Conv (r, u)"
    ann = source(nodes, "float[N, 5, 6, 6] y", w=weight(4, 3, 3, 3), v=weight(5, 4, 3, 3, seed=1), u=weight(5, 5, 1, 1))
    before, after = (inspect(model)["activations"] for model in (ann, calibrate(ann, data(), steps=4).model))
    assert all("`calibration=" in row["reason"] for row in before)
    assert [row["reason"] for row in after] == [
        "it has no levels of its own and stays, on the temporal mean; the neuron behind it encodes its output",
        *["", ""],
    ]


@pytest.mark.parametrize("activation", ["Relu", "Gelu", "Tanh", "PRelu"])
@pytest.mark.parametrize("name", ["/layer1/layer1.0/relu/Relu", "node_relu", "relu.0", ""])
def test_names_are_those_of_the_source(name, activation):
    """So that what `inspect` lists of a network can be named to `rewrite` with a calibration."""
    ann = source(f"a = Conv (x, w) y = {activation} (a{', slope' * (activation == 'PRelu')})", "float[N, 4, 6, 6] y",
                 w=weight(4, 3, 3, 3), slope=np.float32(-0.5))  # fmt: skip
    ann.graph.node[1].name = name
    (row,) = inspect(ann)["activations"]
    result = rewrite(ann, steps=4, calibration="random", method="mse", include=row["name"])
    assert [*result.plan.neurons] == [row["name"]]
    stays = [activation.name for activation in result.plan.activations if activation.name not in result.plan.neurons]
    assert stays == ([f"{row['name']}/analog"] if activation in ("Gelu", "PRelu") else [])


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "Gelu"])
@pytest.mark.parametrize("method", ["refit", "mse"])
def test_the_error_that_is_told_is_that_of_what_is_written(operator, method, all_seen):
    ann = source(f"a = Conv (x, w, b) y = {operator} (a)", "float[N, 4, 6, 6] y",
                 w=2 * weight(4, 3, 3, 3), b=np.linspace(-1, 1, 4, dtype=np.float32))  # fmt: skip
    result = calibrate(ann, data(), steps=4, method=method)
    (row,) = result.summary()["activations"]
    assert row["relative_error"] == pytest.approx(error(result.model, ann, data()["x"]), rel=1e-3)


def test_channels_behind_a_matmul_come_last():
    nodes = "a = MatMul (x, w) f = Gelu (a) y = MatMul (f, v)"
    model = network(
        nodes, inputs="float[N, 7, 6] x", outputs="float[N, 7, 5] y",
        weights={"w": 3 * weight(6, 16), "v": weight(16, 5, seed=1)},
    )  # fmt: skip
    x = np.random.default_rng(0).normal(0, 1, (100, 7, 6)).astype(np.float32)
    result = calibrate(model, {"x": x}, steps=16)
    (row,) = result.summary()["activations"]
    assert row["channels"] == 16
    assert error(result.model, model, x) < 1e-2
    assert verify(result.model, rewrite(result.model).model, {"x": x[:20]}).passed


def test_activations_that_are_not_calibrated_are_listed():
    nodes = "a = Conv (x, w) r = Relu (a) s = Conv (r, v) p = PRelu (r, s) b = Conv (p, v) y = Relu (b)"
    ann = source(nodes, "float[N, 4, 8, 8] y", w=weight(4, 3, 1, 1), v=weight(4, 4, 1, 1, seed=1))
    rows = calibrate(ann, data(), steps=4, readouts="spiking").summary()["activations"]
    assert [(row["name"], row["status"]) for row in rows] == [
        ("r", "calibrated"), ("y", "calibrated"), ("p", "needs-calibration"),
    ]  # fmt: skip
    assert rows[2]["reason"] == "it depends on 's' as well, which is computed; a constant can be calibrated"


def test_an_activation_that_is_another_for_each_sample_is_listed():
    nodes = "a = Conv (x, w) p = PRelu (a, slopes) b = Conv (p, v) y = Relu (b)"
    weights = {"w": weight(4, 3, 1, 1), "v": weight(4, 4, 1, 1, seed=1)}
    slopes = np.linspace(0, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1)
    shapes = {"inputs": "float[8, 3, 8, 8] x", "outputs": "float[8, 4, 8, 8] y"}
    result = calibrate(network(nodes, **shapes, weights={**weights, "slopes": slopes}), data(), steps=4)
    assert [(activation.name, reason) for activation, reason in result.left] == [
        ("p", "its constant 'slopes' of shape [8, 1, 1, 1] is not the same for all samples")
    ]
    assert rewrite(result.model).summary()["counts"]["converted"] == 1


def test_what_is_quantised_already_stays():
    nodes = "r = Relu (x) q = QuantizeLinear (r, s, z) d = DequantizeLinear (q, s, z) a = Conv (d, w) y = Relu (a)"
    ann = source(nodes, "float[N, 4, 8, 8] y", w=weight(4, 3, 1, 1), s=np.float32(0.1), z=np.array(0, np.uint8))
    result = rewrite(ann, steps=4, calibration=data())
    assert [row["encoding"] for row in result.summary()["activations"]] == ["qdq", "qcfs"]
    assert verify(ann, result.model, data(8)).differences == []


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_rewrite_does_both_at_once(mode):
    ann = source()
    result = rewrite(ann, steps=8, mode=mode, calibration=data(256))
    summary = result.summary()
    assert summary["counts"]["converted"] == 6
    assert summary["calibration"]["method"] == "refit"
    verification = verify(ann, result.model, data(100, seed=1))
    assert verification.differences == []
    assert [layer.count_mismatch_rate for layer in verification.layers] == [0] * 6
    x = data(100, seed=1)
    expected, found = onnxruntime_of(ann)(x["x"]), session(result.model).run(["y"], x)[0]
    assert np.square(found - expected).mean() < 0.05 * np.square(expected).mean()


@pytest.mark.parametrize("activation", ["Gelu", "Tanh"])
def test_the_outputs_of_both_at_once_are_verified_where_neurons_have_an_offset(activation):
    nodes = f"a = Conv (x, w) f = {activation} (a) b = Conv (f, v) r = Relu (b) y = Conv (r, u)"
    ann = source(nodes, "float[N, 5, 4, 4] y", w=weight(4, 3, 3, 3), v=weight(5, 4, 3, 3, seed=1), u=weight(5, 5, 1, 1))
    verification = verify(ann, rewrite(ann, steps=8, calibration=data()).model, data(8, seed=1))
    assert verification.differences == []
    assert [(layer.calibrated, layer.count_mismatch_rate) for layer in verification.layers] == [(True, 0)] * 2


def test_random_data_are_told():
    result = rewrite(source(), steps=4, calibration="random")
    assert result.summary()["calibration"]["random"]


def test_faults_are_told():
    ann = source()
    assert "0 is not a number of time-steps" in refusal_of(calibrate, ann, data(), steps=0)
    assert "there is no method 'best'" in refusal_of(calibrate, ann, data(), steps=4, method="best")
    assert "calibration needs a number of time-steps" in refusal_of(rewrite, ann, calibration=data())
    assert "there is no calibration for the method 'fit'" in refusal_of(rewrite, ann, steps=4, method="fit")
    for given in ({"calibration": data()}, {"method": "fit"}):
        assert "without time-steps would change nothing" in refusal_of(evaluate, ann, data(), **given)
    assert "has no array 'x'" in refusal_of(calibrate, ann, {"image": data()["x"]}, steps=4)
    wrong = {"x": data()["x"].astype(np.float64)}
    assert "is float64; the model takes float32" in refusal_of(calibrate, ann, wrong, steps=4)
    bad = data()
    bad["x"][3, 0, 0, 0] = np.nan
    assert "has a NaN or an infinity, first in sample 3" in refusal_of(calibrate, ann, bad, steps=4)
    nothing = network("s = Neg (x) y = PRelu (x, s)")
    told = refusal_of(calibrate, nothing, data(), steps=4)
    assert "nothing to calibrate in the model: 'y': it depends on 's' as well" in told
    assert "it has no activation" in refusal_of(calibrate, network("y = Neg (x)"), data(), steps=4)
    quantised = network(qcfs("x", "a") + qcfs("a", "y"))
    told = refusal_of(calibrate, quantised, data(), steps=4)
    assert "nothing to calibrate in the model: all of its activations (2) have levels of their own; pass" in told
    told = refusal_of(calibrate, rewrite(quantised).model, data(), steps=4)
    assert told == "the model is a spiking network already; pass the ANN that it was made from"
    two = network("s = Neg (x) a = PRelu (x, s) b = PRelu (a, s) y = PRelu (b, x)")
    told = refusal_of(calibrate, two, data(), steps=4)
    assert told == (
        "nothing to calibrate in the model: 3 activations ('a' first): it depends on 's' as well, which is computed; a "
        "constant can be calibrated"
    )
    computed = "l = ReduceMin (x) a = Conv (x, w) y = Clip (a, l, six)"
    model = source(computed, "float[N, 4, 8, 8] y", w=weight(4, 3, 1, 1))
    told = refusal_of(calibrate, model, data(), steps=4)
    assert "nothing to calibrate in the model: 'y': its bound 'l' is computed; a Clip with constant bounds" in told


@pytest.mark.parametrize("method", METHODS)
def test_activations_without_values_are_left_with_the_reason(method):
    constants = {"eight": np.array([8]), "nine": np.array([9]), "at1": np.array([1])}
    empty = network("a = Slice (x, eight, nine, at1) y = Relu (a)", outputs="float[N, K, 8, 8] y", weights=constants)
    told = "nothing to calibrate in the model: 'y': 'a' has shape [10, 0, 8, 8] for 10 samples: no values"
    assert refusal_of(calibrate, empty, data(), steps=4, method=method) == told
    assert refusal_of(rewrite, empty, calibration=data(), steps=4, method=method) == told


def test_others_than_those_without_values_are_calibrated():
    nodes = "a = Relu (x) b = Slice (a, eight, nine, at1) c = Relu (b) y = Relu (x)"
    constants = {"eight": np.array([8]), "nine": np.array([9]), "at1": np.array([1])}
    model = network(nodes, outputs="float[N, K, 8, 8] c, float[N, 3, 8, 8] y", weights=constants)
    rows = {row["name"]: row["reason"] for row in calibrate(model, data(), steps=4).summary()["activations"]}
    assert rows == {"a": "", "y": "", "c": "'b' has shape [10, 0, 8, 8] for 10 samples: no values"}


def test_a_layer_without_inputs_is_not_corrected():
    weights = {"w": np.zeros((0, 3), np.float32), "eight": np.array([8]), "nine": np.array([9]), "at1": np.array([1])}
    nodes = "b = Slice (x, eight, nine, at1) a = MatMul (b, w) y = Relu (a)"
    model = network(nodes, inputs="float[N, 5] x", outputs="float[N, 3] y", weights=weights)
    result = calibrate(model, {"x": np.ones((2, 5), np.float32)}, steps=4)
    assert not result.found.corrections
    assert result.summary()["silent_activations"] == ["y"]


POOLED = "a = Conv (x, w) r = Relu (a) p = MaxPool <kernel_shape = [2, 2]> (r) y = Conv (p, v)"
HYBRID = "a = Conv (x, w) r = Relu (a) b = Conv (r, v) y = Gelu (b)"


@pytest.mark.parametrize(
    ("nodes", "options", "told"),
    [
        (POOLED, {"mode": "serial"}, "MaxPool 'p' takes a maximum over spikes"),
        (HYBRID, {"mode": "serial"}, "activation 'y/analog' needs the temporal mean of 'b': Gelu does not ascend"),
        (HYBRID, {"strict": True}, "not all activations can be converted: 'y/analog': Gelu does not ascend"),
        (HYBRID, {"include": "s"}, "'s' matches no activation"),
        (HYBRID, {"exclude": "*"}, "in the model: 'r': excluded; 'y': no product reads it, only outputs"),
        (HYBRID, {"mode": "folded", "per_step_outputs": True}, "mode 'folded' has no time-steps to hand out"),
        (HYBRID, {"output": "nowhere/snn.onnx"}, "cannot write 'nowhere/snn.onnx': No such file or directory"),
    ],
)
def test_what_no_data_change_is_told_before_a_calibration(nodes, options, told):
    """Which would find a fault in these data."""
    ann = source(nodes, "float[N, M, H, W] y", w=weight(4, 3, 1, 1), v=weight(4, 4, 1, 1, seed=1))
    assert told in refusal_of(rewrite, ann, **{"steps": 4, "calibration": {"x": np.zeros(5)}, **options})


@pytest.mark.parametrize(
    ("nodes", "top"),
    [("r = Relu (a) k = Min (r, top)", 3.9), ("r = Relu (a) s = Mul (r, scale) k = Min (s, top)", 5.0)],
)
def test_what_data_may_change_is_not(nodes, top):
    """A bound that no level reaches is none, and a spiking network needs no mean there."""
    nodes = f"a = Conv (x, w) {nodes} y = Conv (k, v)"
    weights = {"w": weight(4, 3, 1, 1), "v": weight(4, 4, 1, 1, seed=1), "top": top, "scale": 1.2}
    ann = source(nodes, "float[N, M, H, W] y", **weights)
    assert len(rewrite(ann, mode="serial", steps=4, calibration=data()).plan.neurons) == 1


@pytest.mark.parametrize("name", ["v/analog", "d/Floor_3"])
def test_names_of_nodes_that_are_taken_are_not_taken_again(name):
    ann = source(NODES.replace("v = Relu (d)", "v = Gelu (d)"))
    ann.graph.node[-1].name = name
    result = calibrate(ann, data(), steps=4)
    names = [node.name for node in result.model.graph.node if node.name]
    assert len(names) == len(set(names))
    onnxruntime.InferenceSession(result.model.SerializeToString())


def test_a_cache_that_can_only_be_read_is_read(tmp_path, monkeypatch):
    path = tmp_path / "kept.npz"
    calibrate(source(), data(), steps=4, cache=path)

    def refuse(place):
        raise AssertionError(f"{place} would be written")

    monkeypatch.setattr("pconv_onnx.calibration.calibrating.require_writable", refuse)
    assert calibrate(source(), data(), steps=4, cache=path).from_cache


@pytest.mark.parametrize("place", ["output", "cache"])
def test_a_place_that_cannot_be_written_is_told_before_data_are_read(place, tmp_path):
    told = refusal_of(calibrate, source(), {"x": np.zeros(5)}, steps=4, **{place: tmp_path / "nowhere" / "file"})
    assert "file': No such file or directory; choose another place" in told


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "relu.onnx"
    onnx.save(source(), path)
    result = calibrate(path, data(), tmp_path / "quantised.onnx", steps=4)
    assert onnx.load(tmp_path / "quantised.onnx") == result.model


def test_a_calibration_is_kept_and_taken_from_its_file(tmp_path, monkeypatch):
    ann, path = source(NODES.replace("v = Relu (d)", "v = Gelu (d)")), tmp_path / "kept.npz"
    first = calibrate(ann, data(), steps=4, cache=path)

    def swept(*_, **__):
        raise AssertionError("swept again")

    with monkeypatch.context() as patch:
        patch.setattr("pconv_onnx.calibration.calibrating.sweep", swept)
        again = calibrate(ann, data(), steps=4, cache=path)
        assert again.model == first.model
        assert again.summary() == {**first.summary(), "from_cache": True}
        assert "found by an earlier run (`cache=`)" in str(again).splitlines()[-1]
        assert "cache" not in str(first).splitlines()[-1]
        # As many levels in another coding are others where outputs are below zero.
        for change in ({"steps": 5}, {"steps": 4, "method": "fit"}, {"steps": 2}, {"steps": 2, "coding": "radix"}):
            with pytest.raises(AssertionError, match="swept again"):
                calibrate(ann, data(), cache=path, **change)
        with pytest.raises(AssertionError, match="swept again"):
            calibrate(ann, data(seed=1), steps=4, cache=path)
    other = calibrate(ann, data(seed=1), steps=4, cache=path)
    assert other.model != first.model
    path.write_bytes(b"something else")
    assert "is not a calibration" in refusal_of(calibrate, ann, data(), steps=4, cache=path)
    for other in ({"meta": "5"}, {"meta": "{}"}, data()):
        with path.open("wb") as file:
            np.savez(file, **other)
        told = refusal_of(calibrate, ann, data(), steps=4, cache=path)
        assert f"'{path}' is not a calibration: calibrate has not written it; name another file" in told


@pytest.mark.parametrize("name", ["model.onnx", "data.npz", "new"])
def test_no_file_has_two_uses(name, tmp_path, monkeypatch):
    model, samples = tmp_path / "model.onnx", tmp_path / "data.npz"
    onnx.save(source(), model)
    np.savez(samples, **data())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    told = refusal_of(calibrate, model, samples, tmp_path / "new", steps=4, cache=name, force=True)
    assert f"'{name}' is the {name.split('.')[0].replace('new', 'output')} as well, and would be overwritten" in told
    if name == "data.npz":
        for function, option in ((calibrate, "data"), (rewrite, "calibration")):
            told = refusal_of(function, model, output=name, steps=4, **{option: samples})
            assert f"'{name}' is the" in told and "data as well, and would be overwritten" in told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_that_a_body_uses_too_stay_for_it():
    first, second = (f"g () => (float[4, 3, 1, 1] c) {{ c = {operator} (w) }}" for operator in ("Abs", "Neg"))
    branches = f"<then_branch = {first}, else_branch = {second}>"
    nodes = f"r = Relu (x) a = Conv (r, w) y = Relu (a) z = If (flag) {branches}"
    ann = source(nodes, "float[N, 4, 8, 8] y, float[a, b, c, d] z", w=weight(4, 3, 1, 1), flag=np.array([True]))
    result = calibrate(ann, data(), steps=4)
    assert list(result.found.corrections) == ["a"]
    before, after = (onnxruntime_of(model, "z")(data(4)["x"]) for model in (ann, result.model))
    np.testing.assert_array_equal(before, after)


def test_outputs_without_samples_stay():
    nodes = "a = Conv (x, w) y = Relu (a) z = Add (w, w) m = ReduceMean (x, axes)"
    outputs = "float[N, 4, 8, 8] y, float[4, 3, 1, 1] z, float[1, 3, 8, 8] m"
    ann = source(nodes, outputs, w=weight(4, 3, 1, 1), axes=np.array([0]))
    result = calibrate(ann, data(), steps=4)
    for name in ("z", "m"):
        before, after = (onnxruntime_of(model, name)(data(4)["x"]) for model in (ann, result.model))
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("method", ["refit", "mse"])
def test_an_activation_that_the_data_do_not_suit_is_listed_and_the_others_are_calibrated(method, tmp_path):
    nodes = """
        t = ReduceMean (x, axes) r = Relu (t) a = Max (x, r)
        b = Conv (a, w) l = Log (a) s = Sigmoid (l) c = Conv (s, w) d = Add (b, c) u = Relu (d) y = Conv (u, v)
        o = Sum (l, y)
    """
    weights = {"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1, seed=1), "axes": np.array([0])}
    ann = source(nodes, "float[N, 3, 8, 8] y, float[N, 3, 8, 8] o", **weights)
    first, again = (calibrate(ann, data(), steps=8, method=method, cache=tmp_path / "kept.npz") for _ in range(2))
    assert [(row["name"], row["status"], row["reason"]) for row in first.summary()["activations"]] == [
        ("u", "calibrated", ""),
        ("r", "needs-calibration",
         "'t' has shape [1, 3, 8, 8] for 10 samples, which do not run along its first axis; "
         "`batch_axis=` tells of others"),
        ("s", "needs-calibration", "'l' has a NaN or an infinity on these data"),
    ]  # fmt: skip
    assert {**first.summary(), "from_cache": True} == again.summary()
    assert error(first.model, ann, data(32, seed=1)["x"]) < 5e-2
    summary = rewrite(ann, steps=8, calibration=data(), method=method).summary()
    assert summary["counts"] == {"converted": 1, "needs_calibration": 0, "refused": 2}
    assert [row["reason"] for row in summary["activations"] if row["reason"]] == [
        row["reason"] for row in first.summary()["activations"][1:]
    ]


def test_a_model_in_which_the_data_suit_no_activation_is_refused():
    ann = source("t = ReduceMean (x, axes) r = Relu (t) y = Add (x, r)", "float[N, 3, 8, 8] y", axes=np.array([0]))
    told = refusal_of(calibrate, ann, data(), steps=4)
    assert "nothing to calibrate in the model: 'r': 't' has shape [1, 3, 8, 8] for 10 samples" in told


@pytest.mark.parametrize(
    "there, back",
    [
        ("Transpose <perm = [1, 0, 2, 3]> (x)", "Transpose <perm = [1, 0, 2, 3]> (r)"),
        ("Reshape (x, rows)", "Reshape (r, images)"),  # three rows a sample
    ],
)
@pytest.mark.parametrize("method", ["refit", "max"])
def test_samples_may_lie_along_another_axis_or_several_rows_be_of_one(there, back, method):
    nodes = f"t = {there} r = Relu (t) a = {back} b = Conv (a, w) y = Relu (b)"
    constants = {"rows": np.array([-1, 8, 8]), "images": np.array([-1, 3, 8, 8])}
    used = {name: value for name, value in constants.items() if name in nodes}
    ann, plain = (
        source(text, "float[N, 4, 8, 8] y", w=weight(4, 3, 1, 1), **more)
        for text, more in ((nodes, used), ("r = Relu (x) b = Conv (r, w) y = Relu (b)", {}))
    )
    options = {"steps": 8, "method": method, "readouts": "spiking"}
    found, expected = (calibrate(one, data(), **options) for one in (ann, plain))
    assert [row["status"] for row in found.summary()["activations"]] == ["calibrated"] * 2
    assert error(found.model, ann, data(32, seed=1)["x"]) < 1.5 * error(expected.model, plain, data(32, seed=1)["x"])


@pytest.mark.parametrize("layer", ["y = Conv (r, v)", "b = Conv (r, v) n = Log (r) m = ReduceMin (n) y = Add (b, m)"])
def test_a_layer_before_an_output_that_is_infinite_stays(layer):
    ann = source(f"a = Conv (x, w) r = Relu (a) {layer}", "float[N, 3, 8, 8] y",
                 w=weight(3, 3, 1, 1), v=weight(3, 3, 1, 1, seed=1))  # fmt: skip
    assert list(calibrate(ann, data(), steps=4).found.corrections) == (["a"] if "Log" in layer else ["a", "y"])


def test_what_onnxruntime_refuses_is_told_in_a_line():
    nodes = "a = Conv (x, w) t = Reshape (a, seven) y = Relu (t)"
    model = source(nodes, "float[N, 4, 8, 8] y", w=weight(4, 3, 1, 1), seven=np.array([7, 4, 8, 8]))
    assert "onnxruntime cannot run the model" in refusal_of(calibrate, model, data(), steps=4)


@pytest.mark.filterwarnings("error")
def test_values_that_are_too_large_are_told():
    nodes = "r = Relu (x) a = Conv (r, w) y = Relu (a)"
    ann = source(nodes, "float[N, 4, 8, 8] y", w=1e10 * weight(4, 3, 1, 1))
    x = data()["x"]
    told = refusal_of(calibrate, ann, {"x": x * np.float32(1e25)}, steps=4)
    assert "the inputs of 'a' are too large to be squared" in told
    for method in METHODS:
        large = {"x": x * np.float32(1e35)}
        ((activation, reason),) = calibrate(ann, large, steps=4, method=method, readouts="spiking").left
        assert (activation.name, reason) == ("y", "'a' has a NaN or an infinity on these data")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
def test_an_activation_that_overflows_is_listed_and_the_others_are_calibrated(method):
    nodes = "a = Conv (x, w) r = Relu (a) y = Conv (r, v) l = LeakyRelu <alpha = 3e38> (x) o = Sign (l)"
    ann = source(nodes, "float[N, 3, 8, 8] y, float[N, 3, 8, 8] o",
                 w=weight(3, 3, 1, 1), v=weight(3, 3, 1, 1, seed=1))  # fmt: skip
    result = calibrate(ann, data(), steps=4, method=method, readouts="spiking")
    assert [row["name"] for row in result.summary()["activations"] if row["status"] == "calibrated"] == ["r"]
    ((activation, reason),) = result.left
    assert (activation.name, reason) == ("l", "'l' has a NaN or an infinity on these data")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_values_that_overflow_once_they_are_quantised_are_told():
    x = data()["x"]
    x[0, 0, 0, 0] = 3e38
    ann = source("a = Selu (x) y = Selu (a)", "float[N, 3, 8, 8] y")
    told = refusal_of(calibrate, ann, {"x": x}, steps=4, signed=True)
    assert told == ("the values of 'a' are too large to be quantised; scale the data, or choose another method")


def test_a_file_of_a_version_that_wants_initializers_as_inputs():
    ann = source("a = Conv (x, w1) r = Relu (a) y = GlobalAveragePool (r)", "float[N, 8, 1, 1] y")
    ann.ir_version = 3
    ann.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in ann.graph.initializer
    )
    result = calibrate(ann, data(), steps=4)
    onnx.checker.check_model(result.model, full_check=True)
    assert verify(result.model, rewrite(result.model).model, data(4)).passed


def test_a_rank_that_computed_sizes_tell():
    nodes = """
        n = Shape <end = 1> (x) c = Concat <axis = 0> (n, sizes) u = Reshape (x, c)
        r = Relu (u) y = ReduceMean (r, on)
    """
    ann = source(nodes, "float[N, 3, 1, 1, 1] y", sizes=np.array([3, 2, 4, 8]), on=np.array([2, 3, 4]))
    result = calibrate(ann, data(), steps=4)
    assert result.summary()["activations"][0]["channels"] == 3
    kept = [node.op_type for node in result.model.graph.node]
    assert kept[:3] == ["Shape", "Concat", "Reshape"]


def test_what_follows_an_operator_of_which_onnx_infers_nothing():
    ann = source("a = Conv (x, w1) g = Gelu (a) r = Relu (g) y = GlobalAveragePool (r)", "float[N, 8, 1, 1] y")
    ann.graph.node[1].domain = "com.microsoft"
    ann.opset_import.add(domain="com.microsoft", version=1)
    result = calibrate(ann, data(), steps=4)
    rewritten = rewrite(result.model)
    assert list(rewritten.plan.neurons) == ["g", "r"]
    assert verify(result.model, rewritten.model, data(8)).differences == []
