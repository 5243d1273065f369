"""Comparisons with constants: every one whose value rises is a neuron of one level, bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from harness import assert_converted, found, onnxruntime_of
from networks import MODES, network

from pconv_onnx import inspect, rewrite, verify

PER_CHANNEL = np.array([-0.5, 0.25, 3], np.float32).reshape(3, 1, 1)


def step(nodes: str, *, dtype: str = "float", **weights) -> onnx.ModelProto:
    shape = f"{dtype}[N, 3, 1, 1]"
    return network(nodes, inputs=f"{shape} x", outputs=f"{shape} y",
                   weights={"c": 0.5, "low": 0.0, "high": 2.5, "minus": -1.0} | weights)  # fmt: skip


CONVERTED = {
    "greater": ("b = Greater (x, c) y = Cast <to = 1> (b)", {}, False),
    "greater or equal": ("b = GreaterOrEqual (x, c) y = Cast <to = 1> (b)", {}, False),
    "less, from the right": ("b = Less (c, x) y = Cast <to = 1> (b)", {}, False),
    "less or equal, from the right": ("b = LessOrEqual (c, x) y = Cast <to = 1> (b)", {}, False),
    "not less": ("a = Less (x, c) b = Not (a) y = Cast <to = 1> (b)", {}, False),
    "not less or equal": ("a = LessOrEqual (x, c) b = Not (a) y = Cast <to = 1> (b)", {}, False),
    "not greater, from the right": ("a = Greater (c, x) b = Not (a) y = Cast <to = 1> (b)", {}, False),
    "zero": ("b = Greater (x, low) y = Cast <to = 1> (b)", {}, False),
    "per channel": ("b = Greater (x, c) y = Cast <to = 1> (b)", {"c": PER_CHANNEL}, False),
    "a value each": ("b = Greater (x, c) y = Where (b, high, low)", {}, False),
    "a value each, below first": ("b = Less (x, c) y = Where (b, low, high)", {}, False),
    "values per channel": ("b = Greater (x, c) y = Where (b, high, low)", {"high": PER_CHANNEL + 1}, False),
    "signed": ("b = GreaterOrEqual (x, low) y = Where (b, high, minus)", {}, True),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CONVERTED)
def test_steps_are_converted_bit_by_bit(case, mode):
    nodes, weights, signed = CONVERTED[case]
    model = step(nodes, **weights)
    if signed:
        assert "its lowest value is not zero" in inspect(model)["activations"][0]["reason"]
    assert_converted(model, onnxruntime_of(model), mode, levels=1, signed=signed)
    assert [row["encoding"] for row in inspect(model)["activations"]] == ["binary"]


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str)
def test_the_next_float_above_a_bound_is_that_of_its_type(dtype):
    element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    model = step(f"b = Greater (x, c) y = Cast <to = {element}> (b)", dtype=str(dtype), c=np.array(0.5, dtype))
    (activation,) = found(model)
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_array_equal(activation.spec.neuron().thresholds.astype(np.float64), [[0.5 + eps / 2]])


REFUSED = {
    "falling": ("b = Less (x, c) y = Cast <to = 1> (b)", {}, "'y' gives less above than below"),
    "falling values": ("b = Greater (x, c) y = Where (b, low, high)", {}, "(2.5 below, 0 above)"),
    "equal values": ("b = Greater (x, c) y = Where (b, low, low)", {}, "(0 below, 0 above)"),
    "an infinite bound": ("b = Greater (x, c) y = Cast <to = 1> (b)", {"c": np.float32(np.inf)}, "is not finite"),
    "another type": ("b = Greater (x, c) h = Cast <to = 10> (b) y = Cast <to = 1> (h)", {},
                     "'h' gives float16 and its data are float32; export one type"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_others_are_refused_with_the_reason(case):
    nodes, weights, reason = REFUSED[case]
    (activation,) = (one for one in found(step(nodes, **weights)) if one.encoding == "binary")
    assert activation.status == "refused"
    assert reason in activation.reason


def test_a_condition_that_is_read_elsewhere_stays():
    nodes = "b = Greater (x, c) a = Cast <to = 1> (b) k = Where (b, x, c) y = Add (a, k)"
    model = step(nodes)
    result = rewrite(model)
    assert "Greater" in [node.op_type for node in result.model.graph.node]
    assert verify(model, result.model).verdict == "equal"


def test_comparisons_of_integers_are_no_activations():
    model = network("i = Cast <to = 7> (x) b = Greater (i, n) y = Cast <to = 1> (b)", weights={"n": np.array(3)})
    assert found(model) == []
