"""Operators that are taken apart, with random inputs, attributes and shapes: do the parts give what onnxruntime gives?

What onnxruntime runs, the parts have to give as well; what it refuses may stay whole or not, but raises nothing.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import helper, numpy_helper

from pconv_onnx import PconvError
from pconv_onnx.graph import load
from pconv_onnx.graph.passes.taking_apart import taken_apart

from .hostile import FOREIGN, attempt
from .workers import enter

# Before this version it computes some of them otherwise: they have to raise nothing.
_OLD = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32)
_X, _HEADS = "float[N, 5, 32] x", "float[N, 4, 5, 8] q, float[N, 4, 7, 8] k, float[N, 4, 7, 6] v"
_ANGLES = "float[9, 4] cos, float[9, 4] sin, int64[N, 5] places"
_OURS = "com.microsoft"
# What makes y, and of which inputs.
_OPERATORS = (
    ("Attention <is_causal = 1> (q, k, v, mask)", f"{_HEADS}, bool[5, 7] mask"),
    ("Attention <q_num_heads = 4, kv_num_heads = 2, softcap = 2.0> (x, u, u)", f"{_X}, float[N, 7, 16] u"),
    ("Attention <qk_matmul_output_mode = 3> (q, k, v, mask, k0, v0)",
     f"{_HEADS}, float[N, 1, 5, 10] mask, float[N, 4, 3, 8] k0, float[N, 4, 3, 6] v0"),
    ("RotaryEmbedding <interleaved = 1> (q, cos, sin, places)", f"{_HEADS}, {_ANGLES}"),
    (f"{_OURS}.RotaryEmbedding <interleaved = 0> (x, places, cos, sin)", f"{_X}, {_ANGLES}"),
    (f"{_OURS}.MultiHeadAttention <num_heads = 4, scale = 0.5> (x, x, x, bias, mask)",
     f"{_X}, float[96] bias, int32[N, 5] mask"),
    (f"{_OURS}.MultiHeadAttention <num_heads = 4, unidirectional = 1> (x, x, x, , , mask)",
     f"{_X}, float[1, 4, 5, 5] mask"),
    (f"{_OURS}.Attention <num_heads = 4, unidirectional = 1> (x, w, bias, mask)",
     f"{_X}, float[32, 96] w, float[96] bias, int32[N] mask"),
    (f"{_OURS}.GroupQueryAttention <num_heads = 2, kv_num_heads = 1, softcap = 1.0> (x, g, g, , , last, total)",
     f"{_X}, float[N, 5, 16] g, int32[N] last, int32[1] total"),
    (f"{_OURS}.SkipLayerNormalization <epsilon = 0.01> (x, x, c, c, c)", f"{_X}, float[32] c"),
    (f"{_OURS}.SkipSimplifiedLayerNormalization <epsilon = 0.01> (x, x, c)", f"{_X}, float[32] c"),
    (f"{_OURS}.EmbedLayerNormalization (t, t, w, w, w, c, c, t)", "int32[N, 5] t, float[9, 32] w, float[32] c"),
    (f"{_OURS}.BiasGelu (x, c)", f"{_X}, float[32] c"),
    (f"{_OURS}.FusedMatMul <transB = 1, alpha = 0.5> (q, k)", _HEADS),
    ('Einsum <equation = "bhid,bhjd->bhij"> (q, k)', _HEADS),
    ('Einsum <equation = "...ic,oc->...oi"> (x, w)', f"{_X}, float[9, 32] w"),
)  # fmt: skip
_NUMBERS: tuple[Any, ...] = (0, 1, 2, 3, 4, -1, 8, 1 << 40, 0.0, 0.5, -2.0, [32, 32, 32], [0.5], "ij,jk->ik", "bij,bkj",
                             "", numpy_helper.from_array(np.ones(2)))  # fmt: skip
_ATTRIBUTES = ("scale", "softcap", "is_causal", "unidirectional", "mask_filter_value", "qkv_hidden_sizes", "num_heads",
               "do_rotary", "rotary_embedding_dim", "transA", "softmax_precision")  # fmt: skip
# Onnxruntime adds up in another order, and where all keys are left out it has three digits of their scores.
_CLOSE = 1e-2

Array = np.ndarray[Any, np.dtype[Any]]


def faults(seed: int) -> list[str]:
    """What is wrong with the parts of the operator of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    call, inputs = _OPERATORS[random.integers(len(_OPERATORS))]
    feed = _feed(inputs, random)
    model = _mutated(_model(call, inputs.replace("N", str(random.choice(["N", "2"])))), random)
    found: list[str] = []
    try:
        network = load(model)
    except PconvError:
        return found
    parts = attempt(found, "taking it apart", lambda: taken_apart(network))
    if parts is None or parts is network:
        return found
    expected = None if _OLD else _run(model, feed)
    if expected is not None:
        given = _run(parts.proto, feed)
        if given is None:
            found.append("onnxruntime refuses the parts")
        elif not all(map(_is_close, given, expected)):
            found.append("the parts give something else")
    return found


def _model(call: str, inputs: str) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 23, "{_OURS}" : 1]> test ({inputs}) => (float y)'
    model = onnx.parser.parse_model(f"{text} {{ y{', unread' * ('Embed' in call)} = {call} }}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def _feed(inputs: str, random: np.random.Generator) -> dict[str, Array]:
    feed: dict[str, Array] = {}
    for dtype, dims, name in re.findall(r"(\w+)\[([^]]*)\] (\w+)", inputs):
        shape = [2 if size.strip() == "N" else int(size) for size in dims.split(",")]
        feed[name] = (
            random.normal(0, 1, shape).astype(np.float32)
            if dtype == "float"
            else random.integers(0, 5, shape).astype("int64" if name == "places" else dtype.replace("bool", "bool_"))
        )
    # As many keys as there are tokens.
    return feed | {"last": np.full(2, 4, np.int32), "total": np.full(1, 5, np.int32)}


def _mutated(model: onnx.ModelProto, random: np.random.Generator) -> onnx.ModelProto:
    """The model with inputs left out or swapped, attributes changed, or shapes and types of other sizes."""
    (node,) = model.graph.node
    names = [*(info.name for info in model.graph.input), ""]
    for _ in range(random.integers(0, 3)):
        what = random.integers(5)
        if what == 0:
            node.input[random.integers(len(node.input))] = str(random.choice(names))
        elif what == 1 and len(node.input) > 1:
            del node.input[random.integers(len(node.input))]
        elif what == 2:
            node.input.append(str(random.choice(names)))
        elif what == 3:
            name = str(random.choice([*_ATTRIBUTES, *[attribute.name for attribute in node.attribute] * 8]))
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(helper.make_attribute(name, _NUMBERS[random.integers(len(_NUMBERS))]))
        else:
            tensor_type = model.graph.input[random.integers(len(names) - 1)].type.tensor_type
            sizes = tensor_type.shape.dim
            if random.random() < 0.3:
                tensor_type.ClearField("shape")
            elif random.random() < 0.3:
                tensor_type.elem_type = int(random.choice([1, 6, 7, 8, 9, 10, 11, 16]))
            elif sizes:
                sizes[random.integers(len(sizes))].dim_value = int(random.choice([0, 1, 2, 8, 32, 100_000]))
    return model


def _run(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array] | None:
    """What onnxruntime gives; None where it refuses."""
    enter(FOREIGN)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return list(session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()}))
    except Exception:  # as it refuses
        return None


def _is_close(given: Array, expected: Array) -> bool:
    return given.shape == expected.shape and np.allclose(given, expected, rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
