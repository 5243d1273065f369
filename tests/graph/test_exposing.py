"""What of a graph and its branches is handed out, and as what."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import tensor_names

FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL


def branch(name: str, nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, None)])


def nested() -> onnx.ModelProto:
    """An If, in whose first branch there is another; both branches of each compute a tensor of one name."""
    choice = helper.make_node(
        "If",
        ["c"],
        ["deep"],
        then_branch=branch("a", [helper.make_node("Neg", ["x"], ["same"])], "same"),
        else_branch=branch("b", [helper.make_node("Exp", ["x"], ["same"])], "same"),
    )
    taken = [choice, helper.make_node("Abs", ["deep"], ["first"])]
    main = helper.make_node(
        "If",
        ["c"],
        ["y"],
        then_branch=branch("then", taken, "first"),
        else_branch=branch("else", [helper.make_node("Neg", ["x"], ["other"])], "other"),
    )
    inputs = [helper.make_tensor_value_info(*entry, [1]) for entry in (("x", FLOAT), ("c", BOOL))]
    graph = helper.make_graph([main], "network", inputs, [helper.make_tensor_value_info("y", FLOAT, [None])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    "taken, expected", [(True, {"deep": -2.0, "same": -2.0, "first": 2.0}), (False, {"other": -2.0})]
)
def test_tensors_of_branches_are_handed_out_together(taken, expected):
    model = nested()
    names = ("x", "y", "deep", "same", "first", "other")
    outputs = expose(model.graph, dict.fromkeys(names, int(FLOAT)), tensor_names(model.graph))
    assert (outputs["x"], outputs["y"]) == ("x", "y")
    given = {"x": np.float32([2]), "c": np.array([taken])}
    found = dict(
        zip((info.name for info in model.graph.output), ReferenceEvaluator(model).run(None, given), strict=True)
    )
    inner = {name: found[outputs[name]].tolist() for name in names[2:]}
    assert inner == {name: [expected[name]] if name in expected else [] for name in names[2:]}


def test_a_tensor_that_is_not_there():
    model = nested()
    with pytest.raises(KeyError, match="nowhere"):
        expose(model.graph, {"deep": FLOAT, "nowhere": FLOAT}, tensor_names(model.graph))
