"""Codes of the network's inputs: of a range that is given or that data have."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import rewrite
from pconv_onnx.integer.inputs import input_codes


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (-2.2, 2.8), (2, 5), (-5, -2), (0, 3e38), (-1e-30, 1e-30)])
def test_codes_cover_the_range_and_zero_is_one(low, high):
    codes = input_codes("x", low, high, 8)
    assert codes.highest - codes.lowest == 255
    assert codes.lowest <= 0 <= codes.highest
    assert codes.lowest * codes.step == pytest.approx(min(low, 0), abs=codes.step)
    assert codes.highest * codes.step == pytest.approx(max(high, 0), abs=codes.step)
    assert codes.step == np.float32(codes.step)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (math.nan, 1, "nan to 1 is no range of values for input 'x'"),
        (0, math.nan, "0 to nan is no range"),
        (0, math.inf, "0 to inf is no range"),
        (-math.inf, math.inf, "-inf to inf is no range"),
        (1, -1, "1 to -1 is no range"),
        (1, 1, "1 to 1 is no range"),
        (0, 0, "0 to 0 is no range"),
        (0, 1e-40, "0 to 1e-40 has no 8-bit codes in float32 for input 'x'"),
        (-1e300, 1e300, "-1e+300 to 1e+300 has no 8-bit codes"),
    ],
)
def test_what_is_no_range_is_told_in_one_line(small_network, low, high, told):
    assert refusal_of(input_codes, "x", low, high, 8).startswith(told)
    assert refusal_of(rewrite, small_network, weights="int8", input_bits=8, input_range=(low, high)).startswith(told)


def quantisers(model: onnx.ModelProto) -> dict[str, list[float]]:
    """Of each input the constants of its Div and Clip."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = [info.name for info in model.graph.input]
    readers = {name: [node for node in model.graph.node if name in node.input] for name in names}
    return {name: [float(constants[node.input[1]]) for node in found] for name, found in readers.items()}


def test_a_range_is_that_of_the_data_where_none_is_given(small_network):
    x = np.random.default_rng(0).normal(0, 1, (70, 3, 8, 8)).astype(np.float32)
    x[69, 0, 0, 0] = 9
    x[3, 1, 2, 2] = -5
    result = rewrite(small_network, weights="int8", input_bits=8, calibration={"x": x})
    (found,) = result.integers.inputs
    assert found.step == np.float32(14 / 255)
    given = rewrite(small_network, weights="int8", input_bits=8, input_range=(-1, 1), calibration={"x": x})
    assert given.integers.inputs[0].step == np.float32(2 / 255)
    assert quantisers(given.model) == {"x": [np.float32(2 / 255)]}


def test_a_range_is_needed(small_network):
    told = refusal_of(rewrite, small_network, weights="int8", input_bits=8)
    assert told == (
        "the range of the inputs is not known; pass `input_range=(LOW, HIGH)`, or data that have it as `calibration=`"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_have_no_range(small_network, value):
    x = np.zeros((2, 3, 8, 8), np.float32)
    x[1, 0, 0, 0] = value
    refusal_of(rewrite, small_network, weights="int8", input_bits=8, calibration={"x": x})


def test_inputs_that_are_integers_are_not_quantised():
    nodes = f"e = Gather (table, x) {qcfs('e', 'a')} y = MatMul (a, m)"
    model = network(nodes, inputs="int64[N, 7] x", outputs="float[N, 7, 5] y",
                    weights={"table": weight(30, 8), "m": weight(8, 5)})  # fmt: skip
    told = refusal_of(rewrite, model, weights="int8", input_bits=8, input_range=(0, 1))
    assert told == "the model has no input of floats to quantise; leave `input_bits=` out"
    assert rewrite(model, weights="int8").integers.proof.exact


def test_each_input_of_floats_has_codes():
    nodes = f"s = Add (x, z) c = Conv (s, w) {qcfs('c', 'y')}"
    model = network(nodes, inputs="float[N, 3, 8, 8] x, float[N, 3, 8, 8] z", outputs="float[N, 4, 6, 6] y",
                    weights={"w": weight(4, 3, 3, 3)})  # fmt: skip
    data = {"x": np.full((2, 3, 8, 8), 2, np.float32), "z": np.full((2, 3, 8, 8), 0.5, np.float32)}
    data["x"][0], data["z"][0] = -1, -0.5
    result = rewrite(model, weights="int8", input_bits=8, calibration=data)
    assert quantisers(result.model) == {"x": [np.float32(3 / 255)], "z": [np.float32(1 / 255)]}
    assert result.integers.proof.exact
