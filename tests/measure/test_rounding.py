"""Bounds on rounding: magnitudes are what they are said to be, and no evaluation is off by more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, weight
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.graph import load
from pconv_onnx.measure.magnitudes import with_magnitudes
from pconv_onnx.measure.rounding import ROWS, Rounded, Units
from pconv_onnx.temporal.rules import TRANSFER_RULES

BATCH, SHAPE = 5, (8, 6, 6)
SINGLE = Units.of([np.dtype(np.float32)])

# From `x` [N, 8, 6, 6] to `y`.
NODES = {
    "Add": "a = Abs (x) y = Add (x, k)",
    "AveragePool": "y = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 1, 0]> (x)",
    "BatchNormalization": "y = BatchNormalization (x, c, d, e, v)",
    "Cast": "h = Cast <to = 10> (x) y = Cast <to = 1> (h)",
    "Clip": "y = Clip (x, low, high)",
    "Concat": "n = Neg (x) y = Concat <axis = 1> (x, n, x)",
    "Conv": "y = Conv <pads = [1, 1, 1, 1], group = 2> (x, w, d)",
    "ConvTranspose": "y = ConvTranspose <strides = [2, 2]> (x, t, d)",
    "DepthToSpace": "y = DepthToSpace <blocksize = 2> (x)",
    "Div": "y = Div (x, k)",
    "Dropout": "y = Dropout (x)",
    "Einsum": 'y = Einsum <equation = "nchw,hk->nckw"> (x, m)',
    "Expand": "r = ReduceSum <keepdims = 1> (x, axes) y = Expand (r, shape)",
    "Flatten": "y = Flatten (x)",
    "Gather": "y = Gather <axis = 1> (x, indices)",
    "Gemm": "f = Flatten (x) y = Gemm <alpha = -0.5, beta = 2.0, transB = 1> (f, g, b)",
    "GlobalAveragePool": "y = GlobalAveragePool (x)",
    "GlobalMaxPool": "y = GlobalMaxPool (x)",
    "Identity": "y = Identity (x)",
    "LeakyRelu": "y = LeakyRelu <alpha = -1.5> (x)",
    "MatMul": "p = MatMul (x, m) q = Transpose <perm = [0, 1, 3, 2]> (p) y = MatMul (p, q)",
    "Max": "n = Neg (x) y = Max (x, n, k)",
    "MaxPool": "y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
    "Mean": "n = Neg (x) y = Mean (x, n, k)",
    "Min": "n = Neg (x) y = Min (x, n)",
    "Mul": "s = Mul (x, k) y = Mul (s, x)",
    "Neg": "y = Neg (x)",
    "Pad": "y = Pad (x, pads, minus)",
    "ReduceMax": "y = ReduceMax <keepdims = 0> (x, axes)",
    "ReduceMean": "y = ReduceMean (x)",
    "ReduceMin": "y = ReduceMin <keepdims = 0> (x, axes)",
    "ReduceSum": "y = ReduceSum <keepdims = 0> (x, axes)",
    "Relu": "y = Relu (x)",
    "Reshape": "s = Shape (x) y = Reshape (x, s)",
    "Resize": 'y = Resize <mode = "linear"> (x, , scales)',
    "Slice": "y = Slice (x, starts, ends)",
    "SpaceToDepth": "y = SpaceToDepth <blocksize = 2> (x)",
    "Split": "y, z = Split <axis = 1, num_outputs = 2> (x)",
    "Squeeze": "u = Unsqueeze (x, axes) y = Squeeze (u, axes)",
    "Sub": "y = Sub (k, x)",
    "Sum": "y = Sum (x, k, x)",
    "Tile": "y = Tile (x, repeats)",
    "Transpose": "y = Transpose <perm = [0, 2, 3, 1]> (x)",
    "Unsqueeze": "y = Unsqueeze (x, axes)",
    "Where": "n = Neg (x) y = Where (which, x, n)",
}
WEIGHTS = {
    "k": weight(8, 1, 1, seed=1) * 3,
    "w": weight(8, 4, 3, 3, seed=2),
    "t": weight(8, 8, 2, 2, seed=3),
    "m": weight(6, 6, seed=4),
    "g": weight(7, 288, seed=5),
    "b": weight(7, seed=6),
    "low": np.float32(-1),
    "high": np.float32(0.5),
    "minus": np.float32(-2),
    "axes": np.array([2, 3]),
    "shape": np.array([5, 8, 6, 6]),
    "indices": np.array([5, 0, 0]),
    "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]),
    "scales": np.array([1, 1, 2, 1.5], np.float32),
    "starts": np.array([0, 1]),
    "ends": np.array([5, 4]),
    "repeats": np.array([1, 2, 1, 3]),
    "which": np.arange(6) % 2 == 0,
    **{name: weight(8, seed=seed) for seed, name in enumerate("cde", 7)},
    "v": np.abs(weight(8, seed=10)) + np.float32(0.1),
}


def case(op_type: str) -> onnx.ModelProto:
    nodes = NODES[op_type]
    used = {name: value for name, value in WEIGHTS.items() if f" {name}," in nodes.replace(")", ",").replace("(", " ")}
    return network(nodes, inputs="float[N, 8, 6, 6] x", outputs="float y", weights=used)


class Alone:
    """A network without neurons in the place of a spiking one."""

    def has(self, tensor: str) -> bool:
        return False

    def same_type(self, tensor: str) -> bool:
        return True

    def in_time(self, tensor: str) -> bool:
        return False


def bounded(model: onnx.ModelProto, x: np.ndarray) -> tuple[Rounded, np.ndarray, float]:
    """How output `y` comes about, its magnitudes, and the sum of its counts."""
    tapped = with_magnitudes(load(model), {}, {"y": np.dtype(np.float32)}, Alone())
    rounded = tapped.points["y"].rounded
    assert rounded is not None
    values = {"x": x}
    for part in tapped.magnitudes:
        found = onnxruntime.InferenceSession(part.model.SerializeToString(), providers=["CPUExecutionProvider"])
        values |= dict(zip(part.ends, found.run(list(part.ends.values()), {name: x for name in part.fed}), strict=True))
    return rounded, np.abs(values[rounded.magnitude]), float(sum(values[name] for name in rounded.counts))


def data(seed: int = 0) -> np.ndarray:
    # Of very different sizes, so that much is lost in sums.
    random = np.random.default_rng(seed)
    return (random.normal(size=(BATCH, *SHAPE)) * 10.0 ** random.integers(-3, 4, (BATCH, *SHAPE))).astype(np.float32)


def in_float64(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for info in (*wide.graph.input, *wide.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in wide.graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = TensorProto.DOUBLE
    return ReferenceEvaluator(wide).run(["y"], {"x": x.astype(np.float64)})[0]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def test_every_operator_that_runs_in_time_has_a_row():
    assert set(TRANSFER_RULES) == set(ROWS) == set(NODES)


@pytest.mark.parametrize("op_type", NODES)
def test_no_evaluation_is_off_by_more_than_its_bound(op_type):
    model, x = case(op_type), data()
    rounded, magnitudes, counted = bounded(model, x)
    units = SINGLE if op_type != "Cast" else Units.of([np.dtype(np.float32), np.dtype(np.float16)])
    limit = units.limit(rounded, magnitudes, counted, 1)
    expected, found = in_float64(model, x), run(model, x)
    assert expected.shape == found.shape == limit.shape
    difference = np.abs(expected - found)
    assert (difference <= limit).all()
    # A bound that explains anything is none.
    assert np.median(limit) < (0.1 if op_type == "Cast" else 0.01) * np.median(magnitudes)


@pytest.mark.parametrize("op_type", NODES)
def test_magnitudes_are_those_of_sums_in_which_nothing_cancels(op_type):
    model, x = case(op_type), data(1)
    rounded, magnitudes, _ = bounded(model, x)
    # Magnitudes are not rounded to narrower types.
    share, least = (2.0**-11, 2.0**-24) if op_type == "Cast" else (1e-5, 0)
    values = np.abs(run(model, x))
    # A constant that is picked is no error, whatever its size.
    assert rounded.hollow == (op_type in ("Max", "Pad")) == (values > magnitudes * (1 + share) + least).any()
    signs = np.where(np.random.default_rng(2).random(x.shape) < 0.5, -1, 1).astype(np.float32)
    np.testing.assert_array_equal(magnitudes, bounded(model, x * signs)[1])


def test_a_constant_that_was_picked_counts_where_it_is_computed_with():
    picked = network("y = Max (x, k)", inputs="float[N, 8, 6, 6] x", outputs="float y", weights={"k": np.float32(1e6)})
    rounded, magnitudes, _ = bounded(picked, data())
    assert rounded.hollow and magnitudes.max() < 1e5
    nodes = "m = Max (x, k) y = Mul (m, k)"
    model = network(nodes, inputs="float[N, 8, 6, 6] x", outputs="float y", weights={"k": np.float32(1e6)})
    rounded, magnitudes, _ = bounded(model, data())
    assert not rounded.hollow and (magnitudes >= np.abs(run(model, data()))).all()


@pytest.mark.parametrize("op_type", ["Conv", "Gemm", "MatMul", "ReduceMean", "AveragePool", "BatchNormalization"])
def test_a_chain_adds_up(op_type):
    once = bounded(case(op_type), data())[0]
    model = case(op_type)
    twice = network(
        f"{NODES[op_type].replace('y = ', 'h = ')} y = Mul (h, minus)",
        inputs="float[N, 8, 6, 6] x",
        outputs="float y",
        weights={tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        | {"minus": np.float32(-2)},
    )
    rounded = bounded(twice, data())[0]
    assert rounded.operations > once.operations and rounded.stores > once.stores


def test_the_number_of_summands_is_counted_where_no_shape_tells_it():
    model = network("y = ReduceMean <keepdims = 0> (x)", inputs="float[N, M] x", outputs="float y")
    rounded, _, counted = bounded(model, np.ones((5, 7), np.float32))
    assert (len(rounded.counts), counted) == (1, 35)
    model = network("t = Transpose (x) y = MatMul (x, t)", inputs="float[N, M] x", outputs="float y")
    assert bounded(model, np.ones((5, 7), np.float32))[2] == 7


def test_units_are_those_of_the_narrowest_type():
    single, half, brain, double = (
        Units.of([np.dtype(np.float32), np.dtype(dtype)])
        for dtype in (np.float32, np.float16, ml_dtypes.bfloat16, np.float64)
    )
    assert single == double and single.computed == single.stored == 2.0**-24
    assert (half.computed, half.stored, half.smallest) == (2.0**-24, 2.0**-11, 2.0**-14)
    assert brain.stored == 2.0**-8
    assert Units.of([np.dtype(np.float64)]).computed == 2.0**-53


def test_where_so_much_is_rounded_that_nothing_is_left_there_is_no_bound():
    limit = partial(SINGLE.limit, magnitudes=np.ones(3, np.float32), steps=1)
    assert limit(Rounded("m", 1 << 20), counted=0) is not None
    assert limit(Rounded("m", 1 << 24), counted=0) is None
    assert limit(Rounded("m"), counted=2.0**30) is None


def test_of_two_factors_that_are_computed_one_is_a_mean_besides():
    """In a network in time that is held, and its own mean is rounded as well."""
    nodes = {"y = Mul (x, k)": 0, "y = Mul (x, x)": 1, "h = Mul (x, x) g = Mul (h, x) y = Add (g, x)": 2}
    limits = []
    for text, means in nodes.items():
        weights = {"k": np.float32(2)} if "k)" in text else {}
        model = network(text, inputs="float[N, 8, 6, 6] x", outputs="float y", weights=weights)
        rounded, magnitudes, _ = bounded(model, data())
        assert rounded.means == means
        limits.append(SINGLE.limit(replace(rounded, operations=0, stores=0), np.ones_like(magnitudes), 0, 64).max())
    np.testing.assert_allclose(limits, 68 * np.array([1, 2, 3]) * 2.0**-24, rtol=1e-4)
