"""Tuning by gradients: operators are those of ONNX, quantised values those of the written network, and it helps."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from harness import onnxruntime_of
from networks import network, weight
from refusals import refusal_of

from pconv_onnx import calibrate
from pconv_onnx.calibration import calibrating
from pconv_onnx.calibration.subjects import quantisable, to_calibrate
from pconv_onnx.calibration.sweep import Found, Task, sweep
from pconv_onnx.calibration.tuning import parameters, tuning
from pconv_onnx.calibration.tuning.operators import RULES
from pconv_onnx.calibration.tuning.program import Program, step_of
from pconv_onnx.calibration.tuning.tunable import Tunable
from pconv_onnx.calibration.writing import quantised_model
from pconv_onnx.data.reading import open_samples
from pconv_onnx.data.samples import Samples
from pconv_onnx.engine.shards import InProcess
from pconv_onnx.graph import Network
from pconv_onnx.runtime.likeness import divergences
from pconv_onnx.runtime.side_by_side import open_session

VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))

# Statements that give y of x `[2, 4, 6, 7]`, and the output's type where it is not that of x.
STATEMENTS = [
    "y = Abs (x)",
    "z = Constant <value = float {2.0}> () y = Add (x, z)",
    "y = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 1, 1]> (x)",
    "y = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 1, 1], count_include_pad = 1> (x)",
    'y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)',
    "y = BatchNormalization (x, d, d, d, e)",
    "z = Constant <value = float {-0.5}> () h = Constant <value = float {0.7}> () y = Clip (x, z, h)",
    "h = Constant <value = float {0.7}> () y = Clip (x, , h)",
    "y = Concat <axis = -3> (x, x)",
    "y = Conv <pads = [1, 0, 2, 1], strides = [2, 1], dilations = [1, 2]> (x, w, c)",
    'y = Conv <group = 4, auto_pad = "SAME_LOWER", strides = [2, 2]> (x, g)',
    'y = Conv <group = 2, auto_pad = "VALID"> (x, g2)',
    "y = Div (x, e4)",
    "y = Dropout (x)",
    "y = Elu <alpha = 0.5> (x)",
    "y = Erf (x)",
    "y = Exp (x)",
    "z = Constant <value_ints = [3, 1, 1, 6, 1]> () y = Expand (x, z)",
    "y = Flatten <axis = 2> (x)",
    "z = Constant <value_ints = [-1, 0]> () y = Gather <axis = 2> (x, z)",
    "y = Gelu (x)",
    'y = Gelu <approximate = "tanh"> (x)',
    "f = Flatten (x) y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, p, q)",
    "y = GlobalAveragePool (x)",
    "y = GlobalMaxPool (x)",
    "y = HardSigmoid <alpha = 0.25> (x)",
    "y = HardSwish (x)",
    "y = Identity (x)",
    "y = LayerNormalization <axis = -1> (x, n, n)",
    "y = LeakyRelu <alpha = 0.2> (x)",
    "a = Abs (x) y = Log (a)",
    "y = MatMul (x, m)",
    "z = Neg (x) y = Max (x, z, e4)",
    "y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x)",
    "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)",
    "y = Min (x, e4)",
    "y = Mul (x, e4)",
    "z = Constant <value_ints = [0, 1, 2, 0, 1, 0, 0, 3]> () y = Pad (x, z)",
    "z = Constant <value_ints = [1, 2]> () s = Constant <value = float {0.5}> () a = Constant <value_ints = [-1]> () "
    "y = Pad (x, z, s, a)",
    'z = Constant <value_ints = [0, 0, 1, 1, 0, 0, 2, 1]> () y = Pad <mode = "reflect"> (x, z)',
    'z = Constant <value_ints = [0, 0, 1, 1, 0, 0, 2, 1]> () y = Pad <mode = "edge"> (x, z)',
    "z = Constant <value = float {2.0}> () y = Pow (x, z)",
    "y = Reciprocal (x)",
    "z = Constant <value_ints = [2, 3]> () y = ReduceMax (x, z)",
    "z = Constant <value_ints = [-1]> () y = ReduceMean <keepdims = 0> (x, z)",
    "y = ReduceMean (x)",
    "y = ReduceSum <noop_with_empty_axes = 1> (x)",
    "z = Constant <value_ints = [1]> () y = ReduceSum (x, z)",
    "y = Relu (x)",
    "z = Constant <value_ints = [0, -1, 7]> () y = Reshape (x, z)",
    "s = Shape (x) y = Reshape (x, s)",
    "y = Sigmoid (x)",
    "a = Constant <value_ints = [-1, 4]> () b = Constant <value_ints = [-9223372036854775807, 1]> () "
    "c0 = Constant <value_ints = [2, -1]> () d0 = Constant <value_ints = [-2, -1]> () y = Slice (x, a, b, c0, d0)",
    "a = Constant <value_ints = [1]> () b = Constant <value_ints = [3]> () y = Slice (x, a, b)",
    "y = Softmax <axis = 1> (x)",
    "y = Softplus (x)",
    "a, b = Split <axis = 3, num_outputs = 2> (x) y = Concat <axis = 3> (b, a)",
    "z = Constant <value_ints = [1, 3]> () a, b = Split <axis = 1> (x, z) y = Concat <axis = 1> (b, a)",
    "a = Abs (x) y = Sqrt (a)",
    "z = Constant <value_ints = [1]> () a = ReduceMean (x, z) y = Squeeze (a, z)",
    "y = Sub (e4, x)",
    "y = Sum (x, x, e4)",
    "y = Tanh (x)",
    "y = Transpose <perm = [2, 0, 3, 1]> (x)",
    "y = Transpose (x)",
    "z = Constant <value_ints = [-1, 0]> () y = Unsqueeze (x, z)",
    "z = Constant <value = float {0.0}> () k = Greater (x, z) n0 = Neg (x) y = Where (k, x, n0)",
    "t = Cast <to = 1> (x) y = Relu (t)",
    "i = Cast <to = 6> (x) y = Cast <to = 1> (i)",
    # Without a rule, so without gradients.
    "y = Sign (x)",
]
WEIGHTS = {
    "w": weight(3, 4, 2, 3),
    "g": weight(4, 1, 3, 3, seed=1),
    "g2": weight(6, 2, 2, 2, seed=2),
    "c": weight(3, seed=3),
    "d": weight(4, seed=4),
    "e": np.array([0.5, 1, 2, 3], np.float32),
    "e4": np.array([0.5, 1, 2, 3], np.float32).reshape(4, 1, 1),
    "m": weight(7, 5, seed=5),
    "n": weight(7, seed=6),
    "p": weight(5, 168, seed=7),
    "q": weight(5, seed=8),
}
X = np.random.default_rng(0).normal(size=(2, 4, 6, 7)).astype(np.float32)


@cache
def one(statement: str) -> onnx.ModelProto:
    """A network with the weights that it reads, whose output's shape is not told."""
    model = network(statement, inputs="float[2, 4, 6, 7] x", outputs="float y", weights=WEIGHTS)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


@pytest.mark.parametrize("statement", STATEMENTS)
def test_operators_are_those_of_onnx(statement):
    if "noop_with_empty_axes" in statement and VERSION < (1, 24):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not run sums along no axes")
    if "AveragePool" in statement and "count_include_pad" in statement and (1, 22) <= VERSION < (1, 25):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not count all of the padding in averages")
    model = one(statement)
    bare = SimpleNamespace(proto=model)
    program = Program(bare, [step_of(bare, node) for node in model.graph.node], ["y"])
    expected = onnxruntime_of(model)(X)
    found = program({"x": X})["y"].numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_all_operators_are_tried():
    tried = {node.op_type for statement in STATEMENTS for node in one(statement).graph.node}
    assert RULES.keys() <= tried


def test_gradients_of_a_staircase_are_those_of_its_line():
    """Differences of a line with the same ends; the level's is the count."""
    values = torch.tensor([-1.0, 0.3, 1.1, 9.0], dtype=torch.float64, requires_grad=True)
    tables = [torch.tensor([t], dtype=torch.float64, requires_grad=True) for t in (0.5, 0.2, 2.0)]
    parameters._Staircase.apply(values, *tables, 4).sum().backward()
    got = [values.grad.numpy(), *(float(table.grad) for table in tables)]
    step, place, level = (float(table.detach()) for table in tables)
    within = np.array([0.3, 1.1])
    np.testing.assert_allclose(got[0], [0, level / step, level / step, 0])
    np.testing.assert_allclose(got[1:], [-level * within.sum() / step**2, 2 * level, 0 + 1 + 2 + 4])


@pytest.mark.parametrize("shape", [(), (3, 1), (4, 1, 1)])
def test_samples_of_a_staircase_one_by_one_are_all_at_once(shape):
    """Tables of one channel, of channels along the second axis, and along the first, against formulas of the whole."""
    generator = np.random.default_rng(0)
    values, gradient = generator.normal(1, 2, (2, 4, 3, 5))
    step, place, level = generator.uniform(0.2, 0.6, (3, *shape))
    tensors = [torch.tensor(array, requires_grad=True) for array in (values, step, place, level)]
    found = parameters._Staircase.apply(*tensors, 4)
    found.backward(torch.tensor(gradient))
    line = values / step + place
    counts, slope = np.clip(np.floor(line + 0.5), 0, 4), gradient * level * ((line > 0) & (line < 4))
    np.testing.assert_array_equal(found.detach().numpy(), counts * level)
    each = slope / step, -slope * values / step**2, slope, gradient * counts
    axes = {(): None, (3, 1): (0, 2), (4, 1, 1): (1, 2)}[shape]
    for tensor, expected in zip(tensors, (each[0], *(one.sum(axes).reshape(shape) for one in each[1:])), strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-9)


NODES = """
    a = Conv <pads = [1, 1, 1, 1]> (x, w) r = {} (a) b = Conv (r, v) s = Relu (b) g = GlobalAveragePool (s)
    f = Flatten (g)
"""


def source(function: str = "Relu", end: str = "y = MatMul (f, u)") -> onnx.ModelProto:
    weights = {"w": weight(8, 3, 3, 3), "v": weight(8, 8, 1, 1, seed=1), "u": weight(8, 5, seed=2)}
    return network(NODES.format(function) + end, outputs="float[N, 5] y", weights=weights)


ONE_OUTPUT = {"w": weight(8, 3, 3, 3), "v": weight(8, 8, 1, 1, seed=1), "u": weight(8, 1, seed=2)}


def data(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)}


def found_by(
    model: onnx.ModelProto, samples: dict[str, np.ndarray], neurons: str = "activations", method: str = "refit"
) -> tuple[Network, Samples, Found]:
    """The network as it is calibrated, the samples, and what a method finds."""
    settings = calibrating._settings(2, "radix", method, neurons, False)
    given, activations, _ = to_calibrate(quantisable(model), settings)
    read = open_samples(samples, open_session(given.proto, given.name), 0)
    with calibrating._crew(InProcess(), given, read) as crew:
        (found,) = sweep(given, activations, read.part(slice(0, 1)), crew, [Task(settings, Found(), lambda _: None)])
    assert isinstance(found, Found)
    return given, read, found


@pytest.mark.parametrize("function", ["Relu", "Gelu", "Mish", "HardSwish"])
@pytest.mark.parametrize("neurons", ["activations", "products"])
def test_what_is_tuned_is_what_is_written(function, neurons):
    """Values are those of the written network, and parameters that nothing changed give that network again."""
    given, _, found = found_by(source(function), data(64), neurons)
    tunable, feed = Tunable(given, found), data(64, seed=1)
    again = tunable.found(found.errors)
    models = [quantised_model(given, one.activations, one.corrections) for one in (found, again)]
    written, rewritten = (onnxruntime_of(model)(feed["x"]) for model in models)
    with torch.no_grad():
        got = tunable.quantised(feed)["y"].numpy()
    # Sums that are rounded otherwise cross a threshold now and then.
    for values in (got, rewritten):
        assert np.isclose(values, written, rtol=1e-4, atol=1e-5).mean() > 0.97


@pytest.mark.parametrize("function", ["Relu", "Gelu"])
@pytest.mark.parametrize("neurons", ["activations", "products"])
def test_from_a_coarse_start_it_loses_less(function, neurons):
    """On samples that it has not seen; levels as far as the largest value lose much."""
    given, samples, found = found_by(source(function), data(500), neurons, "max")
    *_, after = tuning.tuned(given, found, samples)
    models = [quantised_model(given, one.activations, one.corrections) for one in (found, after)]
    unseen = data(200, seed=1)["x"]
    expected = onnxruntime_of(source(function))(unseen)
    before, now = (float(np.square(onnxruntime_of(model)(unseen) - expected).mean()) for model in models)
    assert now < 0.7 * before
    assert np.mean(after.errors) < np.mean(found.errors)


def test_the_better_one_is_kept_and_told(tmp_path):
    tune = calibrate(source(), data(64), steps=4, method="tune", cache=tmp_path / "tune.npz")
    errors = tune.summary()["tuning_errors"]
    assert set(errors) == {"refit", "tune"}
    assert f"kept '{min(errors, key=errors.get)}'" in str(tune)
    again = calibrate(source(), data(64), steps=4, method="tune", cache=tmp_path / "tune.npz")
    assert again.from_cache
    assert again.found.tuning_errors == tune.found.tuning_errors
    assert again.model == tune.model
    assert calibrate(source(), data(64), steps=4, method="refit").summary()["tuning_errors"] == {}


def test_what_is_worse_is_not_kept(monkeypatch):
    monkeypatch.setattr(tuning, "_stages", lambda *_: [(50, 10.0, 0.0), (50, 10.0, 10.0)])
    kept = calibrate(source(), data(64), steps=4, method="tune")
    errors = kept.found.tuning_errors
    assert errors["tune"] > errors["refit"]
    assert kept.model == calibrate(source(), data(64), steps=4, method="refit").model


def test_a_batch_of_the_models_own_is_kept():
    model = source()
    for info in (model.graph.input[0], model.graph.output[0]):
        info.type.tensor_type.shape.dim[0].dim_value = 4
    given, samples, found = found_by(model, data(64), method="max")
    first, _ = tuning.tuned(given, found, samples)
    assert np.mean(first.errors) < np.mean(found.errors)


def test_classes_are_taught_where_an_output_has_some():
    """Of few steps; what is judged is the divergence on samples that were not tuned on, of logits and probabilities."""
    for end in ("y = MatMul (f, u)", "z = MatMul (f, u) y = Softmax (z)"):
        model = source(end=end)
        given, samples, found = found_by(model, data(500), method="max")
        values, classes = tuning.tuned(given, found, samples)
        unseen = data(200, seed=1)["x"]
        expected = onnxruntime_of(model)(unseen)
        models = [quantised_model(given, one.activations, one.corrections) for one in (found, values, classes)]
        lost = [divergences(onnxruntime_of(one)(unseen), expected).mean() for one in models]
        assert lost[1] < lost[0] and lost[2] < lost[0]
    single = network(NODES.format("Relu") + "y = MatMul (f, u)", outputs="float[N, 1] y", weights=ONE_OUTPUT)
    given, samples, found = found_by(single, data(64), method="max")
    assert len(tuning.tuned(given, found, samples)) == 1


def test_classes_are_not_taught_by_fewer_samples(monkeypatch):
    monkeypatch.setattr(tuning, "_BY_VALUES", 2)
    monkeypatch.setattr(tuning, "_WITH_CLASSES", 2)
    stages = []
    for count in (4, 5):
        given, samples, found = found_by(source(), data(count), method="max")
        stages.append(len(tuning.tuned(given, found, samples)))
    assert stages == [1, 2]


def test_without_pytorch_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(calibrating, "find_spec", lambda name: None)
    told = refusal_of(calibrate, source(), data(16), steps=4, method="tune")
    assert "needs PyTorch" in told
    assert "pconv-onnx[torch]" in told


def test_bodies_are_refused():
    nodes = """
        n = ReduceSum <keepdims = 0> (x) z0 = Constant <value = float {0.0}> () k = Greater (n, z0)
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        r = If (k) <
            then_branch = t () => (float[N, 8, 8, 8] p) { p = Relu (a) },
            else_branch = e () => (float[N, 8, 8, 8] q) { q = Neg (a) }
        >
    """
    model = network(nodes + " y = Relu (r)", outputs="float[N, 8, 8, 8] y", weights={"w": weight(8, 3, 3, 3)})
    told = refusal_of(calibrate, model, data(16), steps=4, method="tune")
    assert "has a body" in told
    assert "refit" in told
