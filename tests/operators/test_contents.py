"""What has to be known of a model before a session of it is opened."""

from __future__ import annotations

import pytest
from networks import CONSTANTS, network, qcfs

from pconv_onnx import rewrite
from pconv_onnx.operators.contents import Contents, contents_of

INNER = f"""
    then_branch = t () => (float[N, 3, 8, 8] p) {{ {qcfs("x", "p")} }},
    else_branch = e () => (float[N, 3, 8, 8] q) {{ q = Neg (x) }}
"""
ONE = f"y = If (cond) <{INNER}>"
TWO = f"""
    y = If (cond) <
        then_branch = o () => (float[N, 3, 8, 8] r) {{ r = If (cond) <{INNER}> }},
        else_branch = f () => (float[N, 3, 8, 8] u) {{ u = Neg (x) }}
    >
"""


def branching(nodes: str):
    return network(nodes, inputs="float[N, 3, 8, 8] x, bool cond", outputs="float[N, 3, 8, 8] y", weights=CONSTANTS)


def test_an_ann_holds_nothing(small_network):
    assert contents_of(small_network) == Contents()


@pytest.mark.parametrize(("mode", "steps"), [("parallel", 4), ("folded", 1), ("serial", 1)])
def test_neurons_of_the_main_graph(mode, steps):
    held = contents_of(rewrite(network(qcfs("x", "y")), mode=mode).model)
    assert held == Contents(neurons=True, serial=mode == "serial", nested=False, steps_in_flight=steps)


@pytest.mark.parametrize(("nodes", "nested"), [(ONE, False), (TWO, True)])
def test_neurons_of_branches(nodes, nested):
    held = contents_of(rewrite(branching(nodes)).model)
    assert (held.neurons, held.nested) == (True, nested)
