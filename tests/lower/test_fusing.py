"""Mode `integer`: which layers become ones of integers, and that every bit stays what floats that hold these give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight
from onnx import numpy_helper
from refusals import refusal_of

from pconv_onnx import rewrite, session, stats, verify
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph import load
from pconv_onnx.graph.carriers import in_carriers
from pconv_onnx.graph.record import Record

INPUTS = {"weights": "int8", "input_bits": 8, "input_range": (-4, 4)}
SAME = "pads = [1, 1, 1, 1]"
WEIGHTS = {
    "w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 3, 3, seed=1), "v2": 2 * weight(4, 4, 3, 3, seed=2),
    "depth": 2 * weight(4, 1, 3, 3, seed=3), "half_w": 2 * weight(6, 2, 3, 3, seed=4), "u": weight(4, 5, seed=5),
    "ut": weight(5, 4, seed=6), "k": weight(1, 5, seed=7)[0], "wide": 2 * weight(4, 8, 1, 1, seed=8),
    "u256": weight(5, 256, seed=9), "pads": np.array([0, 0, 0, 1, 0, 0, 2, 1]), "all_axes": np.array([0, 0, 2, 2]),
    "starts": np.array([0, 1]), "ends": np.array([7, 8]), "axes": np.array([2, 3]), "steps": np.array([2, 1]),
    "more": np.array([0, 1, 0, 0, 0, 1, 0, 0]), "six": 2 * weight(4, 6, 1, 1, seed=10), "third": np.float32(0.4),
    "w1": 4 * weight(4, 3, 3, seed=11), "v1": 2 * weight(4, 4, 3, seed=12), "q_scale": np.float32(0.11),
    "z": np.array(3, np.int8), "first": np.array([0]), "second": np.array([1]), "channel": np.array([1]),
}  # fmt: skip
A = f"c = Conv <{SAME}> (x, w) {qcfs('c', 'a')}"
D = f"{A} d = Conv <{SAME}> (a, v)"
END = qcfs("s", "y")
FLAT = f"{A} f = Flatten (a) g = Gemm <transB = 1> (f, u256, k) y = Relu (g)"
IMAGE, SIGNAL, ROWS = "float[N, C, H, W] y", "float[N, C, L] y", "float[N, M] y"
# Nodes, the type of the output, and how many layers of integers of each kind there are.
CASES: dict[str, tuple[str, str, dict[str, int]]] = {
    "two convolutions": (f"{A} s = Conv <{SAME}> (a, v) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "a residual of counts": (f"{D} s = Add (d, a) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "a residual that is taken away": (f"{D} s = Sub (a, d) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "a residual of sums": (
        f"{D} e = Conv <{SAME}> (a, v2) s = Add (d, e) {END}", IMAGE, {"IntegerConv": 1, "IntegerSpikeConv": 2}
    ),
    "sums that two read": (
        f"{D} {qcfs('d', 'b')} e = Conv <{SAME}> (b, v2) s = Add (d, e) {END}", IMAGE,
        {"IntegerConv": 1, "IntegerSpike": 1, "IntegerSpikeConv": 2},
    ),
    "an output of sums": (f"{D} y = Identity (d)", IMAGE, {"IntegerSpikeConv": 1, "IntegerConv": 1}),
    "depthwise": (f"{A} s = Conv <{SAME}, group = 4> (a, depth) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "groups, strides and dilations": (
        f"{A} s = Conv <group = 2, strides = [2, 1], dilations = [1, 2], pads = [1, 0, 0, 1]> (a, half_w) {END}",
        IMAGE, {"IntegerSpikeConv": 2},
    ),
    "a Pad of its own": (f"{A} p = Pad (a, pads) s = Conv (p, v) {END}", IMAGE, {"IntegerSpikeConv": 2, "Pad": 0}),
    "a Pad of channels": (
        f"{A} p = Pad (a, more) s = Conv (p, six) {END}", IMAGE, {"IntegerSpikeConv": 2, "Pad": 1}
    ),
    "Concat": (
        f"{D} {qcfs('d', 'b')} t = Concat <axis = 1> (a, b) s = Conv (t, wide) {END}", IMAGE,
        {"IntegerSpikeConv": 3, "Concat": 1},
    ),
    "MaxPool": (
        f"{A} p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (a) s = Conv (p, v) {END}",
        IMAGE, {"IntegerSpikeConv": 2, "MaxPool": 1},
    ),
    "Slice": (f"{A} p = Slice (a, starts, ends, axes, steps) s = Conv (p, v) {END}", IMAGE,
              {"IntegerSpikeConv": 2, "Slice": 1}),
    "Flatten and Gemm": (f"{A} f = Flatten (a) s = Gemm <transB = 1> (f, u256, k) {END}", ROWS,
                         {"IntegerSpikeConv": 1, "IntegerSpikeGemm": 1}),
    "MatMul of the last axis": (
        f"{A} t = Transpose <perm = [0, 2, 3, 1]> (a) m = MatMul (t, u) s = Add (m, k) {END}", IMAGE,
        {"IntegerSpikeConv": 1, "IntegerSpikeGemm": 1},
    ),
    "a last Gemm": (f"{A} f = Flatten (a) y = Gemm <transB = 1> (f, u256, k)", ROWS,
                    {"IntegerSpikeConv": 1, "IntegerGemm": 1}),
    "signed counts": (
        f"{D} q = QuantizeLinear (d, q_scale, z) b = DequantizeLinear (q, q_scale, z) "
        f"e = Conv <{SAME}> (b, v2) s2 = Add (e, b) {qcfs('s2', 'y')}", IMAGE, {"IntegerSpikeConv": 3},
    ),
}  # fmt: skip


def built(nodes: str, outputs: str, inputs: str = "float[N, 3, 8, 8] x") -> onnx.ModelProto:
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: value for name, value in WEIGHTS.items() if name in words}
    return network(nodes, inputs=inputs, outputs=outputs, weights=used)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1.5, shape).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray, *, kernels: bool = True) -> np.ndarray:
    if kernels:
        return session(model).run(None, {"x": x})[0]
    runner = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return runner.run(None, {"x": x})[0]


def require_same(source: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
    """The network in mode integer, which has the bits of the folded one, with kernels and without."""
    expected = run(rewrite(source, mode="folded", **INPUTS).model, x)
    assert len(np.unique(expected)) > 1
    integer = rewrite(source, mode="integer", **INPUTS).model
    for kernels in (True, False):
        np.testing.assert_array_equal(run(integer, x, kernels=kernels).view(np.uint32), expected.view(np.uint32))
    return integer


@pytest.mark.parametrize(("nodes", "outputs", "layers"), CASES.values(), ids=CASES)
def test_layers_of_integers_give_the_bits_of_floats(nodes, outputs, layers):
    model = require_same(built(nodes, outputs), images(3, 3, 8, 8))
    found = Counter(node.op_type for node in model.graph.node)
    assert {name: found[name] for name in layers} == layers
    assert sum(found[name] for name in found if name.startswith("Integer")) == sum(
        count for name, count in layers.items() if name.startswith("Integer")
    )
    assert not {"ParallelSpike", "Conv"} & set(found)


def test_signals_are_images_one_row_high():
    nodes = f"c = Conv <pads = [1, 1]> (x, w1) {qcfs('c', 'a')} s = Conv <strides = [2]> (a, v1) {END}"
    model = require_same(built(nodes, SIGNAL, "float[N, 3, 12] x"), images(4, 3, 12))
    layers = [node for node in model.graph.node if node.domain == DOMAIN]
    assert [node.op_type for node in layers] == ["IntegerSpikeConv"] * 2
    # Nothing is moved between them.
    assert layers[1].input[0] == layers[0].output[0]


def test_counts_are_bytes_and_weights_too():
    model = rewrite(built(*CASES["a residual of counts"][:2]), mode="integer", **INPUTS).model
    types = {tensor.name: numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer}
    (_, layer) = (node for node in model.graph.node if node.op_type == "IntegerSpikeConv")
    assert [types[name] for name in layer.input[1:4]] == [np.int8, np.int32, np.int32]
    assert types[layer.input[6]] == np.int32
    # What a shortcut hands on is what the first layer gives, with nothing between.
    assert layer.input[4] == layer.input[0]


STAYING = {
    "counts of one channel beside several": (
        f"{D} {qcfs('d', 'b')} o = Slice (b, first, second, channel) s = Add (d, o) {END}",
        "what it reads is no sum of counts times int8 weights",
    ),
    "levels that differ": (
        f"{D} t = Mul (d, third) {qcfs('t', 'b')} p = Add (a, b) s = Conv <{SAME}> (p, v2) {END}",
        "what it reads is no sum of counts times int8 weights",
    ),
}


@pytest.mark.parametrize(("nodes", "reason"), STAYING.values(), ids=STAYING)
def test_what_stays_on_floats_is_named_with_its_reason(nodes, reason):
    source = built(nodes, IMAGE)
    require_same(source, images(2, 3, 8, 8))
    assert rewrite(source, mode="integer", **INPUTS).summary()["integer"]["neurons_on_floats"] == {"y_code": reason}
    assert rewrite(source, mode="folded", **INPUTS).summary()["integer"]["neurons_on_floats"] is None


def test_levels_that_no_byte_holds_stay_on_floats():
    nodes = f"{A} s = Conv <{SAME}> (a, v) {END}"
    used = {name: WEIGHTS[name] for name in ("w", "v")}
    source = network(nodes, outputs=IMAGE, weights={**used, "count": 300.0})
    told = refusal_of(rewrite, source, mode="integer", **INPUTS)
    assert told.startswith("no layer of the model can be one of integers: 'a_code': it has 300 levels above its lowest")


def test_weights_are_int8_where_nothing_else_is_asked_for():
    source = built(*CASES["two convolutions"][:2])
    rewriting = rewrite(source, mode="integer", input_bits=8, input_range=(-4, 4))
    assert rewriting.summary()["integer"]["weights"] == "int8"
    four = rewrite(source, mode="integer", **INPUTS | {"weights": "int4"}).model
    tensors = [numpy_helper.to_array(tensor) for tensor in four.graph.initializer]
    assert all(np.abs(tensor.astype(int)).max() <= 8 for tensor in tensors if tensor.dtype == np.int8)


def test_the_record_has_the_same_network_in_floats():
    source = built(*CASES["a residual of sums"][:2])
    x = images(3, 3, 8, 8)
    network = load(rewrite(source, mode="integer", **INPUTS).model)
    carriers, changed = in_carriers(network)
    assert changed == []
    assert Record.read(carriers.proto).carriers is None
    np.testing.assert_array_equal(run(carriers.proto, x), run(network.proto, x))
    assert not any(node.op_type.startswith("Integer") for node in carriers.proto.graph.node)
    again, _ = in_carriers(carriers)
    assert again is carriers


def test_verify_compares_every_count():
    source = built(*CASES["sums that two read"][:2])
    found = verify(source, rewrite(source, mode="integer", **INPUTS).model, {"x": images(5, 3, 8, 8)})
    assert (found.verdict, found.differences) == ("measured", [])
    integers = found.summary()["integer"]
    assert integers["counts"] == 3 * 5 * 4 * 8 * 8
    assert (integers["differing_counts"], integers["differing"]) == (0, 0)
    assert found.layers_compared == 3


@pytest.mark.parametrize(("index", "what"), [(1, "weight"), (2, "bias"), (6, "threshold")])
def test_verify_finds_a_changed_table(index, what):
    source = built(*CASES["a residual of counts"][:2])
    model = rewrite(source, mode="integer", **INPUTS).model
    layer = [node for node in model.graph.node if node.op_type == "IntegerSpikeConv"][1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == layer.input[index])
    value = numpy_helper.to_array(tensor).copy()
    value.flat[:] = value.flat[::-1] if index == 1 else value + 200
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    found = verify(source, model, {"x": images(5, 3, 8, 8)})
    assert found.verdict == "different", what
    assert any("spike counts" in told or "is not what calibration made it" in told for told in found.differences)


def test_stats_are_those_of_the_network_in_floats():
    source = built(*CASES["a residual of counts"][:2])
    x = {"x": images(5, 3, 8, 8)}
    folded, integer = (stats(rewrite(source, mode=mode, **INPUTS).model, x).summary() for mode in ("folded", "integer"))
    assert integer["mode"] == "integer"
    for part in ("layers", "operators", "totals", "spike_driven"):
        assert integer[part] == folded[part]


def test_a_network_of_integers_is_no_source():
    model = rewrite(built(*CASES["two convolutions"][:2]), mode="integer", **INPUTS).model
    assert refusal_of(rewrite, model).startswith("the model is a spiking network already")
