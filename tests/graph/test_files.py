"""Model files: every fault is a sentence, and what is written is whole or absent, by however many at a time."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from functools import partial

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from notes import noted
from onnx import helper, numpy_helper
from refusals import refusal_of
from writers import Writer, data_of, embedding, killed_at, once, slowly, source, told_of, whose

from pconv_onnx import inspect
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.writing import write_atomically
from pconv_onnx.graph import load, save

refusal = partial(refusal_of, load)


@pytest.fixture
def model():
    return network(
        f"c = Conv (x, w) {qcfs('c', 'y')}", outputs="float[N, 2, 6, 6] y", weights={"w": weight(2, 3, 3, 3)}
    )


def test_a_model_comes_through_unchanged(model, tmp_path):
    model.metadata_props.add(key="author", value="somebody")
    save(model, tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx").proto == model


def test_missing_file_is_told(tmp_path):
    assert refusal(tmp_path / "none.onnx") == (
        f"cannot read '{tmp_path}/none.onnx': No such file or directory; check the path"
    )


def test_empty_file_is_told(tmp_path):
    (tmp_path / "empty.onnx").touch()
    assert "empty.onnx' is empty; export the model again" in refusal(tmp_path / "empty.onnx")


def test_directory_is_told(tmp_path):
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"hello world\n", b"\x89PNG\r\n\x1a\n" * 9, bytes(1000)])
def test_other_files_are_told(content, tmp_path):
    (tmp_path / "other").write_bytes(content)
    assert "other' is not " in refusal(tmp_path / "other")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (POINTER, "is a Git LFS pointer, not the model; git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is an HTML page, not the model; download the file itself"),
        (
            b"PK\x03\x04" * 99,
            "is a zip archive, not the model; unpack it; if it is a checkpoint of PyTorch",
        ),
        (
            b"\x80\x02\x8a\nl\xfc\x9cF",
            "is a pickle, perhaps a checkpoint of PyTorch, not the model; export the network",
        ),
        (b"\x1c\0\0\0TFL3", "is a TensorFlow Lite model, not the model; convert it with tf2onnx"),
        (b'{"ir_version": 8}', "is a text, such as JSON, not the model; pass the ONNX model"),
    ],
)
def test_well_known_files_are_told_as_what_they_are(content, told, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    assert refusal(tmp_path / "m.onnx").startswith(f"'{tmp_path}/m.onnx' {told}")


def test_external_data_that_git_lfs_has_not_fetched_is_told(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    (tmp_path / "m.bin").write_bytes(POINTER)
    told = refusal(tmp_path / "m.onnx")
    assert told.startswith(f"cannot read the external data of '{tmp_path}/m.onnx': tensor '")
    assert told.endswith("' lies in 'm.bin', which is a Git LFS pointer, not the data; git lfs pull")


def test_truncation_anywhere_is_told(model, tmp_path):
    content = model.SerializeToString()
    for length in range(1, len(content), 7):
        (tmp_path / "short.onnx").write_bytes(content[:length])
        assert "short.onnx' is not " in refusal(tmp_path / "short.onnx")


def test_what_the_checker_rejects_is_told_with_its_reason(model):
    model.graph.node[0].input[0] = "nowhere"
    told = "the model is not a valid ONNX model: Conv 'c' takes 'nowhere', which no node makes; add the node, "
    assert refusal(model).startswith(told)


def test_a_model_without_standard_operators_has_nothing_to_convert():
    text = '<ir_version: 8, opset_import: ["other": 1]> g (float[2] x) => (float[2] y) { y = other.f (x) }'
    with noted("the domain ai.onnx imported"):
        assert inspect(onnx.parser.parse_model(text))["activations"] == []


def test_an_element_type_that_nobody_knows_is_told(model):
    model.graph.initializer[-1].data_type = 81
    assert "unknown type 81" in refusal(model)


def test_a_text_that_is_none_is_told(model):
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("note", b"\xff"))
    model.graph.node[0].domain = "other"
    model.opset_import.add(domain="other", version=1)
    assert "an attribute that is not text" in refusal(model)


def test_external_data_is_read_from_beside_the_model(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    loaded = load(tmp_path / "m.onnx").proto
    assert not any(onnx.external_data_helper.uses_external_data(tensor) for tensor in loaded.graph.initializer)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
    np.testing.assert_array_equal(weights["w"], weight(2, 3, 3, 3))


@pytest.mark.parametrize("fault", ["missing", "short", "outside"])
def test_faulty_external_data_is_told(fault, model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    if fault == "missing":
        (tmp_path / "m.bin").unlink()
    elif fault == "short":
        (tmp_path / "m.bin").write_bytes(b"123")
    else:
        content = (tmp_path / "m.onnx").read_bytes()
        (tmp_path / "m.onnx").write_bytes(content.replace(b"m.bin", b"../mb"))
    assert "cannot read the external data of" in refusal(tmp_path / "m.onnx")


def test_a_model_in_memory_without_its_external_data_is_told(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    told = refusal(onnx.load(tmp_path / "m.onnx", load_external_data=False))
    assert told == "the model keeps tensors in other files, which are not loaded; pass its path"


def test_reading_a_model_says_nothing_on_stdout(capsys):
    # GraphSurgeon warns on stdout of types that NumPy has not.
    tensor = helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [1], [1.0])
    output = helper.make_tensor_value_info("y", onnx.TensorProto.BFLOAT16, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    assert capsys.readouterr().out == ""


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("before", [None, b"what was there"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_output_is_whole_or_absent(call, before, tmp_path, monkeypatch):
    target = tmp_path / "out.onnx"
    if before is not None:
        target.write_bytes(before)
    monkeypatch.setattr(os, call, failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(PconvError) as raised:
        write_atomically(target, lambda file: file.write(b"new"))
    monkeypatch.undo()
    assert str(raised.value) == f"cannot write '{target}': No space left on device; choose another place"
    assert os.listdir(tmp_path) == ([] if before is None else ["out.onnx"])
    assert before is None or target.read_bytes() == before


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError("a bug")])
def test_nothing_remains_when_writing_is_broken_off(fault, tmp_path):
    with pytest.raises(type(fault)):
        write_atomically(tmp_path / "out.onnx", failing(fault))
    assert os.listdir(tmp_path) == []


def test_a_file_that_outgrows_its_limit_leaves_nothing(ann, tmp_path):
    # A true failure of the operating system in mid-file, which root meets as well.
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from pconv_onnx.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "rewrite", ann, "-o", out / "snn.onnx"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"pconv-onnx: cannot write '{out}/snn.onnx': File too large; choose another place\n")
    assert os.listdir(out) == []


def test_a_folder_that_cannot_be_written_to_is_told(model, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", failing(OSError(errno.EROFS, os.strerror(errno.EROFS))))
    with pytest.raises(PconvError, match="Read-only file system; choose another place"):
        save(model, tmp_path / "out.onnx")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/out.onnx", "No such file or directory"),
        ("file/out.onnx", "Not a directory"),
        ("folder", "it exists and is not a file"),
        ("pipe", "it exists and is not a file"),
        ("n" * 300, "File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(place, reason, model, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PconvError) as raised:
        save(model, tmp_path / place)
    assert str(raised.value) == f"cannot write '{tmp_path / place}': {reason}; choose another place"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "pipe"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_a_link_stays_and_its_file_is_written(model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.onnx").write_bytes(b"old")
    (tmp_path / "link.onnx").symlink_to("there/real.onnx")
    save(model, tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert (tmp_path / "there" / "real.onnx").read_bytes() == model.SerializeToString()


def test_a_result_is_as_readable_as_any_new_file(model, tmp_path):
    save(model, tmp_path / "out.onnx")
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_long_name_that_the_file_system_takes_is_taken(model, tmp_path):
    save(model, tmp_path / ("n" * 255))
    assert (tmp_path / ("n" * 255)).read_bytes() == model.SerializeToString()


def test_a_model_too_large_for_one_file_is_told(tmp_path):
    class Huge:
        def SerializeToString(self):
            raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB: 2147483999")

    with pytest.raises(PconvError, match="larger than the 2 GB of one ONNX file"):
        save(Huge(), tmp_path / "out.onnx")
    assert os.listdir(tmp_path) == []


NAME = "m.onnx"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / NAME


@pytest.fixture
def models(tmp_path):
    """Four models, and with each what writes it."""
    folder = tmp_path / "sources"
    return [source(folder, bytes([number]) * (100_000 + number)) for number in range(4)]


@pytest.fixture
def saved(models, out, tmp_path):
    return [partial(save, model, out, tmp_path / "sources") for model in models]


def is_clean(out) -> bool:
    """Whether there is a whole model and nothing else."""
    whose(out)
    return set(os.listdir(out.parent)) == {NAME} | data_of(out)


def test_writers_at_the_same_time_leave_one_s_model_with_its_weights(saved, models, out):
    for run in range(40):
        writers = [Writer(write, slowly(3 * run + number)) for number, write in enumerate(saved[:3])]
        for writer in writers:
            writer.go()
        assert [writer.status() for writer in writers] == [0] * 3
        assert whose(out) in {model.doc_string for model in models[:3]}
        assert is_clean(out)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("second", ["pair", "file"])
# The second of flock's is that before the renaming: the first is of the private folder's making.
@pytest.mark.parametrize(("event", "after"), [("os.link", 0), ("os.remove", 0), ("fcntl.flock", 1)])
def test_a_writer_that_is_overtaken_wins_as_it_ends_last(event, after, second, before, saved, models, out):
    if before:
        saved[0]()
    writer = Writer(saved[1], once(signal.SIGSTOP, event, after)).go()
    writer.wait_for_stop()
    if second == "pair":
        saved[2]()
    else:
        save(embedding(b"123"), out)
    assert whose(out) != models[1].doc_string
    writer.resume()
    assert writer.status() == 0
    assert whose(out) == models[1].doc_string
    assert is_clean(out)


def test_a_writer_that_ends_last_removes_the_data_of_the_one_that_overtook_it(saved, models, out):
    # What belongs to the model that is replaced is asked as it is replaced, not when writing began.
    writer = Writer(saved[1], once(signal.SIGSTOP, "os.rename")).go()
    writer.wait_for_stop()
    second = Writer(saved[2]).go()
    assert not second.has_ended()
    writer.resume()
    assert (writer.status(), second.status()) == (0, 0)
    assert whose(out) == models[2].doc_string
    assert is_clean(out)


@pytest.mark.parametrize("before", [False, True])
def test_a_writer_killed_at_any_call_leaves_a_whole_model_and_the_next_tells_the_rest(before, saved, models, out):
    if before:
        saved[0]()
    kills, states = 0, set()
    while status := Writer(saved[kills % 2], killed_at(kills)).go().status():
        assert status == -signal.SIGKILL
        kills += 1
        assert out.exists() or not before
        strays = set(os.listdir(out.parent)) - ({NAME} | data_of(out) if out.exists() else set())
        if out.exists():
            whose(out)
        assert set(told_of(saved[2], out.parent)) == strays
        assert whose(out) == models[2].doc_string
        states |= {tuple(sorted(name.split("-")[0] for name in strays))}
        for name in strays:
            remove(out.parent / name)
        assert is_clean(out)
        if not before:
            remove(out.parent)
            out.parent.mkdir()
    assert kills > 30
    # Also one who had taken a name for his data, or had not yet removed those of the model before.
    assert (".pconv", "m.onnx.1.data" if before else "m.onnx.data") in states


def test_a_writer_killed_while_it_gives_up_does_not_give_away_what_the_model_needs(saved, out):
    def killed_in_the_middle(folder, **_):
        os.unlink(folder / "result")
        os.kill(os.getpid(), signal.SIGKILL)

    def give_up():
        os.replace, shutil.rmtree = failing(OSError(errno.EIO, os.strerror(errno.EIO))), killed_in_the_middle
        saved[1]()

    saved[0]()
    before = set(os.listdir(out.parent))
    assert Writer(give_up).go().status() == -signal.SIGKILL
    (left,) = set(os.listdir(out.parent)) - before
    assert list(told_of(saved[2], out.parent)) == [left]


def remove(path) -> None:
    if path.is_dir():
        for inside in path.iterdir():
            remove(inside)
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize("lost", ["os.link", "fcntl.flock"])
def test_without_links_or_locks_files_are_as_whole(lost, saved, models, out, monkeypatch):
    def cannot(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lost, cannot)
    for _ in range(5):
        writers = [Writer(write, slowly(number)).go() for number, write in enumerate(saved)]
        assert [writer.status() for writer in writers] == [0] * 4
        assert whose(out) in {model.doc_string for model in models}
    saved[0]()
    assert NAME in os.listdir(out.parent)
    if lost == "os.link":
        assert is_clean(out)


@pytest.mark.parametrize("lost", ["os.link", "fcntl.flock", None])
def test_a_link_that_somebody_made_to_the_data_stays(lost, saved, models, out, monkeypatch):
    saved[0]()
    (data,) = data_of(out)
    weights = (out.parent / data).read_bytes()
    os.link(out.parent / data, out.parent / "m.onnx.7.data")
    (out.parent / "m.onnx.8.data").symlink_to("m.onnx.7.data")
    (out.parent / "m.onnx.9.data").symlink_to("nothing")
    own = ["m.onnx.7.data", "m.onnx.8.data", "m.onnx.9.data"]
    for write in saved[1:]:
        write()
        assert set(os.listdir(out.parent)) == {NAME, *data_of(out), *own}
    assert whose(out) == models[3].doc_string
    assert (out.parent / "m.onnx.8.data").read_bytes() == weights


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [False, True])
def test_a_name_that_was_taken_when_a_fault_came_is_given_back(before, error, saved, models, out, monkeypatch):
    if before:
        saved[0]()
    there = {name: (out.parent / name).read_bytes() for name in os.listdir(out.parent)}
    link = os.link

    def fail(*arguments):
        link(*arguments)
        raise error

    monkeypatch.setattr(os, "link", fail)
    if error is OSError:  # that it cannot, and yet it did, as a file system that is far away may
        saved[1]()
        assert whose(out) == models[1].doc_string
        assert is_clean(out)
    else:
        with pytest.raises(KeyboardInterrupt):
            saved[1]()
        assert {name: (out.parent / name).read_bytes() for name in os.listdir(out.parent)} == there


def test_a_source_of_the_same_names_in_the_same_folder_keeps_its_data(models, out, tmp_path):
    save(models[0], out, tmp_path / "sources")
    save(onnx.load(out, load_external_data=False), out, out.parent)
    assert whose(out) == models[0].doc_string
    assert set(os.listdir(out.parent)) == {NAME, "m.onnx.data", "m.onnx.1.data"}
