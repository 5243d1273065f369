"""Networks of old opsets compute what they did, or are refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from harness import definition_of, onnxruntime_of
from networks import network, weight
from refusals import refusal_of

from pconv_onnx.basics.domain import MIN_OPSET
from pconv_onnx.graph import load
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.passes.upgrading import upgraded

X = np.random.default_rng(0).normal(0, 2, (2, 6, 6, 6)).astype(np.float32)
PER_CHANNEL = {"s": weight(6, 1)[:, 0], "v": np.abs(weight(6, 1)[:, 0]) + 1}
PER_ENTRY = {"s": weight(6, 6, 6), "v": np.abs(weight(6, 6, 6)) + 1}


def scales(*values: float) -> dict[str, np.ndarray]:
    return {"s": np.array(values, np.float32)}


def later(model: onnx.ModelProto) -> onnx.ModelProto:
    return upgraded(load(model), MIN_OPSET).proto


def source(nodes: str, opset: int, weights: dict | None = None, dtype: str = "float", y: str = "a, b, c, d"):
    return network(
        nodes,
        inputs=f"{dtype}[2, 6, 6, 6] x",
        outputs=f"{dtype}[{y}] y",
        weights=weights,
        opset=opset,
        ir_version=4 if opset < 9 else 6,
    )


CASES = [
    *((f"y = {op} <axis = {axis}> (x)", opset, None) for op in ("Hardmax", "Softmax", "LogSoftmax")
      for axis in (0, 1, 3) for opset in (7, 11, 12)),
    *((f"y = {op} <axis = -2> (x)", 12, None) for op in ("Hardmax", "Softmax", "LogSoftmax")),
    *(("y = Resize <mode = \"" + mode + "\"> (x, s)", 10, scales(1, 1, *size)) for mode in ("nearest", "linear")
      for size in ((2, 2), (2.6, 2.6), (1.5, 1), (0.5, 0.5), (0.7, 0.7))),
    *(("y = Upsample <mode = \"" + mode + "\"> (x, s)", 9, scales(1, 1, 2.6, 3)) for mode in ("nearest", "linear")),
    *((f"y = Upsample <mode = \"{mode}\", scales = [1.0, 1.0, 2.6, 3.0]> (x)", 7, None)
      for mode in ("nearest", "linear")),
    *(("y = BatchNormalization (x, s, s, s, v)", opset, PER_CHANNEL) for opset in (7, 9, 12)),
    ("y = BatchNormalization <spatial = 0, epsilon = 0.1> (x, s, s, s, v)", 7, PER_ENTRY),
    *(("y = Clip <min = -1.0, max = 2.0> (x)", opset, None) for opset in (7, 10)),
    ("y = Clip <max = 2.0> (x)", 10, None),
    *(("y = Dropout <ratio = 0.7> (x)", opset, None) for opset in (7, 10)),
    ("y, mask = Dropout <ratio = 0.7> (x)", 7, None),
    *((f"y = Pad <mode = \"{mode}\", pads = [0, 0, 1, 2, 0, 0, 2, 1]> (x)", 7, None)
      for mode in ("reflect", "edge")),
    *(("y = Pad <pads = [0, 0, 1, 2, 0, 0, -2, 1], value = 3.0> (x)", opset, None) for opset in (7, 10)),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "opset", "weights"), CASES)
def test_a_network_computes_what_it_did(nodes, opset, weights):
    model = source(nodes, opset, weights)
    found, expected = onnxruntime_of(later(model))(X), onnxruntime_of(model)(X)
    # A sum of products that is written out is rounded at each operator.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 if "spatial" in nodes else 0)


@pytest.mark.parametrize("nodes", ["y = Clip <min = -1.0, max = 2.0> (x)", "y = Pad <pads = [0,0,1,2,0,0,2,1]> (x)"])
def test_constants_have_the_type_of_the_data(nodes):
    model = source(nodes, 10, dtype="float16")
    x = X.astype(np.float16)
    np.testing.assert_array_equal(onnxruntime_of(later(model))(x), onnxruntime_of(model)(x))


def test_slopes_of_opset_6_are_of_channels():
    slopes = np.linspace(-1, 1, 6).astype(np.float32)
    found = onnxruntime_of(later(source("y = PRelu (x, w)", 6, {"w": slopes})))(X)
    np.testing.assert_array_equal(found, np.where(X < 0, X * slopes[:, np.newaxis, np.newaxis], X))


@pytest.mark.parametrize(("axis", "aligned"), [("1", (6, 1, 1)), ("-3", (6, 1, 1)), ("2", (6, 1)), ("3", (6,))])
def test_operands_of_opset_6_lie_along_an_axis(axis, aligned):
    operand = np.linspace(-1, 1, 6).astype(np.float32)
    model = source(f"y = Mul <broadcast = 1, axis = {axis}> (x, w)", 6, {"w": operand})
    np.testing.assert_array_equal(onnxruntime_of(later(model))(X), X * operand.reshape(aligned))


def test_enlarging_of_opset_6():
    model = source('y = Upsample <mode = "nearest", height_scale = 2.0, width_scale = 3.0> (x)', 6)
    np.testing.assert_array_equal(onnxruntime_of(later(model))(X), X.repeat(2, axis=2).repeat(3, axis=3))


def test_a_window_of_opset_6_leaves_its_pads_out():
    model = source("y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)", 6)
    counted = np.pad(np.ones((6, 6), np.float32), 1)
    sums = [np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1))), counted]
    total, count = (sum(array[..., i : i + 6, j : j + 6] for i in range(3) for j in range(3)) for array in sums)
    np.testing.assert_allclose(onnxruntime_of(later(model))(X), total / count, rtol=1e-5, atol=1e-6)


def test_normalisation_for_inference_of_opset_6():
    model = source("y = BatchNormalization <is_test = 1> (x, s, s, s, v)", 6, PER_CHANNEL)
    np.testing.assert_allclose(onnxruntime_of(later(model))(X), definition_of(model)(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("nodes", ["t = Hardmax (x)", "t = Softmax (x)"])
def test_bodies_compute_what_they_did(nodes):
    branches = f"then_branch = one () => (float[a, b, c, d] t) {{ {nodes} }}"
    model = source(
        "all = ReduceSum <keepdims = 0> (x) c = Cast <to = 9> (all)"
        f"y = If <{branches}, else_branch = other () => (float[a, b, c, d] e) {{ e = Relu (x) }}> (c)",
        12,
    )
    np.testing.assert_allclose(onnxruntime_of(later(model))(X), onnxruntime_of(model)(X), rtol=1e-5)


def test_what_no_opset_has_stays():
    """As onnxruntime's optimiser writes it, which onnx's checker does not take."""
    model = onnx.parser.parse_model(
        '<ir_version: 6, opset_import: ["" : 11]> test (float[2, 6, 6, 6] x) => (float[2, 6, 6, 6] y)'
        "<float[6] w = {1, 2, 3, -1, -2, -3}> {"
        "n = LayerNormalization <epsilon = 0.1> (x, w) y = SimplifiedLayerNormalization <epsilon = 0.1> (n, w) }"
    )
    result = upgraded(Network(model, "the model", ""), MIN_OPSET).proto
    assert [(node.op_type, node.domain) for node in result.graph.node] == [
        (node.op_type, "") for node in model.graph.node
    ]
    np.testing.assert_array_equal(onnxruntime_of(result)(X), onnxruntime_of(model)(X))


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_what_onnxruntime_has_before_onnx_stays(opset):
    model = source("y = ThresholdedRelu <alpha = 0.3> (x)", 10)
    model.opset_import[0].version = opset
    result = later(model)
    assert [node.op_type for node in result.graph.node] == ["ThresholdedRelu"]
    assert result.opset_import[0].version >= MIN_OPSET
    np.testing.assert_array_equal(onnxruntime_of(result)(X), np.where(X > np.float32(0.3), X, 0))
    np.testing.assert_array_equal(onnxruntime_of(model)(X), onnxruntime_of(result)(X))


@pytest.mark.parametrize(
    ("nodes", "opset", "weights", "why"),
    [
        ("y = BatchNormalization (x, s, s, s, v)", 6, PER_CHANNEL, "is in training mode"),
        ("y, m, n, o, p = BatchNormalization (x, s, s, s, v)", 9, PER_CHANNEL, "is in training mode"),
        ("y = Dropout (x)", 6, None, "is in training mode"),
        ("z, mask = Dropout (x) c = Cast <to = 1> (mask) y = Add (z, c)", 10, None, "has a mask as output"),
        ("y = Resize (x, s)", 10, scales(1, 1, 2, 0.5), "enlarges one axis and shrinks another"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused(nodes, opset, weights, why):
    model = source(nodes, opset, weights)
    told = refusal_of(later, model)
    assert told.startswith(f"the model uses opset {opset}, and its ")
    assert why in told
    assert f"opset {MIN_OPSET} or later" in told


def test_slopes_for_channels_of_who_knows_what_are_refused():
    model = network(
        "r = Reshape (x, shape) y = PRelu (r, w)",
        inputs="float[N, 36] x, int64[rank] shape",
        outputs="float[a, b, c] y",
        weights={"w": weight(6, 1)[:, 0]},
        opset=6,
        ir_version=4,
    )
    assert "its PRelu 'y' has slopes for the channels of a tensor of unknown rank" in refusal_of(later, model)


def test_a_batch_of_sequences_is_refused():
    body = "body = one (float[4] a, float[4] b) => (float[4] c, float[4] d) { c = Add (a, b) d = Identity (c) }"
    model = network(
        f"last, y = Scan <num_scan_inputs = 1, {body}> (, first, x)",
        inputs="float[2, 3, 4] x, float[2, 4] first",
        outputs="float[2, 3, 4] y",
        opset=8,
        ir_version=4,
    )
    assert "its Scan 'last' runs over batches of sequences" in refusal_of(later, model)


def test_what_onnx_cannot_convert_is_named():
    model = network(
        "h = GRU <hidden_size = 4> (x, w, r) y = Relu (h)",
        inputs="float[3, 2, 5] x",
        outputs="float[a, b, c, d] y",
        weights={"w": weight(1, 12, 5), "r": weight(1, 12, 4)},
        opset=6,
        ir_version=4,
    )
    told = refusal_of(later, model)
    assert told == ("the model uses opset 6, and onnx cannot bring its GRU 'h' to 17; export it with opset 13 or later")


def test_a_later_opset_is_left_alone():
    given = load(source("y = Softmax (x)", MIN_OPSET))
    assert upgraded(given, MIN_OPSET) is given
