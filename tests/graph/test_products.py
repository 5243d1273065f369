"""Which operators are products, and which of them read what the network is given."""

from __future__ import annotations

import re

import numpy as np
import onnx.parser
import pytest
from networks import network, weight

from pconv_onnx.graph import load
from pconv_onnx.graph.fan_out import fan_out, total
from pconv_onnx.graph.products import prepared_inputs, products, uncounted

WEIGHTS = {
    "w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1), "m": weight(8, 8), "eps": np.float32(1e-5), "two": np.float32(2),
    "gain": np.ones(8, np.float32), "halves": np.array([4, 4]), "last": np.array([3]), "start": np.array([0]),
    "end": np.array([4]), "sizes": np.array([1, 1, 0.5, 0.5], np.float32), "axis": np.array([2]),
}  # fmt: skip


def loaded(nodes: str, **options):
    return load(network(nodes, weights={k: v for k, v in WEIGHTS.items() if re.search(rf"\b{k}\b", nodes)}, **options))


def found(nodes: str, **options) -> list[tuple[str, tuple[int, ...]]]:
    """Operators of the products, each with its computed operands."""
    return [(product.node.op, product.operands) for product in products(loaded(nodes, **options))]


ONES = {
    "convolution": ("y = Conv (x, w)", [("Conv", (0,))]),
    "matrix from the right": ("y = MatMul (x, m)", [("MatMul", (0,))]),
    "matrix from the left": ("y = MatMul (m, x)", [("MatMul", (1,))]),
    "attention": ("t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul (x, t)", [("MatMul", (0, 1))]),
    "weights alone": ("k = MatMul (m, m) y = MatMul (x, k)", [("MatMul", (0,))]),
    "kernel of the run": ("s = ReduceMean (x) k = Mul (w, s) i = Identity (w) y = Conv (i, k)", [("Conv", ())]),
}


@pytest.mark.parametrize("case", ONES)
def test_products_have_weights_or_two_computed_tensors(case):
    nodes, expected = ONES[case]
    assert found(nodes) == expected


GATES = {
    "of two convolutions": "a = Conv (x, w) b = Conv (x, v) y = Mul (a, b)",
    "squeeze and excitation": "c = Conv (x, w) p = GlobalAveragePool (c) f = Conv (p, v) s = Sigmoid (f) "
    "y = Mul (c, s)",
    "halves of one tensor": "c = Conv (x, w) l, r = Split <axis = 3> (c, halves) s = Sigmoid (r) y = Mul (l, s)",
    "parts by two slices": "l = Slice (x, start, end, axis) r = Slice (x, start, end, axis) y = Mul (l, r)",
}
ACTIVATIONS = {
    "SiLU": "s = Sigmoid (x) y = Mul (x, s)",
    "GELU": "d = Div (x, two) e = Erf (d) f = Add (e, two) g = Mul (x, f) y = Mul (g, two)",
    "Mish": "p = Softplus (x) t = Tanh (p) y = Mul (x, t)",
    "square": "y = Mul (x, x)",
    "scale": "y = Mul (x, two)",
    "RMSNorm": "q = Mul (x, x) u = ReduceMean (q, last) e = Add (u, eps) s = Sqrt (e) i = Reciprocal (s) "
    "n = Mul (x, i) y = Mul (n, gain)",
    "LayerNorm": "u = ReduceMean (x, last) d = Sub (x, u) q = Mul (d, d) r = ReduceMean (q, last) e = Add (r, eps) "
    "s = Sqrt (e) i = Reciprocal (s) n = Mul (d, i) y = Mul (n, gain)",
    "LayerNorm behind a convolution": "c = Conv (x, w) u = ReduceMean (c, last) d = Sub (c, u) q = Mul (d, d) "
    "e = Add (q, eps) i = Reciprocal (e) y = Mul (d, i)",
    "scale by a size": "s = Shape (x) f = Cast <to = 1> (s) c = Conv (x, w) g = ReduceMax <keepdims = 0> (f) "
    "y = Mul (c, g)",
}


@pytest.mark.parametrize("case", GATES)
def test_a_gate_multiplies_two_tensors(case):
    assert ("Mul", (0, 1)) in found(GATES[case])


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_what_makes_a_tensor_of_one_tensor_alone_is_no_product(case):
    assert "Mul" not in [op for op, _ in found(ACTIVATIONS[case])]


@pytest.mark.parametrize(
    ("nodes", "prepared", "not_prepared"),
    [
        ("s = Sub (x, two) d = Div (s, two) t = Transpose (d) y = Conv (t, w)", "xsdt", "y"),
        ("l, r = Split <axis = 3> (x, halves) c = Concat <axis = 1> (l, r) y = Relu (c)", "xlrc", "y"),
        ("p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) y = Conv (p, w)", "x", "py"),
        ("c = Conv (x, w) y = Add (x, c)", "x", "cy"),
    ],
)
def test_inputs_are_prepared_by_what_moves_and_changes_them_element_by_element(nodes, prepared, not_prepared):
    inputs = prepared_inputs(loaded(nodes))
    assert inputs >= set(prepared) and inputs.isdisjoint(not_prepared)


def test_embedded_tokens_are_prepared_inputs():
    table = {"table": weight(10, 8), "m": weight(8, 8)}
    model = network("e = Gather (table, x) y = MatMul (e, m)", inputs="int64[N, 5] x", outputs="float[N, 5, 8] y",
                    weights=table)  # fmt: skip
    assert {"x", "e"} <= prepared_inputs(load(model))


def test_operators_that_are_not_counted_are_products_of_their_own():
    nodes = """
        e = Einsum <equation = "nchw,oc->nohw"> (x, k)
        t = Constant <value = bool {1}> ()
        b = If (t) <then_branch = g1 () => (float[N, 3, 8, 8] p) {p = Conv (e, w)},
                    else_branch = g2 () => (float[N, 3, 8, 8] q) {q = Mul (e, e)}>
        c = If (t) <then_branch = g3 () => (float[N, 3, 8, 8] r) {r = Mul (e, e)},
                    else_branch = g4 () => (float[N, 3, 8, 8] s) {s = Neg (e)}>
        y = Add (b, c)
    """
    given = load(network(nodes, weights={"k": weight(3, 3), "w": WEIGHTS["w"]}))
    assert [(product.node.op, product.operands) for product in uncounted(given)] == [("Einsum", (0,)), ("If", ())]
    assert products(given) == []


def test_an_operator_of_another_domain_is_no_product():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        test (float[N, 8, 8] x) => (float[N, 8, 8] y) { t = Neg (x) y = own.MatMul (x, t) }
        <opset_import: ["" : 20], domain: "own"> MatMul (p, q) => (r) { r = Add (p, q) }
    """)
    assert products(load(model)) == []


SHAPES = [
    ((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (2, 3, 1)), ((3, 1), (2, 1, 4)), ((4,), (2, 3, 4)), ((2, 3, 4), ()),
]  # fmt: skip


@pytest.mark.parametrize("shapes", SHAPES)
def test_each_element_of_a_gate_is_in_as_many_products_as_broadcasting_makes_of_it(shapes):
    left, right = shapes
    dims = ["" if not shape else f"[{', '.join(map(str, shape))}]" for shape in shapes]
    model = network("y = Mul (a, b)", inputs=f"float{dims[0]} a, float{dims[1]} b", outputs="float[A, B, C] y")
    (product,) = products(load(model))
    outputs = np.prod(np.broadcast_shapes(*shapes))
    for operand, shape in enumerate(shapes):
        counted = np.zeros(shape, int)
        index = np.broadcast_to(np.arange(counted.size).reshape(shape), np.broadcast_shapes(*shapes))
        np.add.at(counted.reshape(-1), index.reshape(-1), 1)
        fan = fan_out(product.node, operand, (left, right))
        assert (np.broadcast_to(fan, shape) == counted).all()
        assert total(fan, shape) == outputs


@pytest.mark.parametrize("transposed", ["", "<transA = 1>", "<transB = 1>", "<transA = 1, transB = 1>"])
def test_a_matrix_product_has_the_same_operations_by_either_operand(transposed):
    left = (5, 2) if "transA" in transposed else (2, 5)
    right = (3, 5) if "transB" in transposed else (5, 3)
    inputs = f"float{list(left)} a, float{list(right)} b"
    model = network(f"y = Gemm {transposed} (a, b)", inputs=inputs, outputs="float[2, 3] y")
    (product,) = products(load(model))
    for operand, shape in enumerate((left, right)):
        assert total(fan_out(product.node, operand, (left, right)), shape) == 2 * 5 * 3
