"""SerialSpike: kernel, function body and NumPy reference give the same bits, in place and over several steps."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from opsets import opsets
from test_operator import BFLOAT16, LEVELS, SHAPES, TYPES

from pconv_onnx.operator import DOMAIN, VERSION
from pconv_onnx.serial_operator import SERIAL_OP_TYPE, serial_reference, serial_spike

# NaN and infinities are among the currents; some NumPy types tell of each.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")

OUTPUTS = ["spikes", "new_potential"]


def case(shape, *, rows=1, axis=1, dtype=np.float32, seed=0):
    """Arrays and attributes; charges hit thresholds, and currents and potentials hold the odd floats."""
    generator = np.random.default_rng(seed)

    def table(*last: int) -> np.ndarray:
        return generator.normal(0, 1, (rows, *last)).astype(dtype)

    current, potential = (generator.normal(0, 1, shape).astype(dtype) for _ in range(2))
    limits = ml_dtypes.finfo(dtype)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 0, limits.smallest_subnormal, limits.max, limits.min], dtype=dtype)
    for array in (current, potential):
        flat = array.reshape(-1)
        pick = generator.choice(flat.size, min(len(odd), flat.size // 4), replace=False)
        flat[pick] = generator.permutation(odd)[: len(pick)]
    arrays = {
        "current": current,
        "potential": potential,
        "bias": table(),
        "threshold": table(),
        "reset": table(),
        "levels": table(2),
    }
    arrays["threshold"][::3] = arrays["bias"][::3]  # reached exactly where current and potential are 0
    pick = generator.random(shape) < 0.2
    current[pick] = potential[pick] = 0
    return arrays, {"channel_axis": axis}


def model(arrays, attributes, *, opset=20, with_body=True, element=None) -> onnx.ModelProto:
    """One node of the type of the arrays; shapes are left open."""
    element = element or helper.np_dtype_to_tensor_dtype(arrays["current"].dtype)
    node = helper.make_node(SERIAL_OP_TYPE, list(arrays), OUTPUTS, domain=DOMAIN, **attributes)
    ranks = {name: array.ndim for name, array in arrays.items()} | dict.fromkeys(OUTPUTS, arrays["current"].ndim)
    values = {name: helper.make_tensor_value_info(name, element, [None] * rank) for name, rank in ranks.items()}
    graph = helper.make_graph([node], "one", [values[name] for name in arrays], [values[name] for name in OUTPUTS])
    functions = [serial_spike(opset, arrays["current"].dtype)] if with_body else []
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def behind_float32(graph: onnx.GraphProto) -> None:
    """Cast at the inputs and outputs: onnxruntime takes and gives no NumPy arrays of bfloat16."""
    (node,) = graph.node
    to, back = graph.input[0].type.tensor_type.elem_type, TensorProto.FLOAT
    casts = [helper.make_node("Cast", [name], [f"{name}_cast"], to=to) for name in node.input]
    casts += [node, *(helper.make_node("Cast", [f"{name}_own"], [name], to=back) for name in node.output)]
    node.input[:] = [f"{name}_cast" for name in node.input]
    node.output[:] = [f"{name}_own" for name in node.output]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = back
    graph.ClearField("node")
    graph.node.extend(casts)


def run(one: onnx.ModelProto, arrays, options, providers=("CPUExecutionProvider",)) -> list[np.ndarray]:
    dtype = arrays["current"].dtype
    if dtype == BFLOAT16:
        behind_float32(one.graph)
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    found = onnxruntime.InferenceSession(one.SerializeToString(), options, list(providers)).run(None, arrays)
    return [array.astype(dtype) for array in found]


def in_body(arrays, attributes, opset=20, level=LEVELS[1]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return run(model(arrays, attributes, opset=opset), arrays, options)


def assert_same_bits(found, expected) -> None:
    """Of spikes and potentials; which NaN a potential is does not matter."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        bits = np.dtype(f"u{one.dtype.itemsize}")
        numbers = (np.where(np.isnan(array), array.dtype.type(0), array) for array in (one, other))
        np.testing.assert_array_equal(*(array.view(bits) for array in numbers))


@pytest.mark.parametrize("opset", opsets(13, 14, 17, 20, 23))
@pytest.mark.parametrize("shape, rows, axis", SHAPES)
@TYPES
def test_function_body_gives_the_bits_of_the_reference(opset, shape, rows, axis, dtype):
    arrays, attributes = case(shape, rows=rows, axis=axis, dtype=dtype)
    expected = serial_reference(**arrays, **attributes)
    for level in LEVELS:
        assert_same_bits(in_body(arrays, attributes, opset, level), expected)
    onnx.checker.check_model(model(arrays, attributes, opset=opset))


@pytest.mark.parametrize("shape, rows, axis", SHAPES)
@TYPES
def test_function_body_runs_in_the_reference_evaluator(shape, rows, axis, dtype):
    arrays, attributes = case(shape, rows=rows, axis=axis, dtype=dtype)
    found = ReferenceEvaluator(model(arrays, attributes)).run(None, arrays)
    assert_same_bits(found, serial_reference(**arrays, **attributes))


def test_a_spike_is_fired_at_the_threshold_and_takes_the_reset_from_the_potential():
    one = np.ones(1, np.float32)
    arrays = {"bias": one / 4, "threshold": one, "reset": 2 * one, "levels": np.array([[-1, 3]], np.float32)}
    current = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(0)), np.nan], np.float32)
    potential = np.full(3, 0.25, np.float32)
    spikes, left = serial_reference(current, potential, **arrays, channel_axis=1)
    assert spikes.tolist() == [3, -1, -1]
    assert left[:2].tolist() == [-1, 0.5 + float(current[1])] and np.isnan(left[2])


def test_reference_refuses_what_the_specification_rules_out():
    arrays, attributes = case((4, 3, 5), rows=3)
    with pytest.raises(ValueError, match="current has shape"):
        serial_reference(**{**arrays, "potential": arrays["potential"][:1]}, **attributes)
    with pytest.raises(ValueError, match="of one R"):
        serial_reference(**{**arrays, "reset": arrays["reset"][:1]}, **attributes)
    with pytest.raises(ValueError, match="has no such channels"):
        serial_reference(**arrays, channel_axis=2)
