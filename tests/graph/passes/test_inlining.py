"""Model-local functions are written out where they are called, and their activations become neurons."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from networks import CONSTANTS, MODES, qcfs
from notes import noted
from refusals import refusal_of

from pconv_onnx import inspect, rewrite, session, stats, verify
from pconv_onnx.basics.domain import DOMAIN

X = (np.random.default_rng(0).integers(-32, 33, (2, 3)) / 8).astype(np.float32)


def model(nodes: str, functions: str, opset: int = 18, ir_version: int = 10) -> onnx.ModelProto:
    """A checked model from `x` to `y` of these nodes, with functions of the domain `mine`."""
    result = onnx.parser.parse_model(f"""
        <ir_version: {ir_version}, opset_import: ["" : {opset}, "mine" : 1]>
        test (float[N, 3] x) => (float[N, 3] y) {{ {nodes} }}
        {functions}
    """)
    onnx.checker.check_model(result)
    return result


def act(name: str = "Act", opset: int = 18, theta: float = 2.0, body: str = qcfs("a", "b")) -> str:
    """A function of QCFS whose threshold is an attribute with a default."""
    others = "".join(f"{key} = Constant <value_float = {value}> () " for key, value in CONSTANTS.items())
    others = others.replace("theta = Constant <value_float = 2.0> ()", "theta = Constant <value_float: float = @t> ()")
    return f"""<opset_import: ["" : {opset}], domain: "mine"> {name} <t: float = {theta}> (a) => (b) {{
        {others} {body} }}"""


def assert_lossless(source: onnx.ModelProto, activations: int) -> None:
    # onnx's reference evaluator (1.23) knows no defaults of attributes.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = onnxruntime.InferenceSession(source.SerializeToString(), options).run(None, {"x": X})
    for mode in MODES:
        result = rewrite(source, mode=mode)
        assert len(result.plan.neurons) == activations
        assert not {entry.domain for entry in result.model.functions} - {DOMAIN}
        np.testing.assert_array_equal(session(result.model).run(None, {"x": X})[0], expected)
        assert verify(source, result.model, {"x": X}, atol=0).passed


def test_a_function_of_attributes_is_converted_at_each_call():
    source = model("a = mine.Act <t = 4.0> (x) b = mine.Act (a) y = mine.Act <t = 0.5> (b)", act())
    assert_lossless(source, 3)
    assert [row["name"] for row in inspect(source)["activations"]] == ["b_code__1", "b_code__2", "b_code__3"]


def test_functions_that_call_functions_are_converted():
    block = """<opset_import: ["" : 18, "mine" : 1], domain: "mine"> Block <theta: float = 1.0> (a) => (b) {
        c = mine.Act <t: float = @theta> (a) b = Neg (c) }"""
    source = model("a = mine.Block <theta = 4.0> (x) b = mine.Block (a) y = mine.Act (b)", f"{block} {act()}")
    assert_lossless(source, 3)


def test_overloads_are_told_apart():
    source = model("a = mine.Act (x) y = mine.Wide (a)", f"{act()} {act('Wide', theta=4.0)}")
    for entry in (source.functions[1], source.graph.node[1]):
        entry.overload = "wide"
    source.functions[1].name = source.graph.node[1].op_type = "Act"
    result = rewrite(source)
    assert sorted(neuron.levels.max() for neuron in result.plan.neurons.values()) == [2, 4]


def test_what_functions_say_of_their_nodes_survives():
    source = model(
        "a = mine.Act (x) y = mine.Keep (a)",
        act()
        + """
        <opset_import: ["" : 18], domain: "mine"> Keep (a) => (b) { b = Sin (a) }""",
    )
    (sine,) = source.functions[1].node
    sine.metadata_props.add(key="key", value="kept")
    sine.doc_string = "a sine"
    source.graph.quantization_annotation.add(tensor_name="x")
    source.metadata_props.add(key="author", value="somebody")
    result = rewrite(source).model
    (written,) = (node for node in result.graph.node if node.op_type == "Sin")
    assert ([entry.value for entry in written.metadata_props], written.doc_string) == (["kept"], "a sine")
    assert [entry.tensor_name for entry in result.graph.quantization_annotation] == ["x"]
    assert "author" in {entry.key for entry in result.metadata_props}


def test_a_function_of_another_opset_with_the_same_operators_is_converted():
    assert_lossless(model("y = mine.Act (x)", act(opset=17)), 1)


def test_a_function_of_another_opset_with_other_operators_is_refused():
    gelu = """<opset_import: ["" : 20], domain: "mine"> Wide (a) => (b) { b = Gelu (a) }"""
    source = model("a = mine.Act (x) y = mine.Act (a)", act())
    source.functions.append(onnx.parser.parse_function(gelu))
    source.graph.node[1].op_type = "Wide"
    told = refusal_of(rewrite, source)
    assert "Gelu 'b' of the function 'Wide' is of opset 20, the model of 18" in told


def test_a_function_that_cannot_be_inlined_is_refused(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("inliner.cc:418: GetType: Assertion `false` failed: Type unknown for t__1\nin some file")

    monkeypatch.setattr("onnx.inliner.inline_local_functions", fail)
    told = refusal_of(rewrite, model("y = mine.Act (x)", act()))
    assert "onnx cannot inline the functions of the model: Type unknown for t__1; write them in the opset" in told


def test_domains_that_only_a_function_imports_are_imported():
    fast = """<opset_import: ["" : 18, "com.microsoft" : 1], domain: "mine"> Fast (a) => (b) {
        b = com.microsoft.QuickGelu (a) }"""
    result = rewrite(model("a = mine.Act (x) y = mine.Fast (a)", f"{act()} {fast}")).model
    assert "com.microsoft" in {entry.domain for entry in result.opset_import}
    onnx.checker.check_model(result)


def test_functions_of_an_old_opset_are_converted():
    source = model("y = mine.Act (x)", act(opset=12), opset=12, ir_version=8)
    with noted("uses opset 12; what is written uses opset 17"):
        assert_lossless(source, 1)


def test_the_functions_of_neurons_stay_where_they_are():
    source = model("y = mine.Act (x)", act())
    result = rewrite(source).model
    assert stats(result, {"x": X}).layers[0].steps == 4
    assert "is a spiking network already" in refusal_of(rewrite, result)
    assert "is a spiking network already" in refusal_of(inspect, result)
