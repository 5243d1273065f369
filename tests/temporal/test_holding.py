"""Products of two tensors in time: one is decoded and held, the other spikes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import MODES, network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import rewrite, session, verify
from pconv_onnx.neuron.coding import CODINGS, Radix, Rate
from pconv_onnx.temporal.holding import spiking
from pconv_onnx.temporal.kinds import Current, Spikes

Array = np.ndarray


def signed(x: str, y: str, levels: str = "four") -> str:
    """Round-half-even of 4·x, held between ±`levels`: a quarter for each count."""
    return (
        f"{y}_times = Mul ({x}, four) {y}_code = Round ({y}_times) "
        f"{y}_held = Clip ({y}_code, minus_{levels}, {levels}) {y} = Mul ({y}_held, quarter) "
    )


GRID = {"four": 4.0, "minus_four": -4.0, "seven": 7.0, "minus_seven": -7.0, "quarter": 0.25}
IMAGES = "float[N, 3, 8, 8] x"
TOKENS = "float[N, 6, 8] x"

SQUEEZE_AND_EXCITE = f"""
    {signed("x", "a")} p = GlobalAveragePool (a) {signed("p", "b")} h = Conv (b, w) {qcfs("h", "g")}
    z = Mul (a, g) y = Conv (z, v)
"""
LINEAR_UNIT = f"""
    c = Conv (x, w) {signed("c", "a")} d = Conv (x, v) {signed("d", "b", "seven")} z = Mul (a, b) y = Conv (z, w)
"""
# Two heads of four values each.
HEADS = """
    {n}_rows = MatMul (x, w{n}) {n}_split = Reshape ({n}_rows, heads)
    {n}_turned = Transpose <perm = [0, 2, 1, 3]> ({n}_split)
"""
ATTENTION = f"""
    {"".join(HEADS.format(n=n) + signed(f"{n}_turned", n) for n in "qkv")}
    kt = Transpose <perm = [0, 1, 3, 2]> (k) scores = MatMul (q, kt) shares = Softmax (scores)
    {signed("shares", "s")} z = MatMul (s, v) back = Transpose <perm = [0, 2, 1, 3]> (z)
    rows = Reshape (back, tokens) y = MatMul (rows, wo)
"""
CONVOLUTIONS = {"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1, seed=1)}
NETWORKS = {
    "a gate by channels": (SQUEEZE_AND_EXCITE, IMAGES, CONVOLUTIONS),
    "a gated linear unit": (LINEAR_UNIT, IMAGES, CONVOLUTIONS),
    "attention": (
        ATTENTION,
        TOKENS,
        {
            **{f"w{name}": 4 * weight(8, 8, seed=seed) for seed, name in enumerate("qkvo")},
            "heads": np.array([0, 0, 2, 4]),
            "tokens": np.array([0, 0, 8]),
        },
    ),
}


def source_of(name: str) -> onnx.ModelProto:
    nodes, inputs, weights = NETWORKS[name]
    return network(nodes, inputs=inputs, outputs=inputs.replace(" x", " y"), weights=GRID | weights)


def samples(inputs: str, batch: int) -> Array:
    shape = (batch, 6, 8) if inputs == TOKENS else (batch, 3, 8, 8)
    return np.random.default_rng(batch).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_products_of_two_tensors_are_the_source_s(name, coding, mode):
    source = source_of(name)
    result = rewrite(source, mode=mode, coding=coding)
    assert all(isinstance(result.plan.kinds[z], Current) for z in {"z", "scores"} & result.plan.network.names)
    for batch in (1, 3):
        assert verify(source, result.model, {"x": samples(NETWORKS[name][1], batch)}).verdict == "equal"


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_without_the_library_they_give_what_they_give_with_it(name, coding):
    model = rewrite(source_of(name), coding=coding).model
    plain = onnxruntime.InferenceSession(model.SerializeToString())
    for batch in (1, 3):
        x = samples(NETWORKS[name][1], batch)
        np.testing.assert_array_equal(plain.run(None, {"x": x})[0], session(model).run(None, {"x": x})[0])


@pytest.mark.parametrize("coding", CODINGS)
def test_what_a_product_of_stacks_gives_is_exact(coding):
    """Of values of few bits no sum rounds."""
    nodes = signed("x", "q") + signed("r", "k", "seven") + "t = Transpose <perm = [0, 2, 1]> (k) y = MatMul (q, t)"
    inputs = "float[N, 6, 8] x, float[N, 5, 8] r"
    source = network(nodes, inputs=inputs, outputs="float[N, 6, 5] y", weights=GRID)
    found = rewrite(source, coding=coding)
    feed = {name: (np.random.default_rng(len(name)).normal(0, 1, (3, n, 8))).astype(np.float32)
            for name, n in (("x", 6), ("r", 5))}  # fmt: skip
    runs = [session(model).run(None, feed)[0] for model in (source, found.model)]
    np.testing.assert_array_equal(*runs)
    # In either coding it has fewer digits.
    assert found.plan.passages["y"].held == (1,)
    operators = Counter(node.op_type for node in found.model.graph.node)
    assert (operators["Tile"], operators["TemporalMean"]) == (1, 1)
    assert "y: in time, input 1 at each step, input 1 decoded" in str(found.plan)


@pytest.mark.parametrize("rows", ["5", "1", "N"])
def test_a_constant_stack_goes_with_the_rows_that_it_counts(rows):
    """Where they are of unknown number, a stack of as many is another thing."""
    weights = GRID | {"w": weight(5, 8, 4)}
    source = network(
        signed("x", "q") + "y = MatMul (q, w)",
        inputs=f"float[{rows}, 6, 8] x",
        outputs="float[M, 6, 4] y",
        weights=weights,
    )
    result = rewrite(source)
    assert ("y" in result.plan.kinds) == (rows == "5")
    x = np.random.default_rng(0).normal(0, 1, (1 if rows == "1" else 5, 6, 8)).astype(np.float32)
    assert verify(source, result.model, {"x": x}).verdict == "equal"


@pytest.mark.parametrize(
    ("nodes", "held"),
    [
        # Fewer digits are fewer accumulates.
        (signed("x", "a", "seven") + signed("x", "b") + "y = Mul (a, b)", 0),
        (signed("x", "a") + signed("x", "b", "seven") + "y = Mul (a, b)", 1),
        # The smaller tensor is held.
        (signed("x", "a") + "b = GlobalMaxPool (a) y = Mul (b, a)", 0),
        (signed("x", "a") + "b = GlobalMaxPool (a) y = Mul (a, b)", 1),
        # A current is.
        (signed("x", "a") + "b = Conv (a, w) y = Mul (b, a)", 0),
        (signed("x", "a") + "y = Mul (a, a)", 1),
    ],
)
def test_one_of_two_is_held_by_what_it_costs(nodes, held):
    weights = GRID | ({"w": weight(3, 3, 1, 1)} if "w)" in nodes else {})
    source = network(nodes, inputs=IMAGES, outputs="float[N, 3, 8, 8] y", weights=weights)
    assert rewrite(source, coding="rate").plan.passages["y"].held == (held,)


def test_a_train_that_is_never_silent_is_no_cheaper_than_one_of_more_digits():
    grid = np.linspace(0, 1, 5, dtype=np.float32).reshape(1, -1)
    sparse, dense = Spikes(Rate(4), grid, None), Spikes(Rate(4), grid - np.float32(0.5), None)
    digits = Spikes(Radix(3), grid, None)
    assert spiking({0: dense, 1: sparse}, {0: 1, 1: 1}) == [1, 0]
    assert spiking({0: sparse, 1: digits}, {0: 9, 1: 1}) == [1, 0]
    assert spiking({0: Current(2), 1: sparse}, {0: 9, 1: 1}) == [1]
    assert spiking({0: Current(2), 1: Current(2)}, {0: 9, 1: 1}) == []


def test_what_broadcasts_along_rows_is_held_whatever_it_costs():
    """The other has rows of its own."""
    nodes = f"r = ReduceMax (x, batch) {signed('r', 'a')} {signed('x', 'b', 'seven')} y = Mul (a, b)"
    source = network(nodes, inputs=IMAGES, outputs="float[N, 3, 8, 8] y", weights=GRID | {"batch": np.array([0])})
    result = rewrite(source)
    assert result.plan.passages["y"].held == (0,)
    assert verify(source, result.model, {"x": samples(IMAGES, 3)}).verdict == "equal"


def test_two_currents_are_multiplied_once():
    nodes = f"{signed('x', 'a')} b = Conv (a, w) c = Conv (a, v) y = Mul (b, c)"
    source = network(nodes, inputs=IMAGES, outputs="float[N, 3, 8, 8] y", weights=GRID | CONVOLUTIONS)
    result = rewrite(source)
    assert "y" not in result.plan.passages
    assert verify(source, result.model).verdict == "equal"


def test_a_maximum_that_is_held_is_not_encoded_again():
    """Trains of binary digits are decoded for it, and a product reads it decoded."""
    pool = "<kernel_shape = [8, 8]>"
    nodes = f"{signed('x', 'a')} p = MaxPool {pool} (a) y = Mul (a, p)"
    source = network(nodes, inputs=IMAGES, outputs="float[N, 3, 8, 8] y", weights=GRID)
    result = rewrite(source, coding="radix")
    assert [node.op_type for node in result.model.graph.node].count("ParallelSpike") == 2
    assert verify(source, result.model, {"x": samples(IMAGES, 3)}).verdict == "equal"


def test_a_network_of_one_step_has_no_mean_to_hold():
    source = source_of("a gated linear unit")
    told = refusal_of(rewrite, source, mode="serial", signed=True, steps=8)
    assert "mode 'serial' cannot take" in told and "Mul 'z' needs the temporal mean of 'b'" in told


@pytest.mark.parametrize("name", ["a gate by channels", "attention"])
def test_what_is_held_has_to_be_the_mean(name):
    source = source_of(name)
    model = rewrite(source).model
    index, tile = next((index, node) for index, node in enumerate(model.graph.node) if node.op_type == "Tile")
    model.graph.node.insert(index, onnx.helper.make_node("Neg", tile.input[:1], ["another"]))
    tile.input[0] = "another"
    assert verify(source, model).verdict == "different"
