"""Operators in parts compute what they do whole, under the same names, and nothing of them is left."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from networks import weight
from onnx.reference import ReferenceEvaluator

from pconv_onnx import inspect, rewrite, session, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.graph.passes.taking_apart import taken_apart

# Sizes that a shape may leave open: samples, queries, keys, past keys.
SIZES = {"N": 2, "S": 5, "T": 7, "P": 3}
# Sums of up to 64 products of values around 1 are off by 64 roundings of float32 at most, of values around 8.
BOUND = 64 * 8 * 2.0**-24
TYPES = {"float": np.float32, "float16": np.float16, "int32": np.int32, "int64": np.int64, "bool": np.bool_}


def model(nodes: str, inputs: str, outputs: str, *, opened: str = "N", opset: int = 23, **weights) -> onnx.ModelProto:
    """A model of onnx's and onnxruntime's operators, whose sizes are numbers but for those opened."""
    for name, size in SIZES.items():
        if name not in opened:
            inputs = re.sub(rf"\b{name}\b", str(size), inputs)
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> test ({inputs}) => ({outputs}) {{'
    made = onnx.parser.parse_model(f"{text} {nodes} }}")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items())
    return made


def samples(inputs: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for such inputs; of integers and bools some are zero."""
    generator, found = np.random.default_rng(seed), {}
    for dtype, dims, name in re.findall(r"(\w+)\[([^]]*)\] (\w+)", inputs):
        shape = [SIZES.get(size.strip()) or int(size) for size in dims.split(",") if size.strip()]
        drawn = generator.normal(0, 1, shape) if dtype.startswith("float") else generator.integers(0, 3, shape)
        found[name] = drawn.astype(TYPES[dtype])
    return found


def run(source: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return session(source, options=options).run(None, arrays)


def operators(source: onnx.ModelProto) -> set[tuple[str, str]]:
    return {(node.domain, node.op_type) for node in every_node(source.graph)}


def assert_apart(source: onnx.ModelProto, arrays: dict[str, np.ndarray], *, bound: float = BOUND, of=run) -> None:
    """The parts of a model of one operator give what it gives, and the operator is not among them."""
    parts = taken_apart(load(source)).proto
    onnx.checker.check_model(parts)
    assert operators(source).isdisjoint(operators(parts))
    for found, value in zip(run(parts, arrays), of(source, arrays), strict=True):
        assert found.dtype == value.dtype and found.shape == value.shape
        np.testing.assert_allclose(found, value, rtol=0, atol=bound)


BY_HEAD = "float[N, 4, S, 8] q, float[N, 4, T, 8] k, float[N, 4, T, 6] v"
SHARED = "float[N, 4, S, 8] q, float[N, 2, T, 8] k, float[N, 2, T, 6] v"
BY_SAMPLE = "float[N, S, 32] q, float[N, T, 32] k, float[N, T, 24] v"
SHARED_BY_SAMPLE = "float[N, S, 32] q, float[N, T, 16] k, float[N, T, 12] v"
PAST = "float[N, 4, P, 8] k0, float[N, 4, P, 6] v0"
HEADS = "q_num_heads = 4, kv_num_heads = 4"
PRESENT = "float[a, b, c, d] y, float[e, f, g, h] k1, float[i, j, k, l] v1"
ONE = "float[a, b, c, d] y"
ATTENTION = {
    # attributes, inputs, outputs
    "by head": ("", BY_HEAD, ONE),
    "by sample": (HEADS, BY_SAMPLE, "float[a, b, c] y"),
    "shared keys by head": ("", SHARED, ONE),
    "shared keys by sample": ("q_num_heads = 4, kv_num_heads = 2", SHARED_BY_SAMPLE, "float[a, b, c] y"),
    "scale": ("scale = 0.25", BY_HEAD, ONE),
    "causal": ("is_causal = 1", BY_HEAD, ONE),
    "causal by sample": (f"is_causal = 1, {HEADS}", BY_SAMPLE, "float[a, b, c] y"),
    "added mask": ("", f"{BY_HEAD}, float[S, T] mask", ONE),
    "added mask of each head": ("", f"{BY_HEAD}, float[4, S, T] mask", ONE),
    "added mask of each sample": ("", f"{BY_HEAD}, float[N, 1, S, T] mask", ONE),
    "mask": ("", f"{BY_HEAD}, bool[N, 1, S, T] mask", ONE),
    "mask and causal": ("is_causal = 1", f"{BY_HEAD}, bool[N, 4, S, T] mask", ONE),
    "softcap": ("softcap = 0.5", f"{BY_HEAD}, float[S, T] mask", ONE),
    "past": ("", f"{BY_HEAD}, {PAST}", PRESENT),
    "past and causal": ("is_causal = 1", f"{BY_HEAD}, {PAST}", PRESENT),
    "past by sample": (HEADS, f"{BY_SAMPLE}, {PAST}", PRESENT.replace("c, d", "c")),
    "present alone": ("", BY_HEAD, PRESENT),
    "precise softmax": ("softmax_precision = 11", BY_HEAD, ONE),
    **{
        f"{what} read": (f"softcap = 0.5, qk_matmul_output_mode = {mode}", f"{BY_HEAD}, bool[S, T] mask",
                         f"{PRESENT}, float[m, n, o, p] qk")
        for mode, what in ((0, "scores"), (1, "capped scores"), (3, "weights"))
    },
}  # fmt: skip


def attention(case: str, opened: str, opset: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    attributes, inputs, outputs = ATTENTION[case]
    names = [name if re.search(rf"\b{name}\b", inputs) else "" for name in ("q", "k", "v", "mask", "k0", "v0")]
    made = [name if re.search(rf"\b{name}\b", outputs.split("y", 1)[1]) else "" for name in ("k1", "v1", "qk")]
    nodes = f"{', '.join(['y', *made])} = Attention <{attributes}> ({', '.join(names)})".replace("<>", "")
    return model(nodes, inputs, outputs, opened=opened, opset=opset), samples(inputs)


OPENED = pytest.mark.parametrize("opened", ["", "N", "NSTP"])


@pytest.mark.parametrize("opset", [23, 24])
@OPENED
@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case, opened, opset):
    source, arrays = attention(case, opened, opset)
    assert_apart(source, arrays)


def defined(source: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ReferenceEvaluator(source).run(None, arrays)


def test_attention_whose_present_keys_nothing_reads():
    """onnxruntime does not run it."""
    inputs = f"{BY_HEAD}, {PAST}"
    source = model("y = Attention (q, k, v, , k0, v0)", inputs, ONE)
    assert_apart(source, samples(inputs), of=defined)


@pytest.mark.parametrize("dtype", [np.bool_, np.float32])
def test_a_query_without_keys_gives_zero(dtype):
    mask = np.ones((5, 7), bool)
    mask[2] = False
    given = mask if dtype == np.bool_ else np.where(mask, 0, -np.inf).astype(dtype)
    source = model("y = Attention (q, k, v, mask)", BY_HEAD, ONE, mask=given)
    arrays = samples(BY_HEAD)
    assert_apart(source, arrays)
    assert not run(taken_apart(load(source)).proto, arrays)[0][:, :, 2].any()
    # No constant mask with keys for each query has to be looked at while it runs.
    mask[2, 0] = True
    full = model("y = Attention (q, k, v, mask)", BY_HEAD, ONE, mask=mask)
    assert ("", "ReduceMax") not in operators(taken_apart(load(full)).proto)
    assert_apart(full, arrays)


MULTI_HEAD = {
    # attributes, inputs by the name of their place, sizes of the outputs
    "alone": ("", "float[N, S, 32] q, float[N, T, 32] k, float[N, T, 24] v"),
    "scale": ("scale = 0.5", BY_SAMPLE),
    "bias": ("", f"{BY_SAMPLE}, float[88] bias"),
    "causal": ("unidirectional = 1", f"{BY_SAMPLE}"),
    "padding": ("", f"{BY_SAMPLE}, int32[N, T] padding"),
    "padding of each query": ("", f"{BY_SAMPLE}, int32[N, S, T] padding"),
    "ends": ("", f"{BY_SAMPLE}, int32[N] padding"),
    "filter": ("mask_filter_value = -2.0, unidirectional = 1", f"{BY_SAMPLE}, int32[N, T] padding"),
    "scores' bias": ("", f"{BY_SAMPLE}, float[1, 4, S, T] added"),
    "padding and scores' bias": ("", f"{BY_SAMPLE}, int32[N, T] padding, float[N, 1, S, T] added"),
    "keys by head": ("", "float[N, S, 32] q, float[N, 4, T, 8] k, float[N, 4, T, 6] v"),
    "past": ("", f"{BY_SAMPLE}, {PAST}"),
    "past and causal": ("unidirectional = 1", f"{BY_SAMPLE}, float[88] bias, {PAST}"),
    "all": ("unidirectional = 1, scale = 0.3", f"{BY_SAMPLE}, float[88] bias, float[1, 1, S, T] added"),
}


@OPENED
@pytest.mark.parametrize("case", MULTI_HEAD)
def test_attention_of_onnxruntime_by_heads(case, opened):
    attributes, inputs = MULTI_HEAD[case]
    places = ("q", "k", "v", "bias", "padding", "added", "k0", "v0")
    names = [name if re.search(rf"\b{name}\b", inputs) else "" for name in places]
    past = ("y, k1, v1", PRESENT.replace("c, d", "c", 1)) if "k0" in inputs else ("y", "float[a, b, c] y")
    attributes = ", ".join(filter(None, ["num_heads = 4", attributes]))
    nodes = f"{past[0]} = com.microsoft.MultiHeadAttention <{attributes}> ({', '.join(names).rstrip(', ')})"
    assert_apart(model(nodes, inputs, past[1], opened=opened, opset=20), samples(inputs))
