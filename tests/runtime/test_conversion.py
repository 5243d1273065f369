"""A conversion that changes what a network computes is refused; one that nobody can check is told."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from networks import network, weight
from refusals import refusal_of

from pconv_onnx.basics.domain import MIN_OPSET
from pconv_onnx.graph import load
from pconv_onnx.graph.passes import old_operators
from pconv_onnx.graph.passes.upgrading import upgraded
from pconv_onnx.runtime.conversion import require_same

SCALES = {"s": np.array([1, 1, 2, 2], np.float32)}


def check(nodes: str, opset: int = 10, weights: dict | None = None, **ends: str) -> None:
    given = load(network(nodes, weights=weights, opset=opset, ir_version=5, **ends))
    require_same(given, upgraded(given, MIN_OPSET))


def without_rule(monkeypatch, op_type: str) -> None:
    """Leave an operator to onnx's converter."""
    monkeypatch.setitem(old_operators._RULES, op_type, (0, old_operators._RULES[op_type][1]))


@pytest.mark.parametrize(
    ("op_type", "nodes", "weights"),
    [
        ("Resize", 'y = Resize <mode = "linear"> (x, s)', SCALES),
        ("Hardmax", "y = Hardmax (x)", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("x", ["float[N, 3, 8, 8] x", "float[N, C, H, 8] x", "float[5, 3, 8, 8] x"])
def test_a_conversion_that_changes_values_is_refused(monkeypatch, op_type, nodes, weights, x):
    check(nodes, weights=weights, inputs=x, outputs="float[a, b, c, d] y")
    without_rule(monkeypatch, op_type)
    told = refusal_of(check, nodes, weights=weights, inputs=x, outputs="float[a, b, c, d] y")
    assert told.startswith(
        "the model uses opset 10, and its conversion to 17 changes what it computes (output 'y' by up to "
    )
    assert told.endswith(f"export it with opset {MIN_OPSET} or later")


def test_one_that_does_not_run_any_more_is_refused(monkeypatch):
    without_rule(monkeypatch, "Clip")
    ends = {"inputs": "float16[N, 8] x", "outputs": "float16[N, 8] y"}
    told = refusal_of(check, "y = Clip <min = -1.0> (x)", **ends)
    assert "its conversion to 17 does not run in onnxruntime, as the original does" in told


def altered(opset: int, value: float, dtype: type = np.float32) -> tuple:
    """A network, and another one of a later opset that adds a number to its output."""
    name = {np.float32: "float", np.float16: "float16"}[dtype]
    ends = {"inputs": f"{name}[N, 8] x", "outputs": f"{name}[N, 8] y"}
    given = load(network("y = Identity (x)", opset=opset, ir_version=5, **ends))
    later = network("y = Add (x, w)", weights={"w": np.array(value, dtype)}, opset=17, ir_version=8, **ends)
    return given, replace(given, proto=later)


def test_rounding_is_no_change():
    require_same(*altered(11, 1e-5))
    require_same(*altered(11, 1e-3, np.float16))
    assert "by up to 0.001" in refusal_of(require_same, *altered(11, 1e-3))
    assert "by up to 0.1" in refusal_of(require_same, *altered(11, 0.1, np.float16))
    assert "by a NaN or an infinity" in refusal_of(require_same, *altered(11, np.nan))


@pytest.mark.parametrize(
    ("node", "told"),
    [("y = Cast <to = 7> (x)", "from float32 [2, 8] to int64 [2, 8]"), ("y = Shape (x)", "to int64 [2]")],
)
def test_another_type_is_a_change(node, told):
    given, later = altered(11, 0)
    other = network(node, inputs="float[N, 8] x", outputs="int64[a] y", opset=17)
    assert told in refusal_of(require_same, given, replace(later, proto=other))


def test_counts_are_the_same_or_not():
    ends = {"inputs": "float[N, 8] x", "outputs": "int64[N, 1] y"}
    given = load(network("y = ArgMax <axis = 1> (x)", opset=11, ir_version=5, **ends))
    later = network("y = ArgMin <axis = 1> (x)", opset=17, **ends)
    assert "in 100.00% of its elements" in refusal_of(require_same, given, replace(given, proto=later))


def test_what_onnxruntime_does_not_run_is_evaluated_by_its_definition():
    """If of opset 7, which it has from 11 on."""
    nodes = (
        "all = ReduceSum <keepdims = 0> (x) c = Cast <to = 9> (all) i = If <"
        "then_branch = one () => (float[a, b, c, d] t) { t = Slice <starts = [1], ends = [3], axes = [1]> (x) },"
        "else_branch = other () => (float[a, b, c, d] e) { e = Slice <starts = [1], ends = [3], axes = [1]> (x) }> (c)"
    )
    ends = {"outputs": "float[a, b, c, d] y"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(nodes + "y = Identity (i)", opset=7, **ends)
        given = load(network(nodes + "y = Identity (i)", opset=7, ir_version=5, **ends))
        other = load(network(nodes + "y = Neg (i)", opset=7, ir_version=5, **ends))
        told = refusal_of(require_same, given, upgraded(other, MIN_OPSET))
    assert "changes what it computes (output 'y' by up to" in told


@pytest.mark.parametrize(
    ("nodes", "opset", "why"),
    [
        (
            "y = PRelu (x, w)",
            6,
            "onnxruntime did not run the original on random inputs; fixed sizes of its inputs may help",
        ),
        ("r = RandomNormalLike (x) y = Add (x, r)", 10, "it draws random numbers"),
    ],
)
def test_what_cannot_be_checked_is_told(nodes, opset, why):
    weights = {"w": weight(3, 1)[:, 0]} if "w" in nodes.partition("=")[2] else None
    with pytest.warns(UserWarning, match=why) as told:
        check(nodes, opset=opset, weights=weights)
    assert [str(one.message) for one in told] == [
        f"the model uses opset {opset}, and its conversion to 17 is not checked, since {why}"
    ]


def test_outputs_without_a_finite_value_are_not_called_checked():
    nodes = "l = Log (x) n = Neg (x) m = Log (n) y = Add (l, m)"
    given = load(network(nodes, opset=11, ir_version=5))
    later = replace(given, proto=network(nodes.replace("Add (l, m)", "Sub (l, m)"), opset=17))
    with pytest.warns(UserWarning, match="is not checked, since it has no finite output on random inputs"):
        require_same(given, later)


def test_tensors_of_a_sequence_are_compared():
    nodes = "s = {} (x) y = SequenceConstruct (s)"
    ends = {"inputs": "float[N, 8] x", "outputs": "seq(float[N, 8]) y"}
    given = load(network(nodes.format("Identity"), opset=11, ir_version=6, **ends))
    later = replace(given, proto=network(nodes.format("Neg"), opset=17, **ends))
    assert "changes what it computes (output 'y' by up to" in refusal_of(require_same, given, later)
