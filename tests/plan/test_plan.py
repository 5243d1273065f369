"""A plan is pure data: printed, compared, pickled, and lowered to the same file wherever it went."""

from __future__ import annotations

import pickle

import pytest
from networks import CONSTANTS, network, qcfs, weight

from pconv_onnx import rewrite
from pconv_onnx.basics.choices import MODES
from pconv_onnx.lower.modes import lower
from pconv_onnx.temporal.kinds import Spikes

NODES = f"c = Conv (x, w) {qcfs('c', 'a')} s = Sigmoid (a) d = Conv (s, v) {qcfs('d', 'y')}"
BRANCHES = f"""
    {qcfs("x", "a")}
    y = If (cond) <
        then_branch = t () => (float[N, 3, 8, 8] p) {{ {qcfs("a", "p")} }},
        else_branch = e () => (float[N, 3, 8, 8] q) {{ q = Neg (a) }}
    >
"""


@pytest.fixture
def source():
    return network(NODES, weights={"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1)}, outputs="float[N, 3, 8, 8] y")


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "serial"])
def test_a_plan_that_went_through_a_pickle_is_the_same_and_is_lowered_to_the_same_bytes(source, mode):
    inputs = {"input_bits": 8, "input_range": (-4, 4)} if mode.startswith("integer") else {}
    plan = rewrite(source, mode=mode, dry_run=True, **inputs).plan
    copy = pickle.loads(pickle.dumps(plan))
    assert copy == plan and copy is not plan
    assert copy.summary() == plan.summary() and str(copy) == str(plan)
    assert lower(copy).SerializeToString(deterministic=True) == lower(plan).SerializeToString(deterministic=True)


def test_a_plan_with_branches_goes_through_a_pickle():
    model = network(BRANCHES, inputs="float[N, 3, 8, 8] x, bool cond", outputs="float[N, 3, 8, 8] y", weights=CONSTANTS)
    plan = rewrite(model, dry_run=True).plan
    copy = pickle.loads(pickle.dumps(plan))
    assert len(plan.neurons) == 2 and copy == plan
    assert lower(copy).SerializeToString(deterministic=True) == lower(plan).SerializeToString(deterministic=True)


def test_plans_are_equal_where_they_decide_the_same(source):
    plan = rewrite(source, dry_run=True).plan
    assert rewrite(source, dry_run=True).plan == plan
    for options in ({"mode": "folded"}, {"steps": 2}, {"exclude": "a*"}, {"precision": "float16"}):
        assert rewrite(source, dry_run=True, **options).plan != plan, options
    other = network(
        NODES, weights={"w": weight(3, 3, 1, 1, seed=5), "v": weight(3, 3, 1, 1)}, outputs="float[N, 3, 8, 8] y"
    )
    assert rewrite(other, dry_run=True).plan != plan
    assert plan != plan.summary()


def test_a_printed_plan_has_every_decision(source):
    plan = rewrite(source, dry_run=True, per_step_outputs=True).plan
    told = str(plan)
    for activation in plan.activations:
        assert f"{activation.name} ({activation.encoding}, {activation.input} to {activation.output}): " in told
        assert activation.reason in told
    for key, ended in plan.replaced.items():
        assert f"  {key}: {'goes' if ended is None else f'becomes the neuron of {ended}'}\n" in told
    for name, kind in plan.kinds.items():
        coding = f" in coding '{kind.coding.name}'" if isinstance(kind, Spikes) else ""
        assert f"  {name}: {type(kind).__name__.lower()}, T = {kind.steps}{coding}\n" in told
    assert "outputs at each step: y_per_step" in told
    assert len(repr(plan)) < 300
