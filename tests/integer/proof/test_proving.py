"""The proof that sums are exact: no partial sum leaves its bounds, and nothing inexact goes unnamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import network, qcfs

from pconv_onnx import rewrite, session
from pconv_onnx.graph import load
from pconv_onnx.integer.proof.proving import Bound, Proof, prove
from pconv_onnx.integer.proof.rules import RULES
from pconv_onnx.integer.proof.site import Known
from pconv_onnx.integer.proof.values import Float, Whole

CODES = "s = Div (x, step) r = Round (s) q = Clip (r, low, high)"
LIMIT = 2**24


def whole_numbers(*shape: int, most: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(np.float32)


def on_codes(
    nodes: str, low: float = 0, high: float = 15, channels: int = 2, output: str = "float", **weights: Any
) -> onnx.ModelProto:
    """A network whose input is quantised to codes `q` [N, C, 4, 4] first."""
    constants = {"step": 0.05, "low": low, "high": high}
    ends = {"inputs": f"float[N, {channels}, 4, 4] x", "outputs": f"{output}[N] y"}
    model = network(f"{CODES} {nodes}", weights=constants | weights, **ends)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def proof_of(model: onnx.ModelProto) -> Proof:
    return prove(load(model))


def bound(proof: Proof, op_type: str) -> Bound:
    (found,) = [one for one in proof.bounds if one.op_type == op_type]
    return found


def test_a_convolution_of_codes_is_bounded_by_the_terms_of_one_sign():
    weights = np.array([[3, -2], [1, 1]], np.float32).reshape(2, 2, 1, 1)
    proof = proof_of(on_codes("y = Conv (q, w, b)", w=weights, b=np.array([-5, 7], np.float32)))
    # Of the first channel 3·15 above and 2·15 + 5 below, of the second 2·15 + 7.
    assert proof.bounds == [Bound("y", "Conv", 45, LIMIT)]
    assert proof.exact


def test_signed_codes_are_bounded_from_both_sides():
    weights = np.array([3, -2], np.float32).reshape(1, 2, 1, 1)
    assert bound(proof_of(on_codes("y = Conv (q, w)", low=-15, w=weights)), "Conv").largest == 5 * 15


def test_what_all_terms_are_multiples_of_is_no_part_of_the_bound():
    weights = np.array([3 * 4, -2 * 4], np.float32).reshape(1, 2, 1, 1)
    assert bound(proof_of(on_codes("y = Conv (q, w)", w=weights)), "Conv").largest == 3 * 15


@pytest.mark.parametrize(("dtype", "bits"), [(np.float16, 11), (np.float32, 24), (np.float64, 53)])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_partial_sum_overflows_where_the_type_skips_integers(dtype, bits, beyond):
    largest = 2**bits - 1 + beyond
    name = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    # The type holds neither term's sum with the other where it overflows.
    constants = {"low": dtype(0), "high": dtype(1), "w": np.full((1, 1, 1, 1), largest - 3, dtype)}
    model = network(
        "r = Round (x) q = Clip (r, low, high) y = Conv (q, w, b)",
        inputs=f"{name}[N, 1, 4, 4] x",
        outputs=f"{name}[N, 1, 4, 4] y",
        weights={key: np.asarray(value) for key, value in constants.items()} | {"b": np.array([3], dtype)},
    )
    proof = proof_of(model)
    assert proof.bounds == [Bound("y", "Conv", largest, 2**bits)]
    assert bool(proof.overflowing) == bool(beyond) == (not proof.exact)
    assert proof.worst is not None and proof.worst.share == largest / 2**bits


def test_the_nearest_to_its_limit_is_the_worst():
    assert proof_of(network("y = Relu (x)")).worst is None
    model = on_codes("a = Conv (q, w) b = Clip (a, low, high) y = Conv (b, v)",
                     w=whole_numbers(2, 2, 1, 1), v=whole_numbers(2, 2, 1, 1, most=900))  # fmt: skip
    worst = proof_of(model).worst
    assert worst is not None and worst.name == "y"


FLOATS = np.full((2, 2, 1, 1), 0.3, np.float32)
WHOLE = np.full((2, 2, 1, 1), 3, np.float32)
ISLANDS = {
    "a convolution in front": ("a = Conv (x, w) y = Conv (a, w)", {"a": "it sums floats"}),
    "floats as weights": ("y = Conv (q, f)", {"y": "its weights are not integers"}),
    "floats as bias": ("y = Conv (q, w, halves)", {"y": "its bias is not an integer"}),
    "softmax": ("y = Softmax (q)", {"y": "Softmax computes floats whose bits are not settled"}),
    "a factor that is folded": (
        "a = Conv (q, w) y = Mul (a, half)",
        {"y": "onnxruntime may fold it into Conv 'a', whose numbers are then not integers"},
    ),
    "a summand that is folded": (
        "a = Conv (q, w) b = Add (a, one) y = Sub (b, half)",
        {"y": "onnxruntime may fold it into Conv 'a', whose numbers are then not integers"},
    ),
    "floats that a kernel may start from": (
        "a = Conv (q, w) p = Mul (q, half) y = Add (a, p)",
        {"y": "onnxruntime may fold it into Conv 'a', whose numbers are then not integers"},
    ),
    "a divisor that is inverted": (
        "a = MatMul (q, square) y = Div (a, three)",
        {"y": "onnxruntime may fold it into MatMul 'a', whose numbers are then not integers"},
    ),
    "a mean of nine": (
        "y = AveragePool <kernel_shape = [3, 3]> (q)",
        {"y": "it divides by 9, which is no power of two"},
    ),
    "a mean at the border": (
        "y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (q)",
        {"y": "its divisor may differ at the border"},
    ),
    "a factor of a product": (
        "p = Flatten (q) a = Gemm <alpha = 0.5> (p, rows) y = Reshape (a, shape)",
        {"a": "it has a transA, alpha or beta of its own"},
    ),
    "a sum over the batch": (
        "y = ReduceSum <keepdims = 1> (q, first)",
        {"y": "it is not known how many numbers it sums"},
    ),
    "a sum over computed axes": (
        "p = Shape (q) o = Slice (p, from, to) y = ReduceSum <keepdims = 1> (q, o)",
        {"y": "it is not known how many numbers it sums"},
    ),
    "a sum over axes that may be none": (
        "y = ReduceSum <noop_with_empty_axes = 1> (q)",
        {"y": "it is not known how many numbers it sums"},
    ),
    "a mean over the batch": ("y = ReduceMean (q, first)", {"y": "it is not known how many numbers it sums"}),
    "a product over the batch": (
        "p = Transpose <perm = [1, 2, 3, 0]> (q) o = Transpose <perm = [1, 2, 0, 3]> (q) y = MatMul (p, o)",
        {"y": "it is not known how many numbers it sums"},
    ),
    "a product of floats": ("y = MatMul (x, q)", {"y": "it sums floats"}),
    "a sum of floats": ("y = ReduceSum (x, first)", {"y": "it sums floats"}),
    "a sum of three": ("y = Sum (x, x, q)", {"y": "it sums floats"}),
    "a mean of floats": ("y = GlobalAveragePool (x)", {"y": "it sums floats"}),
    "computed rows": ("p = Flatten (q) y = Gemm <transB = 1> (p, p)", {"y": "its weights are not constants"}),
    "computed taps": ("v = Mul (w, q) y = ConvTranspose (q, v)", {"y": "its weights are not constants"}),
    "computed weights": ("v = Mul (w, q) y = Conv (q, v)", {"y": "its weights are not constants"}),
    "weights of other channels": ("a = Conv (q, w) y = Conv (a, narrow)", {"y": "its operands do not fit it"}),
    "a factor behind a reshape": (
        "a = MatMul (q, square) p = Reshape (a, shape) y = Mul (p, half)",
        {"y": "onnxruntime may fold it into MatMul 'a', whose numbers are then not integers"},
    ),
    "floats that are loose already": ("a = Conv (x, w) p = Relu (a) y = Conv (p, w)", {"a": "it sums floats"}),
    "interpolation": ('y = Resize <mode = "linear"> (q, , twice)', {"y": "it interpolates"}),
}
ISLAND_WEIGHTS = {
    "w": WHOLE,
    "f": FLOATS,
    "halves": np.full(2, 0.5, np.float32),
    "half": 0.5,
    "one": 1.0,
    "three": 3.0,
    "square": whole_numbers(4, 4),
    "rows": whole_numbers(32, 3),
    "first": np.array([0]),
    "from": np.array([1]),
    "to": np.array([2]),
    "narrow": whole_numbers(2, 3, 1, 1),
    "shape": np.array([-1, 3, 1, 1]),
    "twice": np.array([1, 1, 2, 2], np.float32),
}


def used(nodes: str, weights: dict[str, Any]) -> dict[str, Any]:
    words = nodes.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: value for name, value in weights.items() if name in words}


@pytest.mark.parametrize("case", ISLANDS)
def test_an_island_is_named_with_its_reason(case):
    nodes, islands = ISLANDS[case]
    proof = proof_of(on_codes(nodes, **used(nodes, ISLAND_WEIGHTS)))
    assert proof.islands == islands
    assert proof.outputs == {"y": frozenset(islands)}
    assert not proof.exact


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Conv (q, w) b = Round (a) y = Mul (b, half)",
        "a = Conv (q, w) b = Round (a) y = Add (b, half)",
        "a = Conv (q, w) y = Div (a, three)",
        "a = MatMul (q, square) b = Round (a) y = Div (b, three)",
        "a = Conv (q, w) y = Mul (a, three)",
        "y = AveragePool <kernel_shape = [2, 2]> (q)",
        "y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1> (q)",
        "y = GlobalAveragePool (q)",
    ],
)
def test_what_no_optimiser_touches_is_none(nodes):
    proof = proof_of(on_codes(nodes, **used(nodes, ISLAND_WEIGHTS)))
    assert proof.exact and not proof.islands


@pytest.mark.parametrize(
    ("nodes", "exact"),
    [
        ("a = Conv (q, w) y = Mul (a, part)", False),
        ("a = Conv (q, w) b = Round (a) y = Mul (b, part)", True),
        ("a = Conv (q, w) y = Div (a, part)", True),
        ("a = Conv (q, w) b = Round (a) p = Mul (q, part) y = Add (b, p)", True),
        ("a = MatMul (q, square) y = Div (a, part)", False),
        ("a = MatMul (q, square) b = Round (a) y = Div (b, part)", True),
        ("m = Add (q, part) a = Div (one, m) y = Mul (a, x)", False),
        ("m = Add (q, part) a = Div (part, m) y = Mul (a, x)", True),
    ],
)
def test_onnxruntime_folds_what_is_said_to_be_folded(nodes, exact):
    """Its optimiser changes bits there, and nowhere else."""
    weights = {"w": whole_numbers(2, 2, 1, 1, most=99), "square": whole_numbers(4, 4, most=99), "part": 0.3, "one": 1.0}
    model = on_codes(nodes, high=4095, **used(nodes, weights))
    x = np.random.default_rng(0).uniform(0, 200, (64, 2, 4, 4)).astype(np.float32)
    plain, optimised = (run(model, x, optimised)["y"] for optimised in (False, True))
    assert np.array_equal(plain, optimised) == proof_of(model).exact == exact


@pytest.mark.parametrize(
    ("nodes", "output"),
    [
        ("y = Concat <axis = 1> (q, x)", "float"),
        ("e = Less (x, half) y = Where (e, q, x)", "float"),
        ("y = Max (q, half)", "float"),
        ("y = Min (x, q)", "float"),
        ("y = Clip (q, half, three)", "float"),
        ("y = Pad (q, pads, half)", "float"),
        ("y = Mul (q, half)", "float"),
        ("y = Sub (x, q)", "float"),
        ("i = Cast <to = 7> (q) y = Mod (i, from)", "int64"),
        # Rounded once.
        ("p = Mul (q, much) y = Mul (p, much)", "float"),
    ],
)
def test_single_operations_give_floats_that_are_the_same_everywhere(nodes, output):
    more = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "much": 1101.0}
    proof = proof_of(on_codes(nodes, output=output, **used(nodes, ISLAND_WEIGHTS | more)))
    assert proof.tensors["y"].value is Float.FIXED
    assert proof.exact


def test_integer_types_have_limits_of_their_own():
    proof = proof_of(on_codes("i = Cast <to = 6> (q) y = Add (i, i)", output="int32"))
    assert proof.bounds == [Bound("y", "Add", 30, 2**31)]
    (floats,) = proof_of(on_codes("i = Cast <to = 10> (q) y = Add (i, i)", output="float16")).bounds
    assert floats.limit == 2**11


def test_a_sum_over_all_axes_counts_every_number():
    model = on_codes("y = ReduceSum (q)")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    assert bound(proof_of(model), "ReduceSum").largest == 3 * 2 * 4 * 4 * 15


def test_codes_behind_an_island_are_bounded_and_not_exact():
    nodes = "a = Conv (x, f) b = Round (a) c = Clip (b, low, high) d = Conv (c, w) e = Round (d) y = Mul (e, half)"
    proof = proof_of(on_codes(nodes, **used(nodes, ISLAND_WEIGHTS)))
    assert proof.bounds == [Bound("d", "Conv", 6 * 15, LIMIT)]
    assert proof.islands == {"a": "it sums floats"}
    assert proof.outputs == {"y": frozenset({"a"})} and not proof.exact


def test_islands_beside_an_output_leave_it_exact():
    model = on_codes("y = Conv (q, w) z = Softmax (q)", w=WHOLE)
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    proof = proof_of(model)
    assert proof.outputs == {"y": frozenset(), "z": frozenset({"z"})}
    assert not proof.exact
    del model.graph.output[1]
    assert proof_of(model).exact


def test_bodies_are_islands():
    branches = "<then_branch = t () => (float v) { v = Relu (q) }, else_branch = e () => (float u) { u = Neg (q) }>"
    proof = proof_of(on_codes(f"c = Cast <to = 9> (flag) y = If (c) {branches}", flag=1.0))
    assert proof.islands == {"y": "its bodies are not examined"}


def test_sizes_do_not_descend_from_islands():
    proof = proof_of(on_codes("a = Conv (x, f) p = Shape (a) y = Reshape (q, p)", f=FLOATS))
    assert list(proof.islands) == ["a"]
    assert proof.exact


def test_what_is_added_to_a_product_counts_as_its_terms():
    weights = np.array([5, -5], np.float32).reshape(1, 2, 1, 1)
    nodes = "a = Conv (q, w) y = Add (a, less)"
    proof = proof_of(on_codes(nodes, w=weights, less=np.full((1, 1, 1), -75, np.float32)))
    # The values are at most 0, a partial sum of the Conv with that bias at most 75 above zero and 150 below.
    assert bound(proof, "Add").largest == 150 and bound(proof, "Conv").largest == 75
    raised = proof_of(on_codes(nodes, w=weights, less=np.full((1, 1, 1), -7, np.float32)))
    assert bound(raised, "Add").largest == 5 * 15 + 7


def test_a_factor_behind_a_product_counts_as_folded():
    weights = np.array([[5, -5], [1, 0]], np.float32).reshape(2, 2, 1, 1)
    factors = np.array([-3, 2], np.float32).reshape(2, 1, 1)
    assert bound(proof_of(on_codes("a = Conv (q, w) y = Mul (a, f)", w=weights, f=factors)), "Mul").largest == 225


def test_a_residual_sum_is_the_sum_of_both():
    nodes = "a = Conv (q, w) b = Mul (q, n) y = Add (a, b)"
    weights = np.array([[2, 0], [0, -2]], np.float32).reshape(2, 2, 1, 1)
    proof = proof_of(on_codes(nodes, w=weights, n=np.array([3, 5], np.float32).reshape(2, 1, 1)))
    assert bound(proof, "Add").largest == max(2 * 15 + 3 * 15, 5 * 15)
    assert proof.exact


# Of each operator, from codes `q` [N, 4, 4, 4] to `y`.
NODES = {
    "Abs": "y = Abs (q)",
    "Add": "a = Conv (q, w, b) y = Add (a, q)",
    "And": "g = Greater (q, two) l = Less (q, five) y = And (g, l)",
    "ArgMax": "y = ArgMax <axis = 1> (q)",
    "ArgMin": "y = ArgMin <axis = 1> (q)",
    "AveragePool": "y = AveragePool <kernel_shape = [2, 2], pads = [1, 0, 1, 0], count_include_pad = 1> (q)",
    "Cast": "i = Cast <to = 6> (s) j = Cast <to = 1> (i) y = Clip (j, low, high)",
    "Ceil": "m = AveragePool <kernel_shape = [2, 2]> (q) y = Ceil (m)",
    "Clip": "d = Mul (q, two) y = Clip (d, low, five)",
    "Concat": "n = Neg (q) y = Concat <axis = 1> (q, n)",
    "Constant": "y = Constant <value_floats = [1.5]> ()",
    "ConstantOfShape": "h = Shape (q) y = ConstantOfShape (h)",
    "Conv": "y = Conv <pads = [1, 1, 1, 1], group = 2> (q, grouped, b)",
    "ConvTranspose": "y = ConvTranspose <strides = [2, 2], group = 2> (q, transposed, of_six)",
    "DepthToSpace": "y = DepthToSpace <blocksize = 2> (q)",
    "Div": "y = Div (q, two)",
    "Dropout": "y = Dropout (q)",
    "Equal": "e = Equal (q, two) y = Cast <to = 1> (e)",
    "Expand": "m = ReduceMax <keepdims = 1> (q, axes) y = Expand (m, wide)",
    "Flatten": "y = Flatten (q)",
    "Floor": "m = AveragePool <kernel_shape = [2, 2]> (q) y = Floor (m)",
    "Gather": "y = Gather <axis = 1> (q, indices)",
    "Gemm": "f = Flatten (q) y = Gemm <transB = 1> (f, G, b)",
    "GlobalAveragePool": "y = GlobalAveragePool (q)",
    "GlobalMaxPool": "a = Conv (q, w, b) y = GlobalMaxPool (a)",
    "Greater": "e = Greater (q, two) y = Cast <to = 1> (e)",
    "GreaterOrEqual": "e = GreaterOrEqual (q, two) y = Cast <to = 1> (e)",
    "Identity": "y = Identity (q)",
    "LeakyRelu": "y = LeakyRelu (q)",
    "Less": "e = Less (q, two) y = Cast <to = 1> (e)",
    "LessOrEqual": "e = LessOrEqual (q, two) y = Cast <to = 1> (e)",
    "MatMul": "p = MatMul (q, M) t = Transpose <perm = [0, 1, 3, 2]> (p) y = MatMul (p, t)",
    "Max": "n = Neg (q) y = Max (q, n, two)",
    "MaxPool": "a = Conv (q, w, b) y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)",
    "Min": "n = Neg (q) y = Min (q, n)",
    "Mul": "a = Conv (q, w, b) m = Mul (a, factors) y = Mul (m, q)",
    "Neg": "a = Conv (q, w, b) y = Neg (a)",
    "Not": "e = Less (q, two) n = Not (e) y = Cast <to = 1> (n)",
    "Or": "g = Greater (q, two) l = Less (q, five) y = Or (g, l)",
    "Pad": "y = Pad (q, pads, two)",
    "Range": "y = Range (two, five, one)",
    "ReduceMax": "y = ReduceMax <keepdims = 0> (q, axes)",
    "ReduceMean": "y = ReduceMean (q, axes)",
    "ReduceMin": "y = ReduceMin <keepdims = 0> (q, axes)",
    "ReduceSum": "y = ReduceSum <keepdims = 0> (q, axes)",
    "Relu": "a = Conv (q, w, b) y = Relu (a)",
    "Reshape": "a = Conv (q, w, b) y = Reshape (a, rows)",
    "Resize": 'y = Resize <mode = "nearest"> (q, , twice)',
    "Round": "m = AveragePool <kernel_shape = [2, 2]> (q) y = Round (m)",
    "Shape": "y = Shape (q)",
    "Sign": "y = Sign (q)",
    "Size": "y = Size (q)",
    "Slice": "a = Conv (q, w, b) y = Slice (a, from, to, from)",
    "SpaceToDepth": "y = SpaceToDepth <blocksize = 2> (q)",
    "Split": "a = Conv (q, w, b) y, z = Split <axis = 1, num_outputs = 2> (a)",
    "Squeeze": "m = ReduceMax <keepdims = 1> (q, axes) y = Squeeze (m, axes)",
    "Sub": "a = Conv (q, w, b) y = Sub (q, a)",
    "Sum": "a = Conv (q, w, b) y = Sum (q, a, factors)",
    "Tile": "y = Tile (q, repeats)",
    "Transpose": "a = Conv (q, w, b) y = Transpose <perm = [0, 2, 1, 3]> (a)",
    "Unsqueeze": "y = Unsqueeze (q, from)",
    "Where": "e = Less (q, two) n = Neg (q) y = Where (e, n, five)",
    "Xor": "g = Greater (q, two) l = Less (q, five) y = Xor (g, l)",
}
NODE_WEIGHTS = {
    "w": whole_numbers(4, 4, 1, 1),
    "grouped": whole_numbers(4, 2, 3, 3),
    "transposed": whole_numbers(4, 3, 3, 3),
    "of_six": whole_numbers(6),
    "b": whole_numbers(4, seed=1),
    "G": whole_numbers(4, 64),
    "M": whole_numbers(4, 4),
    "factors": np.array([-3, 1, 0, 2], np.float32).reshape(4, 1, 1),
    "one": 1.0,
    "two": 2.0,
    "five": 5.0,
    "axes": np.array([2, 3]),
    "wide": np.array([1, 1, 4, 4]),
    "indices": np.array([0, 2]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "rows": np.array([0, -1]),
    "from": np.array([1]),
    "to": np.array([3]),
    "repeats": np.array([1, 2, 1, 1]),
    "twice": np.array([1, 1, 2, 2], np.float32),
}


def run(model: onnx.ModelProto, x: np.ndarray, optimised: bool = True) -> dict[str, np.ndarray]:
    """All outputs in onnxruntime, with its optimiser and without."""
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    runtime = session(model, options=options)
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, {"x": x}), strict=True))


def every_value(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """All that its nodes give."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    network_ = load(model)
    outputs = {info.name for info in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output):
        if name not in outputs:
            element = onnx.helper.np_dtype_to_tensor_dtype(network_.dtypes[name])
            exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
    return run(exposed, x, optimised=False)


def require_within(known: Known, value: np.ndarray) -> None:
    """A tensor has the rows and the means that it is said to have."""
    whole = known.value
    if not isinstance(whole, Whole):
        return
    wide = value.astype(np.float64)
    means = wide.reshape(known.steps, -1, *wide.shape[1:]).mean(axis=0) if known.steps > 1 else wide
    for span, values in ((whole.rows, wide), (whole.mean, means)):
        assert (span.low <= values).all() and (values <= span.high).all()
        assert np.broadcast_shapes(span.low.shape, values.shape) == values.shape
        multiples = values * span.grain.denominator / max(span.grain.numerator, 1)
        assert (multiples == np.round(multiples)).all()


@pytest.mark.parametrize(("low", "high"), [(-7, 15), (3, 9)])
@pytest.mark.parametrize("op_type", RULES)
def test_values_are_what_they_are_said_to_be(op_type, low, high):
    nodes = NODES[op_type]
    output = {"bool": ("And", "Or", "Xor"), "int64": ("ArgMax", "ArgMin", "Shape", "Size")}
    element = next((name for name, op_types in output.items() if op_type in op_types), "float")
    model = on_codes(nodes, low, high, channels=4, output=element, **used(nodes, NODE_WEIGHTS))
    proof = proof_of(model)
    assert any(node.op_type == op_type for node in model.graph.node)
    x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 4)).astype(np.float32)
    for name, value in every_value(model, x).items():
        require_within(proof.tensors[name], value)
    assert proof.exact


# Nobody asks for the integers of these.
NEVER_WHOLE = {"ArgMax", "ArgMin", "Constant", "ConstantOfShape", "Div", "LeakyRelu", "Range", "Shape", "Sign", "Size"}


@pytest.mark.parametrize("op_type", sorted(RULES.keys() - NEVER_WHOLE))
def test_integers_stay_integers(op_type):
    nodes = NODES[op_type]
    element = "bool" if op_type in ("And", "Or", "Xor") else "float"
    proof = proof_of(on_codes(nodes, low=-7, channels=4, output=element, **used(nodes, NODE_WEIGHTS)))
    known = proof.tensors["y"].value
    assert isinstance(known, Whole) and known.rows.bounded
    assert known.rows.grain.denominator == 1 or op_type in ("AveragePool", "GlobalAveragePool", "ReduceMean")


def test_places_of_maxima_are_no_values():
    proof = proof_of(on_codes("y, i = MaxPool <kernel_shape = [2, 2]> (q)", high=3))
    assert isinstance(proof.tensors["y"].value, Whole)
    assert proof.tensors["i"].value is Float.FIXED


# A name for each way in which trains of a first layer of neurons carry codes of the second's: low, high, coding, T.
CODED = {
    "rate": (0, 4, "rate", 4),
    "rate, signed": (-4, 4, "rate", 4),
    "radix of 4": (0, 15, "radix", 4),
    "radix of 4, signed": (-15, 15, "radix", 4),
    "radix of 6": (0, 63, "radix", 6),
    "radix of 6, signed": (-63, 63, "radix", 6),
}
LAYERS = """
    a = Conv <pads = [1, 1, 1, 1]> (q, w, b) d = Div (a, size) h = Add (d, half) f = Floor (h) k = Clip (f, low, high)
    e = Conv <pads = [1, 1, 1, 1]> (k, v, c) m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (k)
    g = Mul (k, factors) j = Add (e, g) i = Round (j) y = Mul (i, tenth)
    l = Conv (m, u) z = Round (l)
"""


def two_layers(low: int, high: int, bias: int = 12, nodes: str = LAYERS, **changed: Any) -> onnx.ModelProto:
    weights = {
        "w": whole_numbers(3, 2, 3, 3),
        "b": whole_numbers(3),
        "size": np.array([1.7, 2.9, 3.3], np.float32).reshape(3, 1, 1),
        "half": 0.5,
        "v": whole_numbers(3, 3, 3, 3, seed=1),
        "c": np.full(3, bias, np.float32),
        "u": whole_numbers(2, 3, 1, 1, seed=2),
        "factors": np.array([3, 1, 2], np.float32).reshape(3, 1, 1),
        "tenth": 0.1,
    }
    model = on_codes(nodes, low, high, **used(nodes, weights | changed))
    if nodes != LAYERS:
        return model
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 2, 2, 2]))
    return model


def pictures(count: int = 5) -> np.ndarray:
    """Some that reach beyond the codes, and two of extremes."""
    x = np.random.default_rng(0).uniform(-4, 4, (count, 2, 4, 4)).astype(np.float32)
    x[0], x[1] = 9, -9
    return x


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("case", CODED)
def test_a_spiking_network_of_integers_is_exact(case, mode):
    low, high, coding, _ = CODED[case]
    source = two_layers(low, high)
    spiking = rewrite(source, mode=mode, coding=coding).model
    proof = proof_of(spiking)
    assert proof.exact and proof_of(source).exact and not proof.islands
    for name, value in every_value(spiking, pictures()).items():
        require_within(proof.tensors[name], value)
    for name in ("y", "z"):
        value = run(source, pictures())[name]
        assert np.array_equal(value, run(spiking, pictures())[name])
        assert np.array_equal(value[:1], run(spiking, pictures()[:1], optimised=False)[name])


@pytest.mark.parametrize("case", CODED)
def test_rows_of_trains_are_bounded_in_units_of_their_smallest_spike(case):
    low, high, coding, steps = CODED[case]
    v = whole_numbers(3, 3, 3, 3, seed=1)
    proof = proof_of(rewrite(two_layers(low, high, v=v), mode="parallel", coding=coding).model)
    (row,) = [one for one in proof.bounds if one.name.startswith("e")]
    # A spike is worth T·2^(T−t), or S: in units of the power of two in T.
    unit = steps & -steps
    spike = (steps * 2 ** (steps - 1) if coding == "radix" else high) // unit
    most = np.maximum(v, 0).sum(axis=(1, 2, 3)), np.maximum(-v, 0).sum(axis=(1, 2, 3))
    above, below = (spike * sums for sums in most) if not low else [spike * sum(most)] * 2
    assert row.largest == max((above + 12 // unit).max(), below.max())


def test_a_bias_that_is_no_multiple_of_a_spike_costs_bits():
    def largest(bias: int) -> float:
        proof = proof_of(rewrite(two_layers(0, 15, bias), coding="radix").model)
        return next(one.largest for one in proof.bounds if one.name.startswith("e"))

    # Spikes are worth 4, 8, 16 and 32; nothing above zero comes to what is below it.
    assert largest(1) == 4 * largest(4)


def test_means_of_rows_are_bounded_by_levels():
    proof = proof_of(rewrite(two_layers(0, 63), coding="radix").model)
    v = whole_numbers(3, 3, 3, 3, seed=1)
    mean = proof.tensors["j"].value
    assert isinstance(mean, Whole)
    above = 63 * np.maximum(v, 0).sum(axis=(1, 2, 3)) + 12 + 63 * np.array([3, 1, 2])
    assert mean.rows.high.reshape(-1).tolist() == above.tolist()
    assert mean.rows.grain == 1


def test_means_of_joined_trains_are_bounded_by_levels():
    weights = np.ones((2, 6, 1, 1), np.float32)
    layers = LAYERS.split("e =")[0] + "p = Concat <axis = 1> (k, k) o = Conv (p, u) y = Round (o)"
    spiking = rewrite(two_layers(0, 15, nodes=layers, u=weights), coding="radix").model
    mean = proof_of(spiking).tensors["o"].value
    assert isinstance(mean, Whole) and mean.rows.high.max() == 6 * 15


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_channels_have_levels_of_their_own(mode):
    layers = LAYERS.split("e =")[0] + "g = Mul (k, factors) o = Conv (g, u) y = Round (o)"
    spiking = rewrite(two_layers(0, 15, nodes=layers, u=np.ones((2, 3, 1, 1), np.float32)), mode=mode).model
    proof = proof_of(spiking)
    levels = proof.tensors[
        next(node for node in spiking.graph.node if node.op_type == "Conv" and "u" in node.input).input[0]
    ]
    assert isinstance(levels.value, Whole)
    assert levels.value.mean.high.reshape(-1).tolist() == [3 * 15, 15, 2 * 15]
    mean = proof.tensors["o"].value
    assert isinstance(mean, Whole) and mean.rows.high.max() == 6 * 15


@pytest.mark.parametrize(("case", "exact"), [("radix of 4", True), ("radix of 6", False)])
def test_of_what_does_not_commute_with_the_mean_rows_alone_are_known(case, exact):
    """Whatever stands behind the trains: their squares have larger means than levels have squares."""
    low, high, coding, steps = CODED[case]
    model = rewrite(two_layers(low, high, 1), coding=coding).model
    outputs = {"square_mean": "square", "absolute_mean": "absolute"}
    nodes = [
        onnx.helper.make_node("Mul", ["k/steps", "k/steps"], ["square"]),
        onnx.helper.make_node("Abs", ["e/steps"], ["absolute"]),
        *(
            onnx.helper.make_node("TemporalMean", [rows], [name], domain="pconv", steps=steps)
            for name, rows in outputs.items()
        ),
    ]
    model.graph.node.extend(nodes)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, [None, 3, 4, 4]) for name in outputs)
    proof = proof_of(model)
    for name, value in every_value(model, pictures()).items():
        require_within(proof.tensors[name], value)
    assert proof.exact
    # A mean of six is a third of something, too.
    assert isinstance(proof.tensors["square_mean"].value, Whole)
    assert isinstance(proof.tensors["absolute_mean"].value, Whole) == exact


def test_time_is_summed_in_a_wider_type():
    limits = {one.op_type: one.limit for one in proof_of(rewrite(two_layers(0, 15), coding="radix").model).bounds}
    assert limits == {"Conv": LIMIT, "Add": LIMIT, "Mul": LIMIT, "ParallelSpike": 2**53, "TemporalMean": 2**53}


def test_running_means_are_the_same_everywhere():
    model = on_codes("y = Conv (q, w)", 0, 4, w=WHOLE)
    proof = proof_of(rewrite(model, coding="rate", per_step_outputs=True).model)
    assert len(proof.outputs) == 2
    assert proof.exact


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_neurons_whose_levels_are_no_integers_make_the_next_layer_an_island(mode):
    nodes = f"{CODES} {qcfs('q', 'k')} y = Conv (k, w)"
    model = network(nodes, inputs="float[N, 2, 4, 4] x", outputs="float[N, 2, 4, 4] y",
                    weights={"step": 0.05, "low": 0.0, "high": 15.0, "w": WHOLE, "theta": 1.5})  # fmt: skip
    proof = proof_of(rewrite(model, mode=mode).model)
    assert list(proof.islands.values()) == ["it sums floats"]
    assert not proof.exact


def test_neurons_do_not_hide_an_island_before_them():
    model = two_layers(0, 15)
    nodes = {node.output[0]: node for node in model.graph.node}
    nodes["a"].input[0] = "x"
    proof = proof_of(rewrite(model, coding="radix").model)
    assert list(proof.islands.values()) == ["it sums floats"]
    assert proof.outputs == {name: frozenset(proof.islands) for name in ("y", "z")}
    assert not proof.exact and not proof.overflowing


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_order_of_a_sum_leaves_its_bound(data):
    """And some reaches it, where codes take their extremes."""
    groups, inputs, outputs = (data.draw(st.integers(1, 3)) for _ in range(3))
    low, high = data.draw(st.integers(-9, 0)), data.draw(st.integers(1, 9))
    factor = data.draw(st.sampled_from([1, 2, 12]))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weights = factor * generator.integers(-9, 10, (groups * outputs, inputs, 4, 4)).astype(np.float32)
    bias = factor * generator.integers(-99, 100, groups * outputs).astype(np.float32)
    nodes = f"y = Conv <group = {groups}> (q, w, b)"
    proof = proof_of(on_codes(nodes, low, high, channels=groups * inputs, w=weights, b=bias))
    rows = weights.reshape(groups * outputs, -1)
    highest, lowest = (np.where(rows > 0, *ends) * rows for ends in ((high, low), (low, high)))
    largest = 0.0
    for products in (highest, lowest, generator.integers(low, high + 1, rows.shape) * rows):
        terms = np.concatenate([products, bias[:, np.newaxis]], axis=1)
        orders = np.sort(terms), -np.sort(-terms), *(generator.permuted(terms, axis=1) for _ in range(5))
        largest = max(largest, *(float(abs(np.cumsum(order, axis=1)).max()) for order in orders))
    shared = int(np.gcd.reduce(np.concatenate([rows.reshape(-1), bias]).astype(np.int64)))
    (found,) = proof.bounds
    assert found.largest == largest / (shared & -shared)


def test_an_operator_of_another_domain_is_an_island_and_so_is_a_sum_of_unknown_type():
    model = on_codes("a = Identity (x) b = Round (a) c = Clip (b, low, high) d = Conv (c, w) y = Relu (d)", w=WHOLE)
    (node,) = [node for node in model.graph.node if node.output[0] == "a"]
    node.domain = "elsewhere"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    del model.graph.value_info[:]
    proof = proof_of(model)
    assert proof.islands == {
        "a": "Identity computes floats whose bits are not settled",
        "d": "its number type is not known",
    }
    assert proof.outputs == {"y": frozenset({"a", "d"})}
