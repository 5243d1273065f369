"""Networks of integers: every bit that differs is counted, and a file that was changed is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import MODES, network, weight
from onnx import numpy_helper

from pconv_onnx import rewrite, verify
from pconv_onnx.integer.proof.proving import Bound, Proof
from pconv_onnx.measure.exactness import Exactness

INPUTS = {"weights": "int8", "input_bits": 8, "input_range": (-4, 4)}
PROVED = Proof([Bound("c", "Conv", 100, 2**24)], {}, {"y": frozenset()}, {})


def exactness(proof: Proof = PROVED) -> Exactness:
    return Exactness("int8", 8, {}, proof)


def test_each_bit_that_differs_is_counted():
    found = exactness()
    first = np.array([[1, 2], [3, 4]], np.float32)
    second = first.copy()
    second[1, 0] = np.nextafter(np.float32(3), np.float32(4))
    found.add([first, first], [[first, first], [second, second]])
    assert (found.elements, found.differing) == (16, 2)
    assert found.differences == ["2 of 16 output values have other bits than its integer form gives"]


def test_zeros_and_what_is_no_number_are_alike():
    found = exactness()
    quiet, loud = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    found.add([np.array([0, 1, quiet], np.float32)], [[np.array([-0.0, 1, loud], np.float32)]])
    assert (found.elements, found.differing) == (3, 0)
    found.add([np.array([0, np.inf], np.float32)], [[np.array([quiet, -np.inf], np.float32)]])
    assert found.differing == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.bool_])
def test_outputs_of_any_type_are_compared(dtype):
    found = exactness()
    found.add([np.array([0, 1], dtype)], [[np.array([0, 0], dtype)]])
    assert found.differing == 1


def test_another_shape_is_other_bits_everywhere():
    found = exactness()
    found.add([np.zeros((2, 3), np.float32)], [[np.zeros((2, 1), np.float32)]])
    assert found.differing == 6


def test_floats_may_differ_and_sums_may_not_overflow():
    loose = Proof([], {"y": "Softmax computes floats"}, {"y": frozenset({"y"})}, {})
    found = exactness(loose)
    found.add([np.zeros(1, np.float32)], [[np.ones(1, np.float32)]])
    assert found.differences == []
    assert found.summary()["islands"] == {"y": "Softmax computes floats"}
    large = Proof([Bound("c", "Conv", 2**24, 2**24)], {}, {"y": frozenset()}, {})
    assert exactness(large).differences == ["sums of Conv 'c' may reach 16,777,216, more than floats hold exactly"]


@pytest.fixture(params=MODES)
def spiking(request, small_network) -> onnx.ModelProto:
    return rewrite(small_network, mode=request.param, **INPUTS).model


def test_what_rewrite_gives_is_proved_and_has_the_same_bits(small_network, spiking):
    result = verify(small_network, spiking)
    found = result.summary()["integer"]
    assert found["exact"]
    assert found["differing"] == 0
    assert found["elements"] > 0
    assert found["islands"] == {}
    assert 0 < found["largest_sum"] < 1
    assert result.verdict != "different"


def changed(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], None]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = [one for one in copy.graph.initializer if one.name == name]
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy


def entry(value: float) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values.flat[1] = value

    return change


@pytest.mark.parametrize("value", [0.5, 5, 1e9, 2.0**40, np.nan, np.inf])
@pytest.mark.parametrize("name", ["v/integer", "w/integer"])
def test_a_weight_that_was_changed_since_is_told(small_network, spiking, name, value):
    result = verify(small_network, changed(spiking, name, entry(value)))
    found = result.summary()
    assert result.verdict == "different" or not found["integer"]["exact"]
    assert any(name in line for line in result.differences), result.differences


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_verdict_names_what_is_computed_on_floats(small_network, weights):
    """Inputs that are no codes leave the first layer on floats."""
    result = verify(small_network, rewrite(small_network, weights=weights).model)
    found = result.summary()["integer"]
    assert (found["weights"], found["input_bits"], found["exact"]) == (weights, None, False)
    assert list(found["islands"]) == ["c"]
    assert result.verdict != "different"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_what_a_calibration_gave_levels_has_integers_as_well(mode, weights):
    nodes = "c = Conv (x, w) a = Relu (c) d = Conv (a, v) b = Relu (d) p = GlobalAveragePool (b) y = Conv (p, u)"
    constants = {"w": 4 * weight(8, 3, 3, 3), "v": 2 * weight(8, 8, 3, 3, seed=1), "u": weight(5, 8, 1, 1, seed=2)}
    model = network(nodes, outputs="float[N, 5, 1, 1] y", weights=constants)
    data = {"x": np.random.default_rng(0).normal(0, 1, (32, 3, 8, 8)).astype(np.float32)}
    options = {"steps": 4, "coding": "radix", "calibration": data, "weights": weights, "input_bits": 8, "mode": mode}
    result = verify(model, rewrite(model, **options).model, data)
    found = result.summary()["integer"]
    assert result.verdict != "different"
    assert (found["exact"], found["differing"], found["islands"]) == (True, 0, {})
    assert found["elements"] > 0
