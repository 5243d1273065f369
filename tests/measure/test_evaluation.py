"""`evaluate`: right answers are counted as their definitions say, of each network that is rewritten."""

from __future__ import annotations

import json
import math
import pickle
import sys
from functools import partial

import numpy as np
import onnx
import pytest
from batches import batch_sizes
from networks import network, qcfs, weight
from refusals import refusal_of

import pconv_onnx.measure.evaluation
from pconv_onnx import evaluate, rewrite, session
from pconv_onnx.measure.evaluation import Score

refusal = partial(refusal_of, evaluate)
X = np.random.default_rng(1).normal(size=(120, 3, 8, 8)).astype(np.float32)


def logits(model, x=X) -> np.ndarray:
    return session(model).run(None, {"x": x})[0]


@pytest.fixture
def wide_network() -> onnx.ModelProto:
    """A small network of ten classes."""
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} f = Flatten (a) y = MatMul (f, u)"
    weights = {"w": 4 * weight(2, 3, 3, 3), "u": weight(72, 10, seed=1)}
    return network(nodes, outputs="float[N, 10] y", weights=weights)


def test_right_answers_are_counted_as_numpy_counts_them(wide_network):
    labels = np.random.default_rng(2).integers(0, 10, len(X))
    summary = evaluate(wide_network, {"x": X, "labels": labels}, steps=[1, 3, 4]).summary()
    assert (summary["samples"], summary["labels"]) == (120, True)
    assert [(row["steps"], row["mode"]) for row in summary["rows"]] == [(1, "folded"), (3, "folded"), (4, "folded")]
    expected = logits(wide_network)
    for row in (summary["ann"], *summary["rows"]):
        model = rewrite(wide_network, steps=row["steps"], mode="folded").model if "steps" in row else wide_network
        found = logits(model)
        order = np.argsort(-found, axis=1)
        assert row["top1"] == (order[:, 0] == labels).mean()
        assert row["top5"] == (order[:, :5] == labels[:, np.newaxis]).any(axis=1).mean()
        assert row["top1_standard_error"] == pytest.approx(math.sqrt(row["top1"] * (1 - row["top1"]) / 120), rel=0.05)
        assert row["top1_interval"][0] < row["top1"] < row["top1_interval"][1]
        if "steps" in row:
            assert row["agreement"] == (found.argmax(1) == expected.argmax(1)).mean()
            assert row["mse"] == pytest.approx(np.square(found.astype(float) - expected).mean(), abs=1e-12)
    errors = [row["mse"] for row in summary["rows"]]
    assert errors[0] > errors[1] > 1e-3 > 1e-10 > errors[2]


def test_without_labels_networks_are_compared_with_the_ann_only(small_network):
    (row,) = evaluate(small_network, {"x": X}, steps=4).summary()["rows"]
    assert (row["top1"], row["top1_standard_error"], row["top5"]) == (None, None, None)
    assert row["agreement"] == 1 and row["mse"] < 1e-10
    assert evaluate(small_network, {"x": X}, steps=[4]).summary()["ann"]["top1"] is None


def test_top5_needs_six_classes(small_network, wide_network):
    data = {"x": X, "labels": np.zeros(120, np.uint8)}
    assert evaluate(small_network, data).summary()["ann"]["top5"] is None
    assert evaluate(wide_network, data).summary()["ann"]["top5"] > 0


def test_without_classes_outputs_are_compared():
    ann = network(qcfs("x", "y"))
    (row,) = evaluate(ann, {"x": X}, steps=[2]).summary()["rows"]
    found = logits(rewrite(ann, steps=2).model)
    assert row["agreement"] is None
    assert row["mse"] == pytest.approx(np.square(found.astype(float) - logits(ann)).mean())


def test_both_modes_score_alike(small_network):
    data = {"x": X, "labels": logits(small_network).argmax(1)}
    rows = [evaluate(small_network, data, steps=[2], mode=mode).summary()["rows"][0] for mode in ("folded", "parallel")]
    assert [row.pop("mode") for row in rows] == ["folded", "parallel"]
    assert rows[0].pop("top1_interval") == pytest.approx(rows[1].pop("top1_interval"))
    for folded, parallel in zip(*([row.pop("cosine"), row.pop("outputs")["y"]["cosine"]] for row in rows), strict=True):
        assert folded == pytest.approx(parallel)
    assert rows[0] == pytest.approx(rows[1])
    assert 0 < rows[0]["top1"] < 1


@pytest.mark.parametrize("mode", ["folded", "parallel"])
def test_a_spiking_network_is_evaluated_by_itself(small_network, mode):
    snn = rewrite(small_network, steps=3, mode=mode).model
    labels = logits(snn).argmax(1)
    labels[:30] = (labels[:30] + 1) % 5
    summary = evaluate(snn, {"x": X, "labels": labels}).summary()
    assert summary["ann"] is None
    (row,) = summary["rows"]
    assert (row["steps"], row["mode"], row["top1"], row["agreement"], row["mse"]) == (3, mode, 0.75, None, None)
    del snn.metadata_props[:]
    (bare,) = evaluate(snn, {"x": X, "labels": labels}).summary()["rows"]
    assert (bare["steps"], bare["mode"], bare["top1"]) == (None, None, 0.75)


def test_steps_that_are_named_twice_are_evaluated_once(small_network):
    rows = evaluate(small_network, {"x": X}, steps=[4, 2, 4]).rows
    assert [row.steps for row in rows] == [4, 2]


@pytest.mark.parametrize(("mode", "largest"), [("parallel", 2), ("folded", 50)])
def test_networks_of_many_steps_are_run_on_few_samples_at_once(mode, largest, small_network, monkeypatch):
    sizes = batch_sizes(monkeypatch, pconv_onnx.measure.evaluation)
    evaluate(small_network, {"x": X}, steps=[2, 256], mode=mode)
    assert (max(sizes), sum(sizes)) == (largest, 3 * 120)
    sizes.clear()
    snn = rewrite(small_network, steps=256, mode=mode).model
    evaluate(snn, {"x": X, "labels": np.zeros(120, int)})
    assert max(sizes) == largest


NAN = np.nan


@pytest.mark.parametrize(
    ("answers", "label", "correct", "among_top"),
    [
        ([0, 1, 2, 3, 4, 5, 6], 6, 1, 1),
        ([0, 1, 2, 3, 4, 5, 6], 2, 0, 1),
        ([0, 1, 2, 3, 4, 5, 6], 1, 0, 0),
        ([1, 1, 1, 1, 1, 1, 1], 0, 1, 1),  # of equal ones the first, as in argmax
        ([1, 1, 1, 1, 1, 1, 1], 1, 0, 1),
        ([1, 1, 1, 1, 1, 1, 1], 5, 0, 0),
        ([9, NAN, 0, 0, 0, 0, 0], 0, 0, 0),
        ([NAN] * 7, 0, 0, 0),
    ],
)
def test_ties_and_nans_have_one_answer(answers, label, correct, among_top):
    score = Score()
    score.judge(np.array([answers], np.float32), np.array([label], np.uint64))
    assert (score.correct, score.among_top) == (correct, among_top)


def test_outputs_that_are_no_numbers_are_still_a_json_document(small_network):
    ann = onnx.ModelProto()
    ann.CopyFrom(small_network)
    table = next(tensor for tensor in ann.graph.initializer if tensor.name == "u")
    table.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 5), np.inf, np.float32), "u"))
    (row,) = json.loads(json.dumps(evaluate(ann, {"x": X}, steps=[2]).summary(), allow_nan=False))["rows"]
    assert row["mse"] is None


@pytest.mark.parametrize(("label", "sample"), [(5, 7), (-1, 0), (99, 119)])
def test_labels_that_name_no_class_are_told(label, sample, small_network):
    labels = np.zeros(120, int)
    labels[sample] = label
    told = refusal(small_network, {"x": X, "labels": labels})
    assert told == f"'labels' has {label} at sample {sample}; the model has 5 classes; number them from 0 to 4"


def test_labels_without_classes_are_told():
    ann = network(qcfs("x", "y"))
    told = refusal(ann, {"x": X, "labels": np.zeros(120, int)}, steps=[2])
    assert told.startswith("no output of the model has classes, floats [samples, classes], for 'labels' to name; ")


def numpy_errors(model, targets, x=X) -> dict:
    difference = logits(model, x).astype(np.float64).reshape(targets.shape) - targets
    return {
        "rmse": pytest.approx(np.sqrt(np.square(difference).mean())),
        "mae": pytest.approx(np.abs(difference).mean()),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_labels_that_are_floats_are_targets_of_the_output(wide_network, dtype):
    targets = np.random.default_rng(3).normal(size=(120, 10)).astype(dtype)
    summary = evaluate(wide_network, {"x": X, "labels": targets}, steps=[1, 4]).summary()
    assert (summary["labels"], summary["targets"]) == (False, "y")
    for row in (summary["ann"], *summary["rows"]):
        model = rewrite(wide_network, steps=row["steps"], mode="folded").model if "steps" in row else wide_network
        assert {name: row[name] for name in ("rmse", "mae")} == numpy_errors(model, targets)
        assert (row["top1"], row["top1_standard_error"], row["top5"]) == (None, None, None)
    assert summary["rows"][0]["agreement"] < 1
    assert summary["rows"][0]["rmse"] != summary["rows"][1]["rmse"]


@pytest.mark.parametrize("shape", [(120,), (120, 1), (120, 1, 1)])
def test_axes_of_length_one_do_not_keep_targets_from_an_output(shape):
    ann = network(
        f"c = Conv (x, w) {qcfs('c', 'a')} f = Flatten (a) y = MatMul (f, u)",
        outputs="float[N, 1] y",
        weights={"w": 4 * weight(2, 3, 3, 3), "u": weight(72, 1, seed=1)},
    )
    targets = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    found = evaluate(ann, {"x": X, "labels": targets}).summary()
    assert found["targets"] == "y"
    assert {name: found["ann"][name] for name in ("rmse", "mae")} == numpy_errors(ann, targets)


def test_a_spiking_network_alone_has_an_error_against_targets(small_network):
    snn = rewrite(small_network, steps=2).model
    targets = np.random.default_rng(3).normal(size=(120, 5)).astype(np.float32)
    (row,) = evaluate(snn, {"x": X, "labels": targets}).summary()["rows"]
    assert {name: row[name] for name in ("rmse", "mae")} == numpy_errors(snn, targets)


GENERATOR = np.random.default_rng(5)
TOKENS = GENERATOR.normal(size=(110, 6, 4)).astype(np.float32)
# Padded at the end.
MASK = (np.arange(6) < GENERATOR.integers(1, 7, (110, 1))).astype(np.int64)
TOKEN_LABELS = np.where(GENERATOR.random((110, 6)) < 0.3, -100, GENERATOR.integers(0, 8, (110, 6)))


@pytest.fixture
def tagger() -> onnx.ModelProto:
    """A network of tokens: their hidden states, their logits, and a vector of each sample."""
    nodes = f"""
        h = MatMul (x, w) {qcfs("h", "states")} logits = MatMul (states, u)
        pooled = ReduceMean <keepdims = 0> (states, axis)
    """
    weights = {"w": 4 * weight(4, 10), "u": weight(10, 8, seed=1), "axis": np.array([1])}
    outputs = "float[N, S, 10] states, float[N, S, 8] logits, float[N, 10] pooled"
    return network(nodes, inputs="float[N, S, 4] x", outputs=outputs, weights=weights)


def masked(model) -> onnx.ModelProto:
    """A network that takes a mask as well; of padded tokens it gives what no number is."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    found.graph.input.append(onnx.helper.make_tensor_value_info("attention_mask", onnx.TensorProto.INT64, ["N", "S"]))
    given = onnx.helper.make_tensor_value_info("given_logits", onnx.TensorProto.FLOAT, ["N", "S", 8])
    made = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]> part
        (float[N, S, 8] logits, int64[N, S] attention_mask) => (float[N, S, 8] given_logits) {
            last = Constant <value_ints: ints = [-1]> ()
            wide = Unsqueeze (attention_mask, last)
            kept = Cast <to = 1> (wide)
            ones = Div (kept, kept)
            given_logits = Mul (logits, ones)
        }"""
    )
    found.graph.node.extend(made.graph.node)
    found.graph.output[1].CopyFrom(given)
    return found


def run(model, **feed) -> dict[str, np.ndarray]:
    runner = session(model)
    return dict(zip([output.name for output in runner.get_outputs()], runner.run(None, feed), strict=True))


def numpy_cosine(ours, theirs) -> dict:
    """Of vectors `[vectors, D]`."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    equal = (ours == 0).all(1) & (theirs == 0).all(1)
    found = np.where(equal, 1, (ours * theirs).sum(1) / np.where(lengths == 0, 1, lengths))
    return {
        "count": len(ours),
        "not_finite": 0,
        "median": pytest.approx(np.median(found), abs=1e-6),
        "quantile_05": pytest.approx(np.quantile(found, 0.05), abs=1e-6),
        "mean": pytest.approx(found.mean(), abs=1e-6),
    }


def test_each_output_is_as_alike_to_the_ann_s_as_numpy_finds_it(tagger):
    summary = evaluate(tagger, {"x": TOKENS}, steps=[1, 2]).summary()
    expected = run(tagger, x=TOKENS)
    for row in summary["rows"]:
        found = run(rewrite(tagger, steps=row["steps"], mode="folded").model, x=TOKENS)
        outputs = row["outputs"]
        assert list(outputs) == ["states", "logits", "pooled"]
        for name, size, of in (("states", 10, "tokens"), ("logits", 8, "tokens"), ("pooled", 10, "samples")):
            vectors = (values[name].reshape(-1, size) for values in (found, expected))
            assert outputs[name]["cosine"] == {"of": of, **numpy_cosine(*vectors)}
        assert row["cosine"] == {"output": "states", **outputs["states"]["cosine"]}
        share = (found["logits"].argmax(2) == expected["logits"].argmax(2)).mean()
        assert [outputs[name]["token_agreement"] for name in outputs] == [None, share, None]
        assert row["token_agreement"] == share
    one, two = summary["rows"]
    assert one["cosine"]["median"] < two["cosine"]["median"] < 1
    assert one["token_agreement"] < two["token_agreement"] < 1


def test_images_have_a_cosine_each():
    ann = network(qcfs("x", "y"))
    (row,) = evaluate(ann, {"x": X}, steps=[2]).summary()["rows"]
    found = logits(rewrite(ann, steps=2).model)
    expected = numpy_cosine(found.reshape(120, -1), logits(ann).reshape(120, -1))
    assert row["cosine"] == {"output": "y", "of": "samples", **expected}
    assert row["token_agreement"] is None


def test_labels_of_tokens_give_top1_and_perplexity(tagger):
    summary = evaluate(tagger, {"x": TOKENS, "labels": TOKEN_LABELS}, steps=[1, 4]).summary()
    chosen = TOKEN_LABELS >= 0
    assert (summary["labels"], summary["targets"], summary["tokens"]) == (False, None, "logits")
    assert summary["labelled_tokens"] == chosen.sum()
    for row in (summary["ann"], *summary["rows"]):
        model = rewrite(tagger, steps=row["steps"], mode="folded").model if "steps" in row else tagger
        answers, labels = run(model, x=TOKENS)["logits"][chosen].astype(np.float64), TOKEN_LABELS[chosen]
        shares = np.exp(answers) / np.exp(answers).sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(len(labels)), labels]).mean()
        assert row["token_top1"] == (answers.argmax(1) == labels).mean()
        assert row["perplexity"] == pytest.approx(np.exp(loss))
        assert (row["top1"], row["rmse"]) == (None, None)
    assert summary["rows"][0]["perplexity"] != summary["ann"]["perplexity"]


def test_labels_tell_which_output_has_logits(tagger):
    tagger.graph.output[1].name = tagger.graph.node[-2].output[0] = "y"
    del tagger.graph.output[0]
    (row,) = evaluate(tagger, {"x": TOKENS}, steps=[1]).summary()["rows"]
    assert row["token_agreement"] is None
    (row,) = evaluate(tagger, {"x": TOKENS, "labels": TOKEN_LABELS}, steps=[1]).summary()["rows"]
    assert 0 < row["token_agreement"] == row["outputs"]["y"]["token_agreement"] < 1


def test_a_spiking_network_alone_has_a_perplexity(tagger):
    data = {"x": TOKENS, "labels": TOKEN_LABELS}
    (row,) = evaluate(rewrite(tagger, steps=2).model, data).summary()["rows"]
    (same,) = evaluate(tagger, data, steps=[2]).summary()["rows"]
    assert row["perplexity"] == pytest.approx(same["perplexity"]) and row["token_top1"] == same["token_top1"]
    assert (row["cosine"], row["token_agreement"], row["outputs"]) == (None, None, {})


def test_tokens_without_any_label_have_no_perplexity(tagger):
    found = evaluate(tagger, {"x": TOKENS, "labels": np.full((110, 6), -100)}).summary()
    assert (found["labelled_tokens"], found["ann"]["token_top1"], found["ann"]["perplexity"]) == (0, None, None)


def test_padded_tokens_are_left_out(tagger):
    data = {"x": TOKENS, "attention_mask": MASK}
    (row,) = evaluate(masked(tagger), data, steps=[2]).summary()["rows"]
    kept = MASK != 0
    expected = run(tagger, x=TOKENS)
    found = run(rewrite(tagger, steps=2, mode="folded").model, x=TOKENS)
    for name, output in (("states", "states"), ("logits", "given_logits")):
        pair = (values[name][kept] for values in (found, expected))
        assert row["outputs"][output]["cosine"] == {"of": "tokens", **numpy_cosine(*pair)}
    assert row["outputs"]["pooled"]["cosine"]["count"] == 110
    assert row["mse"] is None  # of all tokens, those too that are no numbers
    labels = np.where(kept, TOKEN_LABELS, -100)
    masked_summary, summary = (
        evaluate(model, {**given, "labels": labels}, steps=[2]).summary()
        for model, given in ((masked(tagger), data), (tagger, {"x": TOKENS}))
    )
    assert masked_summary["tokens"] == "given_logits"
    assert masked_summary["ann"] == summary["ann"]
    share = (found["logits"].argmax(2) == expected["logits"].argmax(2))[kept].mean()
    assert masked_summary["rows"][0]["token_agreement"] == share


def test_what_is_no_number_is_counted(tagger):
    weights = next(tensor for tensor in tagger.graph.initializer if tensor.name == "u")
    weights.CopyFrom(onnx.numpy_helper.from_array(np.full((10, 8), 7e37, np.float32), "u"))
    (row,) = json.loads(json.dumps(evaluate(tagger, {"x": TOKENS}, steps=[2]).summary(), allow_nan=False))["rows"]
    spiking = rewrite(tagger, steps=2, mode="folded").model
    found, expected = (run(model, x=TOKENS)["logits"] for model in (spiking, tagger))
    lost = ~(np.isfinite(found) & np.isfinite(expected)).all(axis=2)
    cosine = row["outputs"]["logits"]["cosine"]
    assert (cosine["count"], cosine["not_finite"], cosine["mean"]) == (660, lost.sum(), None)
    assert 33 < lost.sum() < 660 and cosine["quantile_05"] is None


def test_outputs_that_samples_do_not_lie_along_have_no_cosine():
    nodes = f"{qcfs('x', 'a')} y = ReduceMean <keepdims = 0> (a, axis) z = Flatten (a)"
    outputs = "float[3, 8, 8] y, float[N, 192] z"
    ann = network(nodes, outputs=outputs, weights={"axis": np.array([0])})
    # The last batch is of one sample, and its mean of length one along the first axis.
    (row,) = evaluate(ann, {"x": X[:51]}, steps=[2]).summary()["rows"]
    assert row["outputs"]["y"] == {"cosine": None, "token_agreement": None}
    assert (row["cosine"]["output"], row["cosine"]["count"]) == ("z", 51)


def test_samples_may_lie_along_another_axis():
    nodes = f"h = MatMul (x, w) {qcfs('h', 'a')} logits = MatMul (a, u)"
    weights = {"w": 4 * weight(4, 10), "u": weight(10, 8, seed=1)}
    ann = network(nodes, inputs="float[S, N, 4] x", outputs="float[S, N, 8] logits", weights=weights)
    summary = evaluate(ann, {"x": TOKENS, "labels": TOKEN_LABELS}, steps=[2], batch_axis=1).summary()
    first = network(nodes, inputs="float[N, S, 4] x", outputs="float[N, S, 8] logits", weights=weights)
    expected = evaluate(first, {"x": TOKENS, "labels": TOKEN_LABELS}, steps=[2]).summary()
    for key in ("token_top1", "perplexity"):
        assert summary["ann"][key] == pytest.approx(expected["ann"][key])
    for key in ("token_agreement", "cosine"):
        assert summary["rows"][0][key] == pytest.approx(expected["rows"][0][key])


def test_labels_of_tokens_that_fit_nothing_are_told(tagger, small_network):
    told = refusal(small_network, {"x": X, "labels": np.zeros((120, 7), int)})
    assert told.startswith(
        "'labels' are integers [N, 7], one a token, and no output of the model has logits of as many, "
    )
    told = refusal(tagger, {"x": TOKENS, "labels": TOKEN_LABELS[:, 1:]})
    assert told.startswith(
        "'labels' are integers [N, 5], one a token, and no output of the model has logits of as many, "
    )
    labels = TOKEN_LABELS.copy()
    labels[103, 1] = 8
    told = refusal(tagger, {"x": TOKENS, "labels": labels})
    assert told.startswith("'labels' has 8 at sample 103, token 1; the model has 8 classes of tokens; ")


class Elsewhere:
    """An engine whose work is pickled for each shard, the last shard first."""

    def map(self, make, shards, description):
        return [pickle.loads(pickle.dumps(make))()(shard) for shard in reversed(shards)][::-1]


def test_errors_against_targets_are_the_same_whoever_works_on_which_shard(small_network, tmp_path):
    generator = np.random.default_rng(4)
    x, targets = generator.normal(size=(600, 3, 8, 8)).astype(np.float32), generator.normal(size=(600, 5))
    for start in range(0, 600, 200):
        rows = slice(start, start + 200)
        np.savez(tmp_path / f"{start}.npz", x=x[rows], labels=targets[rows])
    alone = evaluate(small_network, {"x": x, "labels": targets}, steps=[2]).summary()
    assert evaluate(small_network, tmp_path, steps=[2], engine=Elsewhere()).summary() == alone
    assert {name: alone["ann"][name] for name in ("rmse", "mae")} == numpy_errors(small_network, targets, x)


def test_cosines_and_perplexities_are_the_same_whoever_works_on_which_shard(tagger, tmp_path):
    x, labels = np.tile(TOKENS, (6, 1, 1)), np.tile(TOKEN_LABELS, (6, 1))
    x += np.random.default_rng(6).normal(0, 0.5, x.shape).astype(np.float32)
    for start in range(0, 660, 200):
        rows = slice(start, start + 200)
        np.savez(tmp_path / f"{start}.npz", x=x[rows], labels=labels[rows])
    alone = evaluate(tagger, {"x": x, "labels": labels}, steps=[1, 2]).summary()
    assert evaluate(tagger, tmp_path, steps=[1, 2], engine=Elsewhere()).summary() == alone
    found, expected = (run(model, x=x)["states"] for model in (rewrite(tagger, steps=1).model, tagger))
    expected = numpy_cosine(found.reshape(-1, 10), expected.reshape(-1, 10))
    assert alone["rows"][0]["cosine"] == {"output": "states", "of": "tokens", **expected}


@pytest.mark.parametrize(
    ("labels", "kind"), [(np.zeros((250, 5)), "floats"), (np.zeros((250, 5), int), "integers for each token")]
)
def test_labels_of_another_kind_in_later_parts_only_are_told(labels, kind, small_network, tmp_path):
    for name, own in (("a", np.zeros(250, int)), ("b", labels)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((250, 3, 8, 8), np.float32), labels=own)
    told = refusal(small_network, tmp_path)
    assert told.startswith(f"'labels' are integers in some parts of the data and {kind} in others; ")


def test_targets_that_fit_no_output_are_told(small_network):
    told = refusal(small_network, {"x": X, "labels": np.zeros(120, np.float32)}, steps=[2])
    assert told == (
        "'labels' are floats [N], a shape that no output of the model has: 'y' [N, 5]; give targets of the shape of an "
        "output, class numbers as integers, or no labels"
    )


def test_no_labels_and_no_steps_leave_nothing_to_evaluate(small_network):
    told = "the data have no 'labels' to count right answers by; add them, or "
    assert refusal(small_network, {"x": X}) == f"{told}pass `steps=` to compare spiking forms with it"
    assert refusal(rewrite(small_network).model, {"x": X}) == f"{told}compare it with its ANN by verify"


def test_a_network_without_float_outputs_is_told():
    ann = network(f"{qcfs('x', 'a')} y = ArgMax <axis = 1> (a)", outputs="int64[N, 1, 8, 8] y")
    assert refusal(ann, {"x": X}, steps=[2]).startswith("no output of the model is a tensor of floats")


@pytest.mark.parametrize("steps", [[0], [4, 257], [2.5], ["x"]])
def test_steps_out_of_range_are_told_before_anything_runs(steps, small_network, monkeypatch):
    monkeypatch.setattr(pconv_onnx.measure.evaluation, "run_session", None)
    assert "is not a number of time-steps; choose 1 to 256" in refusal(small_network, {"x": X}, steps=steps)


def test_a_network_that_cannot_be_rewritten_is_evaluated_as_it_is(relu_resnet, resnet_samples):
    few = {name: array[:20] for name, array in resnet_samples.items()}
    assert evaluate(relu_resnet, few).summary()["ann"]["top1"] > 0.5
    assert refusal(relu_resnet, few, steps=[4]).startswith(f"nothing to convert in '{relu_resnet}': ")


def test_a_spiking_network_has_no_other_steps(small_network):
    snn = rewrite(small_network).model
    assert "is a spiking network already" in refusal(snn, {"x": X}, steps=[4])


def test_the_accuracy_of_the_resnet_rises_to_its_ann_s(qcfs_resnet, every_sample):
    few = {name: array[:300] for name, array in every_sample.items()}
    summary = evaluate(qcfs_resnet, few, steps=[1, 4, 8]).summary()
    one, four, eight = summary["rows"]
    assert summary["ann"]["top1"] > 0.8 and summary["ann"]["top5"] > 0.97
    assert 0.1 < one["top1"] < four["top1"] - 0.2
    assert abs(eight["top1"] - summary["ann"]["top1"]) <= 1 / 300
    assert eight["agreement"] >= 299 / 300 > four["agreement"] > one["agreement"]
    assert one["mse"] > four["mse"] > eight["mse"]


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_curve_is_a_picture_of_the_kind_that_its_name_says(suffix, start, wide_network, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"curve.{suffix}"
    assert evaluate(wide_network, {"x": X[:20]}, steps=[4, 1]).draw(path) == path
    assert path.read_bytes().startswith(start)


def test_a_curve_shows_what_the_data_tell(wide_network, tmp_path):
    pytest.importorskip("matplotlib")
    accuracies = {f"{who}: top-{k} accuracy" for who in ("spiking", "ANN") for k in (1, 5)}
    likenesses = {"spiking: top-1 agreement with the ANN", "spiking: mean squared error"}
    errors = {f"{who}: root mean square error against targets" for who in ("spiking", "ANN")}
    for ann, labels, shown in (
        (wide_network, {"labels": np.zeros(5, int)}, accuracies),
        (wide_network, {"labels": np.zeros((5, 10), np.float32)}, errors),
        (wide_network, {}, {"spiking: top-1 agreement with the ANN"}),
        (network(qcfs("x", "y")), {}, {"spiking: mean squared error"}),
    ):
        path = evaluate(ann, {"x": X[:5], **labels}, steps=[1, 2]).draw(tmp_path / "curve.svg")
        text = path.read_text()
        assert {label for label in accuracies | likenesses | errors if f">{label}</text>" in text} == shown


def test_a_curve_of_tokens_shows_what_the_data_tell(tagger, tmp_path):
    pytest.importorskip("matplotlib")
    for labels, shown in (
        ({"labels": TOKEN_LABELS}, ("spiking: top-1 accuracy of tokens", "ANN: top-1 accuracy of tokens")),
        ({}, ("spiking: top-1 agreement of tokens with the ANN",)),
    ):
        # Vectors of a sample look like logits.
        del tagger.graph.output[2:]
        text = evaluate(tagger, {"x": TOKENS, **labels}, steps=[1, 2]).draw(tmp_path / "curve.svg").read_text()
        assert all(f">{label}</text>" in text for label in shown)


def test_a_curve_may_go_to_a_directory(small_network, tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluate(small_network, {"x": X[:5]}, steps=[1])
    for folder in (tmp_path, tmp_path / "new", f"{tmp_path}/v1.0/"):
        path = result.draw(folder)
        assert path.name == "curve.png" and path.exists()
        assert path.parent.samefile(folder)


def test_there_is_no_curve_without_steps(wide_network, tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluate(wide_network, {"x": X[:5], "labels": np.zeros(5, int)})
    assert refusal_of(result.draw, tmp_path).startswith("there is no curve without time-steps")


def test_a_place_that_a_curve_cannot_go_to_is_told(small_network, tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluate(small_network, {"x": X[:5]}, steps=[2])
    assert refusal_of(result.draw, tmp_path / "c.jpg") == (
        f"'{tmp_path}/c.jpg' is no place for a curve; choose a directory or a .png, .svg, .pdf file"
    )
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "c.png"):
        told = refusal_of(result.draw, place)
        assert told.endswith(f": nothing can be made in '{tmp_path}/file'; choose another place")


def test_a_curve_as_a_file_makes_no_folder(small_network, tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluate(small_network, {"x": X[:5]}, steps=[2])
    assert refusal_of(result.draw, tmp_path / "none" / "c.png") == (
        f"cannot write '{tmp_path}/none/c.png': there is no folder '{tmp_path}/none'; "
        "make it, or choose another place with `output=`"
    )
    assert not (tmp_path / "none").exists()


def test_missing_matplotlib_is_told_with_its_extra(small_network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    result = evaluate(small_network, {"x": X[:5]}, steps=[2])
    told = refusal_of(result.draw, tmp_path)
    assert told.startswith("matplotlib cannot be imported: ") and told.endswith("; pip install 'pconv-onnx[report]'")
