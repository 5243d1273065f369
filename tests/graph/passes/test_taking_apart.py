"""Operators in parts compute what they do whole, under the same names, and nothing of them is left."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from networks import qcfs, weight
from onnx.reference import ReferenceEvaluator
from opsets import known, opsets

from pconv_onnx import inspect, rewrite, session, verify
from pconv_onnx.graph import Network, load
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.graph.passes.taking_apart import taken_apart

# Sizes that a shape may leave open: samples, queries, keys, past keys.
SIZES = {"N": 2, "S": 5, "T": 7, "P": 3}
# Sums of up to 64 products of values around 1 are off by 64 roundings of float32 at most, of values around 8.
BOUND = 64 * 8 * 2.0**-24
TYPES = {"float": np.float32, "float16": np.float16, "int32": np.int32, "int64": np.int64, "bool": np.bool_}


def model(nodes: str, inputs: str, outputs: str, *, opened: str = "N", opset: int = 20, **weights) -> onnx.ModelProto:
    """A model of onnx's and onnxruntime's operators, whose sizes are numbers but for those opened."""
    for name, size in SIZES.items():
        if name not in opened:
            inputs = re.sub(rf"\b{name}\b", str(size), inputs)
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> test ({inputs}) => ({outputs}) {{'
    made = onnx.parser.parse_model(f"{text} {nodes} }}")
    made.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items())
    return made


def samples(inputs: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for such inputs, of integers and bools some zero; each query has a key that no padding leaves out.

    Of scores that all have −10,000 added float32 keeps three digits, and onnxruntime adds up in another order.
    """
    generator, found = np.random.default_rng(seed), {}
    for dtype, dims, name in re.findall(r"(\w+)\[([^]]*)\] (\w+)", inputs):
        shape = [SIZES.get(size.strip()) or int(size) for size in dims.split(",") if size.strip()]
        drawn = generator.normal(0, 1, shape) if dtype.startswith("float") else generator.integers(0, 3, shape)
        found[name] = drawn.astype(TYPES[dtype])
        if name == "padding":
            found[name][..., :1] = 1
            found[name] += found[name].ndim == 1
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


VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
OLD, OLDER = VERSION < (1, 32), VERSION < (1, 26)
COMPUTED_OTHERWISE = "before onnxruntime 1.32 softcap is behind the mask, and queries without keys have an output"
WITH_ATTENTION = pytest.mark.skipif(not known(23), reason="onnxruntime does not know opset 23")
OPENED = pytest.mark.parametrize("opened", ["", "N", "NSTP"])


@pytest.mark.parametrize("opset", opsets(23, 24))
@OPENED
@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case, opened, opset):
    if OLD and ("softcap" in ATTENTION[case][0] or case == "mask and causal"):
        pytest.skip(COMPUTED_OTHERWISE)
    if VERSION < (1, 24) and case == "present alone" and opset == 23:
        pytest.skip("before onnxruntime 1.24 keys are not put out without earlier ones")
    source, arrays = attention(case, opened, opset)
    assert_apart(source, arrays)


def defined(source: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ReferenceEvaluator(source).run(None, arrays)


@WITH_ATTENTION
def test_attention_whose_present_keys_nothing_reads():
    """Compared with onnx's reference: onnxruntime wants them read."""
    inputs = f"{BY_HEAD}, {PAST}"
    source = model("y = Attention (q, k, v, , k0, v0)", inputs, ONE, opset=23)
    assert_apart(source, samples(inputs), of=defined)


@pytest.mark.skipif(OLD, reason=COMPUTED_OTHERWISE)
@pytest.mark.parametrize("dtype", [np.bool_, np.float32])
def test_a_query_without_keys_gives_zero(dtype):
    mask = np.ones((5, 7), bool)
    mask[2] = False
    given = mask if dtype == np.bool_ else np.where(mask, 0, -np.inf).astype(dtype)
    source = model("y = Attention (q, k, v, mask)", BY_HEAD, ONE, opset=23, mask=given)
    arrays = samples(BY_HEAD)
    assert_apart(source, arrays)
    assert not run(taken_apart(load(source)).proto, arrays)[0][:, :, 2].any()
    # No constant mask with keys for each query has to be looked at while it runs.
    mask[2, 0] = True
    full = model("y = Attention (q, k, v, mask)", BY_HEAD, ONE, opset=23, mask=mask)
    assert ("", "ReduceMax") not in operators(taken_apart(load(full)).proto)
    assert_apart(full, arrays)


OWN = "float[N, S, 32] q, float[N, S, 32] k, float[N, S, 32] v"
MULTI_HEAD = {
    # attributes, inputs by the name of their place, sizes of the outputs
    "alone": ("", "float[N, S, 32] q, float[N, T, 32] k, float[N, T, 24] v"),
    "scale": ("scale = 0.5", BY_SAMPLE),
    "bias": ("", f"{BY_SAMPLE}, float[88] bias"),
    "causal": ("unidirectional = 1", OWN),
    "padding": ("", f"{BY_SAMPLE}, int32[N, T] padding"),
    "padding of each query": ("", f"{BY_SAMPLE}, int32[N, S, T] padding"),
    "ends": ("", f"{BY_SAMPLE}, int32[N] padding"),
    "filter": ("mask_filter_value = -2.0, unidirectional = 1", f"{OWN}, int32[N, S] padding"),
    "scores' bias": ("", f"{BY_SAMPLE}, float[1, 4, S, T] added"),
    "padding and scores' bias": ("", f"{BY_SAMPLE}, int32[N, T] padding, float[N, 1, S, T] added"),
    "keys by head": ("", "float[N, S, 32] q, float[N, 4, T, 8] k, float[N, 4, T, 8] v"),
    "past": ("", f"{OWN}, {PAST.replace('6', '8')}"),
    "past and causal": ("unidirectional = 1", f"{OWN}, float[96] bias, {PAST.replace('6', '8')}"),
    "all": ("unidirectional = 1, scale = 0.3", f"{OWN}, float[96] bias, int32[N, S] padding, float[1, 1, S, S] added"),
}


@OPENED
@pytest.mark.parametrize("case", MULTI_HEAD)
def test_attention_of_onnxruntime_by_heads(case, opened):
    attributes, inputs = MULTI_HEAD[case]
    if OLDER and "padding" in inputs:
        pytest.skip("before onnxruntime 1.26 paddings of other lengths than that of the queries are read otherwise")
    places = ("q", "k", "v", "bias", "padding", "added", "k0", "v0")
    names = [name if re.search(rf"\b{name}\b", inputs) else "" for name in places]
    past = ("y, k1, v1", PRESENT.replace("c, d", "c", 1)) if "k0" in inputs else ("y", "float[a, b, c] y")
    attributes = ", ".join(filter(None, ["num_heads = 4", attributes]))
    nodes = f"{past[0]} = com.microsoft.MultiHeadAttention <{attributes}> ({', '.join(names).rstrip(', ')})"
    assert_apart(model(nodes, inputs, past[1], opened=opened), samples(inputs))


PROJECTED = {
    # attributes, other inputs by the name of their place, widths of the weights
    "alone": ("", "", 96),
    "causal": ("unidirectional = 1", "", 96),
    "scale": ("scale = 0.5", "", 96),
    "sizes": ("qkv_hidden_sizes = [32, 32, 24]", "", 88),
    "padding": ("", ", int32[N, S] padding", 96),
    "padding of each query": ("", ", int32[N, S, S] padding", 96),
    "ends": ("", ", int32[N] padding", 96),
    "filter": ("mask_filter_value = -2.0, unidirectional = 1", ", int32[N, S] padding", 96),
    "scores' bias": ("unidirectional = 1", ", float[N, 4, S, S] added", 96),
}  # fmt: skip


@OPENED
@pytest.mark.parametrize("case", PROJECTED)
def test_attention_of_onnxruntime_with_its_projection(case, opened):
    attributes, others, width = PROJECTED[case]
    inputs = f"float[N, S, 16] x{others}"
    names = ["x", "w", "bias", *(name if name in others else "" for name in ("padding", "past", "added"))]
    attributes = ", ".join(filter(None, ["num_heads = 4", attributes]))
    nodes = f"y = com.microsoft.Attention <{attributes}> ({', '.join(names).rstrip(', ')})"
    weights = {"w": weight(16, width), "bias": weight(width)}
    assert_apart(model(nodes, inputs, "float[a, b, c] y", opened=opened, **weights), samples(inputs))


def test_attention_of_onnxruntime_between_a_start_and_an_end():
    inputs = "float[N, S, 16] x, int32[4] padding"
    nodes = "y = com.microsoft.Attention <num_heads = 4> (x, w, bias, padding)"
    weights = {"w": weight(16, 96), "bias": weight(96)}
    source = model(nodes, inputs, "float[a, b, c] y", opened="", **weights)
    assert_apart(source, {**samples(inputs), "padding": np.array([4, 3, 1, 2], np.int32)})


ROTARY = {
    # attributes, shape of x, of the tables and of the positions, if any
    "by head": ("", "N, 4, S, 8", "N, S, 4", ""),
    "by sample": ("num_heads = 4", "N, S, 32", "N, S, 4", ""),
    "positions": ("", "N, 4, S, 8", "10, 4", "N, S"),
    "positions by sample": ("num_heads = 4", "N, S, 32", "10, 4", "N, S"),
    "interleaved": ("interleaved = 1", "N, 4, S, 8", "10, 4", "N, S"),
    "interleaved by sample": ("interleaved = 1, num_heads = 4", "N, S, 32", "10, 4", "N, S"),
    "in part": ("rotary_embedding_dim = 4", "N, 4, S, 8", "10, 2", "N, S"),
    "in part by sample": ("rotary_embedding_dim = 4, interleaved = 1, num_heads = 4", "N, S, 32", "N, S, 2", ""),
}


@WITH_ATTENTION
@OPENED
@pytest.mark.parametrize("case", ROTARY)
def test_rotary_positions(case, opened):
    if VERSION < (1, 24) and case == "in part":
        pytest.skip("before onnxruntime 1.24 turning a part of each head needs the number of heads")
    attributes, x, table, positions = ROTARY[case]
    inputs = f"float[{x}] x, float[{table}] cos, float[{table}] sin"
    inputs += f", int64[{positions}] places" if positions else ""
    attributes = f"<{attributes}>" if attributes else ""
    nodes = f"y = RotaryEmbedding {attributes} (x, cos, sin{', places' if positions else ''})"
    result = "float[a, b, c, d] y" if x.count(",") == 3 else "float[a, b, c] y"
    assert_apart(model(nodes, inputs, result, opened=opened, opset=23), samples(inputs))


ROTARY_OF_ONNXRUNTIME = {
    "by sample": ("", "N, S, 32", "10, 4", "N, S"),
    "by head": ("", "N, 4, S, 8", "10, 4", "N, S"),
    "first position": ("", "N, S, 32", "10, 4", "1"),
    "first position by head": ("", "N, 4, S, 8", "10, 4", "1"),
    "interleaved": ("interleaved = 1", "N, S, 32", "10, 4", "N, S"),
    "in part": ("rotary_embedding_dim = 4, num_heads = 4", "N, S, 32", "10, 2", "N, S"),
    "in part by head": ("rotary_embedding_dim = 4, num_heads = 4", "N, 4, S, 8", "10, 2", "N, S"),
}


@OPENED
@pytest.mark.parametrize("case", ROTARY_OF_ONNXRUNTIME)
def test_rotary_positions_of_onnxruntime(case, opened):
    attributes, x, table, positions = ROTARY_OF_ONNXRUNTIME[case]
    inputs = f"float[{x}] x, int64[{positions}] places, float[{table}] cos, float[{table}] sin"
    attributes = f"<{attributes}>" if attributes else ""
    nodes = f"y = com.microsoft.RotaryEmbedding {attributes} (x, places, cos, sin)"
    result = "float[a, b, c, d] y" if x.count(",") == 3 else "float[a, b, c] y"
    assert_apart(model(nodes, inputs, result, opened=opened), samples(inputs))


HIDDEN = "float[N, S, 32] x, float[N, S, 32] skip"
SUMMED = {
    # nodes, inputs, outputs
    "normalised": ("y = com.microsoft.SkipLayerNormalization (x, skip, gain, shift)", HIDDEN, "y"),
    "with a bias": ("y = com.microsoft.SkipLayerNormalization <epsilon = 1e-5> (x, skip, gain, shift, bias)",
                    HIDDEN, "y"),
    "without a shift": ("y = com.microsoft.SkipLayerNormalization (x, skip, gain, , bias)", HIDDEN, "y"),
    "sum read": ("y, , , z = com.microsoft.SkipLayerNormalization (x, skip, gain, shift, bias)", HIDDEN, "yz"),
    "sum without bias read": ("y, , , z = com.microsoft.SkipLayerNormalization (x, skip, gain, shift)", HIDDEN, "yz"),
    "skip of all samples": ("y = com.microsoft.SkipLayerNormalization (x, skip, gain, shift)",
                            "float[N, S, 32] x, float[1, S, 32] skip", "y"),
    "by its mean square": ("y = com.microsoft.SkipSimplifiedLayerNormalization (x, skip, gain)", HIDDEN, "y"),
    "by its mean square, with a bias": (
        "y, , , z = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 1e-5> (x, skip, gain, bias)",
        HIDDEN, "yz"),
    "GELU": ("y = com.microsoft.BiasGelu (x, bias)", "float[N, S, 32] x", "y"),
    "fast GELU": ("y = com.microsoft.FastGelu (x, bias)", "float[N, S, 32] x", "y"),
}  # fmt: skip
VECTORS = {name: weight(32, seed=seed) for seed, name in enumerate(("gain", "shift", "bias"))}


@OPENED
@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("case", SUMMED)
def test_sums_are_operators_of_their_own(case, opset, opened):
    nodes, inputs, outputs = SUMMED[case]
    read = {name: value for name, value in VECTORS.items() if name in nodes}
    made = ", ".join(f"float[{name}0, {name}1, {name}2] {name}" for name in outputs)
    source, arrays = model(nodes, inputs, made, opened=opened, opset=opset, **read), samples(inputs)
    parts = taken_apart(load(source)).proto
    assert "Add" in [node.op_type for node in parts.graph.node]
    if case == "fast GELU":
        assert all(len(node.input) == 1 for node in parts.graph.node if node.op_type == "FastGelu")
    else:
        assert operators(source).isdisjoint(operators(parts))
    for found, value in zip(run(parts, arrays), run(source, arrays), strict=True):
        np.testing.assert_allclose(found, value, rtol=0, atol=BOUND)
    assert taken_apart(load(parts)).proto == parts


EMBEDDED = {
    # inputs by the name of their place, outputs
    "tokens": ("int32[N, S] x", "y, unread"),
    "segments": ("int32[N, S] x, int32[N, S] segments", "y, unread"),
    "mask": ("int32[N, S] x, int32[N, S] segments, int32[N, S] mask", "y, ends"),
    "positions": ("int32[N, S] x, int32[N, S] segments, int32[N, S] ids", "y, unread"),
    "sum": ("int32[N, S] x, int32[N, S] segments", "y, unread, z"),
    "sum without segments": ("int32[N, S] x", "y, unread, z"),
}


@OPENED
@pytest.mark.parametrize("case", EMBEDDED)
def test_embeddings(case, opened):
    inputs, outputs = EMBEDDED[case]
    names = ["x", "segments", "words", "places", "kinds", "gain", "shift", "mask", "ids"]
    tables = {"words": weight(3, 32), "places": weight(9, 32), "kinds": weight(3, 32)}
    weights = {**tables, "gain": VECTORS["gain"], "shift": VECTORS["shift"]}
    if "segments" not in inputs:
        del weights["kinds"]
    given = [name if re.search(rf"\b{name}\b", inputs) or name in weights else "" for name in names]
    nodes = f"{outputs} = com.microsoft.EmbedLayerNormalization ({', '.join(given).rstrip(', ')})"
    types = {"y": "float[a, b, c] y", "ends": "int32[d] ends", "z": "float[e, f, g] z"}
    made = ", ".join(types[name] for name in outputs.split(", ") if name in types)
    assert_apart(model(nodes, inputs, made, opened=opened, **weights), samples(inputs))


FUSED = {
    "plain": ("", "N, 4, S, 8", "N, 4, 8, T"),
    "alpha": ("alpha = 0.125", "N, 4, S, 8", "N, 4, 8, T"),
    "a": ("transA = 1", "N, 4, 8, S", "N, 4, 8, T"),
    "b": ("transB = 1, alpha = 0.5", "N, 4, S, 8", "N, 4, T, 8"),
    "both": ("transA = 1, transB = 1", "N, 4, 8, S", "N, 4, T, 8"),
    "matrix": ("transB = 1", "N, 4, S, 8", "6, 8"),
}


@OPENED
@pytest.mark.parametrize("case", FUSED)
def test_fused_products(case, opened):
    attributes, a, b = FUSED[case]
    inputs = f"float[{a}] a, float[{b}] b"
    attributes = f"<{attributes}>" if attributes else ""
    nodes = f"y = com.microsoft.FusedMatMul {attributes} (a, b)"
    assert_apart(model(nodes, inputs, "float[c, d, e, f] y", opened=opened), samples(inputs))


L = {"b": "N", "n": 5, "m": 7, "h": 4, "d": 8, "e": 3, "i": "S", "j": "T", "c": 6, "w": 9, "B": "N"}
EQUATIONS = [
    "bhid,bhjd->bhij", "bhij,bhjd->bhid", "bnhd,bmhd->bhnm", "bmhd,bnhd->bhnm", "bid,de->bie", "bd,de->be",
    "de,bd->be", "bnm,mhd->bnhd", "bnhd,hdc->bnc", "bhwc,hnc->bhwn", "bchw,oc->bohw", "oc,bchw->bohw", "bhd,hde->bhe",
    "bde,bd->be", "bd,bde->be", "bhd,bhd->b", "i,i->", "bid,bjd->ijb", "Bid,Bjd->Bij", "b i d, b j d -> b i j",
    "...id,...jd->...ij", "b...d,de->b...e", "bm,mhd->bhd", "id,jd", "...ij,jk",
]  # fmt: skip


def einsum(equation: str, opened: str = "N") -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    sizes = {**L, "o": 2, "k": 3, ".": None}
    terms = equation.replace(" ", "").split("->")[0].replace("...", "bh").split(",")
    shapes = [", ".join(str(sizes[label]) for label in term) for term in terms]
    inputs = f"float[{shapes[0]}] p, float[{shapes[1]}] q"
    arrays = samples(inputs)
    rank = np.einsum(equation.replace(" ", ""), *arrays.values()).ndim
    result = "float" + f"[{', '.join(f'r{axis}' for axis in range(rank))}]" * bool(rank)
    return model(f'y = Einsum <equation = "{equation}"> (p, q)', inputs, f"{result} y", opened=opened), arrays


@OPENED
@pytest.mark.parametrize("equation", EQUATIONS)
def test_equations_that_are_products(equation, opened):
    source, arrays = einsum(equation, opened)
    assert_apart(source, arrays)
    assert ("", "MatMul") in operators(taken_apart(load(source)).proto)


@pytest.mark.parametrize("equation", ["bhij,bhij->bhij", "bid,bjd->bi", "bhd,be->bhde", "bdd,bd->bd", "i,j->ij"])
def test_other_equations_stay(equation):
    loaded = load(einsum(equation)[0])
    assert taken_apart(loaded) is loaded


@WITH_ATTENTION
@pytest.mark.parametrize("attributes", ["", "<softmax_precision = 1>", "<is_causal = 1>"])
def test_half_precision_stays(attributes):
    inputs = BY_HEAD.replace("float", "float16")
    source = model(f"y = Attention {attributes} (q, k, v)", inputs, ONE.replace("float", "float16"), opset=23)
    # Onnxruntime computes in float32 within; the parts round each result to float16.
    assert_apart(source, samples(inputs), bound=16 * 2.0**-11)


STAYING = {
    "a number of keys for each sample": "y = Attention (q, k, v, , , , lengths)",
    "masked scores that are read": "y, , , qk = Attention <qk_matmul_output_mode = 2> (q, k, v)",
    "one past only": "y = com.microsoft.MultiHeadAttention <num_heads = 4> (p, p, p, , , , k)",
    "no number of heads": "y = com.microsoft.MultiHeadAttention (p, p, p)",
    "heads of no size": "y = com.microsoft.MultiHeadAttention <num_heads = 5> (p, p, p)",
    "one tensor of queries, keys and values": "y = com.microsoft.MultiHeadAttention <num_heads = 4> (packed)",
    "causal across": "y = com.microsoft.MultiHeadAttention <num_heads = 4, unidirectional = 1> (p, r, r)",
    "a sum that broadcasts": 'y = Einsum <equation = "bid,bjd->bij"> (p, thin)',
    "positions of no rank": "y = com.microsoft.RotaryEmbedding (p, scalar, w, w)",
    "rotated within": "y = com.microsoft.Attention <num_heads = 4, do_rotary = 1> (p, w)",
    "past within": "y = com.microsoft.Attention <num_heads = 4> (p, w, , , past)",
    "statistics that are read": "y, mean = com.microsoft.SkipLayerNormalization (p, p, w)",
    "a window": "y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 4, local_window_size = 2>"
    " (p, p, p, , , ids, ids)",
    "a bias of grouped queries' scores": "y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 4>"
    " (p, p, p, , , ids, ids, , , , w)",
    "a flag that is neither": "y = Attention <is_causal = 2> (q, k, v)",
    "weights in integers": "y = Attention <softmax_precision = 7> (q, k, v)",
    "a number that is a tensor": "y = com.microsoft.MultiHeadAttention <num_heads = int64 {4}> (p, p, p)",
    "a bias of another length": "y = com.microsoft.MultiHeadAttention <num_heads = 4> (p, p, p, ids)",
    "kinds without segments": "y = com.microsoft.EmbedLayerNormalization (lengths, , w, w, w, w, w)",
    "first axes transposed": "y = com.microsoft.FusedMatMul <transBatchA = 1> (q, k)",
    "no bias": "y = com.microsoft.FastGelu (p)",
    "scaled positions": "y = com.microsoft.RotaryEmbedding <scale = 2.0> (p, ids, w, w)",
    "unknown shapes": "u = com.microsoft.Unheard (p) y = com.microsoft.MultiHeadAttention <num_heads = 4> (u, u, u)",
    "another's operator": "y = own.Attention (q, k, v)",
    "nothing given": "y = com.microsoft.FusedMatMul ()",
}
GIVEN = (
    f"{BY_HEAD}, int64[N] lengths, float[N, S, 32] p, float[N, T, 32] r, float[N, S, 4, 3, 8] packed,"
    " float[2, N, 4, P, 8] past, int64[1] ids, float[10, 96] w, int64 scalar, float[N, T, 1] thin"
)


@pytest.mark.parametrize("case", STAYING)
def test_what_has_no_form_in_parts_stays(case):
    nodes = STAYING[case]
    read = [name for name in ("qk", "mean") if re.search(rf"\b{name}\b", nodes)]
    outputs = ", ".join(f"float {name}" for name in ("y", *read))
    source = model(nodes, GIVEN, outputs, opset=24)
    source.opset_import.append(onnx.helper.make_opsetid("own", 1))
    given = Network(source, "test", "")
    assert taken_apart(given) is given


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Attention <is_causal = 1> (q, k, v)",
        "y = com.microsoft.MultiHeadAttention <num_heads = 4> (p, p, p)",
        "y = com.microsoft.Attention <num_heads = 4> (p, w)",
        "y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 4> (p, p, p, , , ids, ids)",
    ],
)
def test_the_same_with_a_form_in_parts_do_not_stay(nodes):
    given = Network(model(nodes, GIVEN.replace("[10, 96]", "[32, 96]"), "float y", opset=24), "test", "")
    assert operators(taken_apart(given).proto).isdisjoint(operators(given.proto))


def test_what_is_known_behind_parts_is_taken_apart_as_well():
    """Behind operators of onnxruntime onnx infers no shapes."""
    attend = "com.microsoft.MultiHeadAttention <num_heads = 4, unidirectional = 1>"
    nodes = " ".join(f"y{place + 1} = {attend} (y{place}, y{place}, y{place})" for place in range(4))
    source = model(nodes, "float[N, S, 32] y0", "float[a, b, c] y4", opened="NS")
    assert_apart(source, samples("float[N, S, 32] y0"))


@WITH_ATTENTION
def test_operators_in_bodies_are_taken_apart():
    attend = "Attention <is_causal = 1> (q, k, v)"
    nodes = f"""
        y = If (c) <then_branch = g1 () => (float[N, 4, S, 6] a) {{a = {attend}}},
                    else_branch = g2 () => (float[N, 4, S, 6] b) {{w = {attend} b = Neg (w)}}>
    """
    inputs = f"{BY_HEAD}, bool c".replace("T", "S")
    source = model(nodes, inputs, ONE, opset=23)
    parts = taken_apart(load(source)).proto
    onnx.checker.check_model(parts)
    assert ("", "Attention") not in operators(parts)
    arrays = samples(inputs)
    for chosen in (True, False):
        fed = {**arrays, "c": np.array(chosen)}
        np.testing.assert_allclose(run(parts, fed)[0], run(source, fed)[0], rtol=0, atol=BOUND)


def test_names_stay_and_new_ones_are_no_others():
    source = model(
        "y_scores = Neg (q) y = Attention (y_scores, k, v) y_weights = Neg (y)",
        BY_HEAD,
        f"{ONE}, {ONE}_weights",
        opset=23,
    )
    parts = taken_apart(load(source)).proto
    made = [name for node in parts.graph.node for name in node.output]
    assert len(made) == len(set(made)) and {"y_scores", "y", "y_weights"} <= set(made)
    assert parts.graph.output == source.graph.output
    named = [node.name for node in parts.graph.node if node.name]
    assert len(named) == len(set(named))


PROJECTIONS = "q = MatMul (x, a) k = MatMul (x, b) v = MatMul (x, c)"
LAYERS = {
    "onnx": f"{PROJECTIONS} [attend] z = Attention <{HEADS}> (q, k, v) y = MatMul (z, d)",
    "onnxruntime": f"{PROJECTIONS} [attend] z = com.microsoft.MultiHeadAttention <num_heads = 4> (q, k, v)"
    " y = MatMul (z, d)",
}


def layer(case: str, opened: str = "N") -> onnx.ModelProto:
    opset = 23 if case == "onnx" else 20
    projections = {name: weight(32, 32, seed=seed) for seed, name in enumerate("abcd")}
    return model(LAYERS[case], "float[N, S, 32] x", "float[N, S1, 32] y", opened=opened, opset=opset, **projections)


def behind_a_neuron(source: onnx.ModelProto) -> onnx.ModelProto:
    """The same on what a QCFS activation of input `u` gives."""
    before = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 23]> test (float[N, 5, 32] u) => (float[N, 5, 32] x)
        <float theta = {{2}}, float count = {{4}}, float half = {{0.5}}, float zero = {{0}}, float one = {{1}}>
        {{ {qcfs("u", "x")} }}
    """).graph
    source.graph.input[0].name = "u"
    source.graph.initializer.extend(before.initializer)
    nodes = [*before.node, *source.graph.node]
    made = onnx.ModelProto()
    made.CopyFrom(source)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


@pytest.mark.parametrize("case", [pytest.param("onnx", marks=WITH_ATTENTION), "onnxruntime"])
def test_products_within_attention_are_counted_and_read_spikes(case):
    found = inspect(layer(case), neurons="products")
    places = [row["name"] for row in found["activations"]]
    assert places == ["attend_scores.input", "attend_attended.input", "y.input"]
    products = 3 * 5 * 32 * 32 + 2 * 4 * 5 * 5 * 8 + 5 * 32 * 32
    driven = found["spike_driven"]
    assert (driven["macs"], driven["on_inputs"], driven["share"]) == (products, 3 * 5 * 32 * 32, 1)


@pytest.mark.parametrize("case", [pytest.param("onnx", marks=WITH_ATTENTION), "onnxruntime"])
def test_attention_between_products_that_spike_is_what_calibration_made(case):
    source = layer(case)
    x = {"x": np.random.default_rng(0).normal(0, 1, (12, 5, 32)).astype(np.float32)}
    result = rewrite(source, calibration=x, steps=8, coding="radix", neurons="products")
    assert len(result.plan.neurons) == 3
    found = verify(source, result.model, x)
    assert not found.differences and found.layers_compared
    assert found.unoptimised.max_abs_diff < 0.05 * found.unoptimised.magnitude


@pytest.mark.parametrize("case", [pytest.param("onnx", marks=WITH_ATTENTION), "onnxruntime"])
def test_that_parts_round_by_themselves_is_measured_and_said(case):
    source = behind_a_neuron(layer(case))
    arrays = {"u": np.random.default_rng(0).normal(0, 1, (12, 5, 32)).astype(np.float32)}
    result = rewrite(source)
    found = verify(source, result.model, arrays)
    assert not found.differences and found.taken_apart
    assert 0 < found.respelled.max_abs_diff < BOUND
    assert found.verdict == "measured" and any("taken apart" in told for told in found.not_compared)


def test_a_prepared_network_has_parts_only():
    first = prepared(layer("onnxruntime"))
    assert prepared(first).proto == first.proto
    assert all(domain == "" for domain, _ in operators(first.proto))


@pytest.mark.parametrize("opened", ["N", "NS"])
@pytest.mark.parametrize("case", [pytest.param("onnx", marks=WITH_ATTENTION), "onnxruntime"])
def test_heads_have_time_steps_however_many_tokens_there_are(case, opened):
    plan = rewrite(behind_a_neuron(layer(case, opened)), coding="radix", dry_run=True).plan
    steps = {name: type(kind).__name__ for name, kind in plan.kinds.items()}
    assert {steps[f"attend_{what}"] for what in ("query", "key", "value", "transposed")} == {"Current"}
    assert [size for size in plan.network.shapes["attend_scores"][2:]] == ([5, 5] if opened == "N" else ["S", "S"])


def grouped(attributes: str, tokens: str, past: str, others: str = "", packed: bool = False, opened: str = "N"):
    """Four queries to two heads of keys, of 32 entries each; sizes of `tokens` and `past` by the letters of SIZES."""
    inputs = (
        f"float[N, {tokens}, 256] q"
        if packed
        else (f"float[N, {tokens}, 128] q, float[N, {tokens}, 64] k, float[N, {tokens}, 64] v")
    )
    inputs += f", float[N, 2, {past}, 32] k0, float[N, 2, {past}, 32] v0" if past else ""
    inputs += f", int32[N] last, int32[1] total{others}"
    places = ("q", "k", "v", "k0", "v0", "last", "total", "cos", "sin", "positions")
    names = [name if re.search(rf"\b{name}\b", inputs) else "" for name in places]
    attributes = ", ".join(filter(None, ["num_heads = 4, kv_num_heads = 2", attributes]))
    nodes = f"y, k1, v1 = com.microsoft.GroupQueryAttention <{attributes}> ({', '.join(names).rstrip(', ')})"
    return model(nodes, inputs, PRESENT.replace("c, d", "c", 1), opened=opened), samples(inputs)


TABLES = ", float[20, 16] cos, float[20, 16] sin"
GROUPED = {
    # attributes, tokens, places of past keys, other inputs, whether q, k and v are one, keys of each sample
    "prompt": ("", "S", "", "", False, (5, 5)),
    "prompt into no places": ("", "S", "0", "", False, (5, 5)),
    "prompt into places": ("", "S", "9", "", False, (5, 5)),
    "token": ("", "1", "P", "", False, (4, 4)),
    "token of samples of other lengths": ("", "1", "P", "", False, (4, 2)),
    "token into places": ("", "1", "9", "", False, (6, 3)),
    "one": ("", "1", "P", "", True, (4, 3)),
    "scale": ("scale = 0.1, softcap = 2.0", "1", "P", "", False, (4, 3)),
    "turned prompt": ("do_rotary = 1", "S", "", TABLES, False, (5, 5)),
    "turned": ("do_rotary = 1", "1", "P", TABLES, False, (4, 3)),
    "turned in part": ("do_rotary = 1, rotary_interleaved = 1", "1", "P", TABLES.replace("16", "8"), True, (4, 3)),
    "turned by positions": ("do_rotary = 1", "1", "P", f"{TABLES}, int64[N, 1] positions", False, (4, 3)),
}


@OPENED
@pytest.mark.parametrize("case", GROUPED)
def test_grouped_queries_of_onnxruntime(case, opened):
    if OLDER and "positions" in case:
        pytest.skip("before onnxruntime 1.26 there are no such positions")
    *asked, keys = GROUPED[case]
    source, arrays = grouped(*asked, opened=opened)
    lengths = {"last": np.array(keys, np.int32) - 1, "total": np.array([max(keys)], np.int32)}
    assert_apart(source, arrays | lengths)


def test_grouped_queries_of_several_tokens_behind_past_keys():
    """Of one sample, which is what onnxruntime takes."""
    source, arrays = grouped("do_rotary = 1", "S", "P", TABLES)
    one = {name: value[:1] for name, value in arrays.items() if name not in ("cos", "sin")}
    lengths = {"last": np.array([7], np.int32), "total": np.array([8], np.int32)}
    assert_apart(source, arrays | one | lengths)
