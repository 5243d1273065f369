"""Neurons that stay in the layout of onnxruntime's convolutions: the same bits, fewer reorders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight

from pconv_onnx import register, session
from pconv_onnx.graph.record import Record
from pconv_onnx.rewriting import rewrite
from pconv_onnx.runtime import opening
from pconv_onnx.runtime.blocked import stay_blocked

BLOCK = "Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
CHAIN = f"i = {BLOCK} (x, wi)" + qcfs("i", "s") + f"c = {BLOCK} (s, w)"
RESIDUAL = CHAIN + "r = Add (c, s)" + qcfs("r", "t") + f"y = {BLOCK} (t, w)"


def spiking(nodes: str, channels: int, mode: str = "parallel", **weights) -> onnx.ModelProto:
    tensors = {"wi": weight(channels, 3, 3, 3), "w": weight(channels, channels, 3, 3, seed=1), **weights}
    return rewrite(network(nodes, weights=tensors, outputs="float[N, C, H, W] y"), mode=mode).model


def optimised(model: onnx.ModelProto, folder) -> onnx.ModelProto:
    """What onnxruntime makes of it."""
    options = register(onnxruntime.SessionOptions())
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return onnx.load(folder / "optimised.onnx")


def reorders(model: onnx.ModelProto) -> int:
    counts = Counter(node.op_type for node in model.graph.node)
    return counts["ReorderInput"] + counts["ReorderOutput"]


def same_bits(model: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).normal(1, 1, (3, 3, 8, 8)).astype(np.float32)
    plain = onnxruntime.InferenceSession(model.SerializeToString(), register(onnxruntime.SessionOptions()))
    np.testing.assert_array_equal(session(model).run(None, {"x": x})[0], plain.run(None, {"x": x})[0])


@pytest.fixture
def blocks(tmp_path) -> None:
    if not reorders(optimised(spiking(RESIDUAL, 16), tmp_path)):
        pytest.skip("this onnxruntime does not block channels on this machine")


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("channels", [16, 32])
def test_neurons_and_residual_adds_stay_blocked(mode, channels, tmp_path, blocks):
    model = spiking(RESIDUAL, channels, mode)
    graph = optimised(model, tmp_path)
    assert reorders(graph) >= 4
    assert stay_blocked(graph)
    # Only the network's own output has to leave the blocked order.
    assert reorders(graph) == 1
    same_bits(model)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_coded_neurons_stay_blocked(dtype, mode, tmp_path, blocks):
    """Radix, and signed where the codes are, with trains that are encoded again behind the pool."""
    quantised = "{y}_q = QuantizeLinear ({x}, s, k) {y} = DequantizeLinear ({y}_q, s, k)"
    nodes = f"""i = {BLOCK} (x, wi) {quantised.format(x="i", y="a")} c = {BLOCK} (a, w) r = Add (c, a)
        {quantised.format(x="r", y="t")} p = MaxPool <kernel_shape = [2, 2]> (t) y = {BLOCK} (p, w)"""
    model = spiking(nodes, 16, mode, s=np.float32(0.03), k=np.zeros((), dtype))
    kinds = Record.read(model).kinds
    assert {kind.coding for kind in kinds.values() if kind.levels} == {"radix"}
    assert any(kind.zero for kind in kinds.values()) == (dtype == np.int8)
    graph = optimised(model, tmp_path)
    before = reorders(graph)
    assert stay_blocked(graph) and reorders(graph) < before
    same_bits(model)


def test_trains_that_meet_in_one_coding_stay_blocked(tmp_path, blocks):
    """Four levels in four time-steps, and eight that are given as many."""
    nodes = CHAIN + qcfs("c", "u").replace("count", "many") + "r = Add (s, u)" + qcfs("r", "t") + f"y = {BLOCK} (t, w)"
    model = spiking(nodes, 16, many=8.0)
    assert "u/recode" in {node.name for node in model.graph.node}
    graph = optimised(model, tmp_path)
    assert stay_blocked(graph) and reorders(graph) == 1
    same_bits(model)


@pytest.mark.parametrize("channels", [8, 24, 20, 5])
@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_channels_that_do_not_fill_their_blocks_give_the_same_bits(mode, channels):
    same_bits(spiking(RESIDUAL, channels, mode))


def test_thresholds_per_channel_are_left_in_plain_order(tmp_path, blocks):
    theta = np.linspace(0.5, 2, 16, dtype=np.float32).reshape(16, 1, 1)
    model = spiking(CHAIN.replace("c =", "y ="), 16, theta=theta)
    assert not stay_blocked(optimised(model, tmp_path))
    same_bits(model)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_an_add_that_broadcasts_is_left_in_plain_order(mode, tmp_path, blocks):
    pooled = (
        "p = GlobalAveragePool (c)" + f"q = {BLOCK} (p, w)" + "r = Add (q, s)" + qcfs("r", "t") + f"y = {BLOCK} (t, w)"
    )
    model = spiking(CHAIN + pooled, 16, mode)
    graph = optimised(model, tmp_path)
    stay_blocked(graph)
    (add,) = (node for node in graph.graph.node if node.op_type == "Add")
    assert not add.output[0].endswith("/blocked")
    same_bits(model)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_readers_in_plain_order_get_plain_order(mode):
    """A slice of channels, a pool and an output of the model read what a Conv reads blocked."""
    nodes = RESIDUAL + "a = Slice (t, zero_, eight, on) e = MaxPool <kernel_shape = [2, 2]> (t) z = Identity (t)"
    extra = {"zero_": np.array([3]), "eight": np.array([11]), "on": np.array([1])}
    tensors = {"wi": weight(16, 3, 3, 3), "w": weight(16, 16, 3, 3, seed=1), **extra}
    outputs = ", ".join(f"float[N, C_{name}, H_{name}, W_{name}] {name}" for name in "yaez")
    model = rewrite(network(nodes, weights=tensors, outputs=outputs), mode=mode).model
    x = np.random.default_rng(0).normal(1, 1, (3, 3, 8, 8)).astype(np.float32)
    plain = onnxruntime.InferenceSession(model.SerializeToString(), register(onnxruntime.SessionOptions()))
    for found, expected in zip(session(model).run(None, {"x": x}), plain.run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("shape", [(2, 3, 18, 18), (2, 3, 6, 18)])
def test_a_transpose_that_onnxruntime_folds_into_a_reorder_is_kept(mode, shape):
    nodes = f"c = {BLOCK} (x, wi)" + qcfs("c", "a") + "t = Transpose <perm = [0, 3, 1, 2]> (a) y = Conv (t, v)"
    weights = {"wi": weight(16, 3, 3, 3), "v": weight(16, shape[3] - 2, 1, 1)}
    plain = nodes.replace(", pads = [1, 1, 1, 1]", "")
    source = network(plain, weights=weights, inputs="float[N, 3, A, B] x", outputs="float[N, C, H, W] y")
    model = rewrite(source, mode=mode).model
    x = np.random.default_rng(0).normal(1, 1, shape).astype(np.float32)
    ordinary = onnxruntime.InferenceSession(model.SerializeToString(), register(onnxruntime.SessionOptions()))
    np.testing.assert_array_equal(session(model).run(None, {"x": x})[0], ordinary.run(None, {"x": x})[0])


def test_tables_that_a_run_may_override_are_left_in_plain_order(tmp_path, blocks):
    """The stored ones have one row, those of a run may have one a channel."""
    model = spiking(CHAIN.replace("c =", "y ="), 16)
    node = next(node for node in model.graph.node if node.op_type == "ParallelSpike")
    for name in node.input[1:]:
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None]))
    assert not stay_blocked(optimised(model, tmp_path))


def test_a_body_that_reads_a_blocked_tensor_gets_it(tmp_path, blocks):
    nodes = (
        RESIDUAL.replace("y =", "u =")
        + "y = If (yes) <then_branch = a () => (float[N, C, H, W] p) { p = Add (t, u) },"
        + " else_branch = b () => (float[N, C, H, W] q) { q = Identity (u) }>"
    )
    weights = {"wi": weight(16, 3, 3, 3), "w": weight(16, 16, 3, 3, seed=1), "yes": np.array(True)}
    source = network(nodes + "z = Identity (yes)", outputs="float[N, C, H, W] y, bool z", weights=weights)
    model = rewrite(source, mode="folded").model
    graph = optimised(model, tmp_path)
    stay_blocked(graph)
    onnxruntime.InferenceSession(graph.SerializeToString(), register(onnxruntime.SessionOptions()))
    same_bits(model)


def test_the_user_s_options_are_put_back(tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 1
    session(spiking(RESIDUAL, 16), options=options)
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert (options.log_severity_level, options.optimized_model_filepath) == (1, "")


def test_the_user_s_wish_for_the_optimised_model_is_granted(tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "mine.onnx")
    session(spiking(RESIDUAL, 16), options=options)
    assert (tmp_path / "mine.onnx").exists()


def test_without_room_for_the_optimised_graph_the_session_is_an_ordinary_one(monkeypatch, tmp_path):
    model = spiking(RESIDUAL, 16)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    same_bits(model)


def test_a_fault_of_ours_is_not_taken_for_one_of_onnxruntime(monkeypatch):
    def faulty(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(opening, "stay_blocked", faulty)
    with pytest.raises(ZeroDivisionError):
        session(spiking(RESIDUAL, 16))
