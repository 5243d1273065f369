"""Which products read spikes, and what share of the multiply-accumulates theirs are."""

from __future__ import annotations

from networks import network, qcfs, weight

from pconv_onnx.plan.planning import make_plan
from pconv_onnx.plan.spike_driven import off_spikes
from pconv_onnx.runtime.entrance import prepared


def plan_of(nodes, **options):
    return make_plan(prepared(network(nodes, **options)))


def left(nodes, **options):
    """Names of the products that read neither spikes nor inputs."""
    plan = plan_of(nodes, **options)
    return [product.node.name for product in off_spikes(plan.network, plan.kinds)]


WEIGHTS = {"u": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1), "w": weight(3, 3, 3, 3)}
STEM = f"[stem] c = Conv (x, u) {qcfs('c', 'a')} [second] d = Conv (a, v)"


def test_what_follows_a_linear_bottleneck_reads_no_spikes():
    assert left(f"{STEM} [third] y = Conv <pads = [1, 1, 1, 1]> (d, w)", weights=WEIGHTS) == ["third"]


def test_a_gate_reads_spikes_where_one_of_its_sides_is_a_train():
    assert left(f"{STEM} [gate] y = Mul (a, d)", weights=WEIGHTS) == []
    nodes = f"{STEM} e = Sigmoid (d) [third] f = Conv (a, u) [gate] y = Mul (e, f)"
    assert left(nodes, weights=WEIGHTS) == ["gate"]


def test_a_gate_reads_the_inputs_where_one_of_its_sides_is_one():
    assert left(f"{STEM} z = Neg (x) [gate] y = Mul (d, z)", weights=WEIGHTS) == []
