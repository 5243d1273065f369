"""Weights rounded by data: integers still, the same in every run, and closer to the float network."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import rewrite
from pconv_onnx.integer.fitting import _one_by_one
from pconv_onnx.integer.scales import rounded
from pconv_onnx.integer.units import Layer


def images(count: int, seed: int) -> np.ndarray:
    """Smooth ones: neighbours go together, as in pictures."""
    rough = np.random.default_rng(seed).normal(0, 1, (count, 3, 11, 11))
    smooth = sum(rough[:, :, i : i + 8, j : j + 8] for i in range(4) for j in range(4)) / 4
    return smooth.astype(np.float32)


@pytest.fixture(scope="module")
def model():
    nodes = f"""
        c = Conv <pads = [1, 1, 1, 1]> (x, w, wb) {qcfs("c", "a")}
        d = Conv <pads = [1, 1, 1, 1]> (a, v, vb) {qcfs("d", "b")}
        s = Add (b, a) e = Conv <group = 2> (s, g) {qcfs("e", "h")}
        p = GlobalAveragePool (h) f = Flatten (p) y = Gemm (f, u, ub)
    """
    weights = {"w": 4 * weight(8, 3, 3, 3), "wb": np.full(8, 0.3, np.float32), "v": 2 * weight(8, 8, 3, 3, seed=1),
               "vb": np.full(8, -0.2, np.float32), "g": 2 * weight(8, 4, 3, 3, seed=3),
               "u": weight(8, 5, seed=2), "ub": np.full(5, 0.1, np.float32), "count": 15.0}  # fmt: skip
    return network(nodes, outputs="float[N, 5] y", weights=weights)


def error(form, model, x: np.ndarray) -> float:
    """The mean squared error of the outputs."""
    found, expected = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, {"x": x})[0] for one in (form, model)
    )
    return float(np.square(found - expected).mean())


def test_data_make_it_closer_to_the_float_network(model):
    unseen = images(64, seed=1)
    options = {"weights": "int4", "mode": "folded", "input_bits": 8, "input_range": (-4, 4)}
    nearest = rewrite(model, **options).integers
    fitted = rewrite(model, **options, calibration={"x": images(128, seed=0)}).integers
    assert (nearest.samples, fitted.samples) == (None, 128)
    assert error(fitted.model, model, unseen) < 0.5 * error(nearest.model, model, unseen)


@pytest.mark.parametrize(("weights", "bits"), [("int8", 8), ("int4", 4)])
def test_what_data_chose_are_integers_of_so_many_bits(model, weights, bits):
    options = {"weights": weights, "input_bits": 8, "calibration": {"x": images(64, seed=0)}}
    first, second = (rewrite(model, **options) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.integers.proof.exact
    layers = [step for step in first.integers.reading.steps if isinstance(step, Layer)]
    assert len(layers) == 4
    for layer in layers:
        integers, _ = first.integers.rounding[id(layer)]
        plain = integers / layer.factor.reshape(-1, 1)
        assert (plain == np.rint(plain)).all()
        assert plain.min() >= -(1 << (bits - 1))
        assert plain.max() < 1 << (bits - 1)


def test_inputs_that_do_not_go_together_leave_the_nearest_integers():
    weights = np.random.default_rng(0).normal(0, 3, (1, 4, 6))
    found = _one_by_one(weights, np.ones((1, 4)), np.eye(6)[np.newaxis], 8)
    np.testing.assert_array_equal(found[0], rounded(weights[0], np.ones(4), 8))


@pytest.mark.parametrize("seed", range(4))
def test_what_rounding_changes_is_made_up_for(seed):
    generator = np.random.default_rng(seed)
    weights, scale = generator.normal(0, 3, (2, 4, 12)), np.ones((2, 4))
    samples = generator.normal(0, 1, (2, 100, 3)) @ generator.normal(0, 1, (2, 3, 12))
    gram = samples.swapaxes(1, 2) @ samples / 100
    found = _one_by_one(weights, scale, gram, 8)
    nearest = np.rint(weights)

    def lost(integers: np.ndarray) -> float:
        return float(np.einsum("gci,gij,gcj->", weights - integers, gram, weights - integers))

    assert lost(found) < 0.5 * lost(nearest)


@pytest.mark.parametrize(
    "gram", [np.zeros((1, 6, 6)), np.ones((1, 6, 6)), np.diag([0.0, 0, 1, 1, 1e-30, 1e30])[np.newaxis]]
)
def test_inputs_that_are_silent_or_equal_round_to_integers_all_the_same(gram):
    weights = np.random.default_rng(0).normal(0, 30, (1, 2, 6))
    found = _one_by_one(weights, np.ones((1, 2)), gram, 8)
    assert (found == np.rint(found)).all()
    assert (abs(found) <= 128).all()
    assert abs(found.sum() - weights.sum()) < 40


@pytest.mark.parametrize("value", [0, 1e-30, 1e20])
def test_data_of_one_value_round_it_all_the_same(model, value):
    x = np.full((8, 3, 8, 8), value, np.float32)
    result = rewrite(model, weights="int8", mode="folded", input_bits=8, input_range=(-4, 4), calibration={"x": x})
    assert result.integers.proof.exact


RELATED = np.random.default_rng(5).normal(0, 1, (3, 16)).astype(np.float32)
BEHIND = {
    "a bias of its own": ("d = MatMul (a, v) t = Add (d, vb)", {"vb": np.full(6, 0.2, np.float32)}),
    "BatchNormalization": (
        "d = MatMul (a, v) t = BatchNormalization (d, gain, shift, mean, variance)",
        {"gain": np.array([-1, -0.5, 0.5, 1, 1.5, 2], np.float32), "shift": np.full(6, 0.1, np.float32),
         "mean": np.full(6, 0.3, np.float32), "variance": np.full(6, 2, np.float32)},
    ),
    "weights behind DequantizeLinear": ("q = DequantizeLinear <axis = 1> (codes, scales) t = MatMul (a, q)", {
        "codes": np.random.default_rng(2).integers(-128, 128, (12, 6)).astype(np.int8),
        "scales": np.full(6, 0.01, np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("case", BEHIND)
def test_data_reach_layers_that_are_not_weights_alone(case):
    nodes, weights = BEHIND[case]
    nodes = f"c = MatMul (x, w) {qcfs('c', 'a')} {nodes} {qcfs('t', 'b')} y = MatMul (b, u)"
    held = {"w": weight(16, 12), "v": weight(12, 6, seed=1), "u": weight(6, 4, seed=2), "count": 15.0, **weights}
    model = network(nodes, inputs="float[N, 16] x", outputs="float[N, 4] y", weights=held)
    seen, unseen = (np.random.default_rng(seed).normal(0, 1, (256, 3)).astype(np.float32) @ RELATED for seed in (0, 1))
    options = {"weights": "int4", "mode": "folded", "input_bits": 8, "input_range": (-8, 8)}
    nearest, fitted = (rewrite(model, **options, **data).integers for data in ({}, {"calibration": {"x": seen}}))
    layers = [step for step in fitted.reading.steps if isinstance(step, Layer)]
    before = [step for step in nearest.reading.steps if isinstance(step, Layer)]
    # Of so few weights behind many samples the nearest may serve best: of the last.
    for layer, other in zip(layers[:2], before[:2], strict=True):
        assert (fitted.rounding[id(layer)][0] != nearest.rounding[id(other)][0]).any()
    assert error(fitted.model, model, unseen) < error(nearest.model, model, unseen)


def test_a_network_calibrated_at_the_same_time_has_nodes_of_its_own():
    nodes = (
        "c = MatMul (x, w) d = Add (c, b) r = Relu (d) e = MatMul (r, v) f = Add (e, b) s = Relu (f) y = MatMul (s, u)"
    )
    weights = {"w": weight(16, 12), "b": np.full(12, 0.1, np.float32), "v": weight(12, 12, seed=1),
               "u": weight(12, 4, seed=2)}  # fmt: skip
    model = network(nodes, inputs="float[N, 16] x", outputs="float[N, 4] y", weights=weights)
    data = np.random.default_rng(0).normal(0, 1, (128, 16)).astype(np.float32)
    found = rewrite(model, steps=4, weights="int8", input_bits=8, calibration={"x": data})
    assert found.integers.proof.exact


def test_levels_have_no_method():
    model = network(f"c = MatMul (x, w) {qcfs('c', 'y')}", inputs="float[N, 3] x", outputs="float[N, 3] y",
                    weights={"w": weight(3, 3)})  # fmt: skip
    data = {"x": np.ones((4, 3), np.float32)}
    told = refusal_of(rewrite, model, weights="int8", input_bits=8, calibration=data, method="mse")
    assert told == "the model has levels: nothing is calibrated by 'mse'; leave `method=` out"
