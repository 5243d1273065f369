"""What each operator does to the kinds in time, and that every decision gives the source's value."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from networks import network, qcfs, weight
from onnx.checker import check_model
from temporal_cases import CASES, FIXED_BATCH_CASES, FLAT, FLAT_CASES, OPEN, PER_CHANNEL, SIGNED_CASES, S, dyadic

from pconv_onnx import session
from pconv_onnx.neuron.coding import Radix, Rate
from pconv_onnx.operators.domain import attribute
from pconv_onnx.rewriting import rewrite
from pconv_onnx.temporal.kinds import Spikes
from pconv_onnx.temporal.rules import TRANSFER_RULES

# T = 4 and values on a grid of powers of two: everything below is exact in float32, so outputs are equal in every bit.
X = (np.random.default_rng(0).integers(-8, 24, (5, 3, 8, 8)) / 8).astype(np.float32)


CODINGS = pytest.mark.parametrize("coding", ["rate", "radix"])
# Round-half-even of 4·x, from −4 to 4: levels of a quarter, the fifth of them zero.
SIGNED = """
    s_scaled = Mul (x, four) s_code = Round (s_scaled)
    s_held = Clip (s_code, minus_four, four) s = Mul (s_held, quarter)
"""
SIGNED_WEIGHTS = {"four": 4.0, "minus_four": -4.0, "quarter": 0.25}


def rewritten(nodes: str, *, coding: str = "auto", **arguments):
    """The rewriting of a network, after showing that it computes what the source computes."""
    model = network(nodes, **arguments)
    result = rewrite(model, coding=coding, steps=4 if coding == "radix" else None)
    check_model(result.model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = onnxruntime.InferenceSession(model.SerializeToString(), options)
    feed = {entry.name: X[:, :, 0, 0] if len(entry.shape) == 2 else X for entry in source.get_inputs()}
    for expected, found in zip(source.run(None, feed), session(result.model).run(None, feed), strict=True):
        np.testing.assert_array_equal(found, expected)
    return result


def kind_of(name: str, result) -> str:
    kind = result.plan.kinds.get(name)
    return type(kind).__name__ if kind is not None else "Static"


def in_time(x: str) -> str:
    """Nodes from `x` to an equal tensor `last` that run in time where that is."""
    return f" negative = Neg ({x}) last = Neg (negative)"


@CODINGS
@pytest.mark.parametrize("nodes, kind, weights", CASES)
def test_operators_on_spikes(nodes, kind, weights, coding):
    """Then what runs in time, and another neuron: what it gets is the same value in time or decoded."""
    last = "m" if " m =" in nodes else "z"
    nodes = S + nodes + in_time(last) + qcfs("last", "y").replace("theta", "theta_").replace("_scaled", "_by")
    result = rewritten(nodes, coding=coding, weights={**weights, "theta_": 2.0}, **OPEN)
    assert kind_of("s", result) == "Spikes"
    assert kind_of("z", result) == kind


@CODINGS
@pytest.mark.parametrize("nodes, kind, weights", FLAT_CASES)
def test_operators_that_make_matrices_of_spikes(nodes, kind, weights, coding):
    nodes = S + nodes + "y = Identity (z)"
    assert kind_of("z", rewritten(nodes, coding=coding, weights=weights, **FLAT)) == kind


@CODINGS
@pytest.mark.parametrize("nodes, kind, weights", FIXED_BATCH_CASES)
def test_a_batch_size_that_constants_spell_out(nodes, kind, weights, coding):
    nodes = S + nodes + "y = Identity (z)"
    result = rewritten(nodes, coding=coding, weights=weights, inputs="float[5, 3, 8, 8] x", **FLAT)
    assert kind_of("z", result) == kind


@CODINGS
@pytest.mark.parametrize("nodes, kind, weights", SIGNED_CASES)
def test_operators_on_signed_spikes(nodes, kind, weights, coding):
    nodes = SIGNED + nodes + in_time("z") + qcfs("last", "y").replace("theta", "theta_").replace("_scaled", "_by")
    result = rewritten(nodes, coding=coding, weights={**weights, **SIGNED_WEIGHTS, "theta_": 2.0}, **OPEN)
    kinds = result.plan.kinds
    assert (kinds["s"].coding.name, kinds["s"].coding.zero, kinds["s"].steps) == (coding, 4, 4)
    assert kind_of("z", result) == kind


def nodes_of(result) -> Counter[str]:
    return Counter(node.op_type for node in result.model.graph.node)


@pytest.mark.parametrize("coding, encoded", [("rate", 0), ("radix", 1)])
def test_a_maximum_of_weighted_trains_is_encoded_again(coding, encoded):
    """So that the convolution behind it gets spikes."""
    nodes = S + "p = MaxPool <kernel_shape = [2, 2]> (s) y = Conv (p, w)"
    result = rewritten(nodes, coding=coding, weights={"w": dyadic(4, 3, 1, 1)}, outputs="float[N, 4, 7, 7] y")
    # A decoder in front of the pool, and an encoder behind it.
    assert nodes_of(result)["ParallelSpike"] == 1 + 2 * encoded
    assert result.plan.passages["p"].encodes == bool(encoded)
    assert kind_of("y", result) == "Current"
    assert ("its output encoded again" in str(result.plan)) == bool(encoded)


@pytest.mark.parametrize("reader, encoded", [("Conv (p, w)", 1), ("Conv (t, w)", 0)])
def test_a_maximum_that_neurons_alone_read_is_not_encoded_again(reader, encoded):
    """As where a network quantises what its pools give: neurons count in the mean what they count in trains."""
    pooled = "<kernel_shape = [2, 2]>"
    nodes = f"{S} p = MaxPool {pooled} (s) {qcfs('p', 't')} y = {reader} z = MaxPool {pooled} (p)"
    weights = {"w": dyadic(4, 3, 1, 1)}
    result = rewritten(
        nodes, coding="radix", weights=weights, outputs="float[N, 4, 7, 7] y, float[N, 3, 7, 7] t, float[N, 3, 6, 6] z"
    )
    neurons = {node.name: node for node in result.model.graph.node if node.op_type == "ParallelSpike"}
    assert ("p/encode" in neurons, "z/encode" in neurons) == (bool(encoded), False)
    assert attribute(neurons["t_code"], "input_steps") == (4 if encoded else 1)


def test_a_clip_of_levels_is_not_run_on_spikes_that_are_worth_more():
    """The second of four spikes of a radix train is worth twice the highest level."""
    nodes = S + "u = Concat <axis = 1> (s, s) c = Clip (u, low, high) y = Conv (c, w)"
    weights = {"low": 0.0, "high": 2.0, "w": dyadic(4, 6, 1, 1)}
    result = rewritten(nodes, coding="radix", weights=weights, outputs="float[N, 4, 8, 8] y")
    assert {"Clip", "Relu"}.isdisjoint(nodes_of(result)) and nodes_of(result)["Identity"] == 1


def test_a_version_is_declared_that_has_what_is_written():
    """Older libraries run what does without codings."""
    nodes = S + "y = MaxPool <kernel_shape = [2, 2]> (s)"
    versions = {}
    for coding in ("rate", "radix"):
        model = rewritten(nodes, coding=coding, outputs="float[N, 3, 7, 7] y").model
        (versions[coding],) = (entry.version for entry in model.opset_import if entry.domain == "pconv")
        coded = [
            {"coding", "steps", "zero"} <= {a.name for a in node.attribute} for node in model.graph.node if node.domain
        ]
        assert all(coded) if coding == "radix" else not any(coded)
    assert versions == {"rate": 1, "radix": 2}


def test_a_batch_of_one_is_the_same_at_each_step():
    """Rows that broadcast need no copies."""
    nodes = S + "a = Add (s, b) y = GlobalAveragePool (a)"
    model = network(
        nodes, inputs="float[1, 3, 8, 8] x", outputs="float[1, 3, 1, 1] y", weights={"b": dyadic(1, 3, 8, 8)}
    )
    result = rewrite(model)
    assert kind_of("y", result) == "Current"
    assert "Tile" not in {node.op_type for node in result.model.graph.node}


def test_what_only_counted_rows_is_dropped():
    """Its input would have to be decoded for it."""
    nodes = S + "n = Shape (s) m = Gather <axis = 0> (n, first) k = Concat <axis = 0> (m, rest) z = Reshape (s, k)"
    nodes += "y = MatMul (z, w)"
    weights = {"first": np.array([0]), "rest": np.array([-1]), "w": dyadic(192, 4)}
    result = rewritten(nodes, weights=weights, **FLAT)
    operators = [node.op_type for node in result.model.graph.node]
    assert operators == ["ParallelSpike", "Reshape", "MatMul", "TemporalMean"]


def test_levels_of_split_channels_follow_them():
    nodes = S + "u, y = Split <axis = 1> (s, parts) z = Concat <axis = 2> (u, u)"
    weights = {"parts": np.array([1, 2]), **PER_CHANNEL}
    kinds = rewritten(nodes, weights=weights, outputs="float[N, 2, 8, 8] y, float[N, 1, 16, 8] z").plan.kinds
    np.testing.assert_array_equal(kinds["u"].levels[:, -1], [0.5])
    np.testing.assert_array_equal(kinds["y"].levels[:, -1], [1, 4])


def test_levels_of_concatenated_channels_follow_them():
    two = qcfs("x", "u").replace("theta", "other") + S
    nodes = two + "z = Concat <axis = 1> (u, s) y = MaxPool <kernel_shape = [2, 2]> (z)"
    result = rewritten(nodes, weights={"other": 4.0, **PER_CHANNEL}, **OPEN)
    kind = result.plan.kinds["y"]
    assert kind.channel_axis == 1
    np.testing.assert_array_equal(kind.levels[:, -1], [4, 4, 4, 0.5, 1, 4])


def grid(x: str, y: str, low: int, high: int) -> str:
    """Round-half-even of 4·x, held between two counts: levels of a quarter."""
    return (
        f"{y}_low = Constant <value_float = {low}.0> () {y}_high = Constant <value_float = {high}.0> () "
        f"{y}_times = Mul ({x}, four) {y}_code = Round ({y}_times) "
        f"{y}_held = Clip ({y}_code, {y}_low, {y}_high) {y} = Mul ({y}_held, quarter) "
    )


# Counts below that of silence, and above it, of trains of as many steps in either coding.
UNEQUAL = {"rate": [(-4, 4), (-1, 4), (0, 4), (-4, 2)], "radix": [(-4, 4), (-1, 7), (0, 5), (-7, 2)]}


@CODINGS
def test_trains_that_reach_differently_far_lie_side_by_side(coding):
    nodes = "".join(grid("x", f"s{index}", *ends) for index, ends in enumerate(UNEQUAL[coding]))
    nodes += "z = Concat <axis = 1> (s0, s1, s2, s3) c, d, e = Split <axis = 1> (z, parts) r = Relu (d)"
    nodes += " m = MaxPool <kernel_shape = [2, 2]> (z) p = Pad (e, pads) y = Conv (z, w)"
    weights = {"w": dyadic(4, 12, 1, 1), "parts": np.array([2, 6, 4]), "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1])}
    outputs = {"c": (2, 8, 8), "r": (6, 8, 8), "m": (12, 7, 7), "p": (4, 9, 9), "y": (4, 8, 8)}
    described = ", ".join(f"float[N, {', '.join(map(str, shape))}] {name}" for name, shape in outputs.items())
    model = network(nodes, weights={"four": 4.0, "quarter": 0.25, **weights}, outputs=described)
    result = rewrite(model, coding=coding)
    kinds = result.plan.kinds
    assert {name for name in ("z", "c", "d", "e", "m", "r", "p") if kind_of(name, result) != "Spikes"} == (
        {"m"} if coding == "radix" else set()
    )
    reach = max(map(max, UNEQUAL[coding]))
    assert (kinds["z"].coding.zero, kinds["z"].levels.shape) == (reach, (12, 2 * reach + 1))
    np.testing.assert_array_equal(kinds["z"].levels, np.tile(np.arange(-reach, reach + 1) / np.float32(4), (12, 1)))
    plain = onnxruntime.InferenceSession(result.model.SerializeToString())
    for x in (X, X[:1], -X):
        expected = session(model).run(None, {"x": x})
        for runner in (session(result.model), plain, session(rewrite(model, coding=coding, mode="folded").model)):
            for found, value in zip(runner.run(None, {"x": x}), expected, strict=True):
                np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("most", [4, 7])
def test_trains_that_are_never_silent_keep_to_their_own_levels(most):
    """What a neuron with an offset emits where it is silent is no level of zero, even among as many levels."""
    nodes = grid("x", "s", -4, most) + grid("x", "u", 0, 10) + "z = Concat <axis = 1> (s, u) y = Identity (z)"
    model = network(nodes, weights={"four": 4.0, "quarter": 0.25}, outputs="float[N, 6, 8, 8] y")
    kinds = {signed: kind_of("z", rewrite(model, coding="radix", signed=signed)) for signed in (False, True)}
    assert kinds == {False: "Spikes", True: "Current"}


def test_trains_that_more_levels_would_not_carry_get_none():
    """Uneven ones; and more of them than a neuron has."""
    even = np.arange(-1, 3, dtype=np.float32).reshape(1, -1)
    assert Spikes(Radix(2, 1), even, None).widened(3, 6).levels.tolist() == [[-3, -2, -1, 0, 1, 2, 3]]
    assert Spikes(Radix(2, 1), np.array([[-1, 0, 1.25, 2]], np.float32), None).widened(3, 6) is None
    assert Spikes(Radix(16, 1), even, None).widened(1 << 15, 1 << 16) is None
    assert Spikes(Rate(257), np.arange(258, dtype=np.float32).reshape(1, -1), None).widened(257, 514) is None


MORE = qcfs("x", "u").replace("count", "many")


@pytest.mark.parametrize("many, steps, recoded", [(8.0, 4, 1), (16.0, 4, 0)])
def test_trains_of_unequal_steps_meet_where_one_coding_carries_them(many, steps, recoded):
    """Eight levels take four binary digits; sixteen do not fit, and in sixteen steps all cost more than means."""
    result = rewritten(MORE + S + "y = Add (u, s)", weights={"many": many})
    assert result.plan.steps is None
    assert kind_of("y", result) == ("Current" if recoded else "Static")
    assert result.plan.passages.keys() & {"y"} == ({"y"} if recoded else set())
    if recoded:
        assert dict(result.plan.passages["y"].recoded) == {0: Radix(4)}
        assert f"y: in time, input 0 encoded again, T = {steps} in coding 'radix'" in str(result.plan)


def test_trains_of_unequal_codings_lie_side_by_side():
    nodes = MORE + S + "z = Concat <axis = 1> (u, s) y = Conv (z, w)"
    result = rewritten(nodes, weights={"many": 8.0, "w": dyadic(4, 6, 1, 1)}, outputs="float[N, 4, 8, 8] y")
    assert dict(result.plan.passages["z"].recoded) == {0: Radix(4)}
    assert (kind_of("z", result), kind_of("y", result)) == ("Current", "Current")


@pytest.mark.parametrize("options", [{"coding": "rate"}, {"per_step_outputs": True}])
def test_spikes_get_no_weights_where_they_are_to_have_none(options):
    """Where trains of unequal steps meet they are then decoded."""
    nodes = MORE + S + "z = Add (u, s) v = Conv (s, w) y = Conv (z, w)"
    model = network(
        nodes, weights={"many": 8.0, "w": dyadic(3, 3, 1, 1)}, outputs="float[N, 3, 8, 8] y, float[N, 3, 8, 8] v"
    )
    result = rewrite(model, **options)
    assert kind_of("z", result) == "Static"
    assert not any(passage.recoded for passage in result.plan.passages.values())
    assert kind_of("z", rewrite(model)) == "Current"


def test_outputs_at_each_step_are_of_spikes_without_weights():
    """A network of 255 levels too is in `rate` then."""
    nodes = qcfs("x", "s").replace("count", "many") + "y = Conv (s, w)"
    model = network(nodes, weights={"many": 255.0, "w": dyadic(3, 3, 1, 1)})
    assert rewrite(model).plan.steps == 8
    assert rewrite(model, per_step_outputs=True).plan.steps == 255


def test_currents_of_unequal_steps_are_decoded():
    """Of a current no neuron makes another without loss."""
    nodes = MORE + S + "a = Conv (u, w) b = Conv (s, w) y = Add (a, b)"
    result = rewritten(nodes, weights={"many": 8.0, "w": dyadic(3, 3, 1, 1)})
    assert kind_of("y", result) == "Static"


def test_a_neuron_takes_the_steps_of_another():
    more = qcfs("x", "u").replace("count", "eight") + qcfs("u", "y")
    result = rewritten(more, weights={"eight": 8.0})
    nodes = {node.name: node for node in result.model.graph.node}
    taken = [attribute.i for node in nodes.values() for attribute in node.attribute if attribute.name == "input_steps"]
    assert taken[:2] == [1, 8]


def test_rows_that_would_broadcast_are_decoded():
    nodes = "one_row = ReduceMax (x, batch)" + S + qcfs("one_row", "r") + "y = Add (s, r)"
    result = rewritten(nodes, weights={"batch": np.array([0])})
    assert kind_of("y", result) == "Static"


def test_a_body_sees_the_decoded_value():
    """An If whose branches use tensors in time from around it."""
    nodes = (
        S
        + """
        c = Conv (s, w)
        y = If (yes) <
            then_branch = a () => (float[N, 3, 8, 8] p) { p = Mul (s, c) },
            else_branch = b () => (float[N, 3, 8, 8] q) { q = Identity (c) }
        >
    """
    )
    rewritten(nodes, weights={"w": dyadic(3, 3, 1, 1), "yes": np.array(True)})


def test_unknown_domains_are_decoded():
    from pconv_onnx.temporal.kinds import Current
    from pconv_onnx.temporal.rules import transfer
    from pconv_onnx.temporal.site import Site

    class Node:
        op, domain, inputs, outputs = "Conv", "com.example", [], []

    assert transfer(Site(None, Node(), [Current(8)])).kinds == ()


def test_what_has_no_known_rank_is_not_lifted():
    nodes = S + "u = com.example.Unknown (x) y = Concat <axis = 1> (s, u)"
    text = f'<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]> test (float[N, 3, 8, 8] x)' \
        f" => (float[N, 6, 8, 8] y) <float theta = {{2.0}}, float count = {{4.0}}, float half = {{0.5}}, float zero =" \
        f" {{0.0}}, float one = {{1.0}}> {{ {nodes} }}"  # fmt: skip
    assert kind_of("y", rewrite(onnx.parser.parse_model(text))) == "Static"


def test_weights_are_left_alone():
    model = network(S + "y = Conv (s, w)", weights={"w": weight(3, 3, 1, 1)})
    kept = {tensor.name: tensor for tensor in rewrite(model).model.graph.initializer}
    assert kept["w"] == {tensor.name: tensor for tensor in model.graph.initializer}["w"]


def test_the_page_lists_every_operator_that_has_a_rule():
    page = (Path(__file__).parents[2] / "docs" / "time.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("|") and "---" not in line][1:]
    listed = [name for row in rows for name in re.findall(r"\b[A-Z]\w+", row)]
    assert sorted(listed) == sorted(TRANSFER_RULES)
