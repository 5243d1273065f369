"""What is known before a run becomes constants, and the values stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from networks import network, qcfs
from onnx.reference import ReferenceEvaluator

from pconv_onnx import rewrite, session
from pconv_onnx.graph import Network, load
from pconv_onnx.graph.passes.folding import fold

X = (np.random.default_rng(0).integers(-8, 24, (5, 3, 8, 8)) / 8).astype(np.float32)
NUMBERS = {"zero_": np.array(0), "one_": np.array(1), "at1": np.array([1]), "two_": np.array(2), "at2": np.array([2]),
           "minus": np.array([-1]), "at0": np.array([0])}  # fmt: skip
MORE = {
    "three_": np.array([3]),
    "four_": np.array([4]),
    "square": np.array([2, 2]),
    "least": np.array([np.iinfo(np.int64).min]),
}

COMPUTED = {
    # what is computed, the nodes, and the value that tensor k then has
    "gather": ("s = Shape (x) k = Gather (s, at1)", [3]),
    "scalar gather": ("s = Shape (x) g = Gather (s, two_) k = Unsqueeze (g, at0)", [8]),
    "negative index": ("s = Shape (x) k = Gather (s, minus)", [8]),
    "slice": ("s = Shape (x) k = Slice (s, at2, four_)", [8, 8]),
    "slice of slice": ("s = Shape <start = 1> (x) k = Slice (s, at0, at2, at0, at2)", [3]),
    "shape of a part": ("k = Shape <start = 1, end = 3> (x)", [3, 8]),
    "arithmetic": ("s = Shape (x) g = Gather (s, two_) h = Add (g, one_) d = Div (h, two_) m = Mul (d, two_)"
                   " n = Sub (m, one_) k = Unsqueeze (n, at0)", [7]),
    "casts": ("s = Shape (x) c = Cast <to = 6> (s) d = Cast <to = 7> (c) k = Gather (d, at2)", [8]),
    "concat": ("s = Shape (x) g = Gather (s, at1) h = Gather (s, at2) k = Concat <axis = 0> (g, h, minus)", [3, 8, -1]),
    "concat of constants": ("k = Concat <axis = 0> (at2, minus, at1)", [2, -1, 1]),
    "reversed and transposed": ("c = Concat <axis = 0> (at2, minus, at1, at0) r = Reshape (c, square)"
                                " v = Slice (r, minus, least, at0, minus) t = Transpose <perm = [1, 0]> (v)"
                                " k = Reshape (t, minus)", [1, 2, 0, -1]),
    "remainder": ("k = Mod (minus, three_)", [2]),
    "remainder of its own sign": ("k = Mod <fmod = 1> (minus, three_)", [-1]),
    "every second": ("c = Concat <axis = 0> (at2, minus, at1) k = Slice (c, at0, four_, at0, at2)", [2, 1]),
    "choice of constants": ("c = Concat <axis = 0> (at2, minus) e = Equal (c, minus) k = Where (e, at1, c)", [2, 1]),
    # As TorchScript writes x.expand(-1, 3, 8): the batch is none of them.
    "choice": ("s = Shape (x) g = Gather (s, at1) h = Gather (s, at2) c = Concat <axis = 0> (minus, g, h)"
               " r = Reshape (c, minus) e = Equal (r, minus) k = Where (e, at1, r)", [1, 3, 8]),
    "squeeze": ("s = Shape (x) g = Gather (s, at1) q = Squeeze (g) k = Unsqueeze (q, at0)", [3]),
}  # fmt: skip


def constants(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {
        node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t).tolist()
        for node in model.graph.node
        if node.op_type == "Constant"
    }


@pytest.mark.parametrize("case", COMPUTED)
def test_a_size_that_shapes_tell_becomes_a_constant(case):
    nodes, expected = COMPUTED[case]
    weights = {name: value for name, value in (NUMBERS | MORE).items() if name in nodes}
    model = network(nodes + " y = Cast <to = 1> (k)", outputs="float[K] y", weights=weights)
    result = fold(load(model)).proto
    onnx.checker.check_model(result, full_check=True)
    assert constants(result)["k"] == expected
    np.testing.assert_array_equal(*(ReferenceEvaluator(m).run(None, {"x": X})[0] for m in (model, result)))


@pytest.mark.parametrize(
    "nodes", ["s = Shape (x) k = Gather (s, at0)", "k = Shape (x)", "s = Size (x) k = Unsqueeze (s, at0)"]
)
def test_a_size_that_depends_on_the_batch_stays_computed(nodes):
    weights = {"at0": NUMBERS["at0"]} if "at0" in nodes else {}
    model = network(nodes + " y = Cast <to = 1> (k)", outputs="float[K] y", weights=weights)
    assert fold(load(model)).proto == model


def test_what_can_be_inferred_then_is_inferred():
    """A Slice by computed bounds has no shape until they are known; what follows needs it."""
    nodes = """
        s = Shape (x) g = Gather (s, at2) d = Div (g, at2) h = Slice (x, at0, d, at2)
        t = Shape (h) k = Gather (t, at2) y = Cast <to = 1> (k)
    """
    weights = {name: NUMBERS[name] for name in ("at0", "at2")}
    network_ = fold(load(network(nodes, outputs="float[K] y", weights=weights)))
    assert network_.shapes["h"][2] == 4
    assert constants(network_.proto)["k"] == [4]


def test_numbers_from_zero_on_are_as_many_as_they_count():
    nodes = """
        s = Shape (x) g = Gather (s, zero_) r = Range (zero_, g, one_) h = Range (one_, g, one_) c = Cast <to = 1> (r)
        d = Cast <to = 1> (h) y = Concat <axis = 0> (c, d)
    """
    weights = {name: NUMBERS[name] for name in ("zero_", "one_")}
    shapes = fold(load(network(nodes, outputs="float[K] y", weights=weights))).shapes
    assert shapes["r"] == ("N",) and shapes["h"] != ("N",)


def test_halves_of_channels_by_computed_bounds_stay_in_time():
    """As TorchScript exports `x.chunk(2, 1)` with an open batch."""
    nodes = qcfs("x", "s") + """
        n = Shape (s) g = Gather (n, at1) a = Add (g, at1) d = Div (a, at2) e = Mul (d, at2)
        l = Slice (s, at0, d, at1) r = Slice (s, d, e, at1) c = Concat <axis = 1> (r, l) y = GlobalAveragePool (c)
    """  # fmt: skip
    weights = {name: NUMBERS[name] for name in ("at0", "at1", "at2")}
    model = network(nodes, outputs="float[N, 3, 1, 1] y", weights=weights)
    result = rewrite(model)
    assert "Shape" not in {node.op_type for node in result.model.graph.node}
    assert type(result.plan.kinds["y"]).__name__ == "Current"
    np.testing.assert_array_equal(
        session(result.model).run(None, {"x": X})[0], ReferenceEvaluator(model).run(None, {"x": X})[0]
    )


FOLDED = {
    "truncated division": ("k = Div (a, b)", {"a": np.array([-7, 7, 9]), "b": np.array([2, -2, 2])}, [-3, -3, 4]),
    "unsigned division": ("k = Div (a, b)", {"a": np.array([9], np.uint8), "b": np.array([2], np.uint8)}, [4]),
    "reciprocal": ("k = Reciprocal (a)", {"a": np.array([3], np.float32)}, [np.float32(1) / np.float32(3)]),
    "cast and arithmetic": ("c = Cast <to = 1> (a) d = Mul (c, b) k = Sub (d, b)",
                            {"a": np.array([3]), "b": np.array([0.1], np.float32)},
                            [np.float32(3) * np.float32(0.1) - np.float32(0.1)]),
    "square root": ("k = Sqrt (a)", {"a": np.array([2, 3], np.float32)}, np.sqrt(np.float32([2, 3])).tolist()),
    "quantised": ("q = QuantizeLinear (a, s, z) k = DequantizeLinear (q, s, z)",
                  {"a": np.array([6], np.float32), "s": np.float32(0.1), "z": np.array(3, np.uint8)},
                  [np.float32(60) * np.float32(0.1)]),
    "quantised half way": ("q = QuantizeLinear (a, s, z) k = DequantizeLinear (q, s, z)",
                           {"a": np.float32([-1.25]), "s": np.float32(0.5), "z": np.array(-3, np.int8)}, [-1]),
    "saturated": ("q = QuantizeLinear (a, s) k = DequantizeLinear (q, s)",
                  {"a": np.array([600], np.float32), "s": np.float32(0.5)}, [127.5]),
    "bounds": ("r = Relu (a) c = Clip (r, b) m = Max (c, a, b) n = Min (m, b1) f = Floor (n) g = Add (f, b)"
               " h = Round (g) k = Ceil (h)", {"a": np.float32([-1]), "b": np.float32(0.5), "b1": np.float32(4)}, [0]),
    "clip from above": ("k = Clip (a, , b)", {"a": np.array([3], np.float32), "b": np.float32(0.5)}, [0.5]),
    "filled": ("c = ConstantOfShape (a) d = ConstantOfShape <value = float {2.5}> (a) k = Sub (c, d)",
               {"a": np.array([2])}, [-2.5, -2.5]),
    "reshape": ("r = Reshape (a, b) k = Squeeze (r, b1)",
                {"a": np.array([1, 2], np.float32), "b": np.array([1, -1]), "b1": np.array([0])}, [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDED)
def test_what_is_computed_from_constants_in_one_way_only_is_a_constant(case):
    nodes, weights, expected = FOLDED[case]
    model = network(nodes + " c_ = Cast <to = 1> (k) y = Add (x, c_)", inputs="float[K] x", outputs="float[K] y",
                    weights=weights)  # fmt: skip
    result = folded_constants(model)
    assert result["k"] == expected
    x = np.zeros(len(expected), np.float32)
    np.testing.assert_array_equal(
        ReferenceEvaluator(fold(load(model)).proto).run(None, {"x": x})[0],
        ReferenceEvaluator(model).run(None, {"x": x})[0],
    )


def folded_constants(model: onnx.ModelProto) -> dict[str, list[float]]:
    return constants(fold(load(model)).proto)


@pytest.mark.parametrize(
    "nodes, weights",
    [
        ("k = Div (a, b)", {"a": np.array([1]), "b": np.array([0])}),
        ("k = Reshape (a, b)", {"a": np.ones(3, np.float32), "b": np.array([2])}),
        ("k = Reshape (a, b)", {"a": np.ones(3, np.float32), "b": np.array([3, 0, 0])}),
        ("k = Squeeze (a, b)", {"a": np.ones(3, np.float32), "b": np.array([0])}),
        ("k = Expand (a, b)", {"a": np.ones(1, np.float32), "b": np.array([200000, 200000])}),
        ("k = Expand (a, b)", {"a": np.ones(1, np.float32), "b": np.array([-1])}),
        ("k = ConstantOfShape (b)", {"b": np.array([200000, 200000])}),
        ("k = Exp (a)", {"a": np.ones(1, np.float32)}),
        ("k = Cast <to = 17> (a)", {"a": np.full(1, 1e6, np.float32)}),
        # Weights, which are quantised.
        ("k = QuantizeLinear (a, s)", {"a": np.ones(2, np.float32), "s": np.float32(0.5)}),
        ("k = DequantizeLinear (a, s)", {"a": np.ones(2, np.int8), "s": np.float32(0.5)}),
        # float16 is rounded by onnx's definition and by onnxruntime in two ways.
        ("k = QuantizeLinear (a, s)", {"a": np.ones(1, np.float16), "s": np.float16(0.1)}),
    ],
)
def test_what_has_no_one_value_stays_computed(nodes, weights):
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> test (float[N] x) => (float[N] y) {{ {nodes} y = Identity (x) }}'
    )
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    walk = fold(Network(model, "the model", ""))
    assert "k" not in constants(walk.proto)


def test_folding_takes_one_pass_however_constants_are_shared():
    """Each node reads the one before it twice: 2 to the power of 400 ways to it."""
    chain = "d0 = Identity (one) " + "".join(f"d{i + 1} = Add (d{i}, d{i}) " for i in range(60))
    chain += "".join(f"e{i + 1} = Mul ({f'e{i}' if i else 'd60'}, one) " for i in range(2000))
    model = network(chain + "y = Add (x, e2000)")
    assert folded_constants(model)["e2000"] == 2.0**60


def test_a_constant_of_the_type_of_a_value_does_not_read_the_value():
    """As exporters write bounds of a Clip; a CastLike that others use as well outlives the activation."""
    nodes = """
        a = Div (x, theta) b = Mul (a, count) h = CastLike (half, b) c = Add (b, h) d = Floor (c) e = Div (d, count)
        f = Clip (e, zero, one) s = Mul (f, theta) y = Add (s, h)
    """
    model = network(nodes)
    result = rewrite(model)
    assert result.summary()["counts"]["converted"] == 1
    onnx.checker.check_model(result.model, full_check=True)
    np.testing.assert_array_equal(
        session(result.model).run(None, {"x": X})[0], ReferenceEvaluator(model).run(None, {"x": X})[0]
    )


N = "n = Shape <end = 1> (x)"
MADE_TO_SIZE = {
    "resize": (f"{N} c = Concat <axis = 0> (n, to) k = Resize (x, , , c)", [3, 16, 4], ("N", 3, 16, 4)),
    "reshape": (f"{N} c = Concat <axis = 0> (n, to) k = Reshape (x, c)", [-1, 16], ("N", 12, 16)),
    "reshape to a vector": (f"{N} c = Concat <axis = 0> (n, to) p = Reshape (x, c) k = Reshape (p, minus)", [-1],
                            (None,)),
    "reshape of rows": (f"{N} c = Concat <axis = 0> (to, n) k = Reshape (x, c)", [16, -1], (16, 12, "N")),
    "reshape, zero": (f"{N} c = Concat <axis = 0> (n, to) k = Reshape (x, c)", [0, -1], ("N", 3, 64)),
    "expand": (f"{N} g = ReduceMax (x, last) c = Concat <axis = 0> (n, to) k = Expand (g, c)", [3, 1, 5],
               ("N", 3, 8, 5)),
    "expand a row": ("s = Shape (x) r = ReduceMax (x, first) k = Expand (r, s)", [0], ("N", 3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("case", MADE_TO_SIZE)
def test_shapes_of_what_is_made_to_computed_sizes(case):
    nodes, to, expected = MADE_TO_SIZE[case]
    weights = {"to": np.array(to), "last": np.array([3]), "first": np.array([0]), "minus": np.array([-1])}
    weights = {name: value for name, value in weights.items() if f" {name})" in nodes or f"({name}," in nodes}
    dims = ", ".join(f"K{axis}" for axis in range(len(expected)))
    model = network(f"{nodes} y = Neg (k)", outputs=f"float[{dims}] y", weights=weights)
    folded = fold(load(model))
    assert tuple(size if size == "N" or isinstance(size, int) else None for size in folded.shapes["k"]) == expected
    assert folded.dtypes["k"] == np.float32
    (value,) = ReferenceEvaluator(model).run(None, {"x": X})
    assert all(size in (None, "N", actual) for size, actual in zip(expected, value.shape, strict=True))


def test_an_output_that_declares_less_is_left_alone():
    nodes = f"{N} c = Concat <axis = 0> (n, to) y = Reshape (x, c)"
    model = network(nodes, outputs="float[K, L] y", weights={"to": np.array([-1])})
    folded = fold(load(model))
    assert folded.shapes["y"] == ("N", 192)
    assert folded.proto.graph.output == model.graph.output


@pytest.mark.parametrize(
    "nodes",
    [
        "g = Gather (s, zero_) k = Concat <axis = 0> (g, one_)",
        "g = Gather (s, zero_) c = Concat <axis = 0> (g, at1) k = Reshape (x, c)",
        "k = Add (s, at_two)",
        "k = Where (at_two, s, s)",
        "k = Gather (zero_, s)",
        "g = Gather (s, zero_) k = Gather (g, zero_)",
        "k = Slice (s, none, at1)",
        "k = Cast <to = 8> (s)",
    ],
)
def test_sizes_that_no_runtime_computes_are_left(nodes):
    weights = NUMBERS | {"at_two": np.array([1, 2]), "none": np.zeros(0, np.int64)}
    text = f"s = Shape (x) {nodes} y = Identity (k)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> test (float[N, 3, 8, 8] x) => (float[N, 3, 8, 8] y) {{ {text} }}'
    )
    model.graph.output[0].ClearField("type")
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    assert "k" not in constants(fold(load(model)).proto)


@pytest.mark.parametrize("node", ["com.microsoft.Gelu ()", "ImageScaler ()", "LayerNormalization ()"])
def test_operators_of_onnxruntime_that_take_nothing_are_left(node):
    text = f"k = {node} y = Relu (x)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> test (float[N, 3] x) => (float[N, 3] y) {{ {text} }}'
    )
    assert "k" not in fold(load(model)).shapes
