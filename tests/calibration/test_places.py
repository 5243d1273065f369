"""Neurons in front of products that would read no spikes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from harness import onnxruntime_of
from networks import MODES, network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import calibrate, inspect, rewrite, session, stats, verify
from pconv_onnx.calibration import places
from pconv_onnx.calibration.places import NORMALISED

# A linear bottleneck with a residual sum, squeeze-and-excite, a pool in front of a convolution, a Concat of trains and
# of a sum, and a head behind an average.
MODERN = """
    a = Conv <pads = [1, 1, 1, 1]> (x, w1) s = HardSwish (a)
    b = Conv <pads = [1, 1, 1, 1], group = 8> (s, w2) t = Clip (b, zero, six)
    g = GlobalAveragePool (t) h = Conv (g, w3) i = Relu (h) j = Conv (i, w4) k = Sigmoid (j) l = Mul (t, k)
    c = Conv (l, w5) d = Add (c, s)
    e = Conv (d, w5) f = Relu (e)
    m = Concat <axis = 1> (f, d) n = Conv (m, w6) o = LeakyRelu (n)
    p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (o) q = Conv (p, w7)
    r = GlobalAveragePool (q) u = Flatten (r) y = Gemm (u, w8)
"""
WEIGHTS = {
    "w1": 2 * weight(8, 3, 3, 3), "w2": 2 * weight(8, 1, 3, 3, seed=1), "w3": 2 * weight(4, 8, 1, 1, seed=2),
    "w4": 2 * weight(8, 4, 1, 1, seed=3), "w5": weight(8, 8, 1, 1, seed=4), "w6": 2 * weight(8, 16, 1, 1, seed=5),
    "w7": weight(8, 8, 1, 1, seed=6), "w8": weight(8, 5, seed=7), "six": np.float32(6),
}  # fmt: skip


@pytest.fixture(scope="module")
def modern() -> onnx.ModelProto:
    return network(MODERN, outputs="float[N, 5] y", weights=WEIGHTS)


def data(count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)}


def test_places_are_in_front_of_products_that_read_no_spikes(modern):
    """The gate's product reads the trains of `t`; of the Concat the sum alone lacks trains; the first reads `x`."""
    assert [(place.input, place.op_types) for place in places(modern)] == [
        ("g", ["Conv"]), ("l", ["Conv"]), ("d", ["Conv", "Concat"]), ("p", ["Conv"]), ("u", ["Gemm"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "nodes, found",
    [
        ("a = Conv (x, w) b = Relu (a) y = Conv (b, v)", []),
        ("a = Conv (x, w) y = Conv (a, v)", ["a"]),
        ("n = Sub (x, one) m = Div (n, two) a = Conv (m, w) y = Relu (a)", []),
        ("p = AveragePool <kernel_shape = [2, 2]> (x) a = Conv (p, w) y = Relu (a)", ["p"]),
        ("a = Conv (x, w) b = Relu (a) c = Conv (b, v) y = Mul (c, a)", ["c"]),
        ("a = Conv (x, w) s = Softmax <axis = 1> (a) b = Relu (a) c = Concat <axis = 1> (s, b) y = Conv (c, u)", ["s"]),
        ("a = Conv (x, w) b = Relu (a) c = Concat <axis = 1> (a, b) d = Conv (c, u) y = Concat <axis = 1> (d, c)",
         ["c"]),
        (f"a = Conv (x, w) {qcfs('a', 'b')} c = Conv (b, v) y = Conv (c, v)", ["c"]),
    ],
)  # fmt: skip
def test_what_is_made_of_inputs_or_trains_alone_is_none(nodes, found):
    weights = {"w": weight(4, 3, 1, 1), "v": weight(4, 4, 1, 1), "u": weight(4, 8, 1, 1), "two": np.float32(2)}
    used = {name: value for name, value in weights.items() if f"{name})" in nodes}
    assert [place.input for place in places(network(nodes, outputs="float[N, C, H, W] y", weights=used))] == found


@pytest.mark.parametrize("coding, steps", [("radix", 6), ("rate", 31)])
def test_every_product_reads_spikes_and_the_answers_stay(modern, coding, steps):
    result = calibrate(modern, data(100), steps=steps, coding=coding, neurons="products")
    summary = result.summary()
    assert sum(row["encoding"] == "product" for row in summary["activations"]) == 5
    assert summary["spike_driven"]["share"] == 1 and summary["spike_driven"]["not_on_spikes"] == []
    test = data(32, seed=1)
    expected, quantised = (onnxruntime_of(model)(test["x"]) for model in (modern, result.model))
    assert np.square(quantised - expected).mean() < 0.02 * np.square(expected).mean()
    for mode in MODES:
        spiking = rewrite(result.model, coding=coding, mode=mode)
        assert spiking.summary()["steps"] == steps
        checked = verify(result.model, spiking.model, test)
        assert checked.verdict == "equal"
        np.testing.assert_allclose(session(spiking.model).run(None, test)[0], quantised, atol=2e-2)
        counted = stats(spiking.model, test).summary()
        assert counted["spike_driven"]["share"] == 1
        assert {row["input"] for row in counted["operators"]} == {"static", "spikes"}


def test_at_once_it_is_the_same(modern):
    options = {"steps": 4, "coding": "radix"}
    whole = rewrite(modern, **options, neurons="products", calibration=data())
    apart = rewrite(calibrate(modern, data(), **options, neurons="products").model, **options)
    assert whole.model.graph.node == apart.model.graph.node
    assert whole.summary()["spike_driven"] == apart.summary()["spike_driven"]
    assert verify(modern, whole.model, data(8)).verdict == "measured"


def test_places_without_levels_are_told_and_nothing_is_refused(modern):
    """A network that has some: its neurons are written, what would need data is told."""
    nodes = f"a = Conv (x, w) {qcfs('a', 'b')} c = Conv (b, v) y = Conv (c, v)"
    source = network(nodes, outputs="float[N, 4, 8, 8] y", weights={"w": weight(4, 3, 1, 1), "v": weight(4, 4, 1, 1)})
    for summary in (inspect(source, neurons="products"), rewrite(source, neurons="products").summary()):
        assert summary["counts"] == {"converted": 1, "needs_calibration": 1, "refused": 0}
        (row,) = (row for row in summary["activations"] if row["encoding"] == "product")
        assert (row["status"], row["op_types"]) == ("needs-calibration", ["Conv"])
        assert row["reason"].startswith("what it is in front of reads no spikes; pass `calibration=")
    assert len(inspect(source)["activations"]) == 1
    told = inspect(modern, neurons="products")["spike_driven"]
    assert told["share"] == 1 and told["once_calibrated"]
    assert inspect(modern)["spike_driven"]["share"] < 0.7


def test_a_source_with_levels_gets_more(modern):
    """What the source quantises keeps its levels; only what stands before products is new."""
    nodes = f"a = Conv (x, w) {qcfs('a', 'b')} c = Conv (b, v) y = Conv (c, v)"
    weights = {"w": weight(4, 3, 1, 1), "v": weight(4, 4, 1, 1)}
    source = network(nodes, outputs="float[N, 4, 8, 8] y", weights=weights)
    assert "have levels of their own" in refusal_of(calibrate, source, data(), steps=4)
    spiking = rewrite(source, steps=4, neurons="products", calibration=data())
    levels = {row["name"]: (row["levels"], row["zero"]) for row in spiking.summary()["activations"]}
    assert levels["y.input"][1] > 0 and len(levels) == 2
    assert spiking.summary()["spike_driven"]["share"] == 1


def test_a_network_in_which_all_products_read_spikes_has_nothing_to_calibrate():
    source = network(f"a = Conv (x, w) {qcfs('a', 'y')}", weights={"w": weight(3, 3, 1, 1)})
    assert "have levels of their own" in refusal_of(calibrate, source, data(), steps=4, neurons="products")
    assert refusal_of(calibrate, source, data(), steps=4, neurons="layers") == (
        "there are no neurons of 'layers'; choose activations or products"
    )


ATTENTION = {
    "MatMul": "s = Softmax (z) y = MatMul (s, v)",
    "a mask of weights": "s = Softmax (z) m = Mul (s, half) y = MatMul (m, v)",
    "weights on the right": (
        "s = Softmax (z) t = Transpose <perm = [0, 1, 3, 2]> (s) "
        "u = Transpose <perm = [0, 1, 3, 2]> (v) y = MatMul (u, t)"
    ),
    "Softmax read by a convolution": "s = Softmax (z) y = Conv (s, kernel)",
}


@pytest.mark.parametrize("case", ATTENTION)
def test_attention_weights_are_normalised_behind_the_product_where_they_can_be(case):
    """Elsewhere what Softmax gives is encoded, and is told so where it is that and nothing of it."""
    weights = {"w": weight(8, 8, seed=1), "v": weight(8, 8, seed=2), "kernel": weight(3, 3, 1, 1)}
    nodes = f"z = MatMul (x, w) a = Relu (z) v = MatMul (a, w) {ATTENTION[case]}"
    used = {name: value for name, value in weights.items() if f", {name})" in nodes and name != "v"}
    model = network(nodes, weights=used)
    result = calibrate(model, data(40), steps=6, coding="radix", neurons="products")
    assert result.summary()["spike_driven"]["share"] == 1
    late = "ReduceMax" in [node.op_type for node in result.model.graph.node]
    told = [row["name"] for row in result.summary()["activations"] if row["reason"] == NORMALISED]
    assert late == (case == "MatMul")
    assert bool(told) == (case == "Softmax read by a convolution")
    spiking = rewrite(result.model, coding="radix").model
    assert verify(result.model, spiking, data(8, seed=1)).verdict == "equal"
