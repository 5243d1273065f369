"""How far staircases of many levels reach."""

from __future__ import annotations

import numpy as np
import pytest
from harness import onnxruntime_of
from networks import network, weight

from pconv_onnx import calibrate
from pconv_onnx.calibration import rules
from pconv_onnx.calibration.choosing import choose
from pconv_onnx.calibration.functions import Clip
from pconv_onnx.calibration.settings import RULES, Settings
from pconv_onnx.data.samples import Samples, Selection
from pconv_onnx.neuron.coding import Radix
from pconv_onnx.runtime.entrance import prepared

NODES = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) b = Conv (r, v) s = Gelu (b) y = Conv (s, u)"


MANY = Settings(63, Radix, "refit", "activations", False)


def source():
    weights = {"w": weight(8, 3, 3, 3), "v": weight(8, 8, 1, 1, seed=1), "u": weight(5, 8, 1, 1, seed=2)}
    return network(NODES, outputs="float[N, 5, 8, 8] y", weights=weights)


def samples(count: int, batch: int | None = None) -> Samples:
    return Samples({"x": np.arange(count * 3.0, dtype=np.float32).reshape(count, 3)}, None, batch)


def values(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_t(3, (count, 3, 8, 8)).astype(np.float32)}


@pytest.mark.parametrize("count, batch", [(4, None), (64, None), (3000, None), (64, 4), (8, 2)])
def test_those_that_judge_are_others_than_those_that_are_tried_on(count, batch):
    tried, held = rules.shares(MANY, samples(count, batch))
    rows = [set(selection.rows.tolist()) for selection in (tried, held)]
    assert rows[0].isdisjoint(rows[1]) and all(rows)
    assert len(rows[0]) <= 300 and (count > 400 or len(rows[0]) == 3 * len(rows[1]) == 3 * count // 4)
    assert all(len(selection) % (batch or 1) == 0 and selection.fixed_batch == batch for selection in (tried, held))
    # From all of the data, in their order.
    assert max(rows[0]) > 0.9 * count - 8 and tried.rows.tolist() == sorted(rows[0])


def test_a_selection_reads_what_it_selects():
    whole = samples(20)
    chosen = Selection(Selection(whole, np.arange(1, 20, 2)), np.array([0, 3, 4]))
    assert len(chosen) == 3
    np.testing.assert_array_equal(chosen.part(slice(1, 3)).arrays["x"], whole.arrays["x"][[7, 9]])


def test_what_lies_between_selected_samples_is_not_read():
    class Recorded:
        fixed_batch = None

        def __init__(self) -> None:
            self.asked: list[tuple[int, int]] = []

        def __len__(self) -> int:
            return 1000

        def part(self, rows: slice) -> Samples:
            self.asked.append((rows.start, rows.stop))
            return samples(1000).part(rows)

    data = Recorded()
    part = Selection(data, np.array([3, 4, 5, 900, 901, 990])).part(slice(1, 6))
    assert data.asked == [(4, 6), (900, 902), (990, 991)]
    np.testing.assert_array_equal(part.arrays["x"], samples(1000).arrays["x"][[4, 5, 900, 901, 990]])


def test_few_samples_or_levels_are_not_tried_on():
    assert rules.shares(MANY, samples(4)) is not None and rules.shares(MANY, samples(3)) is None
    assert rules.shares(Settings(32, Radix, "refit", "activations", False), samples(100)) is None
    assert rules.shares(Settings(255, Radix, "max", "activations", False), samples(100)) is None


def test_an_error_counts_in_units_of_each_channel_and_where_outputs_say_something():
    """By hand: a channel is off by half of itself in all samples, and the others are right."""
    ann = network("y = Mul (x, ones)", weights={"ones": np.ones((1, 3, 1, 1), np.float32)})
    off = network("y = Mul (x, ones)", weights={"ones": np.array([1, 1.5, 1], np.float32).reshape(1, 3, 1, 1)})
    x = np.random.default_rng(0).normal(0, 1, (64, 3, 8, 8)).astype(np.float32) * np.reshape([1, 1e3, 1e-3], (3, 1, 1))
    x[:48] *= 1e-2
    held = Samples({"x": x.astype(np.float32)}, None, None)
    found = rules.output_errors(prepared(ann), {"same": ann, "off": off}, held, 10)
    loud = x[48:, 1].astype(np.float64)
    assert found["same"] == 0
    assert found["off"] == pytest.approx(0.25 * np.square(loud).mean() / x[:, 1].astype(np.float64).var() / 3, rel=0.02)


def test_what_is_not_finite_is_infinitely_wrong():
    ann = network("y = Mul (x, one)")
    wrong = network("z = Sub (x, x) y = Div (x, z)")
    with np.errstate(all="ignore"):
        found = rules.output_errors(prepared(ann), {"wrong": wrong}, Samples(values(8), None, None), 4)
    assert found == {"wrong": np.inf}


def test_the_rule_that_serves_the_outputs_is_taken(tmp_path):
    """Of few samples, in which no channel has shown much, one that looks at all channels; the cache has it as well."""
    nodes = "f = Flatten (x) a = Gemm (f, w) r = Relu (a) b = Gemm (r, v) s = Relu (b) y = Gemm (s, u)"
    weights = {"w": weight(192, 16), "v": weight(16, 16, seed=1), "u": weight(16, 5, seed=2)}
    ann, cache = network(nodes, outputs="float[N, 5] y", weights=weights), tmp_path / "cache.npz"
    options = {"steps": 8, "coding": "radix", "method": "fit"}
    first, again = (calibrate(ann, values(12), **options, cache=cache) for _ in range(2))
    summary = first.summary()
    assert set(summary["scale_errors"]) == set(RULES)
    assert summary["scale_rule"] == min(summary["scale_errors"], key=summary["scale_errors"].get) != "fit"
    (line,) = (line for line in str(first).splitlines() if line.startswith("scales by rule"))
    assert line.startswith("scales by rule 'tensor', which disturbs the outputs least (share of their variance, fit: ")
    assert again.from_cache and again.summary() == {**summary, "from_cache": True}
    test = values(400, seed=1)["x"]
    expected, found = (onnxruntime_of(model)(test) for model in (ann, first.model))
    other = onnxruntime_of(calibrate(ann, values(12), **{**options, "method": "max"}).model)(test)
    assert np.square(found - expected).mean() < np.square(other - expected).mean()
    few = calibrate(ann, values(12), steps=4).summary()
    assert (few["scale_rule"], few["scale_errors"]) == ("fit", {})


def test_one_scale_for_all_channels_is_one_row():
    result = calibrate(source(), values(100), steps=8, coding="radix")
    sizes = {len(entry.staircase.threshold) for entry in result.found.activations}
    assert sizes == ({1} if result.found.rule == "tensor" else {8})


def test_outputs_without_a_row_for_each_sample_are_passed_over():
    """The number of what NonZero finds is another in each batch; a rule is chosen by the other output."""
    nodes = """
        f = Flatten (x) a = Gemm (f, w) r = Relu (a) y = Gemm (r, u)
        b = Greater (y, two) n = NonZero (b) t = Transpose <perm = [1, 0]> (n) z = Cast <to = 1> (t)
    """
    weights = {"w": weight(192, 16), "u": weight(16, 5, seed=2), "two": np.float32(0.5)}
    ann = network(nodes, outputs="float[N, 5] y, float[M, 2] z", weights=weights)
    summary = calibrate(ann, values(40), steps=8, coding="radix").summary()
    assert set(summary["scale_errors"]) == set(RULES) and all(summary["scale_errors"].values())
    held = Samples(values(40), None, None)
    assert rules.output_errors(prepared(ann), {"same": ann}, held, 7) == {"same": 0}


@pytest.mark.parametrize("spread, scales", [(1.5, 1), (30.0, 8)])
def test_channels_that_are_nearly_alike_share_a_scale(spread, scales):
    """One scale for all multiplies squared errors by the largest square over the mean one: here by 1.4, and by 5."""
    settings = Settings(63, Radix, "refit", "products", False, rule="channel")
    largest = np.geomspace(1, spread, 8)[:, np.newaxis].astype(np.float32)
    values = largest * np.linspace(-1, 1, 101, dtype=np.float32)

    def gather(count):
        return count([(values, values)])

    def of_reference(count):
        return count([values])

    found = choose(settings, gather, of_reference, Clip(), centred=False, lowest=values.min(axis=1))
    assert len(np.unique(found.threshold.round(6))) == scales
