"""Networks whose samples do not lie along the first axis: rewritten alike, and fed and judged sample by sample."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from networks import MODES, network, qcfs, weight
from onnx.reference import ReferenceEvaluator
from refusals import refusal_of

from pconv_onnx import SerialSession, bench, calibrate, evaluate, rewrite, session, stats, verify
from pconv_onnx.cli.main import main
from pconv_onnx.data.reading import load_samples, random_samples
from pconv_onnx.measure.candidate import Candidate
from pconv_onnx.runtime.axes import by_sample, sample_axes

# With these, different samples have different classes.
W, V, U = weight(8, 8), weight(8, 8, seed=1), weight(8, 5, seed=28)
GENERATOR = np.random.default_rng(0)
# The weights are the same, so what differs is where samples lie: in the network, not in the data.
ATTENTION = """
    h0 = MatMul (x, w) h = Add (h0, b) {act}
    q = Transpose <perm = {perm}> (a) k = Transpose <perm = {perm_k}> (a)
    s0 = MatMul (q, k) s = Softmax <axis = -1> (s0) m0 = MatMul (s, q) m = Transpose <perm = {perm}> (m0)
    r = Add (a, m) d = MatMul (r, v) {act2}
    p = ReduceMean <keepdims = 0> (e, axis) y = MatMul (p, u)
"""


def attention(batch: int, act=qcfs, inputs: str = "", outputs: str = "float[N, 5] y") -> onnx.ModelProto:
    """A transformer's layer and a head; samples along that axis of `[S, B, F]` or `[B, S, F]`."""
    perm, perm_k = (([0, 1, 2], [0, 2, 1]), ([1, 0, 2], [1, 2, 0]))[batch]
    nodes = ATTENTION.format(act=act("h", "a"), act2=act("d", "e"), perm=perm, perm_k=perm_k)
    weights = {"w": 3 * W, "v": 3 * V, "u": U, "b": weight(8, 1).reshape(8), "axis": np.array([1 - batch])}
    return network(nodes, inputs=inputs or f"float[{('N, S', 'S, N')[batch]}, 8] x", outputs=outputs, weights=weights)


def recurrent() -> onnx.ModelProto:
    """An RNN, which is sequence-first as ONNX defines it, its states quantised, and a head for each step of it."""
    nodes = f"""
        states, last = RNN <hidden_size = 8> (x, w, v)
        h = Squeeze (states, axis) {qcfs("h", "a")} d = MatMul (a, v0) {qcfs("d", "e")} y = MatMul (e, u)
    """
    weights = {"w": 3 * W[np.newaxis], "v": V[np.newaxis], "v0": 3 * V, "u": U, "axis": np.array([1])}
    return network(nodes, inputs="float[S, N, 8] x", outputs="float[S, N, 5] y", weights=weights)


def relu(x: str, y: str) -> str:
    return f"{y} = Relu ({x})"


IMAGE = """
    i = Unsqueeze (x, zeroth) c = Conv (i, w) {act} p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
    d = Conv (p, v) {act2} f = Flatten (e) g = MatMul (f, u) y = Squeeze (g, zeroth)
"""


def image(act=qcfs) -> onnx.ModelProto:
    """One image a run, without a batch."""
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(2, 4, 2, 2, seed=1), "u": U}
    nodes = IMAGE.format(act=act("c", "a"), act2=act("d", "e"))
    return network(nodes, inputs="float[3, 8, 8] x", outputs="float[5] y", weights=weights | {"zeroth": np.array([0])})


def vector() -> onnx.ModelProto:
    """One vector a run."""
    nodes = f"h = MatMul (x, w) {qcfs('h', 'a')} d = MatMul (a, v) {qcfs('d', 'e')} y = MatMul (e, u)"
    return network(nodes, inputs="float[8] x", outputs="float[5] y", weights={"w": 3 * W, "v": 3 * V, "u": U})


# Each with its batch axis, one sample, and the axis of the output.
LAYOUTS = {
    "transformer": (attention(1), 1, (6, 8), 0),
    "RNN": (recurrent(), 1, (6, 8), 1),
    "image": (image(), None, (3, 8, 8), None),
    "vector": (vector(), None, (8,), None),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def unoptimised() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def samples_of(layout: str, count: int = 7) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(0, 1, (count, *LAYOUTS[layout][2])).astype(np.float32)}


@layouts
@pytest.mark.parametrize("mode", MODES)
def test_every_layout_computes_what_its_source_computes(layout, mode):
    source, axis, _, _ = LAYOUTS[layout]
    model = rewrite(source, mode=mode).model
    onnx.checker.check_model(model, full_check=True)
    own, reference = session(model, options=unoptimised()), ReferenceEvaluator(model)
    plain = onnxruntime.InferenceSession(source.SerializeToString(), unoptimised())
    for _, feed in load_samples(samples_of(layout), own, axis).batches(7):
        (expected,) = plain.run(None, feed)
        assert np.abs(expected).max() > 0
        # A flipped spike would be half of one, times a weight.
        np.testing.assert_allclose(own.run(None, feed)[0], expected, atol=1e-5)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(reference.run(None, feed)[0], expected, atol=1e-5)


def test_serial_steps_give_each_sample_what_it_gets_alone():
    runner = SerialSession(rewrite(recurrent(), mode="serial").model)
    samples = load_samples(samples_of("RNN"), runner, 1)
    together, alone = (
        np.concatenate([by_sample(runner.run(None, feed), [1])[0] for _, feed in samples.batches(size)])
        for size in (7, 1)
    )
    assert np.ptp(together, axis=0).max() > 0
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_serial_steps_need_no_batch():
    """Inputs that do not change give one layer of neurons the same spike counts, in whatever shape."""
    nodes = f"h = MatMul (x, w) {qcfs('h', 'a')} y = MatMul (a, u)"
    for inputs, outputs, x in (
        ("float[1, 8] x", "float[1, 5] y", X[:1, 0]),
        ("float[3, 8, 8] x", "float[3, 8, 5] y", X[:3, [0] * 8]),
    ):
        source = network(nodes, inputs=inputs, outputs=outputs, weights={"w": 3 * W, "u": U})
        serial, folded = (
            SerialSession(rewrite(source, mode="serial").model),
            session(rewrite(source, mode="folded").model),
        )
        np.testing.assert_allclose(serial.run(None, {"x": x})[0], folded.run(None, {"x": x})[0], atol=1e-6)


@layouts
def test_verify_is_told_where_samples_lie(layout):
    source, axis, _, _ = LAYOUTS[layout]
    result = verify(source, rewrite(source).model, samples_of(layout), batch_axis=axis, atol=1e-5)
    assert (result.passed, result.samples) == (True, 7)
    assert all(layer.elements for layer in result.layers)


@pytest.mark.parametrize("layout", ["transformer", "image", "vector"])
def test_right_answers_are_counted_sample_by_sample(layout):
    source, axis, _, of_output = LAYOUTS[layout]
    data, runner = samples_of(layout, 60), session(source, options=unoptimised())
    outputs = [
        by_sample(runner.run(None, feed), [of_output])[0] for _, feed in load_samples(data, runner, axis).batches(9)
    ]
    labels = np.concatenate(outputs).argmax(1)
    assert np.sort(np.bincount(labels))[-2] > 15
    labels[:6] = (labels[:6] + 1) % 5
    found = evaluate(source, {**data, "labels": labels}, batch_axis=axis, steps=[4]).summary()
    assert (found["samples"], found["ann"]["top1"], found["rows"][0]["agreement"]) == (60, 0.9, 1)
    checked = verify(
        source, rewrite(source, mode="folded").model, {**data, "labels": labels}, batch_axis=axis
    ).summary()
    assert (checked["accuracy"], checked["top1_agreement"]) == ({"ann": 0.9, "snn": 0.9}, 1)


def test_logits_for_each_step_of_a_sequence_are_no_classes_of_a_sample():
    found = evaluate(recurrent(), samples_of("RNN"), batch_axis=1, steps=[4]).summary()
    assert (found["rows"][0]["agreement"], found["rows"][0]["mse"] < 1e-9) == (None, True)
    labels = np.zeros(7, int)
    assert "has classes" in refusal_of(evaluate, recurrent(), {**samples_of("RNN"), "labels": labels}, batch_axis=1)


def test_statistics_are_those_of_the_network_with_samples_first():
    data = {"x": np.random.default_rng(1).normal(0, 1, (7, 6, 8)).astype(np.float32)}
    for mode in MODES:
        first, second = (rewrite(attention(axis), mode=mode).model for axis in (0, 1))
        ours, theirs = stats(second, data, batch_axis=1).summary(), stats(first, data).summary()
        assert ours["layers"] == theirs["layers"]
        # Sequence-first, time ends where sequences are summed up, so operators have other inputs; not more of them.
        assert [row["macs"] for row in ours["operators"]] == [row["macs"] for row in theirs["operators"]]


def branching(batch: int) -> onnx.ModelProto:
    """The mean of all samples tells whether their own values or others go through the layer."""
    shape = f"float[{('N, 6', '6, N')[batch]}, 8]"
    weights = "float[8, 8] w, float theta, float count, float half, float zero, float one"
    constants = {"w": 3 * W, "theta": 2, "count": 4, "half": 0.5, "zero": 0, "one": 1}
    branches = ", ".join(
        f"{name} = {name} () => ({shape} p) {{ h = {before} {qcfs('h', 'p')} }}"
        for name, before in (("then_branch", "MatMul (x, w)"), ("else_branch", "Neg (x)"))
    )
    source = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]> branching ({shape} x) => ({shape} y) <{weights}> {{
            mean = ReduceMean <keepdims = 0> (x) yes = Greater (mean, zero) y = If (yes) <{branches}>
        }}"""
    )
    for name, value in constants.items():
        source.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
    onnx.checker.check_model(source, full_check=True)
    return source


@pytest.mark.parametrize("mode", MODES)
def test_statistics_and_checks_of_branches_are_those_with_samples_first(mode):
    first, second = (rewrite(branching(axis), mode=mode).model for axis in (0, 1))
    for sign in (1, -1):
        data = {"x": sign * np.abs(X)}
        layers = stats(second, data, batch_axis=1).summary()["layers"]
        assert layers == stats(first, data).summary()["layers"]
        assert sorted(layer["neurons"] for layer in layers) == [0, 48]
        checked = verify(branching(1), second, data, batch_axis=1)
        assert checked.differences == [] and {layer.count_mismatch_rate for layer in checked.layers} == {0, None}


def test_neurons_of_a_branch_that_the_first_sample_does_not_enter_are_not_counted():
    model = rewrite(branching(1)).model
    data = {"x": np.concatenate([-np.abs(X[:1]), 9 * np.abs(X)])}
    assert "samples run along no axis that can be told of layer" in refusal_of(stats, model, data, batch_axis=1)


@pytest.mark.parametrize("mode", MODES)
def test_statistics_of_single_samples_are_those_of_a_batch(mode):
    """The same network with an axis for samples, which the other has inside alone."""
    nodes = IMAGE.format(act=qcfs("c", "a"), act2=qcfs("d", "e")).replace(
        "i = Unsqueeze (x, zeroth)", "i = Identity (x)"
    )
    nodes = nodes.replace("y = Squeeze (g, zeroth)", "y = Identity (g)")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in image().graph.initializer}
    batched = network(nodes, outputs="float[N, 5] y", weights={name: weights[name] for name in "wvu"})
    one, many = (
        stats(rewrite(source, mode=mode).model, samples_of("image"), batch_axis=axis).summary()
        for source, axis in ((image(), None), (batched, 0))
    )
    for key in ("firing_rate", "spike_counts", "neurons", "steps"):
        assert [row[key] for row in one["layers"]] == [row[key] for row in many["layers"]]
    assert one["totals"] == many["totals"]


@pytest.mark.parametrize("method", ["refit", "fit", "da-qcfs"])
def test_calibration_is_that_of_the_network_with_samples_first(method):
    data = {"x": np.random.default_rng(1).normal(0, 1, (60, 6, 8)).astype(np.float32)}
    first, second = (calibrate(attention(axis, relu), data, batch_axis=axis, steps=8, method=method) for axis in (0, 1))
    for ours, theirs in zip(second.found.activations, first.found.activations, strict=True):
        assert ours.channels.axis == 2
        np.testing.assert_allclose(ours.staircase.threshold, theirs.staircase.threshold, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(second.found.errors, first.found.errors, rtol=1e-2)
    assert second.found.corrections.keys() == first.found.corrections.keys()


def test_a_network_of_single_samples_is_calibrated():
    source, data = image(relu), samples_of("image", 30)
    result = rewrite(source, calibration=data, batch_axis=None, steps=16)
    assert result.summary()["counts"]["converted"] == 2
    found = evaluate(result.model, {**data, "labels": np.zeros(30, int)}, batch_axis=None).summary()
    (row,) = evaluate(source, data, batch_axis=None, calibration=data, steps=[16]).summary()["rows"]
    assert found["samples"] == 30
    assert row["agreement"] > 0.8


@pytest.fixture
def no_processes(monkeypatch):
    """Benchmarks start no process to measure its memory."""
    monkeypatch.setattr(Candidate, "peak_memory", lambda *_: 1.0)


@pytest.mark.usefixtures("library", "no_processes")
def test_a_benchmark_runs_batches_of_samples():
    source = attention(1, inputs="float[6, N, 8] x")
    found = bench(source, steps=[4], batches=[1, 3], batch_axis=1, repeats=1)
    assert [row.error for row in found.rows if row.mode != "serial"] == [None] * 8
    alone = bench(image(), steps=[4], batch_axis=None, repeats=1).summary()["rows"]
    assert {(row["batch"], row["error"]) for row in alone if row["mode"] != "serial"} == {(1, None)}


# Inputs without an axis for samples.


def masked(mask: str = "S, 8") -> onnx.ModelProto:
    nodes = f"h = Mul (x, mask) {qcfs('h', 'a')} p = ReduceSum <keepdims = 0> (a, axis) y = MatMul (p, u)"
    return network(
        nodes, inputs=f"float[N, S, 8] x, float[{mask}] mask", outputs="float[N, 5] y",
        weights={"u": U, "axis": np.array([1])},
    )  # fmt: skip


MASK = GENERATOR.normal(0, 2, (6, 8)).astype(np.float32)
X = GENERATOR.normal(0, 1, (7, 6, 8)).astype(np.float32)


def test_one_value_serves_all_samples(tmp_path):
    source, runner = masked(), session(masked())
    samples = load_samples({"x": X, "mask": MASK}, runner, {"mask": None})
    (feed,) = [feed for _, feed in samples.batches(50)]
    assert (feed["x"].shape, feed["mask"].shape, len(samples)) == ((7, 6, 8), (6, 8), 7)
    for name, part in (("a", slice(0, 3)), ("b", slice(3, None))):
        np.savez(tmp_path / f"{name}.npz", x=X[part], mask=MASK)
    parts = load_samples(tmp_path, runner, {"mask": None})
    np.testing.assert_array_equal(parts.feed(slice(0, 7))["mask"], MASK)
    assert verify(source, rewrite(source).model, {"x": X, "mask": MASK}, batch_axis={"mask": None}, atol=1e-5).passed


def test_values_of_their_own_are_run_one_by_one():
    masks = np.stack([MASK + index for index in range(7)])
    samples = load_samples({"x": X, "mask": masks}, session(masked()), {"mask": None})
    assert [(len(feed["x"]), feed["mask"].shape) for _, feed in samples.batches(50)] == [(1, (6, 8))] * 7
    np.testing.assert_array_equal([feed["mask"] for _, feed in samples.batches(50)], masks)
    data = {"x": X, "mask": masks, "labels": np.zeros(7, int)}
    assert evaluate(masked(), data, batch_axis={"mask": None}, steps=[4]).rows[0].agreeing == 7
    assert stats(rewrite(masked()).model, data, batch_axis={"mask": None}).layers[0].sites == 4 * X.size


def test_a_number_is_an_input_without_an_axis():
    nodes = f"h = Mul (x, scale) {qcfs('h', 'y')}"
    source = network(nodes, inputs="float[N, 3] x, float scale", outputs="float[N, 3] y")
    data = {"x": X[:, 0, :3], "scale": np.float32(2)}
    assert verify(source, rewrite(source).model, data, batch_axis={"scale": None}).passed
    assert verify(source, rewrite(source).model, batch_axis={"scale": None}).passed


def test_samples_are_drawn_along_their_axis():
    samples = random_samples(session(attention(1, inputs="float[6, N, 8] x")), batch_axis=1)
    assert (len(samples), samples.feed(slice(0, 3))["x"].shape) == (32, (6, 3, 8))
    fixed = random_samples(session(attention(1, inputs="float[6, 4, 8] x")), batch_axis=1)
    assert [feed["x"].shape for _, feed in fixed.batches(50)] == [(6, 4, 8)]


# Which axis of an output counts samples.


def axes_of(source: onnx.ModelProto, data, batch_axis, **arguments):
    runner = session(source)
    samples = load_samples(data, runner, batch_axis)
    return sample_axes(runner, samples, [output.name for output in runner.get_outputs()], **arguments)


def test_two_runs_tell_the_axis_of_an_output():
    assert axes_of(attention(1), {"x": X}, 1) == [0]
    assert axes_of(recurrent(), {"x": X}, 1) == [1]
    assert axes_of(recurrent(), {"x": X[:1]}, 1) == [1]
    assert axes_of(attention(0), {"x": X}, 0) is None
    table = network("y = Identity (x) z = Identity (t)", inputs="float[S, N] x", outputs="float[S, N] y, float[2] z",
                    weights={"t": np.zeros(2, np.float32)})  # fmt: skip
    assert axes_of(table, {"x": X[:, :, 0]}, 1) == [1, None]
    assert axes_of(attention(1, inputs="float[6, 1, 8] x"), {"x": X}, 1) == [0]


def test_an_axis_that_cannot_be_told_is_said_to_be():
    source = network("y = Identity (x)", inputs="float[4, 4] x", outputs="float[4, 4] y")
    data = {"x": np.zeros((8, 4), np.float32)}
    with pytest.warns(UserWarning, match="not known which axis of output 'y' counts samples.*`batch_axis={'y': 0}`"):
        assert axes_of(source, data, 1) == [None]
    assert axes_of(source, data, {"x": 1, "y": 1}) == [1]
    assert axes_of(source, data, {"": 1, "y": None}) == [None]


@pytest.mark.parametrize(
    ("batch_axis", "told"),
    [
        (3, "'x' of shape ['S', 'N', 8] has no axis 3, which samples would run along"),
        (-4, "'x' of shape ['S', 'N', 8] has no axis -4"),
        ({"X": 1}, "a batch axis is given for 'X', which is not an input or output; inputs are 'x'"),
        (2, "the model takes batches of 8, and 7 samples are not a multiple of that"),
        ("1", "'1' is not an axis; choose a number, or None"),
        ({"x": 1, "y": 1}, "samples do not lie along axis 1 of output 'y'; its batch axis is 0"),
        ({"": 1, "y": 7}, "'y' of shape ['N', 5] has no axis 7"),
    ],
)
def test_an_axis_that_does_not_fit_is_told(batch_axis, told):
    source = attention(1)
    assert told in refusal_of(verify, source, rewrite(source).model, {"x": X}, batch_axis=batch_axis)


def test_data_that_do_not_fit_an_axis_are_told():
    runner = session(masked("6, 8"))
    none = {"mask": None}
    for data, told in (
        ({"x": X, "mask": MASK[:5]}, "'mask' in the data has shape [5, 8]; the model takes [6, 8], with no axis for"),
        ({"x": X, "mask": MASK[0]}, "'mask' in the data has shape [8]; the model takes [6, 8], with no axis for"),
        ({"x": X, "mask": np.stack([MASK] * 6)}, "unequal numbers of samples: 'x' 7, 'mask' 6"),
        ({"x": X, "mask": np.full_like(MASK, np.nan)}, "'mask' in the data has a NaN or an infinity"),
    ):
        assert told in refusal_of(load_samples, data, runner, none)
    assert "no array of the data counts samples" in refusal_of(load_samples, {"x": X[0, 0]}, session(vector()), None)
    fixed = session(attention(1, inputs="float[6, 4, 8] x"))
    assert "batches of 4, and 7 samples" in refusal_of(load_samples, {"x": X}, fixed, 1)
    inputs = "float[2, 6, 8] x, float[6, 8] mask"
    both = session(network(f"h = Mul (x, mask) {qcfs('h', 'y')}", inputs=inputs, outputs="float[2, 6, 8] y"))
    told = refusal_of(load_samples, {"x": X[:6], "mask": np.stack([MASK] * 6)}, both, none)
    assert "'mask' differs from sample to sample and has no axis for them, and the model takes batches of 2" in told


def test_one_value_must_be_one(tmp_path):
    for name, scale in (("a", 1), ("b", 2)):
        np.savez(tmp_path / f"{name}.npz", x=X, mask=scale * MASK)
    assert "its one value differs" in refusal_of(load_samples, tmp_path, session(masked()), {"mask": None})


# The command line.


@pytest.fixture
def files(tmp_path):
    onnx.save(attention(1), tmp_path / "ann.onnx")
    rewrite(tmp_path / "ann.onnx", tmp_path / "snn.onnx")
    onnx.save(attention(1, relu), tmp_path / "relu.onnx")
    np.savez(tmp_path / "d.npz", x=X, labels=np.zeros(7, int))
    return {name: str(tmp_path / name) for name in ("ann.onnx", "snn.onnx", "relu.onnx", "d.npz")}


COMMANDS = {
    "verify": ["verify", "ann.onnx", "snn.onnx", "--data", "d.npz"],
    "evaluate": ["evaluate", "ann.onnx", "--data", "d.npz", "--steps", "4"],
    "stats": ["stats", "snn.onnx", "--data", "d.npz"],
    "calibrate": ["calibrate", "relu.onnx", "--data", "d.npz", "--steps", "4"],
    "rewrite": ["rewrite", "relu.onnx", "--calibration", "d.npz", "--steps", "4"],
    "bench": ["bench", "ann.onnx", "--data", "d.npz", "--steps", "4", "--batch", "2", "--repeats", "1"],
}


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_takes_data_takes_a_batch_axis(command, files, capsys):
    arguments = [files.get(word, word) for word in COMMANDS[command]]
    assert main([*arguments, "--json", "--batch-axis", "x=1", "--batch-axis", "y=0"]) == 0
    document = json.loads(capsys.readouterr().out)
    if "samples" in document:
        assert document["samples"] == 7
    assert main([*arguments, "--batch-axis", "3"]) == 1
    assert "has no axis 3" in capsys.readouterr().err
    assert main([*arguments, "--batch-axis", "x"]) == 2
    assert "'x' is not a batch axis; give a number or none, or NAME= and that" in capsys.readouterr().err


def test_rewrite_without_data_has_no_use_for_a_batch_axis(files, capsys):
    assert main(["rewrite", files["ann.onnx"], "--batch-axis", "1"]) == 2
    assert "argument --batch-axis: nothing is calibrated without --calibration" in capsys.readouterr().err
