"""Spike statistics, against counts that are made in another way."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest
from batches import batch_sizes
from networks import network, qcfs, weight
from refusals import refusal_of
from temporal_cases import CASES, FIXED_BATCH_CASES, FLAT, FLAT_CASES, OPEN, S

from pconv_onnx import Stats, rewrite, session, stats, verify
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.record import Record
from pconv_onnx.measure import taps
from pconv_onnx.temporal.kinds import Spikes

Array = np.ndarray
MODES = ("parallel", "folded")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(1, 1, (6, 4, 9, 7)).astype(np.float32)
KEYS = ("input", "macs", "synaptic_operations", "multiply_accumulates")


def ones(numbers: Array) -> Array:
    """How many bits of each are set; NumPy before 2.0 has no function for it."""
    return np.vectorize(int.bit_count, otypes=[int])(numbers.astype(object))


def counts_of(x: Array, steps: int = 4) -> Array:
    """Spike counts of the QCFS of `networks`, as its definition has them."""
    return np.clip(np.floor(x / 2 * steps + 0.5), 0, steps).astype(np.float32)


def spiking(nodes: str, x: Array, weights: dict[str, Array], mode: str, **options) -> dict:
    """The statistics of the network that these nodes become, on `x`; it ends in `y`."""
    dims = ", ".join(map(str, x.shape[1:]))
    nodes, outputs = f"{nodes} largest = ReduceMax <keepdims = 0> (y)", "float largest"
    ann = network(nodes, inputs=f"float[N, {dims}] x", outputs=outputs, weights=weights)
    return stats(rewrite(ann, mode=mode, **options).model, {"x": x}).summary()


def rows(summary: dict) -> dict[str, tuple]:
    return {row["name"] or row["op_type"]: tuple(row[key] for key in KEYS) for row in summary["operators"]}


def summed(node: str, a: Array, weights: dict[str, Array]) -> float:
    """Sum of the outputs of an operator whose weights are all 1: each input value once for each product it is in."""
    ones = {name: np.ones_like(value) for name, value in weights.items()}
    dims = ", ".join(map(str, a.shape))
    model = network(f"{node} z = ReduceSum <keepdims = 0> (y)", inputs=f"float[{dims}] a", outputs="float z",
                    weights=ones)  # fmt: skip
    return float(session(model).run(["z"], {"a": a})[0])


OPERATORS = {
    "plain": ("Conv (a, w)", (5, 4, 3, 3)),
    "padded": ("Conv <pads = [1, 1, 1, 1]> (a, w)", (5, 4, 3, 3)),
    "strided, asymmetric, dilated": (
        "Conv <pads = [1, 0, 2, 3], strides = [2, 3], dilations = [2, 1]> (a, w)",
        (5, 4, 3, 2),
    ),
    "more padding than kernel": ("Conv <pads = [4, 4, 4, 4], strides = [3, 3]> (a, w)", (5, 4, 2, 2)),
    "strides that skip inputs": ("Conv <strides = [4, 3]> (a, w)", (5, 4, 1, 1)),
    "grouped": ("Conv <group = 2, pads = [1, 1, 1, 1]> (a, w)", (6, 2, 3, 3)),
    "depthwise": ("Conv <group = 4, pads = [1, 1, 1, 1], strides = [2, 2]> (a, w)", (8, 1, 3, 3)),
    "SAME_UPPER": ('Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (a, w)', (5, 4, 4, 3)),
    "SAME_LOWER": ('Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (a, w)', (5, 4, 4, 2)),
    "SAME_UPPER, strides that skip inputs": ('Conv <auto_pad = "SAME_UPPER", strides = [3, 4]> (a, w)', (5, 4, 1, 1)),
    "VALID": ('Conv <auto_pad = "VALID", strides = [2, 2]> (a, w)', (5, 4, 4, 3)),
    "transposed": ("ConvTranspose (a, w)", (4, 5, 3, 3)),
    "transposed, all attributes": (
        "ConvTranspose <strides = [2, 3], pads = [1, 0, 2, 1], dilations = [2, 1], output_padding = [1, 2], group = 2> "
        "(a, w)",
        (4, 3, 3, 2),
    ),
    "transposed, output shape": ("ConvTranspose <strides = [2, 2], output_shape = [17, 14]> (a, w)", (4, 5, 4, 3)),
    "transposed, output shape, SAME_UPPER": (
        'ConvTranspose <strides = [2, 2], output_shape = [17, 14], auto_pad = "SAME_UPPER"> (a, w)',
        (4, 5, 4, 3),
    ),
    "transposed, SAME_UPPER": ('ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (a, w)', (4, 5, 5, 3)),
    "transposed, SAME_LOWER": ('ConvTranspose <strides = [2, 2], auto_pad = "SAME_LOWER"> (a, w)', (4, 5, 5, 3)),
    "MatMul": ("MatMul (a, w)", (7, 3)),
    "MatMul from the left": ("MatMul (w, a)", (5, 9)),
    "MatMul by a vector": ("MatMul (a, w)", (7,)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATORS)
def test_operations_are_those_that_the_operator_sums_up(name, mode):
    node, shape = OPERATORS[name]
    weights = {"w": weight(*shape, seed=3) if len(shape) > 1 else np.ones(shape, np.float32)}
    node = f"y = {node}"
    summary = spiking(f"{qcfs('x', 'a')} {node}", IMAGES, weights, mode)
    (row,) = rows(summary).values()
    macs = summed(node, np.ones_like(IMAGES), weights) / len(IMAGES)
    operations = summed(node, counts_of(IMAGES), weights) / len(IMAGES)
    assert 0 < operations < 4 * macs
    assert row == ("spikes", macs, pytest.approx(operations, rel=1e-12), 0)
    assert summary["totals"]["ann_macs"] == macs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "nodes", "table"), [
    ((6, 5), "y = Gemm (a, w)", (5, 3)),
    ((6, 5), "y = Gemm <transB = 1> (a, w, b)", (3, 5)),
    ((6, 4, 11), "y = Conv <pads = [2, 0], strides = [2]> (a, w)", (3, 4, 3)),
    ((6, 2, 5, 4, 3), "y = Conv <pads = [1, 1, 0, 0, 1, 1], dilations = [1, 2, 1]> (a, w)", (3, 2, 2, 2, 2)),
])  # fmt: skip
def test_operators_of_other_ranks(shape, nodes, table, mode):
    x, w = RNG.normal(1, 1, shape).astype(np.float32), weight(*table)
    (row,) = rows(spiking(f"{qcfs('x', 'a')} {nodes}", x, {"w": w, "b": np.ones(3, np.float32)}, mode)).values()
    node = nodes.replace(", b)", ")")
    assert row[1] == summed(node, np.ones_like(x), {"w": w}) / len(x)
    assert row[2] == pytest.approx(summed(node, counts_of(x), {"w": w}) / len(x), rel=1e-12)


def test_taps_in_the_padding_are_counted_nowhere():
    """By hand: a window of 3 × 3 around each of 5 × 6 values misses one column or row at each border."""
    x = np.full((1, 1, 5, 6), 9, np.float32)
    nodes = f"{qcfs('x', 'a')} y = Conv <pads = [1, 1, 1, 1]> (a, w)"
    ((_, macs, operations, _),) = rows(spiking(nodes, x, {"w": weight(2, 1, 3, 3)}, "parallel")).values()
    assert macs == 2 * (3 * 5 - 2) * (3 * 6 - 2)
    assert operations == 4 * macs


def test_a_loop_over_outputs_and_taps_finds_the_same():
    nodes = f"{qcfs('x', 'a')} y = Conv <pads = [1, 0, 2, 1], strides = [2, 1], dilations = [1, 2], group = 2> (a, w)"
    ((_, macs, operations, _),) = rows(spiking(nodes, IMAGES, {"w": weight(6, 2, 3, 2)}, "parallel")).values()
    counts, products, spikes = counts_of(IMAGES), 0, 0
    height, width = (9 + 3 - 3) // 2 + 1, 7 + 1 - 3 + 1
    for row, column, i, j in np.ndindex(height, width, 3, 2):
        at = (2 * row + i - 1, column + 2 * j)
        if 0 <= at[0] < 9 and 0 <= at[1] < 7:
            products += 6 * 2
            spikes += 3 * counts[:, :, at[0], at[1]].sum()
    assert (macs, operations) == (products, pytest.approx(spikes / 6, rel=1e-12))


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_is_what_its_definition_says(mode):
    x = IMAGES.copy()
    x[:, 0], x[:, 1] = -1, 5
    x[0, 2, 0, 0] = 0
    (layer,) = spiking(f"{qcfs('x', 'a')} y = Identity (a)", x, {}, mode)["layers"]
    counts = counts_of(x).astype(int)
    chosen = layer.pop("example_neurons")
    assert len(chosen) == 32 and chosen[0] == 0 and chosen[-1] == 4 * 9 * 7 - 1
    assert set(np.diff(chosen)) <= {8, 9}
    assert layer == {
        "name": "a_code",
        "channels": 4,
        "neurons": 4 * 9 * 7,
        "steps": 4,
        "coding": "rate",
        "zero": 0,
        "operations": counts.sum(),
        "firing_rate": pytest.approx(counts.mean() / 4),
        "spike_counts": np.bincount(counts.reshape(-1), minlength=5).tolist(),
        "silent_channels": 1,
        "saturated_channels": 1,
        "example_counts": counts[0].reshape(-1)[chosen].tolist(),
    }


def test_a_channel_is_silent_or_saturated_on_all_data_or_not_at_all():
    x = np.stack([np.full((100, 2), -1), np.full((100, 2), 5)], axis=1).astype(np.float32)
    x[99, 0, 1], x[99, 1, 1] = 1, 1  # in the last batch
    (layer,) = spiking(f"{qcfs('x', 'a')} y = Identity (a)", x, {}, "folded")["layers"]
    assert (layer["silent_channels"], layer["saturated_channels"]) == (0, 0)
    assert layer["example_neurons"] == [0, 1, 2, 3] and layer["example_counts"] == [0, 0, 4, 4]
    x[99, :, 1] = x[0, :, 1]
    (layer,) = spiking(f"{qcfs('x', 'a')} y = Identity (a)", x, {}, "folded")["layers"]
    assert (layer["silent_channels"], layer["saturated_channels"]) == (1, 1)


KINDS = {
    "max pooling": ("b = MaxPool <kernel_shape = [2, 2]> (a)", "spikes"),
    "parts": (
        "s = Slice (a, two, nine, two) r = Concat <axis = 2> (s, a) b = Transpose <perm = [0, 1, 3, 2]> (r)",
        "spikes",
    ),
    "average pooling": ("b = AveragePool <kernel_shape = [2, 2]> (a)", "current"),
    "residual": (f"g = Conv (x, e) {qcfs('g', 'h')} b = Add (a, h)", "current"),
    "residual of what has no time": ("g = Conv (x, e) b = Add (a, g)", "current"),
    "analog": ("b = Sigmoid (a)", "static"),
    "product of two": ("b = Mul (a, a)", "current"),
    "product of two currents": ("g = Conv (a, e) b = Mul (g, g)", "static"),
    "body": (
        "t = Constant <value = bool {1}> () "
        "b = If (t) <then_branch = g1 () => (float[N, C, H, W] p) {p = Identity (a)}, "
        "else_branch = g2 () => (float[N, C, H, W] q) {q = Neg (a)}>",
        "static",
    ),
}


@pytest.mark.parametrize("rows_of_input", ["N", "6"])
@pytest.mark.parametrize("name", KINDS)
def test_the_kind_of_an_input_decides_what_remains(name, rows_of_input):
    between, kind = KINDS[name]
    weights = {"w": weight(5, 4, 3, 3), "e": 4 * weight(4, 4, 1, 1), "two": np.array([2]), "nine": np.array([9])}
    nodes = f"{qcfs('x', 'a')} {between} k = Conv (b, w) y = Flatten (k)"
    ann = network(nodes, inputs=f"float[{rows_of_input}, 4, 9, 7] x", outputs="float[M, A] y", weights=weights)
    tapped = onnx.ModelProto()
    tapped.CopyFrom(ann)
    tapped.graph.output.append(onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, None))
    b = session(tapped).run(["b"], {"x": IMAGES})[0]
    macs = summed("y = Conv (a, w)", np.ones_like(b), {"w": weights["w"]}) / 6
    left = {"spikes": 0, "current": 4 * macs, "static": macs}[kind]
    # The levels are 0, 0.5, … 2.
    operations = summed("y = Conv (a, w)", 2 * b, {"w": weights["w"]}) / 6 if kind == "spikes" else 0
    for mode in MODES:
        (*_, row) = stats(rewrite(ann, mode=mode).model, {"x": IMAGES}).summary()["operators"]
        assert tuple(row[key] for key in KEYS) == (kind, macs, pytest.approx(operations, rel=1e-12), left), mode


@pytest.mark.parametrize(
    ("nodes", "weights", "inputs", "outputs"),
    [
        *((nodes, weights, "N", OPEN) for nodes, _, weights in CASES),
        *((nodes, weights, "N", FLAT) for nodes, _, weights in FLAT_CASES),
        *((nodes, weights, "5", FLAT) for nodes, _, weights in FIXED_BATCH_CASES),
    ],
)
def test_kinds_read_from_a_network_are_those_that_it_was_planned_with(nodes, weights, inputs, outputs):
    nodes = f"{S} {nodes} y = Identity ({'m' if 'm = MaxPool' in nodes else 'z'})"
    model = network(nodes, inputs=f"float[{inputs}, 3, 8, 8] x", weights=weights, **outputs)
    in_time = rewrite(model)
    planned = {name: (kind.steps, isinstance(kind, Spikes)) for name, kind in in_time.plan.kinds.items()}
    for mode, written in (("parallel", in_time.model), ("folded", rewrite(model, mode="folded").model)):
        recorded = Record.read(written).kinds
        found = {name.removesuffix("/steps"): (kind.steps, kind.levels is not None) for name, kind in recorded.items()}
        assert found == planned, mode
        try:
            assert stats(written, {"x": np.ones((5, 3, 8, 8), np.float32)}).samples == 5
        except PconvError as error:
            # A few are made for another number of samples.
            assert "onnxruntime cannot run the model" in error.message


@pytest.mark.parametrize("mode", MODES)
def test_spikes_by_what_is_held_are_accumulated(mode):
    """Either matrix has as many spikes: the second is decoded."""
    nodes = f"{qcfs('x', 'a')} t = Transpose <perm = [0, 1, 3, 2]> (a) y = MatMul (a, t)"
    spikes = np.clip(np.floor(2 * IMAGES + np.float32(0.5)), 0, 4).sum(dtype=int)
    ((kind, macs, operations, left),) = rows(spiking(nodes, IMAGES, {}, mode)).values()
    assert (kind, macs, left) == ("spikes", 4 * 9 * 9 * 7, 0)
    assert operations == pytest.approx(9 * spikes / 6, rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_stack_of_matrices_is_counted_for_each_of_its_matrices(mode):
    nodes = f"{qcfs('x', 'a')} y = MatMul (a, w)"
    x = RNG.normal(1, 1, (6, 9, 7)).astype(np.float32)
    assert list(rows(spiking(nodes, x, {"w": weight(2, 1, 7, 3)}, mode)).values()) == [
        ("static", 2 * 9 * 7 * 3, 0, 2 * 9 * 7 * 3)
    ]


@pytest.mark.parametrize("options", [{}, {"steps": 8}, {"precision": "float16"}])
def test_both_modes_have_the_same_statistics(small_network, options):
    # Inputs and weights of few bits, so that no sum rounds.
    ann = onnx.ModelProto()
    ann.CopyFrom(small_network)
    for name, scale in (("w", 4), ("v", 4)):
        tensor = next(tensor for tensor in ann.graph.initializer if tensor.name == name)
        coarse = np.round(onnx.numpy_helper.to_array(tensor) * scale) / scale
        tensor.CopyFrom(onnx.numpy_helper.from_array(coarse, name))
    x = np.round(RNG.normal(0, 2, (70, 3, 8, 8))).astype(np.float32)
    parallel, folded = (stats(rewrite(ann, mode=mode, **options).model, {"x": x}).summary() for mode in MODES)
    for summary in (parallel, folded):
        for row in summary["operators"]:
            del row["name"]  # nodes without one are called as their outputs
    assert [row["input"] for row in parallel["operators"]] == ["static", "spikes", "spikes"]
    assert 0 < parallel["totals"]["firing_rate"] < 1
    for key in ("energy", "energy_int8"):
        said = folded[key].pop("assumptions")
        assert set(said) - set(parallel[key].pop("assumptions")) == {said[-1]}
    assert (parallel.pop("mode"), folded.pop("mode")) == MODES
    assert parallel == folded


@pytest.mark.parametrize("mode", MODES)
def test_behind_a_matrix_product_channels_are_the_last_axis(mode):
    """Feature 0 is silent in a sequence of 7 with 4 features, also where a spike train is added to the product."""
    w = np.eye(4, dtype=np.float32)
    bias = np.array([-99, 9, 0, 0], np.float32)
    nodes = f"p = MatMul (x, w) s = Add (p, bias) {qcfs('s', 'a')} q = MatMul (a, w) r = Add (a, q) {qcfs('r', 'b')}"
    x = np.random.default_rng(0).normal(0, 2, (3, 7, 4)).astype(np.float32)
    first, second = spiking(f"{nodes} y = Identity (b)", x, {"w": w, "bias": bias}, mode)["layers"]
    for layer in (first, second):
        assert (layer["channels"], layer["silent_channels"], layer["saturated_channels"]) == (4, 1, 1)


def test_what_is_shown_of_statistics_is_one_short_line(small_network):
    found = stats(rewrite(small_network).model)
    for shown in (found, found.layers[0], found.operators[0]):
        assert len(repr(shown)) < 200 and "\n" not in repr(shown) and "array" not in repr(shown)


def test_values_without_an_axis_behind_the_samples_are_one_channel():
    nodes = f"p = ReduceSum <keepdims = 0> (x, axes) {qcfs('p', 'a')} y = Identity (a)"
    (layer,) = spiking(nodes, np.eye(3, dtype=np.float32), {"axes": np.array([1])}, "folded")["layers"]
    assert (layer["channels"], layer["neurons"], layer["silent_channels"]) == (1, 1, 0)


# Grids of an eighth: of the first convolution both signs, of the bottleneck less below zero, of the third none.
PARTS = """
    h = Conv <pads = [1, 1, 1, 1]> (x, w) a_r = Mul (h, scale) a_c = Round (a_r) a_h = Clip (a_c, minus, plus)
    a = Div (a_h, scale) u, v = Split <axis = 1> (a, sizes)
    i = Conv <pads = [1, 1, 1, 1]> (v, e) b_r = Mul (i, eight) b_c = Round (b_r) b_h = Clip (b_c, less, more)
    b = Mul (b_h, eighth) j = Conv <pads = [1, 1, 1, 1]> (b, e) c_r = Mul (j, eight) c_c = Round (c_r)
    c_h = Clip (c_c, zero, most) c = Mul (c_h, eighth) k = Concat <axis = 1> (v, b) z = Concat <axis = 1> (u, k, c)
    y = Conv <pads = [1, 1, 1, 1]> (z, f)
"""
# How far counts are below that of silence, and above it: of as many time-steps in that coding.
REACHES = {"rate": [(6, 6), (1, 6), (0, 6)], "radix": [(7, 7), (1, 5), (0, 6)]}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("coding", REACHES)
def test_parts_of_unequal_levels_are_read_as_spikes(coding, per_channel):
    """As networks of split and concatenated parts have them, whose activations reach as far as they do."""
    (minus, plus), (less, more), (_, most) = REACHES[coding]
    scale = np.array([4, 8, 2, 8, 4, 8], np.float32).reshape(6, 1, 1) if per_channel else np.float32(8)
    ends = {"minus": -minus, "plus": plus, "less": -less, "more": more, "most": most}
    weights = {name: np.float32(value) for name, value in ends.items()}
    weights |= {"scale": scale, "eight": np.float32(8), "eighth": np.float32(0.125), "sizes": np.array([3, 3])}
    weights |= {"w": weight(6, 3, 3, 3), "e": weight(3, 3, 3, 3, seed=1), "f": weight(4, 12, 3, 3, seed=2)}
    ann = network(PARTS, weights=weights, outputs="float[N, 4, 8, 8] y")
    x = RNG.normal(0, 1, (3, 3, 8, 8)).astype(np.float32)
    tapped = onnx.ModelProto()
    tapped.CopyFrom(ann)
    tapped.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    z = session(tapped).run(["z"], {"x": x})[0]
    scales = np.concatenate([np.broadcast_to(np.reshape(scale, -1), 6), np.full(6, 8)]).reshape(-1, 1, 1)
    distances = np.abs(np.rint(z * scales)).astype(int)
    digits = distances if coding == "rate" else sum((distances >> place) & 1 for place in range(3))
    expected = summed("y = Conv <pads = [1, 1, 1, 1]> (a, w)", digits.astype(np.float32), {"w": weights["f"]})
    for mode in MODES:
        model = rewrite(ann, mode=mode, coding=coding).model
        assert verify(ann, model, {"x": x}).verdict == "equal"
        assert verify(ann, model, {"x": x[:1]}).verdict == "equal"
        row = stats(model, {"x": x}).summary()["operators"][-1]
        assert (row["input"], row["multiply_accumulates"]) == ("spikes", 0), mode
        assert row["synaptic_operations"] == pytest.approx(expected / 3, rel=1e-12), mode


CHANNELS = """
    c = Div (x, t) d = Mul (c, count) e = Add (d, half) f = Floor (e) g = Div (f, count) h = Clip (g, zero, one)
    a = Mul (h, t) m = MaxPool <kernel_shape = [2, 2]> (a) y = Conv (m, w)
"""


@pytest.mark.parametrize("mode", MODES)
def test_channels_have_thresholds_of_their_own(mode):
    thresholds = np.array([0.5, 1, 3, 7], np.float32).reshape(1, 4, 1, 1)
    summary = spiking(CHANNELS, IMAGES, {"t": thresholds, "w": weight(5, 4, 1, 1)}, mode)
    counts = np.clip(np.floor(IMAGES / thresholds * np.float32(4) + np.float32(0.5)), 0, 4)
    assert summary["layers"][0]["spike_counts"] == np.bincount(counts.astype(int).reshape(-1), minlength=5).tolist()
    pooled = np.maximum(counts[:, :, 1:], counts[:, :, :-1])
    pooled = np.maximum(pooled[:, :, :, 1:], pooled[:, :, :, :-1])
    ((_, _, operations, _),) = rows(summary).values()
    assert operations == pytest.approx(5 * pooled.sum() / 6, rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_network_of_dense_spikes_is_said_to_cost_more(mode):
    """A silent neuron of a signed activation emits its lowest value, so that every step is dense."""
    nodes = """
        q = QuantizeLinear (x, scale, zero_point)
        a = DequantizeLinear (q, scale, zero_point)
        y = Conv (a, w)
    """
    weights = {"scale": np.float32(0.1), "zero_point": np.array(0, np.int8), "w": weight(5, 4, 3, 3)}
    summary = spiking(nodes, IMAGES, weights, mode, signed=True, steps=8)
    ((kind, macs, operations, _),) = rows(summary).values()
    assert (kind, operations) == ("spikes", 8 * macs)
    assert summary["energy"]["ratio"] == pytest.approx(8 * 0.9 / 4.6)
    assert summary["energy_int8"]["ratio"] == pytest.approx(8 * 0.1 / 0.3)
    assert 0 < summary["totals"]["firing_rate"] < 1


def test_energies_are_sums_of_operations(small_network):
    found = stats(rewrite(small_network).model, energy_mac=3, energy_ac=0.5).summary()
    totals, energy = found["totals"], found["energy"]
    assert totals["ann_macs"] == sum(row["macs"] for row in found["operators"])
    assert energy["ann_nj"] == pytest.approx(3 * totals["ann_macs"] / 1000)
    left = 3 * totals["multiply_accumulates"] + 0.5 * totals["synaptic_operations"]
    assert energy["snn_nj"] == pytest.approx(left / 1000)
    assert energy["ratio"] == pytest.approx(energy["snn_nj"] / energy["ann_nj"])
    assert "3 pJ" in energy["assumptions"][0] and "0.5 pJ" in energy["assumptions"][0]


def saturated(mode: str, integer: dict | None) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """240 multiply-accumulates on the input, and 160 on trains that fire in each of 4 steps; and what to run it on."""
    nodes = f"[first] c = Conv (x, e) {qcfs('c', 'a')} [second] y = Conv (a, w)"
    weights = {"e": np.full((5, 3, 1, 1), 9, np.float32), "w": weight(2, 5, 1, 1)}
    ann = network(nodes, inputs="float[N, 3, 4, 4] x", outputs="float[N, 2, 4, 4] y", weights=weights)
    model = rewrite(ann, mode=mode).model
    replace(Record.read(model), integer=integer).write(model)
    return model, {"x": np.ones((2, 3, 4, 4), np.float32)}


# What is recorded of integers, names of operators in floats, and energies of the ANN and of the spiking network, in pJ.
INTEGERS = {
    "floats": (None, [], 0.3 * 400, 0.3 * 240 + 0.1 * 640),
    "integers": ({"weights": "int8", "input_bits": 8, "islands": {}}, [], 0.3 * 400, 0.3 * 240 + 0.1 * 640),
    "inputs in floats": (
        {"weights": "int4", "input_bits": None, "islands": {}},
        ["first"],
        4.6 * 240 + 0.3 * 160,
        4.6 * 240 + 0.1 * 640,
    ),
    "an island": (
        {"weights": "int8", "input_bits": 8, "islands": {"second": "it is wide", "soft": "it is no integer"}},
        ["second"],
        0.3 * 240 + 4.6 * 160,
        0.3 * 240 + 0.9 * 640,
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INTEGERS)
def test_energies_of_integers_are_beside_those_of_floats(name, mode):
    integer, floats, ann, snn = INTEGERS[name]
    model, x = saturated(mode, integer)
    found = stats(model, x, energy_mac=3, energy_ac=0.5).summary()
    energy, beside = found["energy"], found["energy_int8"]
    assert found["totals"]["synaptic_operations"] == 640
    assert (energy["ann_nj"], energy["snn_nj"]) == (1.2, 1.04)
    assert (beside["mac_pj"], beside["ac_pj"]) == (0.3, 0.1)
    assert (beside["ann_nj"], beside["snn_nj"]) == (pytest.approx(ann / 1000), pytest.approx(snn / 1000))
    assert beside["ratio"] == pytest.approx(snn / ann)
    assert (beside["weights"], beside["float_operators"]) == (integer and integer["weights"], floats)
    said = set(beside["assumptions"]) - set(energy["assumptions"])
    assert any("M. Horowitz" in line and "0.3 pJ" in line and "0.1 pJ" in line for line in said)
    assert any("4.6 pJ" in line for line in said) == bool(floats)
    assert any("its weights are floats" in line for line in said) == (integer is None)


def test_random_inputs_are_the_same_each_time_and_said_to_be_random(small_network):
    snn = rewrite(small_network).model
    first = stats(snn)
    assert isinstance(first, Stats)
    assert (first.samples, first.random_inputs) == (32, True)
    assert first.summary() == stats(snn).summary()
    assert stats(snn, {"x": np.ones((3, 3, 8, 8), np.float32)}).summary()["random_inputs"] is False


def test_what_is_in_memory_at_once_has_a_bound(small_network, monkeypatch):
    snn, x = rewrite(small_network, mode="folded").model, RNG.normal(0, 1, (70, 3, 8, 8)).astype(np.float32)
    expected = stats(snn, {"x": x}).summary()
    sizes = batch_sizes(monkeypatch, taps)
    # A sample has 4 × 6 × 6 and 2 × 2 × 2 neurons, 4 × 3 × 3 of them pooled and the last ones flattened: 196 floats.
    monkeypatch.setattr(taps, "_HANDED_OUT", 196 * 4 * 9)
    assert stats(snn, {"x": x}).summary() == expected
    assert (max(sizes), sum(sizes)) == (9, 70 + 1)


def test_what_cannot_be_counted_is_null_and_in_no_total():
    nodes = f"""
        {qcfs("x", "a")}
        e = Einsum <equation = "nchw,ock->nohw"> (a, v)
        t = Constant <value = bool {{1}}> ()
        b = If (t) <then_branch = g1 () => (float[N, C, H, W] p) {{p = Conv (e, w)}},
                    else_branch = g2 () => (float[N, C, H, W] q) {{q = Neg (e)}}>
        y = Conv (b, w)
    """
    for mode in MODES:
        summary = spiking(nodes, IMAGES, {"v": weight(4, 4, 1), "w": weight(4, 4, 1, 1)}, mode)
        einsum, body, conv = summary["operators"]
        assert [row["op_type"] for row in (einsum, body, conv)] == ["Einsum", "If", "Conv"]
        for row, kind in ((einsum, "spikes"), (body, "static")):
            assert tuple(row[key] for key in KEYS) == (kind, None, None, None)
        assert summary["totals"]["ann_macs"] == conv["macs"] == 16 * 63
        assert summary["energy"]["assumptions"][-1] == "operators that could not be counted take nothing"


def test_operators_in_functions_of_the_source_are_counted_and_those_of_neurons_no_operators():
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        test (float[N, 4, 7, 7] x) => (float largest)
        <float theta = {{2}}, float count = {{4}}, float half = {{0.5}}, float zero = {{0}}, float one = {{1}},
         float[1, 1] w = {{3}}>
        {{ {qcfs("x", "a")} b = own.Outer (a, w) y = own.Elementwise (b) largest = ReduceMax <keepdims = 0> (y) }}
        <opset_import: ["" : 20, "own" : 1], domain: "own">
        Outer (p, q) => (r) {{ r = own.Inner (p, q) }}
        <opset_import: ["" : 20], domain: "own">
        Inner (p, q) => (r) {{ c = MatMul (p, p) r = Add (c, q) }}
        <opset_import: ["" : 20], domain: "own">
        Elementwise (p) => (r) {{ r = Neg (p) }}
    """)
    x = np.ones((2, 4, 7, 7), np.float32)
    (row,) = stats(rewrite(model).model, {"x": x}).summary()["operators"]
    assert (row["op_type"], row["macs"]) == ("MatMul", 4 * 7 * 7 * 7)


def test_weights_that_no_input_changes_are_no_operators():
    nodes = f"{qcfs('x', 'a')} v = MatMul (u, u) y = MatMul (a, v)"
    ((kind, macs, _, _),) = rows(spiking(nodes, IMAGES, {"u": weight(7, 7)}, "parallel")).values()
    assert (kind, macs) == ("spikes", 4 * 9 * 7 * 7)


@pytest.mark.parametrize("mode", MODES)
def test_weights_may_be_what_depends_on_inputs(mode):
    """A constant matrix by one of the run, and a constant image under a kernel of the run."""
    nodes = f"""
        {qcfs("x", "a")}
        f = Flatten <axis = 3> (a)
        g = Gemm <transB = 1> (u, f)
        k = Slice (a, zero_at, two, zero_at)
        c = Conv (image, k)
        p = ReduceMax <keepdims = 0> (g)
        q = ReduceMax <keepdims = 0> (c)
        y = Add (p, q)
    """
    weights = {"u": weight(3, 7), "image": weight(1, 4, 12, 9), "zero_at": np.array([0]), "two": np.array([2])}
    gemm, conv = rows(spiking(nodes, IMAGES, weights, mode)).values()
    assert gemm == ("static", 3 * 7 * 4 * 9, 0, 3 * 7 * 4 * 9)
    # Two filters for all samples together.
    macs = 2 * 4 * (9 * 7) * (4 * 3) / 6
    assert conv == ("static", macs, 0, macs)


def test_outputs_step_by_step_change_nothing(small_network):
    with_steps = stats(rewrite(small_network, per_step_outputs=True).model).summary()
    assert with_steps == stats(rewrite(small_network).model).summary()


@pytest.mark.parametrize("mode", MODES)
def test_values_that_are_no_numbers_are_counted_as_silence(mode):
    nodes = f"c = Conv (x, e) {qcfs('c', 'a')} y = Conv (a, w)"
    weights = {"e": np.full((4, 4, 1, 1), np.nan, np.float32), "w": weight(5, 4, 3, 3)}
    summary = spiking(nodes, IMAGES, weights, mode)
    assert summary["totals"]["firing_rate"] == summary["totals"]["synaptic_operations"] == 0
    assert summary["layers"][0]["silent_channels"] == 4
    json.dumps(summary, allow_nan=False)


def test_many_levels_are_counted_in_mode_folded_in_the_coding_that_is_asked_for():
    nodes = """
        q = QuantizeLinear (x, scale, zero_point)
        a = DequantizeLinear (q, scale, zero_point)
        y = Conv (a, w)
    """
    weights = {"scale": np.float32(0.01), "zero_point": np.array(0, np.uint8), "w": weight(5, 4, 1, 1)}
    summary = spiking(nodes, IMAGES, weights, "folded", coding="rate")
    counts = np.clip(np.rint(IMAGES / np.float32(0.01)), 0, 255).astype(int)
    assert summary["steps"] == 255
    assert summary["layers"][0]["spike_counts"] == np.bincount(counts.reshape(-1), minlength=256).tolist()
    assert rows(summary).popitem()[1][2] == pytest.approx(5 * counts.sum() / 6, rel=1e-12)


def test_different_steps_have_no_one_number(small_network):
    nodes = f"{qcfs('x', 'a')} {qcfs('a', 'b').replace('count', 'eight')} y = Conv (b, w)"
    summary = spiking(nodes, IMAGES, {"eight": np.float32(8), "w": weight(5, 4, 1, 1)}, "parallel")
    assert summary["steps"] is None
    assert [layer["steps"] for layer in summary["layers"]] == [4, 8]


def resnet_macs(size: int = 32) -> int:
    """Multiply-accumulates of the CIFAR ResNet-20 (He et al., 2016), without those in the padding of 3 × 3 windows."""

    def conv(channels: int, outputs: int, size: int, stride: int = 1) -> int:
        starts = np.arange(0, size, stride) - 1
        taps = sum(0 <= start + tap < size for start in starts for tap in range(3))
        return channels * outputs * taps**2

    total, channels = conv(3, 16, size), 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        total += conv(channels, width, size, stride)
        size, channels = size // stride, width
        total += 5 * conv(width, width, size)
    return total + 64 * 10


@pytest.mark.parametrize("mode", MODES)
def test_the_resnet_has_the_operations_of_its_architecture(mode, qcfs_resnet, resnet_samples):
    few = {name: array[:20] for name, array in resnet_samples.items()}
    summary = stats(rewrite(qcfs_resnet, mode=mode).model, few).summary()
    assert summary["totals"]["ann_macs"] == resnet_macs() == 36_957_504
    kinds = [row["input"] for row in summary["operators"]]
    assert kinds == ["static", *["spikes"] * 18, "current"]
    first, *_, last = summary["operators"]
    assert summary["totals"]["multiply_accumulates"] == first["macs"] + 8 * last["macs"]
    assert (summary["steps"], summary["samples"], len(summary["layers"])) == (8, 20, 19)
    # Convolutions without stride see all spikes of a layer; but for borders each has 9 times the channels as fan-out.
    rates = {layer["name"]: layer["firing_rate"] for layer in summary["layers"]}
    second = summary["operators"][1]
    assert second["synaptic_operations"] == pytest.approx(8 * rates["act"] * second["macs"], rel=0.01)
    assert 0.1 < summary["totals"]["firing_rate"] < 0.2
    assert summary["energy"]["ratio"] < 0.3


def test_a_network_that_was_not_rewritten_is_told(small_network):
    assert refusal_of(stats, small_network) == "the model was not rewritten; pass what pconv-onnx rewrite wrote"
    snn = rewrite(small_network).model
    entry = next(entry for entry in snn.metadata_props if entry.key == "pconv_onnx.mode")
    entry.value = "sideways"
    assert refusal_of(stats, snn).startswith("the model was not rewritten")
    entry.value = "serial"
    assert refusal_of(stats, snn).startswith("the model is a serial network")


def test_neurons_that_were_edited_are_told(small_network):
    snn = rewrite(small_network).model
    (levels,) = [tensor for tensor in snn.graph.initializer if tensor.name == "a_code/levels"]
    snn.graph.initializer.remove(levels)
    snn.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["a_code/levels"], value=levels))
    assert refusal_of(stats, snn).startswith("the neurons of the model are not there any more as rewrite wrote them; ")


@pytest.mark.parametrize("edit", ["gone", "renamed"])
def test_neurons_that_are_gone_are_told(edit, small_network):
    snn = rewrite(small_network, mode="folded").model
    (neuron,) = [node for node in snn.graph.node if node.name == "b_code"]
    if edit == "gone":
        neuron.CopyFrom(onnx.helper.make_node("Relu", neuron.input[:1], neuron.output))
    else:
        neuron.name = "other"
    assert refusal_of(stats, snn).startswith("the neurons of the model are not there any more as rewrite wrote them; ")


@pytest.mark.parametrize("energy", [-1, float("nan"), float("inf"), 1e308, 5e-324])
def test_energies_out_of_range_are_told(energy, small_network):
    snn = rewrite(small_network).model
    for name in ("energy_mac", "energy_ac"):
        told = refusal_of(stats, snn, **{name: energy})
        assert told == f"{energy} is not an energy of an operation; choose 0, or 1e-12 to 1e+12 pJ"


@pytest.mark.parametrize("energies", [*itertools.product([0, 1e-12, 1e12], repeat=2)])
def test_energies_at_the_ends_of_their_range_make_a_document(energies, small_network):
    energy_mac, energy_ac = energies
    found = stats(rewrite(small_network).model, energy_mac=energy_mac, energy_ac=energy_ac).summary()
    assert json.dumps(found, allow_nan=False)
    assert (found["energy"]["ratio"] is None) == (energy_mac == 0)


def test_data_that_do_not_fit_are_told(small_network):
    told = refusal_of(stats, rewrite(small_network).model, {"image": IMAGES})
    assert "has no array 'x', which is an input of the model" in told


CODINGS = {
    "rate": (np.uint8, 0.5, {"coding": "rate"}),
    "radix": (np.uint8, 0.01, {}),
    "signed rate": (np.int8, 0.02, {"coding": "rate"}),
    "signed radix": (np.int8, 0.02, {}),
    "dense rate": (np.int8, 0.02, {"coding": "rate", "signed": True}),
    # A power of two, so that −128 + 8·16 is zero.
    "dense radix": (np.int8, 2.0**-6, {"coding": "radix", "signed": True}),
}
BETWEEN = {
    "": lambda values: values,
    "b = MaxPool <kernel_shape = [2, 2]> (a)": lambda values: np.max(
        [values[:, :, i : 8 + i, j : 6 + j] for i in (0, 1) for j in (0, 1)], axis=0
    ),
    "b = Pad (a, pads)": lambda values: np.pad(values, [(0, 0), (0, 0), (1, 0), (2, 1)]),
}


def trains_by_hand(codes: Array, coding: str) -> Array:
    """How many values of its train are not zero, of codes of int8 or uint8."""
    if coding.startswith("dense"):
        # A silent neuron emits −128 levels; a spike in `rate` emits 127, one in `radix` −128 + 8·2^(8 − t).
        steps, worth = (255, [127] * 255) if coding == "dense rate" else (8, [8 * 2**t - 128 for t in range(8)[::-1]])
        counts = codes + 128
        digits = [counts > t for t in range(255)] if steps == 255 else [counts >> t & 1 for t in range(8)[::-1]]
        values = [np.where(digit, firing, -128) for digit, firing in zip(digits, worth, strict=True)]
        return sum((value != 0).astype(int) for value in values)
    return abs(codes) if coding.endswith("rate") else ones(abs(codes))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("coding", CODINGS)
def test_operations_are_the_values_of_trains_that_are_not_zero(coding, between, mode):
    """Each times the outputs that it is in, of a depthwise convolution whose weights are ones; and digits a layer."""
    dtype, scale, options = CODINGS[coding]
    weights = {"s": np.float32(scale), "i": np.zeros((), dtype), "w": weight(8, 1, 3, 3)}
    weights |= {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1])} if "Pad" in between else {}
    node = "Conv <group = 4, pads = [1, 1, 1, 1], strides = [2, 2]> ({}, w)"
    nodes = f"""q = QuantizeLinear (x, s, i) a = DequantizeLinear (q, s, i) {between}
        y = {node.format("b" if between else "a")}"""
    x = IMAGES - 1 if dtype == np.int8 else IMAGES
    summary = spiking(nodes, x, weights, mode, **options)
    limits = np.iinfo(dtype)
    codes = np.clip(np.rint(x / np.float32(scale)), limits.min, limits.max).astype(int)
    (row,), (layer,) = summary["operators"], summary["layers"]
    silent = 0 if dtype == np.uint8 else 128
    assert (
        layer["spike_counts"]
        == np.bincount((codes + silent).reshape(-1), minlength=256).tolist()[: limits.max + silent + 1]
    )
    name, zero = coding.split()[-1], 0 if coding.startswith("dense") else silent
    assert (layer["coding"], layer["zero"]) == (name, zero)
    digits = codes + silent - zero
    assert layer["operations"] == (abs(digits) if name == "rate" else ones(abs(digits))).sum()
    assert layer["firing_rate"] == pytest.approx(layer["operations"] / codes.size / layer["steps"])
    assert row["input"] == ("current" if coding.startswith("dense") and "Pad" in between else "spikes")
    if row["input"] == "spikes":
        values = trains_by_hand(BETWEEN[between](codes), coding).astype(np.float32)
        expected = summed(f"y = {node.format('a')}", values, weights) / len(x)
        assert row["synaptic_operations"] == pytest.approx(expected, rel=1e-12)
        assert row["multiply_accumulates"] == 0


PADS = {
    "zeros": ("Pad (a, pads)", {"constant_values": 0}),
    "zeros along named axes": ("Pad (a, few, , axes)", {"constant_values": 0}),
    "the border again": ('Pad <mode = "edge"> (a, pads)', {"mode": "edge"}),
    "mirrored": ('Pad <mode = "reflect"> (a, pads)', {"mode": "reflect"}),
}
TRAINS = {
    "rate": (qcfs("x", "a"), counts_of, lambda codes: codes, {}),
    "signed radix": (
        "q = QuantizeLinear (x, scale, zero_point) a = DequantizeLinear (q, scale, zero_point)",
        lambda x: np.clip(np.rint(x / np.float32(0.02)), -128, 127).astype(int),
        lambda codes: ones(abs(codes)),
        {"coding": "radix"},
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("coding", TRAINS)
def test_a_loop_finds_the_same_of_a_depthwise_convolution_behind_a_pad(coding, pad, mode):
    """Zeros around a tensor are padding wherever they come from; what is copied there is a value like others."""
    neuron, codes_of, values_of, options = TRAINS[coding]
    node, numpy_options = PADS[pad]
    weights = {"w": weight(8, 1, 3, 2), "pads": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "few": np.array([2, 1, 1, 2]),
               "axes": np.array([3, 2])}  # fmt: skip
    weights = {name: value for name, value in weights.items() if name in f"{node} w"}
    if "scale" in neuron:
        weights |= {"scale": np.float32(0.02), "zero_point": np.array(0, np.int8)}
    conv = "Conv <group = 4, strides = [2, 1], dilations = [1, 3], pads = [0, 1, 1, 0]> (b, w)"
    x = IMAGES - 1
    summary = spiking(f"{neuron} b = {node} y = {conv}", x, weights, mode, **options)
    around = [(0, 0), (0, 0), (1, 2), (2, 1)]
    values = np.pad(values_of(codes_of(x)), around, **numpy_options)
    is_value = np.pad(np.ones(x.shape, int), around, **numpy_options)
    macs = operations = 0
    height, width = (9 + 3 + 1 - 3) // 2 + 1, 7 + 3 + 1 - 3 - 1 + 1
    for output, row, column, i, j in np.ndindex(8, height, width, 3, 2):
        at = (slice(None), output // 2, 2 * row + i, column + 3 * j - 1)
        if 0 <= at[2] < 12 and 0 <= at[3] < 10:
            macs += is_value[at].sum()
            operations += values[at].sum()
    ((kind, counted, found, left),) = rows(summary).values()
    assert (kind, counted, left) == ("spikes", macs / 6, 0)
    assert found == pytest.approx(operations / 6, rel=1e-12)
    assert summary["spike_driven"]["share"] == 1


@pytest.mark.parametrize("nodes", ["MatMul (a, b)", "MatMul (b, a)"])
def test_of_two_trains_that_is_counted_which_is_not_held(nodes):
    """In mode folded, where both are means, as well: that of fewer steps."""
    ann = network(
        f"{qcfs('x', 'a')} n = Neg (x) {qcfs('n', 'b').replace('count', 'eight')} [product] y = {nodes}",
        weights={"eight": np.float32(8)},
    )
    x = RNG.normal(0, 2, (5, 3, 8, 8)).astype(np.float32)
    for mode in MODES:
        (row,) = stats(rewrite(ann, mode=mode).model, {"x": x}).summary()["operators"]
        assert row["synaptic_operations"] == pytest.approx(8 * counts_of(x).sum() / 5, rel=1e-12), mode
