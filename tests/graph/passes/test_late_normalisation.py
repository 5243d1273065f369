"""Softmax in front of a product: exp(z − max), and a division by its sum behind."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network, weight

from pconv_onnx.graph.files import load
from pconv_onnx.graph.passes.late_normalisation import is_normalised, normaliser_of
from pconv_onnx.graph.passes.late_normalisation import normalised_late as of_products
from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.graph.view import key_of
from pconv_onnx.runtime.side_by_side import open_session, run_session

Q, V = "float[N, 2, 5, 7] x", "float[N, 2, 5, 4] y"
GUARD = "n = IsNaN (s) w = Where (n, zero, s)"
# From the softmax `s` of z `[N, 2, 5, 7]` to the weights `w` that a product reads.
MOVES = {
    "nothing": "w = Identity (s)",
    "dropout": "w = Dropout (s)",
    "a cast to its own type": "w = Cast <to = 1> (s)",
    "a guard": GUARD,
    "a guard and a reshape": f"{GUARD.replace('w =', 'g =')} w = Reshape (g, shape)",
    "another order of rows": "t = Transpose <perm = [1, 0, 2, 3]> (s) w = Transpose <perm = [1, 0, 2, 3]> (t)",
}
WEIGHTS = {"v": weight(7, 4), "shape": np.array([0, 2, 5, 7])}


def normalised_late(source):
    """With all products to read spikes."""
    return of_products(source, {key_of(node) for node in source.nodes})


def model_of(moves: str, *, opset: int = 20, axis: int = -1, more: str = "", outputs: str = V) -> onnx.ModelProto:
    nodes = f"[soft] s = Softmax <axis = {axis}> (x) {moves} [product] y = MatMul (w, v) {more}"
    used = {name: value for name, value in WEIGHTS.items() if f", {name})" in nodes}
    return network(nodes, inputs=Q, outputs=outputs, weights=used, opset=opset)


def answers(model: onnx.ModelProto, z: np.ndarray) -> list[np.ndarray]:
    return run_session(open_session(model, "model"), {"x": z}, [info.name for info in model.graph.output])


def scores() -> np.ndarray:
    return (4 * np.random.default_rng(0).normal(size=(3, 2, 5, 7))).astype(np.float32)


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("moves", MOVES)
def test_what_the_product_gives_stays(moves, opset):
    model = model_of(MOVES[moves], opset=opset)
    late = normalised_late(load(model)).proto
    operators = [node.op_type for node in late.graph.node]
    assert operators.count("Softmax") == operators.count("ReduceMax") == 1 and operators.count("Div") == 2
    onnx.checker.check_model(late, full_check=True)
    # Each of a few roundings is of half a unit in the last place, of values up to 1 by weights up to 1.
    np.testing.assert_allclose(answers(late, scores())[0], answers(model, scores())[0], rtol=0, atol=7 * 2**-22)


def test_large_scores_do_not_overflow_and_a_masked_one_has_no_weight():
    model, z = model_of("w = Identity (s)"), scores()
    z[0, 0, :, 2], z[1, 1, :, 3:], z[2] = 1e30, -np.inf, z[2] * 1e4
    late = normalised_late(load(model)).proto
    np.testing.assert_allclose(answers(late, z)[0], answers(model, z)[0], rtol=0, atol=7 * 2**-22)


def test_a_row_of_which_all_is_masked_is_zero_where_it_was():
    z = scores()
    z[0, 1, 2] = -np.inf
    for moves, value in ((GUARD, 0), ("w = Identity (s)", np.nan)):
        model = model_of(moves)
        late = normalised_late(load(model)).proto
        for one in (model, late):
            np.testing.assert_array_equal(answers(one, z)[0][0, 1, 2], np.full(4, value))


def test_what_else_reads_the_weights_still_does():
    model = model_of("w = Identity (s)", more="u = Neg (w)", outputs=f"{V}, float[N, 2, 5, 7] u")
    late = normalised_late(load(model)).proto
    assert [node.op_type for node in late.graph.node].count("Softmax") == 1
    for expected, found in zip(answers(model, scores()), answers(late, scores()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=7 * 2**-22)


def test_weights_that_several_products_read_are_scaled_once():
    source = load(model_of("w = Identity (s)", more="y2 = MatMul (w, v)", outputs=f"{V}, float[N, 2, 5, 4] y2"))
    late = normalised_late(source).proto
    operators = [node.op_type for node in late.graph.node]
    assert operators.count("ReduceMax") == operators.count("ReduceSum") == 1 and operators.count("Div") == 3
    for expected, found in zip(answers(source.proto, scores()), answers(late, scores()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=7 * 2**-22)


def test_what_is_no_product_to_read_spikes_stays():
    source = load(model_of("w = Identity (s)"))
    assert of_products(source, {"s"}) is source


@pytest.mark.parametrize(
    "moves, axis",
    [
        ("w = Identity (s)", 1),  # weights of other rows
        ("h = Mul (s, v2) w = Identity (h)", -1),  # weights of weights
        ("n = IsNaN (s) w = Where (n, zeros, s)", -1),  # of one weight a row it would make seven
        ("t = Transpose <perm = [0, 1, 3, 2]> (s) r = Reshape (t, shape) w = Identity (r)", -1),
    ],
)
def test_what_is_normalised_along_another_axis_stays(moves, axis):
    nodes = f"s = Softmax <axis = {axis}> (x) {moves} y = MatMul (w, v)"
    weights = {**WEIGHTS, "v2": weight(7), "zeros": np.zeros(7, np.float32)}
    inputs = "float[N, 2, 5, 1] x" if "zeros" in nodes else Q
    model = network(
        nodes,
        inputs=inputs,
        outputs=V,
        weights={k: v for k, v in weights.items() if f", {k})" in nodes or f" {k}," in nodes},
    )
    source = load(model)
    assert normalised_late(source) is source
    (product,) = [node for node in source.nodes if node.op == "MatMul"]
    assert normaliser_of(product) is None


def test_a_product_knows_its_normaliser():
    source = load(model_of(GUARD))
    (product,) = [node for node in source.nodes if node.op == "MatMul"]
    assert is_normalised(source, product.inputs[0]) and normaliser_of(product) is None
    late = prepared(normalised_late(source))
    (product,) = [node for node in late.nodes if node.op == "MatMul"]
    found = normaliser_of(product)
    assert found is not None and found.op == "ReduceSum" and found.inputs[0] is product.inputs[0]
    assert not is_normalised(late, product.inputs[0])
