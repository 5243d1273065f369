"""The written model: same interface, nothing lost, nothing stale, runs everywhere."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from networks import MODES, network, qcfs, weight
from notes import noted
from onnx import helper
from onnx.reference import ReferenceEvaluator
from opsets import opsets
from refusals import refusal_of

from pconv_onnx import session, verify
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import load
from pconv_onnx.operators.domain import OP_TYPE
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.rewriting import inspect, rewrite

NODES = qcfs("x", "s") + "c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s, w, b)" + qcfs("c", "y")
X = np.random.default_rng(0).normal(1, 1, (5, 3, 8, 8)).astype(np.float32)


def model(**arguments) -> onnx.ModelProto:
    return network(NODES, weights={"w": weight(3, 3, 3, 3), "b": weight(3, 1).reshape(3)}, **arguments)


def operators(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("opset", opsets(13, 14, 17, 18, 20, 23))
def test_result_is_valid_and_computes_what_the_source_computes(mode, opset):
    source = model(opset=opset, ir_version=7 if opset == 13 else 10)
    result = rewrite(source, mode=mode).model
    onnx.checker.check_model(result, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (expected,) = onnxruntime.InferenceSession(source.SerializeToString(), options).run(None, {"x": X})
    (found,) = session(result, options=options).run(None, {"x": X})
    # A flipped spike would be a whole step of 0.5; a Conv over T·B rows may round differently in its last bit.
    assert (found != expected).mean() < 1e-3 if mode == "parallel" else np.array_equal(found, expected)


@pytest.mark.parametrize("mode", MODES)
def test_without_the_library_it_gives_what_it_gives_with_it(mode):
    result = rewrite(model(), mode=mode).model
    plain = onnxruntime.InferenceSession(result.SerializeToString())
    (expected,) = session(result).run(None, {"x": X})
    np.testing.assert_array_equal(plain.run(None, {"x": X})[0], expected)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_it_runs_in_the_reference_evaluator():
    (expected,) = session(rewrite(model(), mode="folded").model).run(None, {"x": X})
    (found,) = ReferenceEvaluator(rewrite(model()).model).run(None, {"x": X})
    assert (found != expected).mean() < 1e-3


def test_inputs_and_outputs_are_the_source_s():
    source = model()
    for mode in MODES:
        graph = rewrite(source, mode=mode).model.graph
        assert list(graph.input) == list(source.graph.input)
        assert list(graph.output) == list(source.graph.output)


OUTPUTS = {
    "an input": ("x", [None, 3, 8, 8]),
    "an initializer": ("w", [3, 3, 3, 3]),
    "a constant that a neuron replaces": ("theta", []),
    "spikes that the next layer takes": ("s", [None, 3, 8, 8]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_may_be_any_tensor(kind, mode):
    source, (name, shape) = model(), OUTPUTS[kind]
    source.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    result = rewrite(source, mode=mode)
    assert len(operators(result.model)) >= 2
    assert [output.name for output in result.model.graph.output] == ["y", name]
    # Its neurons give the source's value for the same current, and Conv rounds it over T·B rows in another order.
    assert verify(source, result.model, {"x": X}, atol=1e-5).passed


RENAMED = {
    "spaces": " {} and {} ",
    "a path": "/{}//.{}/",
    "unicode": "θ→{}\u0301✓",
    "quotes": "'{}\"\\",
    "lines": "{}\n\t",
    "formats": "%s{{{}}}{{0}}",
    "colons": "{}:0::1",
    "as long as no file name": "{}" * 400,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", RENAMED)
def test_names_may_have_any_characters(kind, mode):
    def renamed(name: str) -> str:
        return RENAMED[kind].format(name, name, *[name] * 398) if name else ""

    source = model()
    graph = source.graph
    for node in graph.node:
        node.input[:], node.output[:] = map(renamed, node.input), map(renamed, node.output)
        node.name = renamed(f"node of {node.output[0]}")
    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = renamed(named.name)
    for info in (*graph.input, *graph.output):
        info.type.tensor_type.shape.dim[0].dim_param = renamed("N")
    result = rewrite(source, mode=mode).model
    onnx.checker.check_model(result, full_check=True)
    assert len(operators(result)) >= 2
    assert verify(source, result, {renamed("x"): X}, atol=1e-5).passed


def test_the_batch_stays_open():
    runner = session(rewrite(model()).model)
    for batch in (1, 2, 7):
        assert runner.run(None, {"x": X[:1].repeat(batch, axis=0)})[0].shape == (batch, 3, 8, 8)


def test_a_fixed_batch_stays_fixed():
    source = model(inputs="float[5, 3, 8, 8] x", outputs="float[5, 3, 8, 8] y")
    assert session(rewrite(source).model).run(None, {"x": X})[0].shape == (5, 3, 8, 8)


def test_an_empty_batch_gives_an_empty_output():
    assert session(rewrite(model()).model).run(None, {"x": X[:0]})[0].shape == (0, 3, 8, 8)


def test_what_the_model_says_of_itself_survives():
    source = model()
    source.producer_name, source.model_version, source.doc_string = "somebody", 7, "a network"
    source.graph.doc_string = "a graph"
    source.metadata_props.add(key="author", value="someone")
    source.graph.metadata_props.add(key="part", value="all")
    conv = next(node for node in source.graph.node if node.op_type == "Conv")
    conv.doc_string = "a layer"
    conv.metadata_props.add(key="layer", value="1")
    source.graph.quantization_annotation.add(tensor_name="w")
    source.graph.quantization_annotation.add(tensor_name="s_code")
    result = rewrite(source).model
    assert (result.producer_name, result.model_version, result.doc_string) == ("somebody", 7, "a network")
    assert (result.graph.doc_string, result.ir_version) == ("a graph", 10)
    assert result.metadata_props[0].value == "someone"
    assert result.graph.metadata_props[0].value == "all"
    kept = next(node for node in result.graph.node if node.op_type == "Conv")
    assert (kept.doc_string, kept.metadata_props[0].value) == ("a layer", "1")
    # Of a tensor that is gone nothing is said any more.
    assert [entry.tensor_name for entry in result.graph.quantization_annotation] == ["w"]


def test_provenance_is_written():
    source = model()
    network_ = load(source)
    for mode in MODES:
        entries = {entry.key: entry.value for entry in rewrite(source, mode=mode).model.metadata_props}
        assert entries["pconv_onnx.mode"] == mode
        assert entries["pconv_onnx.source_sha256"] == network_.sha256
        assert entries["pconv_onnx.steps"] == "4"
        assert entries["pconv_onnx.version"]
        rows = json.loads(entries["pconv_onnx.activations"])
        assert [(row["input"], row["output"], row["steps"]) for row in rows] == [("x", "s", 4), ("c", "y", 4)]


def test_no_shape_is_stale():
    """Every declared shape is the shape that the tensor has, in time and out of it."""
    for declared in (False, True):
        source = model()
        if declared:
            source.CopyFrom(onnx.shape_inference.infer_shapes(source))
        for mode, kept in (("parallel", {"s/steps", "c/steps", "y/steps"}), ("folded", {"s", "c"})):
            result = rewrite(source, mode=mode).model
            graph = result.graph
            assert {info.name for info in graph.value_info} >= kept
            shapes = {info.name: info.type.tensor_type.shape.dim for info in graph.value_info}
            graph.output.extend(info for info in graph.value_info if info.name not in {o.name for o in graph.output})
            runner = session(result)
            found = dict(zip([output.name for output in runner.get_outputs()], runner.run(None, {"x": X}), strict=True))
            assert shapes
            for name, dims in shapes.items():
                assert len(dims) == found[name].ndim
                assert all(not d.dim_value or d.dim_value == n for d, n in zip(dims, found[name].shape, strict=True))
            names = {node_output for node in graph.node for node_output in node.output}
            assert {info.name for info in graph.value_info} <= names


def test_constants_of_replaced_nodes_are_gone():
    names = {tensor.name for tensor in rewrite(model()).model.graph.initializer}
    assert not {"theta", "count", "half"} & names


def test_initializers_that_nobody_used_before_stay():
    source = model()
    source.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3), "spare"))
    assert "spare" in {tensor.name for tensor in rewrite(source).model.graph.initializer}


def test_constants_that_others_use_stay():
    source = network(qcfs("x", "s") + "y = Mul (s, theta)")
    result = rewrite(source).model
    assert "theta" in {tensor.name for tensor in result.graph.initializer}
    assert session(result).run(None, {"x": X})[0].max() == 4


def test_names_that_are_taken_are_not_taken_again():
    source = network(qcfs("x", "s") + "z = Identity (s) y = Add (z, s)")
    taken = {"z": "s/steps"}
    for node in source.graph.node:
        node.input[:] = [taken.get(name, name) for name in node.input]
        node.output[:] = [taken.get(name, name) for name in node.output]
    result = rewrite(source).model
    onnx.checker.check_model(result, full_check=True)
    assert session(result).run(None, {"x": X})[0].max() == 4


def test_initializers_are_no_inputs_that_a_run_could_override():
    """As `keep_initializers_as_inputs` exports them; a θ that is decided from its value is no longer open."""
    for ir_version in (3, 10):
        source = model()
        source.ir_version = ir_version
        for tensor in source.graph.initializer:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            source.graph.input.append(info)
        for mode in MODES:
            result = rewrite(source, mode=mode).model
            onnx.checker.check_model(result, full_check=True)
            assert [info.name for info in result.graph.input] == ["x"]
            assert session(result).run(None, {"x": X})[0].shape == X.shape


def test_names_of_nodes_stay_unique():
    source = model()
    for tensor in source.graph.initializer:
        tensor.name = tensor.name.replace("theta", "block.theta")
    for node in source.graph.node:
        node.input[:] = [name.replace("theta", "block.theta") for name in node.input]
        node.name = "block" if node.op_type == "Conv" else ""
    for mode in MODES:
        result = rewrite(source, mode=mode).model
        names = [node.name for node in result.graph.node if node.name]
        assert len(set(names)) == len(names)
        session(result).run(None, {"x": X})
        assert verify(source, result, {"x": X}).passed


def test_annotations_of_inputs_survive():
    source = model()
    source.graph.quantization_annotation.add(tensor_name="x")
    assert len(rewrite(source).model.graph.quantization_annotation) == 1


def test_excluded_activations_stay_as_they_are():
    source = model()
    names = [row["name"] for row in inspect(source)["activations"]]
    result = rewrite(source, exclude=[names[1]])
    assert [row["status"] for row in result.summary()["activations"]] == ["converted", "refused"]
    assert len(operators(result.model)) == 1
    assert any(node.op_type == "Floor" for node in result.model.graph.node)
    result = rewrite(source, include=[names[1]])
    assert [row["reason"] for row in result.summary()["activations"]] == ["not among those to include", ""]


def test_other_steps_are_written():
    result = rewrite(model(), steps=2)
    assert result.summary()["steps"] == 2
    thresholds = next(tensor for tensor in result.model.graph.initializer if tensor.name.endswith("/thresholds"))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(thresholds), [[0.5, 1.5]])


def test_uneven_levels_are_refused_by_parallel_and_taken_by_folded():
    """A step so small that its multiples round: no train of equal spikes carries the levels."""
    source = network(qcfs("x", "y"), weights={"theta": 1e-44})
    (row,) = inspect(source)["activations"]
    assert row["status"] == "refused"
    assert "levels are not evenly spaced" in row["reason"]
    assert rewrite(source, mode="folded").summary()["counts"]["converted"] == 1


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_rewriting_twice_is_refused(mode):
    result = rewrite(model(), mode=mode).model
    with pytest.raises(PconvError, match="is a spiking network already"):
        rewrite(result)


def test_a_foreign_use_of_the_domain_is_refused():
    source = model()
    source.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    source.graph.node.append(helper.make_node("Other", ["x"], ["other"], domain=DOMAIN))
    with pytest.raises(PconvError, match="uses the operator domain 'pconv' for something else"):
        rewrite(source)


def test_a_domain_that_is_declared_alone_is_no_use_of_it():
    """As onnxruntime writes it into what it saves, once the library was registered."""
    source = model()
    source.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    result = rewrite(source).model
    assert [entry.domain for entry in result.opset_import].count(DOMAIN) == 1
    onnx.checker.check_model(result)


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (8, 3), (9, 4), (10, 5), (11, 6), (12, 7)])
def test_an_old_opset_is_brought_to_one_that_functions_can_be_written_in(opset, ir_version):
    clip = "f = Clip <min = 0.0, max = 1.0> (e)" if opset < 11 else "f = Clip (e, zero, one)"
    nodes = f"""
        a = Div (x, theta) b = Mul (a, count) c = Add (b, half) d = Floor (c) e = Div (d, count) {clip}
        s = Mul (f, theta) p = Dropout (s) m = ReduceMean <axes = [2, 3], keepdims = 0> (p) y = Softmax <axis = 1> (m)
    """
    source = network(nodes, opset=opset, ir_version=max(ir_version, 4), outputs="float[N, 3] y")
    source.ir_version = ir_version
    if ir_version == 3:
        source.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in source.graph.initializer
        )
    with noted(f"uses opset {opset}; what is written uses opset 17"):
        result = rewrite(source)
    onnx.checker.check_model(result.model, full_check=True)
    assert verify(source, result.model, atol=1e-6).passed


@pytest.mark.parametrize("opset", opsets(24, 25, 26, 27, 28))
def test_the_newest_opsets_are_kept(opset):
    source = network(qcfs("x", "y"), opset=opset, ir_version=13)
    result = rewrite(source)
    assert {entry.domain: entry.version for entry in result.model.opset_import}[""] == opset
    assert result.model.ir_version == 13
    assert verify(source, result.model).passed


def test_an_old_model_keeps_its_annotations_and_names():
    source = model(opset=11, ir_version=6)
    floor = next(node for node in source.graph.node if node.op_type == "Floor")
    floor.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer1', 'layer1.act', 'floor']")
    with noted("uses opset 11"):
        activations = rewrite(source).plan.activations
    assert activations[0].name == "layer1.act"


def test_an_opset_that_onnx_cannot_convert_is_told(monkeypatch):
    def fail(*_):
        raise RuntimeError("no adapter for Act\nin some file")

    monkeypatch.setattr("onnx.version_converter.convert_version", fail)
    told = refusal_of(rewrite, model(opset=11, ir_version=6))
    assert "uses opset 11, and onnx cannot bring it to 17; export it with opset 13" in told


def test_plans_do_not_change_the_source():
    source = model()
    before = source.SerializeToString(deterministic=True)
    make_plan(load(source))
    rewrite(source)
    assert source.SerializeToString(deterministic=True) == before


PER_STEP_NODES = {
    "spikes": qcfs("x", "y"),
    "current": qcfs("x", "s") + "y = Conv (s, w)",
}


@pytest.mark.parametrize("opset", [13, 14, 20])
@pytest.mark.parametrize("kind", PER_STEP_NODES)
def test_outputs_step_by_step_are_the_means_of_the_first_steps(kind, opset):
    source = network(PER_STEP_NODES[kind], opset=opset, weights={"w": weight(3, 3, 1, 1)})
    result = rewrite(source, per_step_outputs=True)
    onnx.checker.check_model(result.model, full_check=True)
    assert result.summary()["per_step_outputs"] == ["y_per_step"]
    assert [output.name for output in result.model.graph.output] == ["y", "y_per_step"]
    assert [dim.dim_value for dim in result.model.graph.output[1].type.tensor_type.shape.dim] == [4, 0, 3, 8, 8]
    mean, means = session(result.model).run(None, {"x": X})
    neuron = next(iter(result.plan.neurons.values()))
    trains = neuron.trains(X)
    if kind == "current":
        trains = np.einsum("tbchw,oc->tbohw", trains, weight(3, 3, 1, 1)[:, :, 0, 0])
    expected = trains.cumsum(axis=0) / np.arange(1, 5).reshape(-1, 1, 1, 1, 1)
    np.testing.assert_allclose(means, expected, atol=1e-6)
    np.testing.assert_allclose(means[-1], mean, atol=1e-6)
    assert verify(source, result.model, {"x": X}).not_compared == ["1 output at each step"]


def test_outputs_step_by_step_are_for_outputs_in_time():
    """One that comes after a decoder has no steps; where none has, that is told."""
    two = {"outputs": "float[N, 3, 8, 8] y, float[N, 3, 8, 8] z"}
    result = rewrite(network(qcfs("x", "y") + "z = Softmax (y)", **two), per_step_outputs=True)
    assert [output.name for output in result.model.graph.output] == ["y", "z", "y_per_step"]
    told = refusal_of(rewrite, network(qcfs("x", "s") + "y = Softmax (s)"), per_step_outputs=True)
    assert "'y' come after an operator that needs the temporal mean" in told
    told = refusal_of(rewrite, model(), mode="folded", per_step_outputs=True)
    assert "mode 'folded' has no time-steps to hand out" in told


def test_outputs_step_by_step_of_float16_keep_the_type_of_the_output():
    result = rewrite(model(), per_step_outputs=True, precision="float16")
    onnx.checker.check_model(result.model, full_check=True)
    mean, means = session(result.model).run(None, {"x": X})
    assert means.dtype == mean.dtype == np.float32
    np.testing.assert_allclose(means[-1], mean, atol=2e-3)


@pytest.mark.parametrize("per_step", [False, True])
def test_outputs_step_by_step_do_not_take_a_name_that_is_there(per_step):
    nodes = qcfs("x", "y") + "y_per_step = Neg (y)"
    source = network(nodes, outputs="float[N, 3, 8, 8] y, float[N, 3, 8, 8] y_per_step")
    result = rewrite(source, per_step_outputs=per_step)
    names = [output.name for output in result.model.graph.output]
    added = ["y_per_step_", "y_per_step_per_step"] if per_step else []
    assert names == ["y", "y_per_step", *added]
    assert verify(source, result.model, {"x": X}).verdict == ("measured" if per_step else "equal")


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_gives_nothing_stays(mode):
    """Of another domain, and so nothing that can be told to be without effect."""
    source = network(qcfs("x", "y"))
    source.opset_import.append(helper.make_opsetid("other", 1))
    source.graph.node.append(helper.make_node("Sink", ["y"], [], domain="other"))
    source.graph.node.append(helper.make_node("Dead", ["y"], [""], domain="other"))
    written = rewrite(source, mode=mode).model
    assert [node.op_type for node in written.graph.node if node.domain == "other"] == ["Sink", "Dead"]
