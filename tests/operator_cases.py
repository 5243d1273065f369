"""ParallelSpike's cases, and its node run alone: in the native kernel and as a function body."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.operators.domain import OP_TYPE
from pconv_onnx.operators.library import register
from pconv_onnx.operators.parallel_spike import functions

FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), FLOAT16, BFLOAT16]
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# A kernel of its own for each: of the mean or of spikes, in each type.
KERNELS = list(itertools.product([0, 1], DTYPES))
HALF_TYPES = pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
LEVELS = [onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL]


def model(arrays, attributes, *, opset=20, with_body=True, element=None) -> onnx.ModelProto:
    """One node of the type of the arrays; shapes are left open, as they are inside a rewritten network."""
    node = helper.make_node(OP_TYPE, list(arrays), ["output"], domain=DOMAIN, **attributes)
    element = element or helper.np_dtype_to_tensor_dtype(arrays["current"].dtype)
    inputs = [helper.make_tensor_value_info(name, element, [None] * array.ndim) for name, array in arrays.items()]
    graph = helper.make_graph(
        [node], "one", inputs, [helper.make_tensor_value_info("output", element, [None] * arrays["current"].ndim)]
    )
    version = VERSION if "coding" in attributes else 1
    highest = max(arrays["thresholds"].shape[-1], 1)
    bodies = functions(opset, arrays["levels"].dtype, highest, version) if with_body else []
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=opsets, functions=bodies, ir_version=8)


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


def in_kernel(arrays, attributes, threads=2) -> np.ndarray:
    """Without a function body, so that nothing but the kernel can answer."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    register(options)
    return run(model(arrays, attributes, with_body=False), arrays, options)


def run(one: onnx.ModelProto, arrays, options, providers=("CPUExecutionProvider",)) -> np.ndarray:
    if arrays["current"].dtype == BFLOAT16:
        behind_float32(one.graph)
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return onnxruntime.InferenceSession(one.SerializeToString(), options, list(providers)).run(None, arrays)[0]


def in_body(arrays, attributes, opset=20, level=LEVELS[1]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return run(model(arrays, attributes, opset=opset), arrays, options)


def case(shape, *, steps, rows=1, axis=1, input_steps=1, spikes=1, dtype=np.float32, seed=0, coding=None):
    """Arrays and attributes; `shape` is that of one time-step. Currents hit thresholds and hold the odd floats.

    `coding` is the attributes of trains, where they are not those of version 1.
    """
    generator = np.random.default_rng(seed)
    thresholds = np.sort(generator.normal(0, 2, (rows, steps)), axis=1).astype(dtype)
    levels = np.sort(generator.normal(0, 2, (rows, steps + 1)), axis=1).astype(dtype)
    current = generator.normal(0, 2, (input_steps * shape[0], *shape[1:])).astype(dtype)
    flat = current.reshape(-1)
    limits = ml_dtypes.finfo(dtype)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 0, limits.smallest_subnormal, limits.max, limits.min], dtype=dtype)
    pick = generator.choice(flat.size, flat.size // 3, replace=False)
    flat[pick] = generator.choice(thresholds.reshape(-1), len(pick))
    pick = generator.choice(flat.size, min(len(odd), flat.size // 4), replace=False)
    flat[pick] = odd[: len(pick)]
    if coding and coding["zero"]:
        levels = levels - levels[:, [coding["zero"]]]
    arrays = {"current": current, "thresholds": thresholds, "levels": levels}
    return arrays, {"input_steps": input_steps, "channel_axis": axis, "spikes": spikes, **(coding or {})}


def radix(highest: int, zero: int = 0, more: int = 0) -> dict[str, int]:
    """The attributes of trains of binary digits, with so many steps more than they need."""
    return {"coding": 1, "steps": max(zero, highest - zero).bit_length() + more, "zero": zero}


def codings(highest: int) -> list[dict[str, int]]:
    """Attributes of trains of each coding, silent at either end and within."""
    zeros = sorted({0, 1, highest // 2, highest})
    rate = [{"coding": 0, "steps": 0, "zero": zero} for zero in zeros]
    return [*rate, *(radix(highest, zero, more) for zero in zeros for more in (0, 2))]


# Spike counts up to S with each coding for them.
CODED = [(highest, coding) for highest in (1, 3, 15, 16, 17, 33, 254, 255) for coding in codings(highest)]


SHAPES = [
    ((7,), 1, 1),
    ((3, 5), 1, 1),
    ((3, 5), 5, 1),
    ((3, 5), 5, -1),
    ((4, 6, 37), 6, 1),
    ((4, 37, 6), 6, 2),
    ((2, 3, 17, 19), 1, 1),
    ((2, 3, 17, 19), 3, 1),
    ((2, 16, 32, 32), 16, -3),
    ((2, 5, 3, 2, 3), 5, 1),
    ((1, 1, 1, 1), 1, 1),
    ((2, 130, 2, 2), 130, 1),
]


def drawn_size(draw) -> dict[str, Any]:
    """A current of any size and type, and a table for it: what a case of either operator takes by these names."""
    shape = tuple(draw(st.lists(st.integers(1, 41), min_size=1, max_size=4)))
    axis = draw(st.integers(1, len(shape) - 1)) if len(shape) > 1 else 1
    per_channel = draw(st.booleans()) and len(shape) > 1
    return {
        "shape": shape,
        "rows": shape[axis] if per_channel else 1,
        "axis": axis,
        "dtype": draw(st.sampled_from([np.float32, FLOAT16, BFLOAT16])),
        "seed": draw(st.integers(0, 999)),
    }


def drawn_case(draw) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Inputs and attributes of any size and type."""
    highest, spikes = draw(st.integers(1, 40)), draw(st.integers(0, 1))
    coding = draw(st.sampled_from([None, *codings(highest)])) if spikes else None
    size = drawn_size(draw)
    return case(**size, steps=highest, input_steps=draw(st.integers(1, 9)), spikes=spikes, coding=coding)


def every_number(dtype) -> np.ndarray:
    """All bit patterns of a half type: zeros, subnormals, infinities and NaNs among them."""
    return np.arange(1 << 16).astype(np.uint16).view(dtype)


WRONG = [
    ("current", lambda a, b: a.update(current=np.array(1, "f4"))),
    ("current", lambda a, b: b.update(input_steps=5)),
    ("thresholds", lambda a, b: a.update(thresholds=a["thresholds"][0])),
    ("thresholds", lambda a, b: a.update(thresholds=a["thresholds"][:0], levels=a["levels"][:0])),
    ("current", lambda a, b: a.update(current=np.zeros((2**60, 0), "f4"))),
    ("thresholds", lambda a, b: a.update(thresholds=a["thresholds"][:, :0], levels=a["levels"][:, :1])),
    ("thresholds", lambda a, b: a.update(thresholds=np.zeros((3, 65536), "f4"), levels=np.zeros((3, 65537), "f4"))),
    ("thresholds", lambda a, b: a.update(thresholds=a["thresholds"][:2], levels=a["levels"][:2])),
    ("levels", lambda a, b: a.update(levels=a["levels"][:, 1:])),
    ("levels", lambda a, b: a.update(levels=a["levels"][:1])),
    ("levels", lambda a, b: a.update(levels=a["levels"][0])),
    ("channel_axis", lambda a, b: b.update(channel_axis=0)),
    ("channel_axis", lambda a, b: b.update(channel_axis=3)),
    ("channel_axis", lambda a, b: b.update(channel_axis=-4)),
    ("channel_axis", lambda a, b: b.pop("channel_axis")),
    ("input_steps", lambda a, b: b.update(input_steps=0)),
    ("input_steps", lambda a, b: b.pop("input_steps")),
    ("input_steps", lambda a, b: b.update(input_steps=2.0)),
    ("spikes", lambda a, b: b.update(spikes=2)),
    ("spikes", lambda a, b: b.pop("spikes")),
    ("spikes", lambda a, b: b.update(spikes="yes")),
    ("coding", lambda a, b: b.update(coding=2)),
    ("coding", lambda a, b: b.update(coding=-1)),
    ("coding", lambda a, b: b.update(coding=1.0)),
    ("zero", lambda a, b: b.update(zero=-1)),
    ("zero", lambda a, b: b.update(zero=5)),
    ("zero", lambda a, b: b.update(zero=1 << 40)),
    ("zero", lambda a, b: b.update(zero="yes")),
    ("steps", lambda a, b: b.update(steps=3)),
    ("steps", lambda a, b: b.update(steps=4, zero=1)),
    ("steps", lambda a, b: b.update(steps=-1)),
    ("steps", lambda a, b: b.update(steps=[4])),
    ("steps", lambda a, b: b.update(coding=1)),
    ("steps", lambda a, b: b.update(coding=1, steps=2)),
    ("steps", lambda a, b: b.update(coding=1, steps=257)),
    ("steps", lambda a, b: b.update(coding=1, steps=(1 << 32) + 3)),
]
