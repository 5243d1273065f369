"""Activations of which maxima alone are read: found, and quantised as if they were behind the pooling."""

from __future__ import annotations

import numpy as np
import pytest
from networks import network, weight

from pconv_onnx.calibration import calibrate
from pconv_onnx.calibration.maxima import maxima_of
from pconv_onnx.calibration.settings import Settings
from pconv_onnx.calibration.subjects import quantisable, to_calibrate
from pconv_onnx.neuron.coding import Rate

WEIGHTS = {"w": weight(4, 3, 3, 3), "v": weight(2, 4, 1, 1, seed=1), "low": 0.0, "high": 1.5}
INDICES = {"i": np.array([0, 0]), "j": np.array([2, 2]), "k": np.array([2, 3]), "true": np.array(True)}
DATA = {"x": np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)}
POOL = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
WIDER = "MaxPool <kernel_shape = [3, 3], strides = [2, 2]>"


def found(nodes: str, outputs: str = "float[N, C, H, W] y") -> list[tuple[str, str]]:
    """Activations, each with the tensor of maxima that alone are read of it."""
    model = network(nodes, outputs=outputs, weights=WEIGHTS | INDICES)
    source, activations, _ = to_calibrate(quantisable(model), Settings(4, Rate, "fit", "activations", False))
    return [(name, segment.target) for name, segment in maxima_of(source, activations).items()]


@pytest.mark.parametrize("pool", [POOL, WIDER, "GlobalMaxPool", "MaxPool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]>"])
def test_what_pooling_alone_reads_is_found(pool):
    assert found(f"a = Conv (x, w) r = Relu (a) p = {pool} (r) y = Conv (p, v)") == [("r", "r/maxima")]


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        (f"a = Conv (x, w) r = Relu (a) p = {POOL} (r) q = {POOL} (r) s = Add (p, q) y = Conv (s, v)", "r"),
        (f"a = Conv (x, w) r = Relu (a) s = Sigmoid (a) c = Concat <axis = -3> (r, s) y = {POOL} (c)", "rs"),
        (
            "a = Conv (x, w) r = Relu (a) s = Sigmoid (a) c = Concat <axis = 1> (r, r) "
            f"d = Concat <axis = 1> (c, s) y = {POOL} (d)",
            "rs",
        ),
    ],
)
def test_several_poolings_of_the_same_windows_and_joined_channels_are_as_one(nodes, names):
    assert found(nodes) == [(name, f"{name}/maxima") for name in names]


@pytest.mark.parametrize(
    "nodes",
    [
        f"a = Conv (x, w) r = Relu (a) p = {POOL} (r) b = Conv (r, v) c = {POOL} (b) d = Conv (p, v) y = Add (c, d)",
        f"a = Conv (x, w) r = Relu (a) p = {POOL} (r) q = {WIDER} (r) s = Slice (p, i, j, k) y = Add (s, q)",
        f"a = Conv (x, w) r = Relu (a) c = Concat <axis = 3> (r, r) y = {POOL} (c)",
        "a = Conv (x, w) r = Relu (a) y, z = MaxPool <kernel_shape = [2, 2]> (r) size = Shape (z)",
        "a = Conv (x, w) r = Relu (a) y = AveragePool <kernel_shape = [2, 2]> (r)",
        "a = Conv (x, w) y = Relu (a)",
        f"a = Conv (x, w) r = Relu (a) p = {POOL} (r) s = If <then_branch = yes () => (float[N, C, H, W] t) "
        f"{{ t = Identity (r) }}, else_branch = no () => (float[N, C, H, W] e) {{ e = Neg (r) }}> (true) "
        f"q = {POOL} (s) b = Conv (p, v) c = Conv (q, v) y = Add (b, c)",
    ],
)
def test_what_is_read_otherwise_as_well_is_not(nodes):
    assert found(nodes) == []


def test_an_output_of_the_network_is_read_as_well():
    nodes = f"a = Conv (x, w) r = Relu (a) y = {POOL} (r)"
    assert found(nodes) == [("r", "r/maxima")]
    assert found(nodes, "float[N, C, H, W] y, float[N, C, K, L] r") == []


@pytest.mark.parametrize("activation", ["Relu ({})", "Clip ({}, low, high)", "LeakyRelu ({})", "Sigmoid ({})"])
@pytest.mark.parametrize(("steps", "rule"), [(4, "fit"), (200, None)])
def test_a_staircase_is_that_of_the_activation_behind_the_pooling(activation, steps, rule):
    # Pooling has an activation's largest value where its input is largest, so that both networks are the same.
    before = f"a = Conv (x, w) r = {activation.format('a')} p = {POOL} (r) y = Conv (p, v)"
    behind = f"a = Conv (x, w) r = {POOL} (a) p = {activation.format('r')} y = Conv (p, v)"
    one, other = (
        calibrate(network(nodes, outputs="float[N, 2, 3, 3] y", weights=WEIGHTS), DATA, steps=steps, method="fit")
        for nodes in (before, behind)
    )
    for first, second in zip(one.found.activations, other.found.activations, strict=True):
        for name in ("threshold", "shift", "amplitude"):
            expected = getattr(second.staircase, name)
            np.testing.assert_allclose(getattr(first.staircase, name), expected, rtol=1e-6, atol=1e-6, err_msg=name)
    assert one.found.errors == pytest.approx(other.found.errors, rel=1e-5)
    assert rule is None or one.found.rule == rule


def test_levels_serve_maxima_better_than_those_of_all_values():
    nodes = "a = Conv (x, w) r = Relu (a) p = GlobalMaxPool (r) y = Conv (p, v)"
    apart = f"{nodes} also = Identity (r)"
    outputs = "float[N, 2, 1, 1] y"
    alone = calibrate(network(nodes, outputs=outputs, weights=WEIGHTS), DATA, steps=4)
    as_well = calibrate(network(apart, outputs=f"{outputs}, float[N, 4, 6, 6] also", weights=WEIGHTS), DATA, steps=4)
    assert alone.found.errors[0] < 0.5 * as_well.found.errors[0]


def test_methods_of_others_are_of_all_values():
    pooled = f"a = Conv (x, w) r = Relu (a) p = {POOL} (r) y = Conv (p, v)"
    plain = "a = Conv (x, w) r = Relu (a) y = Conv (r, v)"
    one, other = (
        calibrate(network(nodes, outputs="float[N, C, H, W] y", weights=WEIGHTS), DATA, steps=4, method="percentile")
        for nodes in (pooled, plain)
    )
    found = [result.found.activations[0].staircase.threshold for result in (one, other)]
    np.testing.assert_array_equal(*found)


def test_tuning_compares_maxima():
    pytest.importorskip("torch")
    from pconv_onnx.calibration.tuning.tunable import Tunable

    model = network(
        f"a = Conv (x, w) r = Relu (a) p = {POOL} (r) b = Conv (p, v) s = Relu (b) y = Identity (s)",
        outputs="float[N, 2, 3, 3] y",
        weights=WEIGHTS,
    )
    result = calibrate(model, DATA, steps=4, readouts="spiking")
    tunable = Tunable(quantisable(model), result.found)
    assert tunable.compared == {"r": "r/maxima", "s": "s"}
    values = tunable.quantised({"x": DATA["x"][:2]})
    assert values.keys() == {"r/maxima", "s", "y"} and values["r/maxima"].shape == (2, 4, 3, 3)
