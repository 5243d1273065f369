"""Which products read spikes, what share of the multiply-accumulates theirs are, and why others read none."""

from __future__ import annotations

import numpy as np
import pytest
from networks import MODES, network, qcfs, weight

from pconv_onnx import inspect, rewrite, stats
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.plan.spike_driven import SpikeDriven, off_spikes
from pconv_onnx.runtime.entrance import prepared

WEIGHTS = {"u": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1), "w": weight(3, 3, 3, 3), "m": weight(8, 8)}
STEM = f"[stem] c = Conv (x, u) {qcfs('c', 'a')} [second] d = Conv (a, v)"
# A convolution by 1 × 1, one by 3 × 3 and a matrix, on 3 × 8 × 8.
SMALL, LARGE, MATRIX = 3 * 3 * 64, 3 * 3 * (3 * 8 - 2) ** 2, 3 * 64 * 8


def model_of(nodes, **options):
    weights = {name: value for name, value in WEIGHTS.items() if f", {name})" in nodes or f"({name}, " in nodes}
    return network(nodes, weights=weights | options.pop("weights", {}), **options)


def plan_of(nodes, **options):
    return make_plan(prepared(model_of(nodes, **options)))


def left(nodes):
    """Names of the products in front of which a neuron is missing."""
    plan = plan_of(nodes)
    return [product.node.name for product in off_spikes(plan.network, plan.kinds)]


def test_what_follows_a_linear_bottleneck_reads_no_spikes():
    assert left(f"{STEM} [third] y = Conv <pads = [1, 1, 1, 1]> (d, w)") == ["third"]


def test_a_gate_reads_spikes_where_one_of_its_sides_is_a_train():
    assert left(f"{STEM} [gate] y = Mul (a, d)") == []
    assert left(f"{STEM} e = Sigmoid (d) [third] f = Conv (a, u) [gate] y = Mul (e, f)") == ["gate"]


def test_a_gate_reads_the_inputs_where_one_of_its_sides_is_one():
    assert left(f"{STEM} z = Neg (x) [gate] y = Mul (d, z)") == []


THIRD = "[third] y = Conv <pads = [1, 1, 1, 1]> (z, w)"
REASONS = {
    "sum": ("[sum] s = Add (a, d) z = Identity (s)", "it reads a current, the sum 'sum'", {}),
    "average": (
        "[mean] z = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (d)",
        "it reads a current, the average 'mean'",
        {},
    ),
    "bottleneck": ("z = Transpose <perm = [0, 1, 3, 2]> (d)", "it reads a current, what Conv 'second' gives", {}),
    "activation": ("[act] z = Sigmoid (d)", "it reads what activation 'act' gives, which is analog", {"Sigmoid": 1}),
    "softmax": ("[soft] z = Softmax (d)", "it reads what Softmax 'soft' gives, which is analog", {"Softmax": 1}),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_product_without_spikes_says_what_it_reads(case):
    between, reason, on_means = REASONS[case]
    model = model_of(f"{STEM} {between} {THIRD}")
    found = rewrite(model, dry_run=True).plan.spike_driven
    assert found == SpikeDriven(2 * SMALL + LARGE, SMALL, SMALL, {"third": reason}, on_means=on_means)
    assert found.share == SMALL / (SMALL + LARGE)
    assert found.summary() == {
        "macs": 2 * SMALL + LARGE, "on_inputs": SMALL, "on_spikes": SMALL, "share": found.share,
        "not_on_spikes": ["third"], "reasons": {"third": reason}, "on_means": on_means,
    }  # fmt: skip
    for mode in MODES:
        assert stats(rewrite(model, mode=mode).model).summary()["spike_driven"] == found.summary(), mode


@pytest.mark.parametrize("mode", MODES)
def test_a_product_that_runs_on_means_reads_no_spikes_though_it_is_given_a_train(mode):
    nodes = f"{STEM} [row] f = Flatten (a) [product] y = Gemm <transA = 1> (f, f)"
    model = model_of(nodes, inputs="float[4, 3, 8, 8] x", outputs="float[192, 192] y")
    reason = "it has no form in time, and runs on temporal means"
    for found in (rewrite(model, dry_run=True).plan.spike_driven, stats(rewrite(model, mode=mode).model).spike_driven):
        assert found.reasons == {"product": reason}
        assert found.on_spikes == 0


def test_a_network_of_which_all_products_read_spikes_is_spike_driven():
    found = plan_of(f"{STEM} {qcfs('d', 'e')} [third] y = MatMul (e, m)").spike_driven
    assert (found.share, found.on_spikes, found.reasons) == (1, SMALL + MATRIX, {})


def test_where_nothing_but_inputs_is_read_there_is_no_share():
    found = plan_of(f"[stem] c = Conv (x, u) {qcfs('c', 'y')}").spike_driven
    assert (found.macs, found.on_inputs, found.on_spikes, found.share) == (SMALL, SMALL, 0, None)


def test_open_sizes_leave_the_numbers_open_but_not_the_names():
    nodes = f"{STEM} [third] y = Conv <pads = [1, 1, 1, 1]> (d, w)"
    for shape, known in (("N, 3, 8, 8", True), ("2, 3, 8, 8", True), ("N, 3, H, W", False), ("N, 3, 8, W", False)):
        found = plan_of(nodes, inputs=f"float[{shape}] x", outputs=f"float[{shape}] y").spike_driven
        assert list(found.reasons) == ["third"]
        numbers = found.macs, found.on_inputs, found.on_spikes
        if known:
            samples = 2 if shape.startswith("2") else 1
            assert numbers == (samples * (2 * SMALL + LARGE), samples * SMALL, samples * SMALL)
        else:
            assert numbers == (None, None, None) and found.share is None


@pytest.mark.parametrize("rows", ["N", "", "1"])
def test_rows_that_are_heads_of_samples_are_counted_as_such(rows):
    nodes = f"""{qcfs("x", "a")} h = Reshape (a, heads) t = Reshape (x, turned) [scores] s = MatMul (h, t)
        e = Softmax (s) [values] v = MatMul (e, h) y = Reshape (v, back)"""
    weights = {"heads": np.array([-1, 3, 10]), "turned": np.array([-1, 10, 3]), "back": np.array([-1, 6, 10])}
    model = network(nodes, inputs="float[N, 6, 10] x", outputs="float[N, 6, 10] y", weights=weights)
    for info in (*model.graph.input, *model.graph.output):
        dimension = info.type.tensor_type.shape.dim[0]
        dimension.Clear()
        if rows == "1":
            dimension.dim_value = 1
        elif rows:
            dimension.dim_param = rows
    found = rewrite(model, dry_run=True).plan.spike_driven
    assert found.macs == 2 * (2 * 3 * 10 * 3)


def test_what_is_not_counted_is_named_and_leaves_the_numbers_open():
    nodes = f'{STEM} [einsum] y = Einsum <equation = "nchw,ock->nohw"> (d, k)'
    model = model_of(nodes, weights={"k": weight(3, 3, 1)})
    reasons = {"einsum": "Einsum 'einsum' is not counted"}
    for found in (rewrite(model, dry_run=True).plan.spike_driven, stats(rewrite(model).model).spike_driven):
        assert found == SpikeDriven(None, None, None, reasons)


def test_inspect_tells_what_will_be_once_data_gave_levels():
    nodes = "[stem] c = Conv (x, u) a = Relu (c) [second] d = Conv (a, v) b = Relu (d) [third] y = MatMul (b, m)"
    model = model_of(nodes)
    found = inspect(model)
    assert found["counts"]["needs_calibration"] == 2
    assert found["spike_driven"]["share"] == 1 and found["spike_driven"]["once_calibrated"]
    assert plan_of(nodes).spike_driven.share == 0
    levels = inspect(model_of(f"{STEM} {THIRD}".replace("(z, ", "(d, ")))["spike_driven"]
    assert levels["share"] == SMALL / (SMALL + LARGE) and not levels["once_calibrated"]


def test_names_of_what_stays_are_those_of_the_source_once_calibrated():
    nodes = (
        "[stem] c = Conv (x, u) a = Relu (c) [second] d = Conv (a, v) [sum] s = Add (d, a) [third] y = MatMul (s, m)"
    )
    assert inspect(model_of(nodes))["spike_driven"]["reasons"] == {"third": "it reads a current, the sum 'sum'"}


def test_of_clips_in_a_row_each_is_calibrated_once():
    """Of so many, one activation begins within another."""
    chain = " ".join(f"r{index + 1} = Relu (r{index})" for index in range(16))
    model = model_of(f"[stem] r0 = Conv (x, u) {chain} [second] y = Conv (r16, v)")
    found = inspect(model)["spike_driven"]
    assert (found["share"], found["once_calibrated"], found["not_on_spikes"]) == (1, True, [])
