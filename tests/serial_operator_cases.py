"""SerialSpike's cases, and its node run alone: in the native kernel and as a function body."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from operator_cases import BFLOAT16, LEVELS, behind_float32, drawn_size

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.operators.domain import SERIAL_OP_TYPE
from pconv_onnx.operators.library import register
from pconv_onnx.operators.serial_spike import serial_spike

TABLES = ["bias", "threshold", "reset", "levels"]
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


def kernel_options(threads=2) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return register(options)


def run(one: onnx.ModelProto, arrays, options, providers=("CPUExecutionProvider",)) -> list[np.ndarray]:
    dtype = arrays["current"].dtype
    if dtype == BFLOAT16:
        behind_float32(one.graph)
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    found = onnxruntime.InferenceSession(one.SerializeToString(), options, list(providers)).run(None, arrays)
    return [array.astype(dtype) for array in found]


def in_kernel(arrays, attributes, threads=2) -> list[np.ndarray]:
    """Without a function body, so that nothing but the kernel can answer."""
    return run(model(arrays, attributes, with_body=False), arrays, kernel_options(threads))


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


def drawn_case(draw) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Inputs and attributes of any size and type."""
    return case(**drawn_size(draw))
