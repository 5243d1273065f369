"""Layers of integers: the function bodies, in stock onnxruntime, give what the definition gives."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from integer_operator_cases import INPUTS, LAYER, Case, model, random_case, reference, sums
from opsets import opsets

from pconv_onnx.lower.fusing.lines import lines
from pconv_onnx.operators.domain import CODED
from pconv_onnx.operators.integer_spike import functions
from pconv_onnx.operators.parallel_spike import functions as neurons

# Floats hold every integer below.
HELD = 1 << 24


def is_held(case: Case) -> bool:
    """Whether every partial sum is one that floats hold."""
    if case.op_type == "IntegerSpike":
        return int(np.abs(case.arrays["sums"].astype(np.int64)).max(initial=0)) < HELD
    wide = {name: np.abs(case.arrays[name].astype(np.int64)) for name in LAYER}
    zero = case.attributes["zero"]
    wide["counts"] = np.abs(case.arrays["counts"].astype(np.int64) - zero)
    bound = Case(case.op_type, {**case.arrays, **wide}, {**case.attributes, "zero": 0, "residual_zero": -255})
    return int(sums(bound).max(initial=0)) < HELD


def held_case(draw: np.random.Generator, op_type: str) -> Case:
    """A random node whose body is exact, of one of the two forms that bodies have."""
    while True:
        case = random_case(draw)
        in_time = case.attributes.get("input_steps", 1) > 1
        as_written = not case.spikes or in_time <= (case.attributes["steps"] > 0)
        if "residual" in case.arrays and case.arrays["residual"].size == 1:
            case.arrays["residual"] = case.arrays["residual"].reshape((1,) * case.arrays["counts"].ndim)
        has_elements = all(array.size for array in case.arrays.values())
        if case.op_type == op_type and as_written and has_elements and is_held(case):
            return case


def in_body(case: Case, opset: int, constants: tuple[str, ...]) -> np.ndarray:
    attributes = case.attributes
    in_time = attributes["steps"] > 0 if case.spikes else attributes["input_steps"] > 1
    alone = model(case, constants)
    alone.opset_import[0].version = opset
    highest = case.arrays["thresholds"].shape[1] if case.spikes else 1
    bodies = functions(opset, None if in_time else highest)
    alone.functions.extend(function for function in bodies if function.name == case.op_type)
    alone.functions.extend(neurons(opset, np.dtype(np.float32), highest, CODED + 1))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    runner = onnxruntime.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return runner.run(None, {name: array for name, array in case.arrays.items() if name not in constants})[0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("op_type", INPUTS)
def test_bodies_give_the_integers_of_the_definition(op_type, seed):
    draw = np.random.default_rng([seed, len(op_type)])
    case = held_case(draw, op_type)
    constants = tuple(name for name in INPUTS[op_type] if name not in ("counts", "sums", "residual"))
    given = in_body(case, 17, constants if seed % 2 else ())
    expected = reference(case)
    assert given.dtype == expected.dtype
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("opset", opsets(13, 17, 20))
@pytest.mark.parametrize("highest", [1, 8, 255])
def test_a_line_gives_the_counts_of_thresholds(highest, opset):
    draw = np.random.default_rng(highest)
    thresholds = np.ceil(draw.uniform(-500, 0, (6, 1)) + 37 * np.arange(highest)).astype(np.int32)
    reached = draw.integers(-1000, 37 * highest + 1000, (50, 6), np.int32)
    line = lines(thresholds, np.tile([-1000, 37 * highest + 1000], (6, 1)))
    assert (line[:, 1] > 0).all()
    case = Case("IntegerSpike", {"sums": reached, "thresholds": thresholds, "line": line}, {})
    np.testing.assert_array_equal(in_body(case, opset, ("thresholds", "line")), reference(case))
    # It is the line that the body looks at where there is one.
    shifted = Case("IntegerSpike", {**case.arrays, "line": line + np.float32([40, 0])}, {})
    assert (in_body(shifted, opset, ("thresholds", "line")) != reference(case)).any()
