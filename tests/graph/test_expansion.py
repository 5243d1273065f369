"""What functions stand for is counted before anything walks through their calls."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from pconv_onnx import PconvError, inspect, session
from pconv_onnx.graph import expansion

IMPORTS = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]


def doubling(functions: int, calls: int = 2, in_a_body: bool = False) -> onnx.ModelProto:
    """Each function calls the next so many times, the last is a Relu."""
    made = []
    for index in range(functions):
        op_type, domain = (f"f{index + 1}", "d") if index < functions - 1 else ("Relu", "")
        count = calls if domain else 1
        tensors = ["x", *(f"y{call}" for call in range(count))]
        nodes = [helper.make_node(op_type, [a], [b], domain=domain) for a, b in zip(tensors, tensors[1:], strict=False)]
        if in_a_body and domain:
            made_here = helper.make_tensor_value_info(tensors[-1], TensorProto.FLOAT, None)
            nodes = [helper.make_node("If", ["c"], ["z"], **{
                branch: helper.make_graph(nodes, branch, [], [made_here]) for branch in ("then_branch", "else_branch")
            })]  # fmt: skip
            nodes.insert(0, helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", 9, [], [True])))
        made.append(helper.make_function("d", f"f{index}", ["x"], [nodes[-1].output[0]], nodes, IMPORTS))
    graph = helper.make_graph(
        [helper.make_node("f0", ["x"], ["y"], domain="d")],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    return helper.make_model(graph, functions=made, opset_imports=IMPORTS, ir_version=10)


@pytest.mark.parametrize("read", [inspect, session])
@pytest.mark.parametrize("in_a_body", [False, True])
def test_functions_that_double_are_refused_with_the_count(read, in_a_body):
    count = "549,755,813,888" if not in_a_body else "1,000,000,000,000,000 or more"
    with pytest.raises(PconvError, match=f"stand for {count} nodes, {count} of them those of 'f0'") as raised:
        read(doubling(40, in_a_body=in_a_body))
    assert raised.value.hint == "call them less often, or write what they repeat as a Loop"


def test_a_count_of_many_digits_is_told_as_a_bound():
    with pytest.raises(PconvError, match="1,000,000,000,000,000 or more nodes"):
        inspect(doubling(99, calls=100))


@pytest.mark.parametrize("functions", [101, 20_000])
def test_functions_too_deep_within_each_other_are_refused(functions):
    with pytest.raises(PconvError, match="calls others more than 100 deep within each other"):
        inspect(doubling(functions, calls=1))


def test_functions_that_nobody_calls_may_be_as_deep_as_they_are():
    model = doubling(150, calls=1)
    model.graph.node[0].op_type = "f140"
    assert len(inspect(model)["activations"]) == 1


def test_a_large_function_that_is_called_once_is_written_out(monkeypatch):
    monkeypatch.setattr(expansion, "_MOST_NODES", 100)
    model = doubling(1)
    middle = [helper.make_node("Identity", [f"i{index}"], [f"i{index + 1}"]) for index in range(200)]
    first, last = helper.make_node("Identity", ["x"], ["i0"]), helper.make_node("Relu", ["i200"], ["y0"])
    model.functions[0].CopyFrom(helper.make_function("d", "f0", ["x"], ["y0"], [first, *middle, last], IMPORTS))
    assert len(inspect(model)["activations"]) == 1


def test_a_circle_of_functions_is_told_as_such():
    model = doubling(3)
    model.functions[2].node[0].op_type, model.functions[2].node[0].domain = "f0", "d"
    with pytest.raises(PconvError, match="calls itself"):
        inspect(model)


def test_functions_that_are_called_often_are_written_out():
    assert len(inspect(doubling(10))["activations"]) > 1


def test_a_small_file_stands_for_no_large_network():
    with pytest.raises(PconvError, match="stand for 131,072 nodes, .* no more than 17,200 are written out of 36 in"):
        inspect(doubling(18))
