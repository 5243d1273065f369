"""What onnx's checker lets through is refused when a model is read, in one line, wherever it is."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from refusals import refusal_of

from pconv_onnx import inspect, rewrite, session, stats, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.soundness import flaw_of
from pconv_onnx.graph.tensors import every_tensor

BODY = """
    yes = Constant <value = bool {1}> ()
    y = If (yes) <then_branch = t () => (float[N, 3, 8, 8] p)
                      { k = Constant <value = float[2] {1.0, 2.0}> () p = Relu (x) },
                  else_branch = e () => (float[N, 3, 8, 8] o) { o = Identity (x) }>
"""


@pytest.fixture
def model():
    return network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(3, 3, 1, 1)})


def within_a_body(model: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in every_tensor(model) if tensor.dims == [2])


TYPES = [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64, TensorProto.BOOL,
         TensorProto.UINT4, TensorProto.INT4, TensorProto.COMPLEX64, TensorProto.DOUBLE,
         TensorProto.UINT32]  # fmt: skip


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
@pytest.mark.parametrize("element", TYPES)
def test_tensors_of_every_type_are_sound_as_onnx_writes_them(element, shape, raw, model):
    values = np.ones(shape)
    if raw:
        tensor = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(element)), "t")
    else:
        tensor = helper.make_tensor("t", element, shape, values.reshape(-1))
    model.graph.initializer.append(tensor)
    assert flaw_of(model) is None
    if raw:
        model.graph.initializer[-1].raw_data += b"\0" * 16
    else:
        getattr(model.graph.initializer[-1], helper.tensor_dtype_to_field(element)).extend([1] * 4)
    assert flaw_of(model) is not None


def cut(model):
    model.graph.initializer[-1].raw_data = model.graph.initializer[-1].raw_data[:-1]


def grown(model):
    model.graph.initializer[-1].dims[:] = [2**40]


def negative(model):
    model.graph.initializer[-1].dims[0] = -1


def not_a_text(model):
    model.graph.initializer.append(TensorProto(name="s", data_type=TensorProto.STRING, dims=[1], string_data=[b"\xff"]))


def of_a_function(model):
    model.graph.node[0].attribute.add(name="group", type=AttributeProto.INT, ref_attr_name="other")


def of_another_shape(model):
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, None, 1]))


def of_another_size(model):
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, "K", 1, 2]))


def of_another_type(model):
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.INT8, [3, 3, 1, 1]))


def without_value(model):
    model.graph.node.add(op_type="Constant", output=["k"]).attribute.add(name="value", type=AttributeProto.TENSOR)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut, "tensor 'w' has 35 bytes, and its shape [3, 3, 1, 1] takes 36"),
        (grown, f"has 36 bytes, and its shape [{2**40}] takes {2**42}"),
        (negative, "shape [-1, 3, 1, 1]"),
        (not_a_text, "tensor 's' has a string that is not text"),
        (of_a_function, "attribute 'group' refers to one of a function, and is in none"),
        (of_another_shape, "the input 'w' is declared as float [3, None, 1], and its initializer is float "
         "[3, 3, 1, 1]"),
        (of_another_size, "the input 'w' is declared as float [3, None, 1, 2], and its initializer is float "
         "[3, 3, 1, 1]"),
        (of_another_type, "the input 'w' is declared as int8 [3, 3, 1, 1], and its initializer is float "
         "[3, 3, 1, 1]"),
        (without_value, "attribute 'value' has no value"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_sound_is_told(spoil, told, model):
    spoil(model)
    assert told in flaw_of(model)[0]
    refusal = refusal_of(load, model)
    assert refusal.startswith("the model is not a valid ONNX model: ")
    assert "; " in refusal
    assert refusal == refusal_of(inspect, model)


def test_segments_are_refused(model):
    model.graph.initializer[-1].segment.begin = 0
    assert flaw_of(model)[0] == "tensor 'w' is in segments"


def test_what_is_in_bodies_is_looked_at():
    model = network(BODY)
    assert flaw_of(model) is None
    within_a_body(model).dims[0] = 3
    assert flaw_of(model)[0] == "tensor '' has 2 values, and its shape [3] takes 3"


def test_a_model_in_memory_reads_no_other_file_for_its_bodies():
    model = network(BODY)
    tensor = within_a_body(model)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "keeps tensors in other files" in refusal_of(load, model)


def test_names_of_external_data_that_are_no_text_are_told(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    content = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"m.bin", b"\xff.bin"))
    refusal_of(load, tmp_path / "m.onnx")


@pytest.mark.parametrize("table", ["thresholds", "levels"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (2, 9), (1, 0)])
def test_tables_of_another_rank_are_refused_by_everything_that_reads_them(table, shape, snn):
    model = onnx.load(snn)
    (tensor, *_) = (entry for entry in model.graph.initializer if entry.name.endswith(table))
    tensor.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), tensor.name))
    refusal_of(stats, model)
    runner = session(model)
    with pytest.raises(Exception, match="ParallelSpike.*thresholds|levels"):
        runner.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})


def twice(model):
    model.opset_import.append(helper.make_opsetid("ai.onnx", 17))


def not_a_name(model):
    model.graph.node[0].metadata_props.add(key="pconv_onnx.activation", value="qqqq")
    model.ParseFromString(model.SerializeToString().replace(b"qqqq", b"\xff\xfe\xff\xfe"))


def an_output_twice(model):
    model.graph.output.append(model.graph.output[0])


def not_a_key(model):
    model.metadata_props.add(key="qqqq", value="x")
    model.ParseFromString(model.SerializeToString().replace(b"qqqq", b"\xff\xfe\xff\xfe"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (twice, "its opset_import has two versions of ai.onnx, 20 and 17"),
        (an_output_twice, "output 'y' is listed twice; list it once, or give a copy of it (Identity) another name"),
        (not_a_key, "its metadata are not text"),
        (not_a_name, "the metadata of a node are not text"),
    ],
)
def test_what_the_model_says_of_itself_is_looked_at(spoil, told, model):
    spoil(model)
    assert told in refusal_of(load, model)


def test_shapes_that_no_memory_holds_are_told(model, monkeypatch):
    def infer_shapes(*_, **__):
        raise MemoryError

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", infer_shapes)
    assert "cannot be inferred: they are too large" in refusal_of(load, model)


@pytest.mark.parametrize("scopes", ["{'x': 'y'}", "5", "('a',)", "(" * 300, "'"])
def test_scopes_that_no_exporter_wrote_name_no_module(scopes, model):
    for node in model.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert inspect(model)["counts"]["converted"] == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", [[1]]),
        ("dtype", 2**70),
        ("dtype", "f4,i4"),
        ("input", None),
        ("output", 5),
        ("steps", "x"),
        ("levels", {}),
    ],
)
def test_a_record_that_rewrite_did_not_write_is_not_verified(key, value, ann, snn):
    model = onnx.load(snn)
    (entry,) = (entry for entry in model.metadata_props if entry.key == "pconv_onnx.activations")
    rows = json.loads(entry.value)
    rows[0][key] = value
    entry.value = json.dumps(rows)
    assert "is not as rewrite wrote it" in refusal_of(verify, ann, model)


def test_inputs_that_no_memory_holds_are_not_drawn(snn):
    model = onnx.load(snn)
    for size in model.graph.input[0].type.tensor_type.shape.dim[1:]:
        size.dim_value = 2**40
    assert "which no memory holds" in refusal_of(stats, model)


@pytest.mark.parametrize("level", [np.nan, np.inf, 100])
def test_spikes_are_not_counted_by_levels_that_do_not_ascend(level, ann):
    model = rewrite(ann, mode="folded").model
    tensor = next(entry for entry in model.graph.initializer if entry.name.endswith("levels"))
    levels = numpy_helper.to_array(tensor).copy()
    levels[:, 0] = level
    tensor.CopyFrom(numpy_helper.from_array(levels, tensor.name))
    assert "as rewrite wrote them" in refusal_of(stats, model)
