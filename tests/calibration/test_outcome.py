"""What a calibration does to the outputs: on which samples it is measured, and what is told of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import onnxruntime_of
from networks import network, weight
from refusals import refusal_of

from pconv_onnx import calibrate, rewrite
from pconv_onnx.answers.lines import calibration_lines
from pconv_onnx.calibration import calibrating
from pconv_onnx.calibration.holding import few, held_out
from pconv_onnx.calibration.outcome import Outcome, outcomes_of
from pconv_onnx.data.samples import Samples
from pconv_onnx.runtime.entrance import prepared

WEIGHTS = {"w": weight(192, 16), "v": weight(16, 16, seed=1), "u": weight(16, 5, seed=2)}
NODES = "f = Flatten (x) a = Gemm (f, w) r = Relu (a) b = Gemm (r, v) s = Relu (b) y = Gemm (s, u)"
ANN = network(NODES, outputs="float[N, 5] y", weights=WEIGHTS)


def data(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def numbered(count: int, batch: int | None = None) -> Samples:
    return Samples({"x": np.arange(count * 3.0, dtype=np.float32).reshape(count, 3)}, None, batch)


@pytest.mark.parametrize(
    "count, batch, expected",
    [(32, None, 8), (200, None, 20), (5000, None, 100), (64, 4, 8), (640, 16, 64), (96, 24, 24)],
)
def test_samples_are_held_out_evenly_and_in_whole_batches(count, batch, expected):
    kept, held = held_out(numbered(count, batch))
    assert len(held) == expected and held.fixed_batch == batch
    assert sorted([*kept.rows, *held.rows]) == list(range(count))
    blocks = held.rows.reshape(-1, batch or 1) // (batch or 1)
    assert (blocks == blocks[:, :1]).all()
    gaps = np.diff(blocks[:, 0])
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("count, batch", [(1, None), (31, None), (72, 24)])
def test_of_few_samples_none_is_held_out(count, batch):
    assert held_out(numbered(count, batch)) is None
    assert len(few(numbered(count, batch), 16)) == max(min(count, 16), batch or 1)


def test_the_sweep_does_not_see_what_is_held_out(monkeypatch):
    seen, passes = [], calibrating.Passes

    def recorded(network, data, shards):
        seen.append(data)
        return passes(network, data, shards)

    monkeypatch.setattr(calibrating, "Passes", recorded)
    x = data(64)["x"]
    result = calibrate(ANN, x, steps=4)
    (swept,) = seen
    assert (len(swept), result.samples, result.outcome.samples, result.outcome.held_out) == (56, 64, 8, True)
    held = np.delete(x, swept.rows, axis=0)
    expected, found = (onnxruntime_of(model)(held).astype(np.float64) for model in (ANN, result.model))
    outcome = result.outcome
    assert outcome.agreement == (expected.argmax(1) == found.argmax(1)).mean()
    assert outcome.output_error == pytest.approx((np.square(found - expected).mean(0) / expected.var(0)).mean())
    shares = [np.exp(rows) / np.exp(rows).sum(1, keepdims=True) for rows in (expected, found)]
    assert outcome.divergence == pytest.approx((shares[0] * np.log(shares[0] / shares[1])).sum(1).mean())
    assert outcome.lost == outcome.divergence and replace(outcome, divergence=None).lost == outcome.output_error
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    assert outcome.cosine == pytest.approx(((expected * found).sum(1) / lengths).mean())


def test_few_samples_are_judged_by_themselves_and_it_is_told():
    result = calibrate(ANN, data(12), steps=4)
    assert (result.outcome.samples, result.outcome.held_out) == (12, False)
    assert "(12 samples that it was calibrated on, since there are too few to hold some out)" in str(result)


def test_a_poor_outcome_is_told_with_what_helps():
    poor, good = (calibrate(ANN, data(64), steps=steps) for steps in (1, 64))
    assert poor.outcome.poor and not good.outcome.poor
    assert good.outcome.output_error < poor.outcome.output_error
    (line,) = (line for line in str(poor).splitlines() if line.startswith("warning: "))
    assert "`steps=`" in line and "`coding='radix'`" in line and "`sensitivity=True`" in line
    assert "warning" not in str(good) and "mixed" not in line
    line = str(calibrate(ANN, data(64), steps=1, coding="radix", sensitivity=True)).partition("warning: ")[2]
    assert "`steps=`" in line and "radix" not in line.partition("\n")[0] and "`sensitivity=" not in line


def test_time_steps_of_their_own_are_named_where_they_can_help():
    told = [str(calibrate(ANN, data(64), steps=2, mixed=mixed)).partition("warning: ")[2] for mixed in (False, True)]
    assert all("`steps=`" in text for text in told)
    assert ["`mixed=True`" in text for text in told] == [True, False]


@pytest.mark.parametrize("coding, steps, helps", [("rate", 10, True), ("radix", 9, True), ("radix", 10, False)])
def test_time_steps_of_their_own_are_not_named_where_none_could_have_more(coding, steps, helps):
    summary = calibrate(ANN, data(64), steps=steps, coding=coding).summary()
    summary["outcome"] |= {"poor": True}
    (line,) = (part for part in calibration_lines(summary) if str(part).startswith("warning: "))
    assert ("`mixed=True`" in line) == helps


@pytest.mark.parametrize("method, helps", [("fit", False), ("refit", True)])
def test_tuning_is_named_where_it_was_not_tried(method, helps):
    line = str(calibrate(ANN, data(64), steps=1, method=method)).partition("warning: ")[2]
    assert "`steps=`" in line and ("`method='tune'`" in line) == helps


def test_sensitivity_is_the_output_error_with_one_activation_quantised():
    nodes = "f = Flatten (x) a = Gemm (f, w) r = Relu (a) y = Gemm (r, u)"
    weights = {name: WEIGHTS[name] for name in "wu"}
    alone = calibrate(
        network(nodes, outputs="float[N, 5] y", weights=weights), data(64), steps=3, method="fit", sensitivity=True
    )
    assert list(alone.outcome.sensitivity.values()) == [pytest.approx(alone.outcome.output_error)]


def test_sensitivities_are_told_where_they_are_asked_for():
    asked, plain = (calibrate(ANN, data(64), steps=3, sensitivity=given) for given in (True, False))
    rows = asked.summary()["activations"]
    worst = max(rows, key=lambda row: row["sensitivity"])["name"]
    assert f"variance): {worst} (" in str(asked)
    assert [row["sensitivity"] for row in plain.summary()["activations"]] == [None, None]
    assert "sensitivity" not in str(plain).partition("\n")[0]


def test_the_cache_tells_the_same(tmp_path):
    options = {"steps": 3, "cache": tmp_path / "kept.npz"}
    first, again, more = (calibrate(ANN, data(64), **options, sensitivity=asked) for asked in (False, False, True))
    assert again.from_cache and again.outcome == first.outcome
    assert more.from_cache and more.outcome.sensitivity and replace(more.outcome, sensitivity={}) == first.outcome


def test_random_data_tell_nothing_of_outputs():
    result = calibrate(ANN, "random", steps=4)
    assert result.outcome is None and result.summary()["outcome"] is None and "end to end" not in str(result)
    assert "random data do not tell" in refusal_of(calibrate, ANN, "random", steps=4, sensitivity=True)


def test_rewrite_tells_it_as_well():
    result = rewrite(ANN, calibration=data(64), steps=4)
    assert result.summary()["calibration"]["outcome"]["samples"] == 8 and "end to end: " in str(result)


@pytest.mark.parametrize("nodes", ["y = Sub (x, x)", "n = NonZero (x) t = Transpose (n) y = Cast <to = 1> (t)"])
def test_outputs_that_cannot_be_compared_have_no_error(nodes):
    model = network(nodes, outputs="float[M, k] y")
    (outcome,) = outcomes_of(prepared(model), [model], Samples(data(8), None, None), held_out=True)
    assert outcome.output_error is None and not replace(outcome, agreement=None).poor


def test_what_is_not_finite_is_poor():
    assert Outcome(8, True, None, np.inf, None).summary()["output_error"] is None
    assert Outcome(8, True, None, np.inf, None).poor
