"""Models too large for one file: their large tensors stay in other files, and are safe to read from there.

Limits are lowered, so that small models are too large.
"""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data
from refusals import refusal_of

import pconv_onnx
from pconv_onnx import PconvError, calibrate, deploy, evaluate, inspect, rewrite, session, stats, verify
from pconv_onnx.graph import external as external_data
from pconv_onnx.graph import files, load, save
from pconv_onnx.graph.tensors import references

refusal = partial(refusal_of, load)

# onnxruntime opens what is in memory with external data from then on.
opens_in_memory = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 21), reason="needs onnxruntime 1.21"
)


@pytest.fixture
def small_files(monkeypatch):
    """One file holds next to nothing."""
    monkeypatch.setattr(external_data, "_LARGEST_FILE", 100)
    monkeypatch.setattr(external_data, "_LARGE", 100)


@pytest.fixture
def large_ann(small_network, small_files, tmp_path) -> Path:
    """The small network, its weights in a file beside it."""
    return with_external_data(small_network, tmp_path / "source" / "ann.onnx")


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(0, 1, (6, 3, 8, 8)).astype(np.float32)


def with_external_data(model, path) -> Path:
    path.parent.mkdir(exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    return path


def referred_to(model) -> set[str]:
    return {tensor.name for tensor in model.graph.initializer if uses_external_data(tensor)}


def outputs(model, images):
    return session(model).run(None, {"x": images})[0]


def computes_the_same(ann, snn, images) -> bool:
    result = verify(ann, snn, {"x": images})
    return result.passed and not result.outputs_differ


def data_files(folder) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.endswith(".onnx"))


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_weights_are_copied_from_file_to_file(mode, large_ann, small_network, images, tmp_path):
    result = rewrite(large_ann, tmp_path / "snn.onnx", mode=mode)
    assert referred_to(result.model) == {"w", "v", "u"}
    written = onnx.load(tmp_path / "snn.onnx", load_external_data=False)
    assert referred_to(written) == {"w", "v", "u"}
    assert data_files(tmp_path) == ["snn.onnx.data", "source"]
    copied = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "snn.onnx").graph.initializer}
    for tensor in small_network.graph.initializer:
        if tensor.name in "wvu":
            np.testing.assert_array_equal(copied[tensor.name], numpy_helper.to_array(tensor))
    np.testing.assert_array_equal(
        outputs(tmp_path / "snn.onnx", images), outputs(rewrite(small_network, mode=mode).model, images)
    )


@opens_in_memory
def test_every_command_takes_them(large_ann, images, tmp_path):
    data, snn = {"x": images, "labels": np.zeros(6, np.int64)}, tmp_path / "snn.onnx"
    assert inspect(large_ann)["counts"]["converted"] == 2
    rewrite(large_ann, snn)
    assert verify(large_ann, snn, data).passed
    assert [row["steps"] for row in evaluate(large_ann, data, steps=[2, 4]).summary()["rows"]] == [2, 4]
    assert evaluate(snn, data).summary()["samples"] == 6
    assert len(stats(snn, data).summary()["layers"]) == 2


def test_a_large_serial_network_is_stepped(small_files, images, tmp_path):
    nodes = f"c = Conv (x, w) {qcfs('c', 'y')}"
    model = network(nodes, outputs="float[N, 4, 6, 6] y", weights={"w": weight(4, 3, 3, 3)})
    rewrite(with_external_data(model, tmp_path / "in" / "ann.onnx"), tmp_path / "snn.onnx", mode="serial")
    assert data_files(tmp_path) == ["in", "snn.onnx.data"]
    serial, small = pconv_onnx.SerialSession(tmp_path / "snn.onnx"), rewrite(model, mode="serial").model
    expected = pconv_onnx.SerialSession(small).run(None, {"x": images})[0]
    np.testing.assert_array_equal(serial.run(None, {"x": images})[0], expected)


@opens_in_memory
def test_a_verification_opens_one_large_network_at_a_time(large_ann, images, tmp_path, monkeypatch):
    rewrite(large_ann, tmp_path / "snn.onnx")
    alive = []
    opened = onnxruntime.InferenceSession

    class Counted(opened):
        def __init__(self, content, *args, **kwargs):
            super().__init__(content, *args, **kwargs)
            # Those of single layers have no weights.
            self.large = bool(referred_to(onnx.ModelProto.FromString(content)))
            if self.large:
                alive.append(id(self))
                most.append(len(alive))

        def __del__(self):
            if self.large:
                alive.remove(id(self))

    most: list[int] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    assert computes_the_same(large_ann, tmp_path / "snn.onnx", images)
    assert len(most) > 4
    assert max(most) == 1


def test_a_bundle_has_the_files_as_they_are(large_ann, images, tmp_path, library):
    rewrite(large_ann, tmp_path / "snn.onnx")
    for target, place in (("bundle", "."), ("triton", "snn/1")):
        deploy(tmp_path / "snn.onnx", tmp_path / target, target=target)
        copy = tmp_path / target / place / "snn.onnx.data"
        assert copy.read_bytes() == (tmp_path / "snn.onnx.data").read_bytes()
        np.testing.assert_array_equal(
            outputs(copy.with_name("model.onnx"), images), outputs(tmp_path / "snn.onnx", images)
        )


def test_the_digest_is_that_of_the_model_read_whole(large_ann, monkeypatch):
    kept = load(large_ann).sha256
    monkeypatch.undo()
    whole = load(large_ann)
    assert not referred_to(whole.proto)
    assert whole.sha256 == kept


def test_what_fits_in_one_file_becomes_one(small_network, tmp_path):
    rewrite(with_external_data(small_network, tmp_path / "ann.onnx"), tmp_path / "snn.onnx")
    assert sorted(os.listdir(tmp_path)) == ["ann.onnx", "snn.onnx", "weights.bin"]


@opens_in_memory
def test_the_result_in_memory_keeps_references_to_its_source(large_ann, images, tmp_path):
    result = rewrite(large_ann, tmp_path / "snn.onnx")
    expected = outputs(tmp_path / "snn.onnx", images)
    again = rewrite(large_ann, tmp_path / "snn.onnx")
    assert again.model == result.model
    told = "the model keeps tensors in other files, which are not loaded; pass its path"
    assert refusal_of(session, result.model) == told
    assert refusal_of(stats, result.model) == told
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(large_ann.parent))
    np.testing.assert_array_equal(session(result.model, options=options).run(None, {"x": images})[0], expected)


def test_float16_and_calibration_are_refused_at_once(large_ann, images, tmp_path):
    told = refusal_of(rewrite, large_ann, precision="float16")
    assert "too large for one file, and precision float16 is for models that are not" in told
    told = refusal_of(calibrate, large_ann, tmp_path / "nowhere.npz", steps=4)
    assert "too large for one file, and calibration takes models that are not" in told


def test_an_old_opset_is_refused(small_files, tmp_path):
    model = network(f"c = Conv (x, w) {qcfs('c', 'y')}", outputs="float[N, 9, 6, 6] y", opset=11,
                    weights={"w": weight(9, 3, 3, 3)})  # fmt: skip
    told = refusal_of(rewrite, with_external_data(model, tmp_path / "old.onnx"))
    assert "uses opset 11, and is too large for onnx to convert; export it with opset 13" in told


@opens_in_memory
def test_a_large_constant_that_a_recogniser_needs_is_read(small_files, images, tmp_path):
    theta = np.linspace(0.5, 3, 32, dtype=np.float32).reshape(1, 32, 1, 1)
    nodes = f"c = Conv (x, w) {qcfs('c', 'y')}"
    model = network(nodes, outputs="float[N, 32, 6, 6] y", weights={"w": weight(32, 3, 3, 3), "theta": theta})
    path = with_external_data(model, tmp_path / "ann.onnx")
    result = rewrite(path, tmp_path / "snn.onnx")
    assert referred_to(load(path).proto) == {"w", "theta"}
    (neuron,) = result.plan.neurons.values()
    np.testing.assert_array_equal(neuron.levels[:, -1], theta.reshape(-1))
    assert computes_the_same(path, tmp_path / "snn.onnx", images)


def test_equal_places_are_written_once(large_ann, tmp_path):
    model = onnx.load(large_ann, load_external_data=False)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == "w")
    model.graph.initializer.add().CopyFrom(tensor)
    model.graph.initializer[-1].name = "tied"
    onnx.save(model, large_ann)
    save(load(large_ann).proto, tmp_path / "copy.onnx", large_ann.parent)
    places = [dict((e.key, e.value) for e in t.external_data)["offset"]
              for t in onnx.load(tmp_path / "copy.onnx", load_external_data=False).graph.initializer
              if t.name in ("w", "tied")]  # fmt: skip
    assert places[0] == places[1]


def test_a_later_pair_replaces_an_earlier_one(large_ann, images, tmp_path):
    target = tmp_path / "out" / "snn.onnx"
    target.parent.mkdir()
    for steps, data in ((4, "snn.onnx.data"), (2, "snn.onnx.1.data"), (4, "snn.onnx.data")):
        expected = rewrite(large_ann, target, steps=steps)
        assert data_files(target.parent) == [data]
        assert expected.plan.steps == steps
        assert outputs(target, images).shape == (6, 5)


def test_a_small_model_replaces_a_pair(large_ann, small_network, tmp_path, monkeypatch):
    target = tmp_path / "out" / "snn.onnx"
    target.parent.mkdir()
    rewrite(large_ann, target)
    save(small_network, target)
    assert os.listdir(target.parent) == ["snn.onnx"]


def test_data_that_another_tool_wrote_stay(large_ann, small_network, tmp_path):
    target = tmp_path / "out" / "snn.onnx"
    target.parent.mkdir()
    onnx.save(onnx.ModelProto.FromString(small_network.SerializeToString()), target, save_as_external_data=True,
              location="snn.onnx.data", size_threshold=100)  # fmt: skip
    theirs = (target.parent / "snn.onnx.data").read_bytes()
    rewrite(large_ann, target)
    assert data_files(target.parent) == ["snn.onnx.1.data", "snn.onnx.data"]
    assert (target.parent / "snn.onnx.data").read_bytes() == theirs


def test_a_source_that_is_overwritten_keeps_its_data(large_ann, images, tmp_path):
    (large_ann.parent / "weights.bin").rename(large_ann.parent / "ann.onnx.data")
    model = onnx.load(large_ann, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "ann.onnx.data"
    onnx.save(model, large_ann)
    result = rewrite(large_ann, large_ann, force=True)
    assert data_files(large_ann.parent) == ["ann.onnx.1.data", "ann.onnx.data"]
    save(result.model, tmp_path / "again.onnx", large_ann.parent)
    np.testing.assert_array_equal(outputs(tmp_path / "again.onnx", images), outputs(large_ann, images))


def after(call, times, error):
    """`call`, which does its work and then fails, at the last of so many times."""
    left = [times]

    def fail(*args, **kwargs):
        left[0] -= 1
        result = call(*args, **kwargs)
        if not left[0]:
            raise error
        return result

    return fail


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("name", "times"),
    [("fsync", 1), ("fsync", 2), ("fsync", 3), ("fsync", 4), ("replace", 1)],
)
def test_a_pair_appears_whole_or_not_at_all(name, times, before, error, large_ann, images, tmp_path, monkeypatch):
    target = tmp_path / "out" / "snn.onnx"
    target.parent.mkdir()
    if before:
        rewrite(large_ann, target, steps=2)
    there = {file.name: file.read_bytes() for file in target.parent.iterdir()}
    model = rewrite(large_ann).model
    told = pytest.raises(PconvError if isinstance(error, OSError) else KeyboardInterrupt)
    if (name, times) == ("fsync", 4) and isinstance(error, OSError):  # of the folder, when all is where it should be
        told = contextlib.nullcontext()
    with monkeypatch.context() as patched, told:
        patched.setattr(os, name, after(getattr(os, name), times, error))
        save(model, target, large_ann.parent)
    found = {file.name: file.read_bytes() for file in target.parent.iterdir()}
    if (name, times) in (("fsync", 4), ("replace", 1)):  # the model was in place
        assert found.keys() != there.keys()
        assert len(found) == 2
        assert outputs(target, images).shape == (6, 5)
    else:
        assert found == there


def test_a_fault_while_data_are_copied_leaves_nothing(large_ann, tmp_path, monkeypatch):
    def broken_off(self):
        yield b"some"
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(external_data.Place, "chunks", broken_off)
    network = files._checked(onnx.load(large_ann, load_external_data=False), "m", "", large_ann.parent)
    with pytest.raises(PconvError, match=r"cannot write '.*snn\.onnx': Input/output error"):
        save(network.proto, tmp_path / "snn.onnx", large_ann.parent)
    assert os.listdir(tmp_path) == ["source"]


def test_a_source_that_lost_its_data_is_told(large_ann, tmp_path):
    model = rewrite(large_ann).model
    (large_ann.parent / "weights.bin").write_bytes(b"123")
    with pytest.raises(PconvError, match="ends at byte .* keep the external data of its source as it was"):
        save(model, tmp_path / "snn.onnx", large_ann.parent)
    assert os.listdir(tmp_path) == ["source"]


def external(name, **entries) -> TensorProto:
    """A tensor of 64 floats, in 256 bytes of `w.bin` unless entries say otherwise."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[8, 8], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.bin", "offset": "0", "length": "256", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def in_an_initializer(tensor):
    return [helper.make_node("MatMul", ["x", "t"], ["c"])], [tensor], []


def in_a_constant(tensor):
    return (
        [
            helper.make_node("Constant", [], ["t"], value=tensor),
            helper.make_node("MatMul", ["x", "t"], ["c"]),
        ],
        [],
        [],
    )


def in_a_body(tensor):
    output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    then = helper.make_graph([helper.make_node("MatMul", ["x", "t"], ["o"])], "then", [], [output], [tensor])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "else", [], [output])
    yes = numpy_helper.from_array(np.array(True), "yes")
    return [helper.make_node("If", ["yes"], ["c"], then_branch=then, else_branch=other)], [yes], []


def in_a_function(tensor):
    nodes, _, _ = in_a_constant(tensor)
    function = helper.make_function("own", "f", ["x"], ["c"], nodes, [helper.make_opsetid("", 20)])
    return [helper.make_node("f", ["x"], ["c"], domain="own")], [], [function]


PLACES = [in_an_initializer, in_a_constant, in_a_body, in_a_function]


def model_with(tensor, place, path) -> Path:
    """A QCFS network of that tensor in a file, with `w.bin` beside it."""
    nodes, initializers, functions = place(tensor)
    rest = network(qcfs("c", "y"), inputs="float[N, 8] c", outputs="float[N, 8] y")
    graph = helper.make_graph(
        [*nodes, *rest.graph.node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        rest.graph.output,
        [*initializers, *rest.graph.initializer],
        value_info=[helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 8])],
    )
    imports = [helper.make_opsetid("", 20), *([helper.make_opsetid("own", 1)] if functions else [])]
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=10)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.SerializeToString())
    (path.parent / "w.bin").write_bytes(weight(8, 8).tobytes())
    return path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("large", [False, pytest.param(True, marks=opens_in_memory)])
def test_external_data_anywhere_in_a_model_are_taken(place, large, request, tmp_path):
    if large:
        request.getfixturevalue("small_files")
    path = model_with(external("t"), place, tmp_path / "in" / "ann.onnx")
    result = rewrite(path, tmp_path / "snn.onnx")
    assert len(references(result.model)) == large
    assert data_files(tmp_path) == (["in", "snn.onnx.data"] if large else ["in"])
    assert verify(path, tmp_path / "snn.onnx").passed


FAULTS = {
    "absolute": ({"location": "{folder}/w.bin"}, "is not a path from the model's folder"),
    "of another system": ({"location": r"C:\w.bin"}, "is not a path from the model's folder"),
    "above": ({"location": "../w.bin"}, "leaves the model's folder"),
    "above, spelt otherwise": ({"location": r"a\..\..\w.bin"}, "leaves the model's folder"),
    "link": ({"location": "link"}, "leaves the model's folder through a link"),
    "linked folder": ({"location": "away/w.bin"}, "leaves the model's folder through a link"),
    "pipe": ({"location": "pipe"}, "is not a file"),
    "folder": ({"location": "."}, "is not a file"),
    "missing": ({"location": "none"}, "cannot be read: No such file"),
    "nameless": ({"location": ""}, "without a name"),
    "no name": ({"location": "w\0.bin"}, "cannot have its name"),
    "offset": ({"offset": "4"}, "ends at byte 260 of a file of 256"),
    "huge offset": ({"offset": "9" * 18}, "of a file of 256"),
    "negative offset": ({"offset": "-4"}, "'-4', which is not a number of bytes"),
    "no offset": ({"offset": "four"}, "'four', which is not a number of bytes"),
    "long": ({"length": "260"}, "has 260 bytes, and its shape [8, 8] takes 256"),
    "short": ({"length": "4"}, "has 4 bytes, and its shape [8, 8] takes 256"),
    "negative length": ({"length": "-1"}, "'-1', which is not a number of bytes"),
    "no length": ({"length": "1e2"}, "'1e2', which is not a number of bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_is_not_in_the_folder_is_refused_unopened(fault, place, tmp_path, monkeypatch):
    entries, reason = FAULTS[fault]
    folder = tmp_path / "in"
    entries = {key: value.format(folder=folder) for key, value in entries.items()}
    path = model_with(external("t", **entries), place, folder / "ann.onnx")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.bin").write_bytes(weight(8, 8).tobytes())
    (folder / "link").symlink_to(outside / "w.bin")
    (folder / "away").symlink_to(outside)
    os.mkfifo(folder / "pipe")
    opened = []
    real = external_data.Place.chunks
    monkeypatch.setattr(external_data.Place, "chunks", lambda self: opened.append(self) or real(self))
    told = refusal(path)
    assert told.startswith(f"cannot read the external data of '{path}': tensor 't' ")
    assert reason in told
    assert not opened


@pytest.mark.parametrize("place", PLACES)
def test_a_link_inside_of_the_folder_is_followed(place, tmp_path):
    path = model_with(external("t", location="link"), place, tmp_path / "in" / "ann.onnx")
    (path.parent / "link").symlink_to("w.bin")
    assert rewrite(path).plan.neurons


def test_a_hard_link_in_the_folder_is_as_good_as_any_file(tmp_path):
    # Nothing tells it from one: who may link to a file, and have others read it, is the system's affair.
    path = model_with(external("t", location="other"), in_an_initializer, tmp_path / "in" / "ann.onnx")
    (tmp_path / "elsewhere").write_bytes(weight(8, 8).tobytes())
    os.link(tmp_path / "elsewhere", path.parent / "other")
    (read,) = (t for t in load(path).proto.graph.initializer if t.name == "t")
    np.testing.assert_array_equal(numpy_helper.to_array(read), weight(8, 8))


def test_without_offset_and_length_the_shape_says_what_is_taken(tmp_path):
    tensor = external("t")
    del tensor.external_data[1:]
    path = model_with(tensor, in_an_initializer, tmp_path / "ann.onnx")
    (tmp_path / "w.bin").write_bytes(weight(8, 8).tobytes() + b"more")
    (read,) = (t for t in load(path).proto.graph.initializer if t.name == "t")
    np.testing.assert_array_equal(numpy_helper.to_array(read), weight(8, 8))


HUGE = [1 << 20, 1 << 20]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "tensor",
    [
        external("t"),
        TensorProto(name="t", data_type=TensorProto.FLOAT, raw_data=b"1234"),
        TensorProto(name="t", data_type=TensorProto.FLOAT, float_data=[1.0]),
        TensorProto(name="t", data_type=TensorProto.INT4, raw_data=b"12"),
        TensorProto(name="t", data_type=TensorProto.FLOAT16, int32_data=[1, 2]),
    ],
    ids=["external", "raw", "float", "int4", "half"],
)
def test_a_shape_of_more_elements_than_there_are_is_refused(tensor, place, tmp_path):
    tensor.dims[:] = HUGE
    told = refusal(model_with(tensor, place, tmp_path / "ann.onnx"))
    assert "cannot read the external data of" in told or "is not a valid ONNX model" in told


def sparse(dense, name, *, linear: bool, raw: bool) -> onnx.SparseTensorProto:
    at = np.flatnonzero(dense) if linear else np.argwhere(dense)
    values = dense[dense != 0]
    if raw:
        parts = numpy_helper.from_array(values, name), numpy_helper.from_array(at.astype(np.int64), f"{name}_at")
    else:
        parts = (
            helper.make_tensor(name, TensorProto.FLOAT, values.shape, values),
            helper.make_tensor(f"{name}_at", TensorProto.INT64, at.shape, at.reshape(-1)),
        )
    return helper.make_sparse_tensor(*parts, list(dense.shape))


def sparsely(model, name, **how) -> onnx.ModelProto:
    """The model with an initializer made sparse."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    (index,) = (i for i, tensor in enumerate(copy.graph.initializer) if tensor.name == name)
    dense = numpy_helper.to_array(copy.graph.initializer[index])
    del copy.graph.initializer[index]
    copy.graph.sparse_initializer.append(sparse(dense, name, **how))
    return copy


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_sparse_weights_are_as_good_as_others(linear, raw, small_network, images, tmp_path):
    model = sparsely(small_network, "v", linear=linear, raw=raw)
    onnx.save(model, tmp_path / "ann.onnx")
    found = load(tmp_path / "ann.onnx")
    assert found.shapes["v"] == (2, 4, 2, 2)
    assert found.dtypes["v"] == np.float32
    assert found.shapes["d"] == ("N", 2, 2, 2)
    assert "v" in found.names
    rewrite(tmp_path / "ann.onnx", tmp_path / "snn.onnx")
    assert [t.values.name for t in onnx.load(tmp_path / "snn.onnx").graph.sparse_initializer] == ["v"]
    assert computes_the_same(tmp_path / "ann.onnx", tmp_path / "snn.onnx", images)


def test_sparse_weights_of_a_constant_node_are_as_good_as_others(small_network, images):
    model = sparsely(small_network, "v", linear=True, raw=True)
    (tensor,) = model.graph.sparse_initializer
    node = helper.make_node("Constant", [], ["v"], sparse_value=tensor)
    nodes = [node, *model.graph.node]
    del model.graph.sparse_initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    result = rewrite(model)
    assert len(result.plan.neurons) == 2
    assert computes_the_same(model, result.model, images)


@pytest.mark.parametrize("linear", [False, True])
def test_a_sparse_threshold_is_recognised(linear, images):
    theta = np.array([0.5, 1, 2], np.float32).reshape(1, 3, 1, 1)
    model = network(f"c = Conv (x, w) {qcfs('c', 'y')}", outputs="float[N, 3, 6, 6] y",
                    weights={"w": weight(3, 3, 3, 3), "theta": theta})  # fmt: skip
    model = sparsely(model, "theta", linear=linear, raw=False)
    result = rewrite(model)
    (neuron,) = result.plan.neurons.values()
    np.testing.assert_array_equal(neuron.levels[:, -1], theta.reshape(-1))
    assert not result.model.graph.sparse_initializer
    assert computes_the_same(model, result.model, images)


def test_a_sparse_threshold_of_a_constant_node_stays_around_the_neuron(images):
    model = network(f"c = Conv (x, w) {qcfs('c', 'y')}", outputs="float[N, 3, 6, 6] y",
                    weights={"w": weight(3, 3, 3, 3), "theta": np.full(1, 2, np.float32)})  # fmt: skip
    model = sparsely(model, "theta", linear=True, raw=True)
    nodes = [helper.make_node("Constant", [], ["theta"], sparse_value=model.graph.sparse_initializer[0])]
    nodes += model.graph.node
    del model.graph.sparse_initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    result = rewrite(model)
    assert "Div" in {node.op_type for node in result.model.graph.node}
    assert computes_the_same(model, result.model, images)


def test_a_sparse_tensor_that_no_memory_holds_is_refused(small_network):
    model = sparsely(small_network, "v", linear=True, raw=True)
    model.graph.sparse_initializer[0].dims[:] = HUGE
    assert "sparse tensor 'v' of shape [1048576, 1048576] is too large to be made dense" in refusal(model)


@pytest.mark.parametrize("part", ["values", "indices"])
def test_sparse_tensors_in_other_files_are_read(part, small_network, small_files, images, tmp_path):
    model = sparsely(small_network, "v", linear=True, raw=True)
    tensor = getattr(model.graph.sparse_initializer[0], part)
    (tmp_path / "v.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="v.bin")
    onnx.save(model, tmp_path / "ann.onnx")
    result = rewrite(tmp_path / "ann.onnx")
    assert not references(result.model)
    assert computes_the_same(tmp_path / "ann.onnx", result.model, images)
