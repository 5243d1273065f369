"""What a plan decides and tells of a whole network."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight

from pconv_onnx import inspect, rewrite


def hybrid(source: onnx.ModelProto, **options) -> list[str]:
    """Activations that stay analog between neurons; the same in both modes, and in what the model tells of itself."""
    results = [rewrite(source, mode=mode, **options) for mode in ("parallel", "folded")]
    found = results[0].summary()["hybrid"] if options else inspect(source)["hybrid"]
    for result in results:
        (told,) = (entry.value for entry in result.model.metadata_props if entry.key == "pconv_onnx.hybrid")
        assert result.summary()["hybrid"] == json.loads(told) == found
    return found


def test_what_is_analog_between_two_neurons_makes_a_hybrid():
    nodes = f"""
        before = Gelu (x) {qcfs("before", "a")}
        i = Relu (a) m = Tanh (i) n = Neg (m) between = Elu (n) {qcfs("between", "b")}
        y = Sigmoid (b)
    """
    assert hybrid(network(nodes)) == ["m", "between"]


def test_a_branch_beside_the_neurons_is_not_between_them():
    nodes = f"""
        beside = Gelu (x) {qcfs("x", "a")}
        s = Add (a, beside) {qcfs("s", "b")}
        after = Tanh (a)
        y = Add (b, after)
    """
    assert hybrid(network(nodes)) == []


def test_a_quantiser_that_is_not_converted_is_between_as_well():
    nodes = f"""{qcfs("x", "a")}
        n = Neg (a) q = QuantizeLinear (n, scale, zero_point) d = DequantizeLinear (q, scale, zero_point)
        {qcfs("d", "y")}
    """
    weights = {"scale": np.float32(0.1), "zero_point": np.array(100, np.uint8)}
    assert hybrid(network(nodes, weights=weights), exclude="q") == ["q"]


def test_what_a_body_uses_is_between():
    nodes = f"""{qcfs("x", "a")} m = Gelu (a)
        i = If (yes) <
            then_branch = p () => (float[N, 3, 8, 8] f) {{ f = Neg (m) }},
            else_branch = q () => (float[N, 3, 8, 8] h) {{ h = Identity (m) }}
        >
        {qcfs("i", "y")}
    """
    assert hybrid(network(nodes, weights={"yes": np.array(True)})) == ["m"]


def test_optional_tensors_that_are_left_out_connect_nothing():
    """They all have the same empty name."""
    nodes = f"""
        {qcfs("x", "a")} m = Dropout (a) c = Clip (x, , one) t = Gelu (c) {qcfs("t", "b")}
        y = Add (b, m)
    """
    source = network(nodes)
    next(node for node in source.graph.node if node.op_type == "Dropout").output.append("")
    assert hybrid(source) == []


def test_a_pattern_that_stands_alone_is_one():
    """And no sequence of letters, each of them a pattern."""
    source = network(qcfs("x", "a") + qcfs("a", "y"))
    for patterns in ({"include": "a_*"}, {"exclude": "y_*"}):
        assert [*rewrite(source, **patterns).plan.neurons] == ["a_code"]


BYPASSED = {
    "a residual sum around it": (qcfs("x", "a") + "y = Add (a, x)", ["a"]),
    "a gradient of another size": (qcfs("x", "a") + "d = Sub (a, x) e = Mul (d, half) y = Add (x, e)", ["a"]),
    "a straight-through gradient": (qcfs("x", "a") + "d = Sub (a, x) y = Add (x, d)", []),
    "a layer between": (qcfs("x", "a") + "c = Conv (a, w) y = Add (c, x)", []),
    "another neuron's spikes": (qcfs("x", "a") + "n = Neg (x)" + qcfs("n", "b") + "y = Add (a, b)", []),
}


@pytest.mark.parametrize("case", BYPASSED)
def test_an_analog_current_beside_a_neuron_is_told(case):
    nodes, names = BYPASSED[case]
    found = inspect(network(nodes, weights={"w": np.ones((3, 3, 1, 1), np.float32)}))
    assert [name.removesuffix("_code") for name in found["bypassed"]] == names


def test_what_keeps_integers_from_floats_is_no_activation():
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} d = Conv (a, v) s = Sigmoid (d) e = Conv (s, v) {qcfs('e', 'y')}"
    model = network(nodes, outputs="float[N, 3, 6, 6] y", weights={"w": weight(3, 3, 3, 3), "v": weight(3, 3, 1, 1)})
    rewriting = rewrite(model, weights="int8", input_bits=8, input_range=(-1, 1))
    assert {"Round", "Cast"} <= {node.op_type for node in rewriting.model.graph.node}
    summary = rewriting.summary()
    assert [row["status"] for row in summary["activations"] if {"Round", "Cast"} & set(row["op_types"])] == []
    assert {row["name"] for row in summary["activations"]} == {row["name"] for row in inspect(model)["activations"]}
