"""Numbers of time-steps of activations' own, with a mean that is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from harness import onnxruntime_of
from hypothesis import given
from hypothesis import strategies as st
from networks import network, weight
from refusals import refusal_of

import pconv_onnx
from pconv_onnx import rewrite, verify
from pconv_onnx.basics.errors import Interrupted
from pconv_onnx.calibration import calibrating, sweep
from pconv_onnx.calibration.mixing import Group, allotted, groups_of
from pconv_onnx.calibration.settings import Settings, most_steps
from pconv_onnx.calibration.subjects import quantisable, to_calibrate
from pconv_onnx.cli.main import main
from pconv_onnx.data.samples import Samples
from pconv_onnx.neuron.coding import Radix, Rate

# The last activation has a number as well.
calibrate, calibrate_each = (
    partial(function, readouts="spiking") for function in (pconv_onnx.calibrate, pconv_onnx.calibrate_each)
)

# Two branches that a Concat joins, as in SqueezeNet, behind a layer of few channels that all depends on.
POOL = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
NODES = (
    "a = Conv <pads = [1, 1, 1, 1]> (x, w) narrow = Relu (a)"
    " b = Conv (narrow, v) left = Relu (b) c = Conv <pads = [1, 1, 1, 1]> (narrow, u) right = Relu (c)"
    f" m = {POOL} (left) n = {POOL} (right) both = Concat <axis = 1> (m, n)"
    " d = Conv (both, t) last = LeakyRelu (d) g = GlobalAveragePool (last) y = Flatten (g)"
)
WEIGHTS = {
    "w": weight(2, 3, 3, 3),
    "v": weight(16, 2, 1, 1, seed=1),
    "u": weight(16, 2, 3, 3, seed=2),
    "t": weight(10, 32, 1, 1, seed=3),
}
RATE = Settings(8, Rate, "refit", "activations", False, "spiking", mixed=True)
RADIX = replace(RATE, levels=15, coding=Radix)


def source():
    return network(NODES, outputs="float[N, 10] y", weights=WEIGHTS)


def data(count: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_t(4, (count, 3, 8, 8)).astype(np.float32)}


def found_in(model):
    plain = quantisable(model)
    whole, chosen, _ = to_calibrate(plain, RATE)
    return whole, chosen


def grouped(model, batch: int | None = None) -> list[Group]:
    return groups_of(*found_in(model), Samples(data(8), None, batch))


def even(sizes=(1, 2, 1)) -> tuple[list[Group], dict[str, str]]:
    """Groups of such costs, and names of activations by their output."""
    groups = [replace(group, cost=size) for group, size in zip(grouped(source()), sizes, strict=True)]
    return groups, {one.output.name: one.name for group in groups for one in group.activations}


def test_a_concat_joins_activations_and_a_product_does_not():
    groups = grouped(source())
    assert [[one.output.name for one in group.activations] for group in groups] == [
        ["narrow"],
        ["left", "right"],
        ["last"],
    ]


def test_two_concats_join_what_has_an_activation_in_both():
    nodes = (
        "a = Relu (x) b = Neg (x) c = Relu (b) d = Abs (x) e = Relu (d)"
        " f = Concat <axis = 1> (a, c) g = Concat <axis = 1> (c, e) y = Concat <axis = 1> (f, g)"
    )
    (group,) = grouped(network(nodes, outputs="float[N, k, 8, 8] y"))
    assert [one.output.name for one in group.activations] == ["a", "c", "e"]
    assert group.cost == 3 * 192


def test_a_step_costs_what_neurons_do_and_what_reads_them():
    narrow, both, last = grouped(source())
    # Of 8 x 8 with two channels, to 16 and, at 22 x 22 pairs of pixels and weights, to 16.
    assert narrow.cost == 128 + 128 * 16 + 2 * 22 * 22 * 16
    assert both.cost == 2048 + 16 * 32 * 10 and last.cost == 160
    # Each of the two is read once.
    nodes = "a = Relu (x) b = Neg (x) c = Relu (b) y = MatMul (a, c)"
    assert [group.cost for group in grouped(network(nodes))] == [192 + 3 * 8 * 8 * 8 // 2] * 2


def test_a_batch_of_the_models_own_costs_as_much_for_each_sample():
    whole = network(NODES, inputs="float[4, 3, 8, 8] x", outputs="float[4, 10] y", weights=WEIGHTS)
    assert [group.cost for group in grouped(whole, 4)] == [group.cost for group in grouped(source())]


def test_sizes_are_no_trains():
    nodes = (
        "a = Relu (x) s = Shape (a) b = Neg (x) c = Relu (b) t = Shape (c) u = Concat <axis = 0> (s, t)"
        " k = Slice (u, zero, four) y = Reshape (c, k)"
    )
    weights = {"zero": np.array([0]), "four": np.array([4])}
    assert len(grouped(network(nodes, weights=weights))) == 2


@given(st.data(), st.sampled_from([RATE, RADIX, replace(RATE, levels=1), replace(RATE, levels=200)]))
def test_there_are_no_more_operations_than_with_the_mean_everywhere(drawn, settings):
    groups, names = even(drawn.draw(st.tuples(*[st.integers(1, 10**7)] * 3)))
    losses = st.floats(0, 1e6) | st.just(np.inf)
    steps = allotted(groups, {name: drawn.draw(losses) for name in names.values()}, settings)
    asked = settings.coding.steps_for(settings.levels)
    assert steps.keys() == set(names.values())
    assert all(max(asked // 2, 1) <= number <= min(8 * asked, most_steps(settings.coding)) for number in steps.values())
    numbers = [{steps[one.name] for one in group.activations} for group in groups]
    total = sum(group.cost * number for group, (number,) in zip(groups, numbers, strict=True))
    assert total <= asked * sum(group.cost for group in groups)
    # Thresholds are written for up to 256 levels; a Relu needs none.
    assert settings.coding.most(steps[names["last"]]) <= 256
    assert settings.coding is Rate or max(steps.values()) <= 10


def test_steps_go_where_they_save_most_for_what_they_cost():
    groups, names = even()
    lost = dict.fromkeys(names.values(), 1.0)
    assert set(allotted(groups, lost, RATE).values()) == {8}
    # What is lost falls as the square: of what costs as much, twice the steps for eight times the loss.
    more = allotted(groups, lost | {names["narrow"]: 8.0}, RATE)
    assert more[names["narrow"]] == pytest.approx(2 * more[names["last"]], abs=1)
    # Where nothing is lost, nothing is to be saved, and levels of their own are not taken.
    assert set(allotted(groups, dict.fromkeys(lost, 0.0), RATE).values()) == {4}
    unit = replace(groups[0], activations=[replace(one, unit=np.ones(1)) for one in groups[0].activations])
    kept = allotted([unit, *groups[1:]], dict.fromkeys(lost, 0.0), RATE)
    assert kept[names["narrow"]] == 8 and kept[names["last"]] == 4
    cheap = allotted(even((100, 200, 1))[0], lost, RATE)
    assert cheap.pop(names["last"]) == 64 and set(cheap.values()) <= {7, 8, 9}


def test_neurons_of_products_have_their_own_too():
    nodes = NODES.replace("y = Flatten (g)", "f = Flatten (g) y = Gemm (f, s)")
    model = network(nodes, outputs="float[N, 5] y", weights=WEIGHTS | {"s": weight(10, 5, seed=4)})
    result = calibrate(model, data(), steps=4, coding="radix", neurons="products", mixed=True)
    steps = {row["name"]: row["steps"] for row in result.summary()["activations"]}
    assert len(steps) == 5 and len(set(steps.values())) > 1
    spiking = rewrite(result.model, coding="radix", neurons="products")
    assert verify(result.model, spiking.model, data(8, seed=1)).summary()["verdict"] == "equal"


def test_where_the_data_suit_no_activation_it_is_told():
    told = refusal_of(calibrate, source(), {"x": np.full((4, 3, 8, 8), np.nan, np.float32)}, steps=4, mixed=True)
    assert told == refusal_of(calibrate, source(), {"x": np.full((4, 3, 8, 8), np.nan, np.float32)}, steps=4)


@pytest.mark.parametrize(("steps", "coding"), [(8, "rate"), (4, "radix")])
def test_a_mixed_network_is_rewritten_and_equal(steps, coding, tmp_path):
    path = tmp_path / "quantised.onnx"
    result = calibrate(source(), data(), path, steps=steps, coding=coding, mixed=True)
    document = result.summary()
    rows = {row["name"]: row["steps"] for row in document["activations"]}
    costs = {one.name: group.cost / len(group.activations) for group in grouped(source()) for one in group.activations}
    mean = sum(rows[name] * cost for name, cost in costs.items()) / sum(costs.values())
    assert document["steps"] == steps and document["mixed"] and steps - 1 < mean <= steps
    narrow, left, right, _ = rows.values()
    assert left == right != narrow
    spiking = rewrite(path, coding=coding)
    assert {row["name"]: row["steps"] for row in spiking.summary()["activations"]} == rows
    # All products read trains, also behind the Concat.
    assert document["spike_driven"]["share"] == 1
    assert verify(path, spiking.model, data(8, seed=1)).summary()["verdict"] == "equal"
    assert f"T = {steps} in the mean" in str(result)
    heads = str(result).splitlines()[0].split()
    assert heads[:3] == ["activation", "T", "channels"]


@pytest.mark.parametrize(("steps", "share"), [(4, 0.96), (8, 0.9)])
def test_it_loses_less_than_as_many_steps_for_all(steps, share):
    held = data(256, seed=1)["x"]
    expected = onnxruntime_of(source())(held)
    errors = []
    for mixed in (False, True):
        found = onnxruntime_of(calibrate(source(), data(200), steps=steps, method="fit", mixed=mixed).model)(held)
        errors.append(float(np.square(found - expected).mean()))
    assert errors[1] < share * errors[0]


@pytest.mark.parametrize("options", [{"method": "tune"}, {"method": "max"}, {"method": "fit", "signed": True}])
def test_other_methods_have_them_too(options):
    if options["method"] == "tune":
        pytest.importorskip("torch")
    result = calibrate(source(), data(48), steps=4, mixed=True, **options)
    rows = {row["name"]: row["steps"] for row in result.summary()["activations"]}
    spiking = rewrite(result.model, coding="rate", signed=options.get("signed", False))
    assert {row["name"]: row["steps"] for row in spiking.summary()["activations"]} == rows
    assert len(set(rows.values())) > 1


def test_mode_serial_has_one_number_for_all():
    nodes = "f = Flatten (x) a = Gemm (f, w) r = Relu (a) b = Gemm (r, v) s = Relu (b) y = Gemm (s, u)"
    weights = {"w": weight(192, 64), "v": weight(64, 4, seed=1), "u": weight(4, 5, seed=2)}
    model = calibrate(network(nodes, outputs="float[N, 5] y", weights=weights), data(), steps=4, mixed=True).model
    assert "runs all neurons for the same number of time-steps" in refusal_of(
        rewrite, model, mode="serial", coding="rate"
    )


def test_the_command_line_takes_it(tmp_path):
    np.savez(tmp_path / "data.npz", **data())
    onnx.save(source(), tmp_path / "ann.onnx")
    arguments = ["calibrate", "ann.onnx", "--data", "data.npz", "--steps", "4", "--mixed", "--readouts", "spiking"]
    arguments += ["-o", "q.onnx", "--json"]
    assert main([str(tmp_path / one) if "." in one else one for one in arguments]) == 0
    again = calibrate(source(), data(), steps=4, mixed=True).found.steps
    found = rewrite(tmp_path / "q.onnx", coding="rate").summary()["activations"]
    assert [row["steps"] for row in found] == [*again.values()]


def test_plain_calibration_has_the_same_number_everywhere():
    document = calibrate(source(), data(), steps=5).summary()
    assert not document["mixed"] and [row["steps"] for row in document["activations"]] == [5] * 4


def test_several_means_at_once_are_each_as_alone():
    each = calibrate_each(source(), data(), steps=[4, 8], mixed=True)
    for steps, result in each.items():
        alone = calibrate(source(), data(), steps=steps, mixed=True)
        assert alone.found.steps == result.found.steps
        assert alone.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("steps", [8, 40])
def test_the_cache_keeps_the_numbers(steps, tmp_path, monkeypatch):
    """Also where rules are tried first, which are of many levels."""
    options = {"steps": steps, "mixed": True, "cache": tmp_path / "kept.npz"}
    whole = calibrate(source(), data(), steps=steps, mixed=True)
    choose, calls = sweep.choose, []

    def interrupted(*arguments, **named):
        calls.append(1)
        # Four choices try activations alone; rules are three, side by side.
        if len(calls) == (7 if steps == 8 else 11):
            raise KeyboardInterrupt
        return choose(*arguments, **named)

    monkeypatch.setattr(sweep, "choose", interrupted)
    with pytest.raises(Interrupted, match="keeps 2 of 4"):
        calibrate(source(), data(), **options)
    monkeypatch.setattr(sweep, "choose", choose)

    def no_more(*_):
        raise AssertionError("it is known how many time-steps there are")

    monkeypatch.setattr(calibrating, "allotments", no_more)
    for _ in range(2):
        again = calibrate(source(), data(), **options)
        assert again.found.steps == whole.found.steps
        assert json.dumps(again.found_summary()["activations"]) == json.dumps(whole.found_summary()["activations"])
    assert again.from_cache


def test_without_mixing_the_file_is_another(tmp_path):
    kept = tmp_path / "kept.npz"
    calibrate(source(), data(), steps=8, cache=kept)
    assert not calibrate(source(), data(), steps=8, cache=kept, mixed=True).from_cache


def test_what_tells_nothing_is_refused():
    told = refusal_of(calibrate, source(), "random", steps=4, mixed=True)
    assert "random data do not tell" in told and "`mixed=`" in told
    model = network("r = Relu (x) y = Sub (r, r)")
    assert "cannot be compared" in refusal_of(calibrate, model, data(), steps=4, mixed=True)


@pytest.mark.parametrize("steps", [4, 5, 6, 8])
def test_trains_with_and_without_signs_are_still_joined(steps):
    nodes = (
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) n = Relu (a) b = Conv (n, v) o = Sigmoid (b) p = Mul (b, o)"
        " c = Conv (n, u) r = Relu (c) both = Concat <axis = 1> (p, r) d = Conv (both, t)"
        " g = GlobalAveragePool (d) y = Flatten (g)"
    )
    shapes = {"w": (16, 3, 3, 3), "v": (2, 16, 1, 1), "u": (2, 16, 1, 1), "t": (1, 4, 1, 1)}
    weights = {name: weight(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    model = network(nodes, outputs="float[N, 1] y", weights=weights)
    result = calibrate(model, data(), steps=steps, coding="radix", mixed=True, method="fit")
    # As many as there may be, for what costs nearly nothing.
    assert max(row["steps"] for row in result.summary()["activations"]) == 10
    assert result.summary()["spike_driven"]["share"] == 1
