"""What onnx's checker lets through is refused when a model is read, in one line, wherever it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from refusals import refusal_of

from pconv_onnx import inspect, session, stats
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
    assert flaw_of(model) == ""
    if raw:
        model.graph.initializer[-1].raw_data += b"\0" * 16
    else:
        getattr(model.graph.initializer[-1], helper.tensor_dtype_to_field(element)).extend([1] * 4)
    assert flaw_of(model) != ""


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
        (without_value, "attribute 'value' has no value"),
    ],
)
def test_a_model_that_is_not_sound_is_told(spoil, told, model):
    spoil(model)
    assert told in flaw_of(model)
    assert (refusal := refusal_of(load, model)).startswith("the model is not a valid ONNX model: ")
    assert refusal == refusal_of(inspect, model)


def test_segments_are_refused(model):
    model.graph.initializer[-1].segment.begin = 0
    assert flaw_of(model) == "tensor 'w' is in segments"


def test_what_is_in_bodies_is_looked_at():
    model = network(BODY)
    assert flaw_of(model) == ""
    within_a_body(model).dims[0] = 3
    assert flaw_of(model) == "tensor '' has 2 values, and its shape [3] takes 3"


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
