"""What onnxruntime loads is read: mended where there is one meaning, refused in a sentence where there is not."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
import pytest
from networks import network, qcfs, weight
from notes import noted
from onnx import TensorProto, helper, numpy_helper
from refusals import refusal_of

from pconv_onnx import PconvError, inspect, register, rewrite, session
from pconv_onnx.graph import load
from pconv_onnx.graph.mending import mended

Model = onnx.ModelProto
# What onnx's and onnxruntime's own texts have, and none of ours.
RAW = re.compile(r"\[ONNXRuntimeError\]|\.(cc|h|cpp):\d+|Assertion|==> Context|onnx::|Field '|\n")


def chain() -> Model:
    return network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(3, 3, 1, 1)})


def parsed(nodes: str, inputs: str = "float[2, 3] x", functions: str = "") -> Model:
    """A model that no checker has seen."""
    text = f'<ir_version: 8, opset_import: ["" : 16]> test ({inputs}) => (float[M, K] y) {{ {nodes} }} {functions}'
    return onnx.parser.parse_model(text)


def outputs(model: Model) -> list[np.ndarray]:
    """What onnxruntime computes, on values that are the same each time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if any(entry.domain == "pconv" for entry in model.opset_import):
        register(options)
    runner = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {}
    for info in runner.get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in info.shape] or [2, 3, 8, 8]
        values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        feed[info.name] = np.ones((), bool) if info.type == "tensor(bool)" else values
    return runner.run(None, feed)


def reversed_nodes(model: Model) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def no_name(model: Model) -> None:
    model.graph.ClearField("name")


def spelled_out(model: Model) -> None:
    for entry in (*model.opset_import, *model.graph.node):
        entry.domain = "ai.onnx"


def imported_twice(model: Model) -> None:
    model.opset_import.append(model.opset_import[0])


def ir_3(model: Model) -> None:
    model.ir_version = 3


def no_output_type(model: Model) -> None:
    model.graph.output[0].ClearField("type")


def no_output_shape(model: Model) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def no_input_shape(model: Model) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def info_without_a_type(model: Model) -> None:
    model.graph.value_info.add(name="c")


def info_without_a_name(model: Model) -> None:
    model.graph.value_info.add()


def a_tensor_twice(model: Model) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


def a_tensor_twice_in_other_fields(model: Model) -> None:
    values = numpy_helper.to_array(model.graph.initializer[0])
    name = model.graph.initializer[0].name
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.reshape(-1)))


def an_input_of_a_default(model: Model) -> None:
    model.graph.input.add(name="w")


def another_shape_for_a_weight(model: Model) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))


def another_type_for_a_weight(model: Model) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.INT8, [3, 3, 1, 1]))


def another_size_for_an_output(model: Model) -> None:
    model.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 3, 1, 2]))


def a_key_twice(model: Model) -> None:
    model.metadata_props.add(key="k", value="1")
    model.metadata_props.add(key="k", value="2")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (reversed_nodes, "7 nodes brought into order"),
        (no_name, "a name given to a graph"),
        (spelled_out, "the domain ai.onnx written as the standard one"),
        (imported_twice, "operators imported once instead of twice"),
        (ir_3, "the IR version raised from 3 to 4"),
        (no_output_type, ""),
        (no_output_shape, ""),
        (no_input_shape, ""),
        (info_without_a_type, ""),
        (info_without_a_name, "tensors without a name left out"),
        (a_tensor_twice, "initializers that are there twice left out"),
        (a_tensor_twice_in_other_fields, "initializers that are there twice left out"),
        (an_input_of_a_default, "inputs given the type of their initializers"),
        (another_shape_for_a_weight, "initializers declared as they are"),
        (another_type_for_a_weight, "initializers declared as they are"),
        (another_size_for_an_output, "initializers declared as they are"),
        (a_key_twice, "repeated metadata keys dropped"),
    ],
)
def test_what_has_one_meaning_is_mended_and_told_in_a_line(spoil: Callable[[Model], None], told):
    model = chain()
    spoil(model)
    given = Model.FromString(model.SerializeToString())
    with noted() as messages:
        result = load(model).proto
    assert model == given
    assert messages == [f"the model was mended on reading: {told}"] * bool(told)
    assert mended(result) == (result, ())
    expected = outputs(model)
    for found in (outputs(result), outputs(rewrite(result).model)):
        for tensor, value in zip(found, expected, strict=True):
            np.testing.assert_array_equal(tensor, value)
    assert inspect(result)["counts"]["converted"] == 1


@pytest.mark.parametrize("spoil", [no_output_type, no_output_shape])
def test_outputs_get_the_shape_that_is_inferred(spoil):
    model = chain()
    spoil(model)
    assert load(model).proto.graph.output == chain().graph.output


def test_outputs_of_operators_that_onnx_does_not_know_stay_open():
    model = parsed("a = com.microsoft.QuickGelu (x) y = com.microsoft.QuickGelu (a)")
    no_output_type(model)
    result = load(model).proto
    assert not result.graph.output[0].HasField("type")
    np.testing.assert_array_equal(outputs(result), outputs(model))
    assert len(inspect(model)["activations"]) == 2


@pytest.mark.parametrize(
    ("nodes", "imported"),
    [
        ("y = com.microsoft.QuickGelu (x)", {"": 16, "com.microsoft": 1}),
        ("z = ai.onnx.ml.Scaler <scale = [2.0], offset = [1.0]> (x) y = Relu (z)", {"": 16, "ai.onnx.ml": 1}),
        ("z = ai.onnx.ml.LabelEncoder <keys_floats = [1.0], values_floats = [2.0]> (x) y = Relu (z)",
         {"": 16, "ai.onnx.ml": 4}),
    ],
)  # fmt: skip
def test_domains_that_nodes_use_are_imported(nodes, imported):
    model = parsed(nodes)
    result = load(model).proto
    assert {entry.domain: entry.version for entry in result.opset_import} == imported
    np.testing.assert_array_equal(outputs(result), outputs(model))


def test_before_ir_version_3_a_model_is_of_the_first_opset():
    model = parsed("y = Abs (x)")
    model.ClearField("opset_import")
    model.ir_version = 2
    with noted("the domain ai.onnx imported, the IR version raised from 2 to 3$"):
        result = load(model).proto
    assert [(entry.domain, entry.version) for entry in result.opset_import] == [("", 1)]


def test_nodes_of_bodies_and_what_they_take_from_outside_come_into_order():
    # onnxruntime itself does not sort bodies.
    branch = "else_branch = e () => (float[M, K] o) { o = Neg (q) }"
    inputs = "float[2, 3] x, bool yes"
    unsorted = parsed(
        f"y = If (yes) <then_branch = t () => (float[M, K] p) {{ p = Relu (k) k = Abs (q) }}, {branch}> q = Neg (x)",
        inputs,
    )
    in_order = parsed(
        f"q = Neg (x) y = If (yes) <then_branch = t () => (float[M, K] p) {{ k = Abs (q) p = Relu (k) }}, {branch}>",
        inputs,
    )
    assert load(unsorted).proto == in_order
    np.testing.assert_array_equal(outputs(in_order)[0] >= 0, True)


def test_nodes_of_functions_come_into_order_and_their_domains_are_imported():
    function = "f (a) => (b) { b = Relu (c) c = com.microsoft.QuickGelu (a) }"
    model = parsed("y = mine.f (x)", functions=f'<domain: "mine", opset_import: ["" : 16]> {function}')
    result = load(model).proto
    assert [node.op_type for node in result.functions[0].node] == ["QuickGelu", "Relu"]
    assert {entry.domain: entry.version for entry in result.functions[0].opset_import} == {"": 16, "com.microsoft": 1}
    assert {entry.domain for entry in result.opset_import} == {"", "mine"}


FUNCTION = '<domain: "mine", opset_import: [{}]> {} (a) => (b) {{ b = Relu (a) }}'


def with_functions(*versions: str) -> Model:
    """A model that calls functions, each with these imports, and imports no standard operators."""
    functions = " ".join(FUNCTION.format(version, f"f{index}") for index, version in enumerate(versions))
    model = parsed("z = mine.f1 (x) y = mine.f0 (z)" if len(versions) > 1 else "y = mine.f0 (x)", functions=functions)
    model.opset_import[0].domain = "mine"
    return model


@pytest.mark.parametrize(
    ("versions", "version"), [(['"" : 17'], 17), (['"" : 15', '"" : 15'], 15), (['"" : 15', '"" : 17'], 17)]
)
def test_a_model_that_only_calls_functions_is_of_their_opset(versions, version):
    model = with_functions(*versions)
    with noted("the domain ai.onnx imported$"):
        result = load(model).proto
    assert {entry.domain: entry.version for entry in result.opset_import} == {"mine": 16, "": version}
    np.testing.assert_array_equal(outputs(result), outputs(model))
    with noted("mended"):
        (row,) = inspect(model)["activations"]
    assert row["op_types"] == ["Relu"] * len(versions)


def test_a_function_without_a_version_of_the_standard_operators_is_told():
    assert refusal_of(load, with_functions('"mine" : 1')) == (
        "the model is not a valid ONNX model: its opset_import has no version of the standard operators (ai.onnx), "
        "which Relu 'b' is one of; add the opset that it was exported with"
    )


def test_nodes_in_order_keep_their_places():
    model = parsed("b = Relu (x) a = Abs (x) d = Neg (a) y = Add (d, b)")
    assert load(model).proto == model


@pytest.mark.parametrize("operator", ["LayerNormalization", "SimplifiedLayerNormalization"])
@pytest.mark.parametrize("opset", [13, 16])
def test_layer_normalisation_as_onnxruntimes_optimiser_writes_it_is_read(operator, opset):
    model = network(
        f"n = Identity (x) {qcfs('n', 'y')}",
        inputs="float[N, 5, 6] x",
        outputs="float[N, 5, 6] y",
        weights={"scale": np.ones(6, np.float32)},
        opset=opset,
    )
    model.graph.node[0].CopyFrom(helper.make_node(operator, ["x", "scale"], ["n"], axis=-1))
    result = rewrite(model)
    assert len(result.plan.neurons) == 1
    assert result.plan.network.shapes["n"] == ("N", 5, 6)
    np.testing.assert_array_equal(outputs(result.model), outputs(model))


QUANT = "y = qonnx.custom_op.general.Quant <signed = 0, narrow = 0> (x, scale, zero, bits)"


def quantised(nodes: str) -> Model:
    """A model whose quantisers take integers: a scale of 1, a zero point of 0, and 3 bits."""
    model = parsed(nodes, "float[N, 3] x")
    for name, value in (("scale", 1), ("zero", 0), ("bits", 3)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    return model


def used_by_a_node(model: Model) -> None:
    model.graph.node.add(op_type="Add", input=["bits", "bits"], output=["t"])


def used_in_a_body(model: Model) -> None:
    text = "yes = Constant <value = bool {1}> () t = If (yes) <then_branch = a () => (int64 p) { p = Neg (bits) }, "
    text += "else_branch = b () => (int64 q) { q = Abs (bits) }>"
    model.graph.node.extend(parsed(text).graph.node)


def handed_out(model: Model) -> None:
    model.graph.output.append(helper.make_tensor_value_info("bits", TensorProto.INT64, []))


def an_input_as_well(model: Model) -> None:
    model.graph.input.append(helper.make_tensor_value_info("bits", TensorProto.INT64, []))


@pytest.mark.parametrize("also", [None, used_by_a_node, used_in_a_body, handed_out, an_input_as_well])
def test_integer_scales_of_qonnx_are_cast_to_floats(also):
    model = quantised(QUANT)
    if also:
        also(model)
    result = load(model).proto
    found = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    assert [found[name] for name in result.graph.node[0].input[1:]] == [TensorProto.FLOAT] * 3
    assert (found["bits"] == TensorProto.INT64) == (also is not None)
    (row,) = inspect(model)["activations"]
    assert (row["levels"], row["status"]) == (7, "converted")
    y = session(rewrite(model).model).run(None, {"x": np.array([[-1.0, 1.75, 9.0]], np.float32)})
    np.testing.assert_array_equal(y[0], [[0, 2, 7]])
    assert y[1:] == [3] * (also is handed_out)


def test_integer_scales_that_a_body_takes_from_outside_are_cast():
    body = f"(float[N, 3] y) {{ {QUANT} }}"
    model = quantised(
        "yes = Constant <value = bool {1}> () "
        f"out = If (yes) <then_branch = a () => {body}, else_branch = b () => (float[N, 3] e) {{ e = Relu (x) }}>"
    )
    model.graph.output[0].name = "out"
    result = load(model).proto
    assert {tensor.data_type for tensor in result.graph.initializer} == {TensorProto.FLOAT}


def circle(model: Model) -> None:
    model.graph.node[0].input[0] = "y"


def nobody(model: Model) -> None:
    model.graph.node[0].input[0] = "nowhere"


def no_output(model: Model) -> None:
    model.graph.output[0].name = "nothing"


def no_standard_import(model: Model) -> None:
    model.opset_import[0].domain = "other"


def no_ir_version(model: Model) -> None:
    model.ClearField("ir_version")


def other_imports(model: Model) -> None:
    model.opset_import.add(domain="ai.onnx", version=13)


def other_values(model: Model) -> None:
    a_tensor_twice(model)
    model.graph.initializer[-1].raw_data = bytes(4)


def no_input_type(model: Model) -> None:
    model.graph.input[0].ClearField("type")


def an_input_twice(model: Model) -> None:
    model.graph.input.append(model.graph.input[0])


def made_twice(model: Model) -> None:
    model.graph.node.append(helper.make_node("Neg", ["x"], ["y"], "again"))


def no_operator(model: Model) -> None:
    model.graph.node[0].ClearField("op_type")


def no_graph(model: Model) -> None:
    model.ClearField("graph")


ADD = "add the node, input or initializer that is missing, or correct the name"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (circle, "Div 'y_scaled' takes 'c', which is made of what this node makes; have it take another tensor, or "
         "write the circle as a Loop"),
        (nobody, f"Conv 'c' takes 'nowhere', which no node makes; {ADD}"),
        (no_output, f"no node makes the output 'nothing'; {ADD}"),
        (no_standard_import, "its opset_import has no version of the standard operators (ai.onnx), which Conv 'c' is "
         "one of; add the opset that it was exported with"),
        (no_ir_version, "its ir_version is 0, and the first is 1; set the one that it was exported with"),
        (other_imports, "its opset_import has two versions of ai.onnx, 20 and 13; keep the version that the "
         "model was exported with"),
        (other_values, "the initializer 'theta' is there twice, with different values; give one of them another name "
         "in the export"),
        (no_input_type, "the input 'x' has no type; declare it (onnx.helper.make_tensor_value_info)"),
        (an_input_twice, "the input 'x' is listed twice; list it once"),
        (made_twice, "Neg 'again' makes 'y', which is there already; give one of the two another name"),
        (no_operator, "the node 'c' has no operator; give it the op_type that is meant, or leave it out"),
        (no_graph, "it has no graph; export or copy it again"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_with_its_place(spoil: Callable[[Model], None], told):
    model = chain()
    spoil(model)
    assert refusal_of(load, model) == f"the model is not a valid ONNX model: {told}"


def newer_opset(model: Model) -> None:
    model.opset_import[0].version = 99


def newer_ir_version(model: Model) -> None:
    model.ir_version = 99


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (newer_opset, f"opset 99; onnx {onnx.__version__} reads those up to {onnx.defs.onnx_opset_version()}"),
        (newer_ir_version, f"IR version 99; onnx {onnx.__version__} reads those up to {onnx.IR_VERSION}"),
    ],
)
def test_models_of_a_newer_onnx_are_told_as_such(spoil, told):
    model = chain()
    spoil(model)
    hint = "install a newer onnx, or export the model with an older one"
    assert refusal_of(load, model) == f"the model has the {told}; {hint}"


WRITE = "import the opset that the node was written for, or write it as its operator is here"


@pytest.mark.parametrize(
    ("nodes", "told", "hint"),
    [
        ("y = Foo (x)", "Foo 'y': opset 16 has no such operator",
         "import the domain that has it, or write it as operators of this one"),
        ("y = Gelu (x)", "Gelu 'y': opset 16 has no such operator, only later ones have",
         "export it with version 20 or later"),
        ("y = Upsample (x, x)", "Upsample 'y': opset 16 has no such operator any more",
         "export it with the opset that it was written for, or with what took its place"),
        ("y = Relu (x, x)", "Relu 'y' has 2 inputs, and its operator 1", WRITE),
        ("y = Conv (x)", "Conv 'y' has 1 input, and its operator 2 to 3", WRITE),
        ("y = Concat <axis = 0> ()", "Concat 'y' has 0 inputs, and its operator 1 or more", WRITE),
        ("y, z = Relu (x)", "Relu 'y' has 2 outputs, and its operator 1", WRITE),
        ("y = Relu <alpha = 1.0> (x)", "Relu 'y' has the attribute 'alpha', which its operator does not have", WRITE),
        ("y = LeakyRelu <alpha = 1> (x)", "the attribute 'alpha' of LeakyRelu 'y' is of type INT, not FLOAT",
         "write it with onnx.helper.make_attribute"),
        ("y = Concat (x, x)", "Concat 'y' lacks the attribute 'axis'", WRITE),
        ("y = LeakyRelu <alpha = 1.0, alpha = 1.0> (x)", "LeakyRelu 'y' has the attribute 'alpha' twice",
         "leave one out"),
        ("y = Add (, x)", "Add 'y' lacks its input 'A'", WRITE),
    ],
)  # fmt: skip
def test_a_node_that_does_not_fit_its_operator_is_named(nodes, told, hint):
    model = parsed(nodes)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        outputs(model)
    assert refusal_of(load, model) == f"the model is not a valid ONNX model: {told}; {hint}"


SELF = "the function 'f' calls itself; write what it repeats as a Loop"
TWICE = "the function 'f' is defined twice; leave one out, or give it another name"


@pytest.mark.parametrize(
    ("bodies", "told"),
    [
        ({"f": "b = mine.f (a)"}, SELF),
        ({"f": "b = mine.g (a)", "g": "b = mine.h (a)", "h": "b = mine.f (a)"}, SELF),
        ({"f": "b = Relu (a)", "f ": "b = Neg (a)"}, TWICE),
    ],
)
def test_functions_that_have_no_meaning_are_named(bodies, told):
    header = '<domain: "mine", opset_import: ["" : 16, "mine" : 1]>'
    functions = " ".join(f"{header} {name} (a) => (b) {{ {body} }}" for name, body in bodies.items())
    model = parsed("y = mine.f (x)", functions=functions)
    model.opset_import.add(domain="mine", version=1)
    assert refusal_of(load, model) == f"the model is not a valid ONNX model: {told}"


def test_a_body_that_gives_what_is_outside_it_is_told():
    branches = "then_branch = t () => (float[2, 3] q) {}, else_branch = e () => (o) { o = Abs (x) }"
    told = refusal_of(load, parsed(f"q = Neg (x) y = If (b) <{branches}>", "float[2, 3] x, bool b"))
    assert told.endswith(f": in a body of If 'y', no node makes the output 'q'; {ADD}")


def test_empty_shapes_that_tools_declare_are_left_open():
    """Onnxruntime would give tensors of any size one memory; qonnx writes such shapes."""
    nodes = qcfs("x", "a") + qcfs("a", "b") + "y = Neg (b)"
    model = network(nodes)
    for name in ("a", "b"):
        model.graph.value_info.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [0, 3, 8, 8]))
    with noted("the empty shapes declared for 2 tensors left open"):
        result = rewrite(model)
    np.testing.assert_array_equal(outputs(result.model)[0], outputs(model)[0])


def test_empty_shapes_are_left_open_beside_constants_that_are_empty():
    model = network(f"roi = Constant <value = float[0] {{}}> () {qcfs('x', 'a')} y = Neg (a)")
    model.graph.value_info.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [0, 3, 8, 8]))
    model.graph.value_info.append(helper.make_tensor_value_info("roi", onnx.TensorProto.FLOAT, [0]))
    with noted("the empty shape declared for 1 tensor left open"):
        shapes = load(model).shapes
    assert (shapes["a"], shapes["roi"]) == (("N", 3, 8, 8), (0,))


RESIZE = f"""
    roi = Constant <value = float[0] {{}}> ()
    twice = Constant <value = float[4] {{1.0, 1.0, 2.0, 2.0}}> ()
    u = Resize (x, roi, twice) {qcfs("u", "y")}
"""
NOTHING = """
    from = Constant <value = int64[1] {2}> ()
    to = Constant <value = int64[1] {9}> ()
    y = Slice (x, from, to)
"""


@pytest.mark.parametrize(
    "model",
    [
        network("y = Neg (x)", inputs="float[N, 0] x", outputs="float[N, 0] y"),
        network(NOTHING, inputs="float[2, 4] x", outputs="float[0, 4] y"),
        onnx.shape_inference.infer_shapes(network(RESIZE, outputs="float[N, 3, 16, 16] y")),
        rewrite(network(RESIZE, outputs="float[N, 3, 16, 16] y")).model,
    ],
    ids=["input", "slice", "resize", "spiking"],
)
def test_shapes_that_are_empty_stay(model):
    before = [info for info in (*model.graph.value_info, *model.graph.output) if 0 in sizes(info)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = load(model).proto
    assert [info for info in (*after.graph.value_info, *after.graph.output) if 0 in sizes(info)] == before


def sizes(info: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")]


# Some are large. tests/suites puts all that PyTorch converted through every step.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_onnxs_own_models_are_read_or_refused_in_a_sentence():
    folder = Path(os.path.dirname(onnx.backend.test.__file__)) / "data"
    paths = sorted(folder.rglob("*.onnx"))
    refused = []
    for path in paths:
        try:
            inspect(path)
        except PconvError as error:
            refused.append(str(error).replace(str(path), ""))
    assert len(paths) > 100
    assert not list(filter(RAW.search, refused))
    assert len(refused) < len(paths) // 20


@pytest.mark.parametrize("size", [-1, -2, -(2**63)])
def test_sizes_below_zero_are_left_open(size):
    # With the size as it is, onnx's inference of the Slice ends the process.
    nodes = f"s = Slice (x, start, end, axes) {qcfs('s', 'y')}"
    bounds = {"start": np.array([0]), "end": np.array([3]), "axes": np.array([1])}
    model = network(nodes, inputs="float[N, M] x", outputs="float[N, K] y", weights=bounds)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size
    with noted("mended on reading: sizes below 0 left open"):
        found = load(model)
    assert found.shapes["x"] == ("N", None)
    assert model.graph.input[0].type.tensor_type.shape.dim[1].dim_value == size
