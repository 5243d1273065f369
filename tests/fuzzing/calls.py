"""Random calls of the operators: does each give the reference's bits, and refuse what the reference refuses?

A seed is one session with open shapes and several calls of it, so that thousands of calls a second can be made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from integer_operator_cases import in_kernel, random_case, random_constants, reference
from onnx import TensorProto, helper

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.neuron.theory import temporal_mean
from pconv_onnx.operators.domain import MEAN_OP_TYPE, OP_TYPE, RUNNING_MEAN_OP_TYPE, SERIAL_OP_TYPE
from pconv_onnx.operators.library import register
from pconv_onnx.operators.means import running_mean
from pconv_onnx.operators.parallel_spike import functions
from pconv_onnx.operators.parallel_spike import reference as parallel_reference
from pconv_onnx.operators.serial_spike import serial_reference

CALLS = 50
# Calls of layers of integers, which take a session each.
_LAYERS = 10
_OPSET = 20
_TYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
_SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 127, 130, 257, 513)
_LARGEST = 6000
_ODD = (np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 1e-40, 3e38, -3e38, 6e4, 1e-7)
_EVEN, _NAMES = (17, 64, 255), ("current", "thresholds", "levels")

Array = np.ndarray[Any, np.dtype[Any]]
Random = np.random.Generator
Run = Callable[[dict[str, Array]], list[Array]]


@dataclass(frozen=True)
class Operator:
    """An operator under test: its tables, what its outputs should be, and its function where there is no kernel."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reference: Callable[..., Any]
    body: Callable[[np.dtype[Any]], onnx.FunctionProto] | None = None
    ranks: dict[str, int] = field(default_factory=dict)


def _mean_reference(current: Array, steps: int) -> Array:
    if current.ndim < 1 or steps < 1 or current.shape[0] % steps:
        raise ValueError
    return temporal_mean(current.reshape(steps, current.shape[0] // steps, *current.shape[1:]))


def _running_reference(current: Array, steps: int) -> Array:
    if current.ndim < 1 or steps < 1 or current.shape[0] % steps:
        raise ValueError
    by_time = current.reshape(steps, current.shape[0] // steps, *current.shape[1:])
    return np.stack([temporal_mean(by_time[: t + 1]) for t in range(steps)])


_OPERATORS = {
    "parallel": Operator(OP_TYPE, _NAMES, ("output",), parallel_reference, ranks={"thresholds": 2, "levels": 2}),
    "serial": Operator(
        SERIAL_OP_TYPE, ("current", "potential", "bias", "threshold", "reset", "levels"), ("spikes", "new_potential"),
        serial_reference, ranks={"bias": 1, "threshold": 1, "reset": 1, "levels": 2},
    ),
    "mean": Operator(
        MEAN_OP_TYPE, ("current",), ("mean",), _mean_reference, lambda dtype: functions(_OPSET, dtype, 1, 1)[0]
    ),
    "running": Operator(
        RUNNING_MEAN_OP_TYPE, ("current",), ("means",), _running_reference, lambda dtype: running_mean(_OPSET, dtype)
    ),
}  # fmt: skip


def faults(seed: int) -> list[str]:
    """What is wrong with the calls of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    if seed % 4 == 0:
        return list(_faults_of_layers(random))
    kind = str(random.choice(["parallel", "parallel", "parallel", "serial", "serial", "mean", "running"]))
    dtype = _TYPES[random.integers(3)]
    attributes = _attributes(kind, random)
    rank = int(random.integers(1, 5))
    found = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for index in range(CALLS):
            arrays, sorted_tables = _arrays(kind, attributes, rank, dtype, random)
            problem = _checked(kind, dtype, attributes, arrays, sorted_tables)
            if problem:
                shapes = {name: list(array.shape) for name, array in arrays.items()}
                found.append(f"call {index} of {kind} in {dtype}, {attributes}, {shapes}: {problem}")
    return found


def _faults_of_layers(random: Random) -> Iterator[str]:
    """What is wrong with calls of layers of integers, each a node of its own."""
    for index in range(_LAYERS):
        case = random_case(random)
        given, expected = in_kernel(case, random_constants(random, case), int(random.integers(1, 3))), reference(case)
        if given.dtype != expected.dtype or not np.array_equal(given, expected):
            shapes = {name: list(array.shape) for name, array in case.arrays.items()}
            values = f"{given.ravel()[:4]}, not {expected.ravel()[:4]}"
            yield f"call {index} of {case.op_type}, {case.attributes}, {shapes}: {values}"


def _attributes(kind: str, random: Random) -> dict[str, int]:
    steps = int(random.choice([1, 1, 2, 3, 4, 8, 17])) if random.random() < 0.95 else int(random.choice([-1, 0, 999]))
    if kind in ("mean", "running"):
        return {"steps": max(1, min(steps, 17))}
    axis = int(random.choice([1, 1, 2, 3, -1, -2])) if random.random() < 0.95 else int(random.choice([0, -9, 2**62]))
    if kind == "serial":
        return {"channel_axis": axis}
    spikes = int(random.integers(2)) if random.random() < 0.98 else int(random.choice([-1, 2, 2**40]))
    return {"input_steps": steps, "channel_axis": axis, "spikes": spikes, **_coding(random)}


def _coding(random: Random) -> dict[str, int]:
    """Attributes of version 2, or none of them, as nodes of version 1 have it."""
    if random.random() < 0.4:
        return {}
    coding, zero = int(random.integers(2)), int(random.choice([0, 0, 1, 3, 8]))
    steps = int(random.choice([1, 2, 3, 4, 5, 8])) if coding else 0
    return {"coding": coding, "steps": steps, "zero": zero}


def _arrays(
    kind: str, attributes: dict[str, int], rank: int, dtype: np.dtype[Any], random: Random
) -> tuple[dict[str, Array], bool]:
    """Inputs that mostly fit together, and whether thresholds ascend as they should."""
    while True:
        shape = [int(size) for size in random.choice(_SIZES, rank)]
        if np.prod(np.maximum(shape, 1)) <= _LARGEST:
            break
    axis = attributes.get("channel_axis", 1)
    axis = axis + rank if axis < 0 else axis
    rows = shape[axis] if 0 < axis < rank and random.random() < 0.6 else 1
    steps = attributes.get("input_steps", attributes.get("steps", 1))
    if 0 < steps < 32:
        shape[0] *= steps
    current = _values(shape, random)
    arrays = {"current": current}
    ascending = True
    if kind == "parallel":
        count = int(random.choice([1, 2, 3, 4, 8, 15, 16, 17, 33, 40, 255]))
        thresholds = np.sort(_values([rows, count], random), axis=1)
        if random.random() < 0.3:
            thresholds = (np.arange(count) + 0.5) / count * random.uniform(0.1, 4, (rows, 1))
        if random.random() < 0.15:
            thresholds, ascending = random.permuted(thresholds, axis=1), False
        levels = _values([rows, count + 1], random)
        if 0 < attributes.get("zero", 0) <= count:  # as the specification has it, and no kernel checks
            levels[:, attributes["zero"]] = 0
        arrays |= {"thresholds": thresholds, "levels": levels}
        flat = current.reshape(-1)
        if thresholds.size and flat.size:  # currents that reach a threshold and no more
            flat[:: max(1, int(random.integers(1, 5)))] = random.choice(thresholds.reshape(-1))
    elif kind == "serial":
        arrays["potential"] = _values(shape, random)
        arrays |= {name: _values([rows], random) for name in ("bias", "threshold", "reset")}
        arrays["levels"] = _values([rows, 2], random)
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    if random.random() < 0.15:
        name = str(random.choice(list(arrays)))
        wrong = list(arrays[name].shape)
        if wrong:
            wrong[random.integers(len(wrong))] = int(random.choice(_SIZES[:12]))
            arrays[name] = np.resize(arrays[name], wrong) if arrays[name].size else np.zeros(wrong, dtype)
    if ascending and kind == "parallel":
        ascending = _ascend(arrays["thresholds"])
    return arrays, ascending


def _values(shape: list[int], random: Random) -> Array:
    values = random.normal(0, 2, shape)
    flat = values.reshape(-1)
    if flat.size and random.random() < 0.5:
        flat[random.integers(flat.size, size=min(4, flat.size))] = random.choice(_ODD)
    return np.asarray(values)


def _ascend(thresholds: Array) -> bool:
    """NaN comes last in what ascends."""
    wide = thresholds.astype(np.float64)
    never = np.isnan(wide)
    last = bool((never[:, 1:] >= never[:, :-1]).all())
    return last and bool((np.where(never, np.inf, wide)[:, 1:] >= np.where(never, np.inf, wide)[:, :-1]).all())


def _checked(
    kind: str, dtype: np.dtype[Any], attributes: dict[str, int], arrays: dict[str, Array], ascending: bool
) -> str:
    operator = _OPERATORS[kind]
    try:
        if attributes.get("spikes", 0) not in (0, 1):
            raise ValueError
        expected = operator.reference(**arrays, **attributes)
        expected = [expected] if len(operator.outputs) == 1 else list(expected)
    except (ValueError, IndexError, ZeroDivisionError):
        expected = None
    try:
        ranks = tuple(array.ndim for array in arrays.values())
        outputs = _session(kind, dtype, tuple(attributes.items()), ranks)(arrays)
    except Exception as error:  # onnxruntime's own, without a common base
        if expected is None or type(error).__module__.startswith("onnxruntime") is False:
            return "" if type(error).__module__.startswith("onnxruntime") else f"{type(error).__name__}: {error}"
        return f"refused, but not by the reference: {str(error)[:200]}"
    if expected is None:
        return "" if operator.body is not None else "not refused, but by the reference"
    if not ascending:
        if attributes.get("coding") or attributes.get("zero"):
            return ""  # of digits that are not told by levels
        return "" if _of_levels(outputs[0], arrays["levels"]) else "gives what is no level"
    for name, output, value in zip(operator.outputs, outputs, expected, strict=True):
        if output.shape != value.shape or not np.array_equal(_bits(output), _bits(value)):
            return f"output '{name}' has other bits"
    return ""


def _bits(values: Array) -> Array:
    """As whole numbers, NaNs all alike: which of them an operation gives is not defined."""
    wide = values.astype(np.float32)
    return np.where(np.isnan(wide), np.float32(np.nan), wide).view(np.int32)


def _of_levels(output: Array, levels: Array) -> bool:
    return bool(np.isin(_bits(output), _bits(levels)).all())


# Each has threads of its own.
@lru_cache(maxsize=8)
def _session(kind: str, dtype: np.dtype[Any], attributes: tuple[tuple[str, int], ...], ranks: tuple[int, ...]) -> Run:
    """Runs one node, whose tensors are of float32 outside: onnxruntime takes and gives no NumPy arrays of bfloat16."""
    operator = _OPERATORS[kind]
    element, outside = helper.np_dtype_to_tensor_dtype(dtype), TensorProto.FLOAT
    nodes = [helper.make_node("Cast", [name], [f"own_{name}"], to=element) for name in operator.inputs]
    own = ([f"own_{name}" for name in names] for names in (operator.inputs, operator.outputs))
    nodes.append(helper.make_node(operator.name, *own, domain=DOMAIN, **dict(attributes)))
    nodes += [helper.make_node("Cast", [f"own_{name}"], [name], to=outside) for name in operator.outputs]
    inputs = [
        helper.make_tensor_value_info(name, outside, [None] * rank)
        for name, rank in zip(operator.inputs, ranks, strict=True)
    ]
    outputs = [helper.make_tensor_value_info(name, outside, None) for name in operator.outputs]
    graph = helper.make_graph(nodes, "one", inputs, outputs)
    bodies = [] if operator.body is None else [operator.body(dtype)]
    imports = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    content = helper.make_model(graph, opset_imports=imports, functions=bodies, ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 2
    session = onnxruntime.InferenceSession(content, register(options), providers=["CPUExecutionProvider"])

    def run(arrays: dict[str, Array]) -> list[Array]:
        with np.errstate(all="ignore"):
            return list(session.run(None, {name: array.astype(np.float32) for name, array in arrays.items()}))

    return run
