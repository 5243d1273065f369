"""Mode `integer`: which layers become ones of integers, and that every bit stays what floats that hold these give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from fusing_cases import CASES, END, IMAGE, INPUTS, SAME, SIGNAL, WEIGHTS, A, D, built, images, run
from networks import network, qcfs, weight
from onnx import numpy_helper
from refusals import refusal_of

from pconv_onnx import rewrite, stats, verify
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph import load
from pconv_onnx.graph.carriers import in_carriers
from pconv_onnx.graph.record import Record


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
        "its input is not a sum of counts times int8 weights",
    ),
    "levels that differ": (
        f"{D} t = Mul (d, third) {qcfs('t', 'b')} p = Add (a, b) s = Conv <{SAME}> (p, v2) {END}",
        "its input is not a sum of counts times int8 weights",
    ),
}


@pytest.mark.parametrize(("nodes", "reason"), STAYING.values(), ids=STAYING)
def test_what_stays_on_floats_is_named_with_its_reason(nodes, reason):
    source = built(nodes, IMAGE)
    require_same(source, images(2, 3, 8, 8))
    assert rewrite(source, mode="integer", **INPUTS).summary()["integer"]["neurons_on_floats"] == {"y_code": reason}
    assert rewrite(source, mode="folded", **INPUTS).summary()["integer"]["neurons_on_floats"] is None


def test_padding_that_follows_from_sizes_needs_them():
    def layers(pads: str) -> int:
        source = built(f"{A} s = Conv <{pads}> (a, v) {END}", IMAGE, "float[N, 3, H, W] x")
        model = require_same(source, images(2, 3, 8, 8))
        return sum(node.op_type == "IntegerSpikeConv" for node in model.graph.node)

    assert layers(SAME) == 2
    assert layers('auto_pad = "SAME_UPPER"') == 1


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


def test_verify_runs_the_bodies_too():
    """Kernels do not look at lines, nor at the bodies of operators."""
    source = built(*CASES["a residual of counts"][:2])
    model = rewrite(source, mode="integer", **INPUTS).model
    layer = [node for node in model.graph.node if node.op_type == "IntegerSpikeConv"][1]
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == layer.input[7])
    assert (numpy_helper.to_array(tensor)[:, 1] > 0).all()
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.3), tensor.name))
    found = verify(source, model, {"x": images(5, 3, 8, 8)})
    assert found.verdict == "different"
    assert any("have other bits than its integer form gives" in told for told in found.differences)


def test_verify_finds_counts_that_a_layer_does_not_take():
    source = built(*CASES["two convolutions"][:2])
    model = rewrite(source, mode="integer", **INPUTS).model
    layer = [node for node in model.graph.node if node.op_type == "IntegerSpikeConv"][1]
    next(entry for entry in layer.attribute if entry.name == "highest").i = 1
    assert verify(source, model, {"x": images(5, 3, 8, 8)}).verdict == "different"


@pytest.mark.parametrize("name", ["another", "s/sums"])
def test_a_neuron_without_its_layer_is_told(name):
    source = built(*CASES["a residual of sums"][:2])
    model = rewrite(source, mode="integer", **INPUTS).model
    first, sums, last = (node for node in model.graph.node if node.op_type.startswith("Integer"))
    if name == "another":
        last.name = name
    else:
        sums.name, last.name = last.name, sums.name
    told = refusal_of(verify, source, model, {"x": images(5, 3, 8, 8)})
    assert told.startswith("neuron 'y_code' of the model is not there any more as rewrite wrote it")


def test_matrices_are_in_the_file_once():
    weights = {"w": weight(128, 256, seed=1), "v": weight(256, 128, seed=2), "u": weight(128, 256, seed=3)}
    nodes = f"c = MatMul (x, w) {qcfs('c', 'a')} d = MatMul (a, v) {qcfs('d', 'b')} y = MatMul (b, u)"
    source = network(nodes, inputs="float[N, 128] x", outputs="float[N, 256] y", weights=weights)
    model = rewrite(source, mode="integer", **INPUTS).model
    held = sum(len(entry.value) for entry in model.metadata_props)
    assert held < 128 * 256 / 2
    assert model.ByteSize() < source.ByteSize()
