"""Places on disk: what is none, links that lead nowhere, writers at a time, and what killed ones left."""

from __future__ import annotations

import os
import signal
import warnings
from functools import partial

import pytest
from refusals import refusal_of
from writers import Writer, once, told_of

from pconv_onnx import rewrite
from pconv_onnx.basics import places
from pconv_onnx.basics.places import (
    require_new_folder,
    require_place,
    require_writable,
    same_file,
    write_atomically,
    write_folder,
    write_into,
)


def write(path, content=b"new") -> None:
    write_atomically(path, lambda file: file.write(content))


ASKED = [require_writable, require_place, require_new_folder, write]


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("target", ["nothing", "nowhere/nothing", "link", "other"])
def test_a_link_that_leads_nowhere_is_no_place(target, ask, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(target)
    (tmp_path / "other").symlink_to("link" if target == "other" else "nothing")
    told = refusal_of(ask, link)
    reason = f"it is a link to '{target}', which leads nowhere"
    assert told == f"cannot write '{link}': {reason}; remove the link, or choose another place"
    assert sorted(os.listdir(tmp_path)) == ["link", "other"]
    assert os.readlink(link) == target


@pytest.mark.parametrize("ask", [require_writable, require_new_folder, write])
@pytest.mark.parametrize("target", ["/dev/null", "pipe"])
def test_a_link_to_what_is_no_file_is_no_place(target, ask, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(target)
    assert "it exists and is not a f" in refusal_of(ask, tmp_path / "link")


def test_nothing_is_made_in_a_folder_whose_name_is_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "out").symlink_to("nothing")
    told = f"cannot write '{tmp_path}/out/a/b': nothing can be made in '{tmp_path}/out'; choose another place"
    assert refusal_of(require_new_folder, tmp_path / "out" / "a" / "b") == told


def test_a_link_that_leads_nowhere_is_told_before_the_model_is_read(tmp_path):
    (tmp_path / "snn.onnx").symlink_to("nothing")
    assert "leads nowhere" in refusal_of(rewrite, tmp_path / "no such model", tmp_path / "snn.onnx")


def test_other_names_of_a_file_keep_what_it_was(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    os.link(tmp_path / "file", tmp_path / "other")
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"old"


def killed(call, event, after=0) -> None:
    assert Writer(call, once(signal.SIGKILL, event, after)).go().status() == -signal.SIGKILL


CALLS = {
    "file": lambda folder: write(folder / "file"),
    "folder": lambda folder: write_folder(folder / "files", {"a": b"1", "in/b": b"2"}),
    "several": lambda folder: write_into(folder, {"a": b"1", "b": b"2"}),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_a_killed_writer_left_is_told_by_the_next(call, tmp_path):
    (tmp_path / ".pconv-onnx-mine").touch()
    os.mkfifo(tmp_path / ".pconv-onnx-writing-pipe")
    (tmp_path / ".pconv-onnx-writing-link").symlink_to(".")
    before = set(os.listdir(tmp_path))
    killed(partial(CALLS[call], tmp_path), "os.rename")
    (left,) = set(os.listdir(tmp_path)) - before
    with pytest.warns(UserWarning) as told:
        write(tmp_path / "other")
    assert [str(warning.message) for warning in told] == [
        f"a writer that did not end left in '{tmp_path}': '{left}'; they can be removed"
    ]
    assert set(os.listdir(tmp_path)) == before | {left, "other"}


def test_what_a_living_writer_has_made_is_not_told(tmp_path):
    writer = Writer(partial(write, tmp_path / "file", b"its"), once(signal.SIGSTOP, "fcntl.flock", 4)).go()
    writer.wait_for_stop()
    assert len(os.listdir(tmp_path)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "file")
    writer.resume()
    assert writer.status() == 0
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"its"


def test_what_another_user_left_is_not_told(tmp_path):
    if os.geteuid():
        pytest.skip("only root gives files away")
    killed(partial(write, tmp_path / "file"), "os.rename")
    (left,) = os.listdir(tmp_path)
    os.chown(tmp_path / left, 1, 1)
    assert list(told_of(partial(write, tmp_path / "file"))) == []


def test_a_writer_waits_for_another_s_renaming_and_not_for_ever(tmp_path, monkeypatch):
    writer = Writer(partial(write, tmp_path / "file", b"first"), once(signal.SIGSTOP, "os.rename")).go()
    writer.wait_for_stop()
    second = Writer(partial(write, tmp_path / "file", b"second")).go()
    monkeypatch.setattr(places, "_PATIENCE", 0.05)
    assert refusal_of(write, tmp_path / "file") == (
        f"cannot write to '{tmp_path}': another program keeps it locked; end that program, or choose another place"
    )
    assert not second.has_ended()
    writer.resume()
    assert (writer.status(), second.status()) == (0, 0)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"second"


def test_files_of_two_calls_do_not_mix(tmp_path):
    first = {name: b"first" for name in "abc"}
    writer = Writer(partial(write_into, tmp_path, first), once(signal.SIGSTOP, "os.rename", 1)).go()
    writer.wait_for_stop()
    second = Writer(partial(write_into, tmp_path, dict.fromkeys("abc", b"second"))).go()
    assert not second.has_ended()
    writer.resume()
    assert (writer.status(), second.status()) == (0, 0)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == dict.fromkeys("abc", b"second")


def test_one_of_two_writers_of_a_new_folder_is_refused(tmp_path):
    folder = tmp_path / "out"
    writer = Writer(partial(write_folder, folder, {"a": b"1"}), once(signal.SIGSTOP, "os.rename")).go()
    writer.wait_for_stop()
    write_folder(folder, {"b": b"2"})
    writer.resume()
    assert writer.status() == 1
    assert (os.listdir(tmp_path), os.listdir(folder)) == (["out"], ["b"])


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 5000])
def test_what_no_file_is_called_is_the_same_as_none(name, tmp_path):
    there = tmp_path / "there"
    there.touch()
    for other in (there, tmp_path / "not there", "a\0b"):
        assert not same_file(name if name != other else "y", other)
        assert not same_file(other, name if name != other else "y")


def test_one_file_is_the_same_by_another_name(tmp_path):
    there = tmp_path / "there"
    assert same_file(there, tmp_path / "folder" / ".." / "there")
    there.touch()
    (tmp_path / "link").symlink_to(there)
    assert same_file(there, tmp_path / "link")
