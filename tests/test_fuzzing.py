"""Random networks in exact arithmetic: what `rewrite` makes of them has their values, element for element."""

from __future__ import annotations

import pytest
from fuzzing.answers import faults
from fuzzing.grown import grown

from pconv_onnx.temporal import TRANSFER_RULES, Current


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_networks_keep_their_values(first):
    assert {seed: found for seed in range(first, first + 10) if (found := faults(seed))} == {}


def test_random_networks_have_every_operator_that_has_a_rule():
    used = {node.op_type for seed in range(200) for node in grown(seed)[0].graph.node}
    assert set(TRANSFER_RULES) <= used


@pytest.mark.slow
@pytest.mark.parametrize("op_type", ["Transpose", "Where"])
def test_random_networks_find_a_rule_made_wrong(op_type, monkeypatch):
    monkeypatch.setitem(TRANSFER_RULES, op_type, lambda site: Current(site.kinds[site.varying[0]].steps))
    assert any(map(_faulty, range(200)))


def _faulty(seed: int) -> bool:
    try:
        return bool(faults(seed))
    except Exception:  # a network that does not run is found as well
        return True
