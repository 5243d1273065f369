"""Mode `integer-parallel`: trains of digits between layers of integers, with the bits that counts give."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from fusing_cases import CASES, INPUTS, built, images, run
from onnx import helper
from refusals import refusal_of

from pconv_onnx import rewrite, stats, verify
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.operators.integer_spike import counts_of, trains_of

CODINGS = {"rate": {"coding": "rate"}, "radix": {"coding": "radix", "steps": 3}}


def attributes(node) -> dict[str, int]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def in_time(source, coding: str):
    return rewrite(source, mode="integer-parallel", **INPUTS, **CODINGS[coding]).model


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("nodes", "outputs", "layers"), CASES.values(), ids=CASES)
def test_trains_give_the_bits_of_counts(nodes, outputs, layers, coding):
    source, x = built(nodes, outputs), images(3, 3, 8, 8)
    # Of 8 bits trains are as long as these take.
    steps = {"coding": coding} if "QuantizeLinear" in nodes else CODINGS[coding]
    model = rewrite(source, mode="integer-parallel", **INPUTS, **steps).model
    expected = run(rewrite(source, mode="folded", **INPUTS).model, x)
    for kernels in (True, False):
        np.testing.assert_array_equal(run(model, x, kernels=kernels).view(np.uint32), expected.view(np.uint32))
    found = [node for node in model.graph.node if node.domain == DOMAIN and "Spike" in node.op_type]
    trains = [node for node in found if node.op_type != "SpikeCount"]
    assert trains and all(attributes(node)["steps"] > 1 for node in trains)


def test_layers_read_the_trains_of_those_before():
    model = in_time(built(*CASES["a residual of counts"][:2]), "rate")
    first, second = (node for node in model.graph.node if node.op_type == "IntegerSpikeConv")
    assert [attributes(first)[name] for name in ("input_steps", "steps", "highest")] == [1, 4, 255]
    told = attributes(second)
    assert [told[name] for name in ("input_steps", "residual_steps", "steps")] == [4, 4, 4]
    assert [told[name] for name in ("highest", "zero", "residual_zero")] == [1, 0, 0]
    assert second.input[0] == second.input[4] == first.output[0]


@pytest.mark.parametrize(
    ("coding", "expected"), [("rate", {"SpikeCount": 1}), ("radix", {"SpikeCount": 2, "IntegerSpike": 1})]
)
def test_the_largest_of_weighted_trains_is_taken_of_counts(coding, expected):
    found = Counter(node.op_type for node in in_time(built(*CASES["MaxPool"][:2]), coding).graph.node)
    assert {name: found[name] for name in expected} == expected


def test_verify_and_stats_take_trains():
    source, x = built(*CASES["a residual of sums"][:2]), {"x": images(5, 3, 8, 8)}
    model = in_time(source, "radix")
    found = verify(source, model, x).summary()
    assert found["verdict"] == "measured"
    assert (found["integer"]["counts"], found["integer"]["differing_counts"]) == (2 * 5 * 4 * 8 * 8, 0)
    counted = stats(model, x).summary()
    folded = stats(rewrite(source, mode="folded", **INPUTS, **CODINGS["radix"]).model, x).summary()
    assert counted["mode"] == "integer-parallel"
    assert counted["totals"] == folded["totals"]
    assert not any("emits no spikes" in told for told in counted["energy"]["assumptions"])


def test_a_changed_spike_is_noticed():
    source, x = built(*CASES["a residual of counts"][:2]), {"x": images(5, 3, 8, 8)}
    model = in_time(source, "rate")
    layer = [node for node in model.graph.node if node.op_type == "IntegerSpikeConv"][1]
    for entry in layer.attribute:
        if entry.name == "input_coding":
            entry.i = 1
    assert verify(source, model, x).verdict == "different"


@pytest.mark.parametrize("coding", [0, 1])
@pytest.mark.parametrize("silent", [0, 3, 9])
def test_trains_carry_their_counts(coding, silent):
    counts = np.arange(10, dtype=np.uint8).reshape(5, 2)
    steps = max(silent, 9 - silent) if coding == 0 else 4
    trains = trains_of(counts, steps=steps, coding=coding, silent=silent)
    assert trains.shape == (5 * steps, 2)
    assert set(np.unique(trains)) <= ({0, 1, 2} if silent else {0, 1})
    np.testing.assert_array_equal(counts_of(trains, steps=steps, coding=coding, silent=silent), counts)


def test_a_pad_writes_silence():
    model = in_time(built(*CASES["a Pad of channels"][:2]), "rate")
    (pad,) = (node for node in model.graph.node if node.op_type == "Pad")
    tables = {tensor.name: tensor for tensor in model.graph.initializer}
    assert int.from_bytes(tables[pad.input[2]].raw_data, "little") == 0


def test_trains_that_no_layer_reads_are_refused():
    told = refusal_of(
        rewrite, built(*CASES["two convolutions"][:2]), mode="integer-parallel", coding="radix", steps=17, **INPUTS
    )
    assert told.startswith("trains of the model have 17 weighted steps, and layers of integers read up to 16")


def test_an_empty_batch_has_no_trains():
    source = built(*CASES["a residual of counts"][:2])
    for kernels in (True, False):
        assert run(in_time(source, "rate"), images(0, 3, 8, 8), kernels=kernels).shape == (0, 4, 8, 8)
