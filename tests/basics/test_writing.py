"""Writers: several at a time, stopped, on systems without locks; and what killed ones left."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import time
import warnings
from functools import partial

import pytest
from refusals import refusal_of
from writers import Writer, age, once, told_of

from pconv_onnx.basics import locks, writing
from pconv_onnx.basics.writing import write_atomically, write_folder, write_into


def write(path, content=b"new") -> None:
    write_atomically(path, lambda file: file.write(content))


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
    age(tmp_path)
    with pytest.warns(UserWarning) as told:
        write(tmp_path / "other")
    assert [str(warning.message) for warning in told] == [
        f"a writer that did not end left in '{tmp_path}': '{left}'; they can be removed if nothing else is writing "
        "there, on another machine either"
    ]
    assert set(os.listdir(tmp_path)) == before | {left, "other"}


def test_what_a_living_writer_has_made_is_not_told(tmp_path):
    writer = Writer(partial(write, tmp_path / "file", b"its"), once(signal.SIGSTOP, "fcntl.flock", 1)).go()
    writer.wait_for_stop()
    assert len(os.listdir(tmp_path)) == 1
    age(tmp_path)
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
    assert list(told_of(partial(write, tmp_path / "file"), tmp_path)) == []


def test_what_may_be_a_living_writer_s_of_another_machine_is_not_told(tmp_path):
    killed(partial(write, tmp_path / "file"), "os.rename")
    (left,) = tmp_path.iterdir()
    for seconds, count in ((3500, 0), (3700, 1)):
        os.utime(left, (time.time() - seconds,) * 2)
        with warnings.catch_warnings(record=True) as told:
            write(tmp_path / "file")
        assert len(told) == count


def test_many_left_in_a_folder_of_any_name_are_told_in_one_line(tmp_path):
    folder = tmp_path / "a\nb\x1b"
    folder.mkdir()
    for number in range(20):
        (folder / f".pconv-onnx-writing-{number:02}").mkdir()
    age(folder)
    with pytest.warns(UserWarning) as told:
        write(folder / "file")
    (message,) = (str(warning.message) for warning in told)
    assert message.isprintable()
    assert "-04' and 15 others; they can be removed" in message


@pytest.mark.parametrize(
    "note",
    [
        b"[1]",
        b"1",
        b"",
        b"[" * 200_000,
        b"\xff",
        b'{"a\\u0000b": [1, 2, 3]}',
        b'{"\\ud800": [1, 2, 3]}',
        json.dumps({"n" * 5000: [1, 2, 3]}).encode(),
        b'{"mine": 1, "": [1, 2, 3], "..": null, "nothing": null, "/etc/passwd": {}}',
        "/dev/zero",
        "/dev/stdin",
        "nothing",
        "pipe",
        ".",
    ],
)
@pytest.mark.parametrize("name", ["made", "older"])
def test_what_is_no_note_says_nothing(name, note, tmp_path):
    foreign = tmp_path / ".pconv-onnx-writing-foreign"
    foreign.mkdir()
    (tmp_path / "mine").touch()
    os.mkfifo(foreign / "pipe")
    if name == "made":
        (foreign / "result").touch()
    if isinstance(note, str):
        (foreign / name).symlink_to(note)
    else:
        (foreign / name).write_bytes(note)
    assert list(told_of(partial(write, tmp_path / "file"), tmp_path)) == [foreign.name]


@pytest.mark.parametrize("name", ["", "..", ".", "../other/file", "/{}/file", "folder/file"])
def test_a_note_is_of_files_in_its_own_folder(name, tmp_path):
    out, foreign = tmp_path / "out", tmp_path / "out" / ".pconv-onnx-writing-foreign"
    foreign.mkdir(parents=True)
    for folder in (tmp_path / "other", out / "folder"):
        folder.mkdir()
        (folder / "file").touch()
    name = name.format(tmp_path / "other")
    (out / "file").touch()
    there = [(out / each).lstat() for each in (name, "file")]
    noted = [[status.st_ino, status.st_size, status.st_mtime_ns] for status in there]
    (foreign / "older").write_text(json.dumps(dict(zip([name, "file"], noted, strict=True))))
    assert list(told_of(partial(write_folder, out / "new", {}), out)) == [foreign.name, "file"]


def test_a_writer_waits_for_another_s_renaming_and_not_for_ever(tmp_path, monkeypatch):
    writer = Writer(partial(write, tmp_path / "file", b"first"), once(signal.SIGSTOP, "os.rename")).go()
    writer.wait_for_stop()
    second = Writer(partial(write, tmp_path / "file", b"second")).go()
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    write(tmp_path / "file", b"third")
    assert (tmp_path / "file").read_bytes() == b"third"
    assert not second.has_ended()
    writer.resume()
    assert (writer.status(), second.status()) == (0, 0)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"second"


@pytest.mark.parametrize("call", CALLS)
def test_a_folder_that_somebody_keeps_locked_is_written_to(call, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE", 0.05)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        CALLS[call](tmp_path)
    finally:
        os.close(descriptor)
    assert len(os.listdir(tmp_path)) == (2 if call == "several" else 1)


def failing_for_folders(monkeypatch, number, after=0) -> None:
    """Have a folder's synchronisation fail, from the first or the one after so many."""
    left, fsync = [after], os.fsync

    def fail(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("number", [errno.EBADF, errno.EACCES, errno.ENOSYS, errno.EINVAL])
@pytest.mark.parametrize("call", CALLS)
def test_a_folder_that_cannot_be_synchronised_is_written_to(call, number, tmp_path, monkeypatch):
    failing_for_folders(monkeypatch, number)
    CALLS[call](tmp_path)
    assert len(os.listdir(tmp_path)) == (2 if call == "several" else 1)


@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_fails_before_the_renaming_is_told_and_after_it_is_not(call, tmp_path, monkeypatch):
    before_renaming = {"file": 1, "folder": 2, "several": 1}[call]
    for after in range(before_renaming):
        with monkeypatch.context() as patched:
            failing_for_folders(patched, errno.EIO, after)
            assert "Input/output error; choose another place" in refusal_of(CALLS[call], tmp_path)
        assert os.listdir(tmp_path) == []
    failing_for_folders(monkeypatch, errno.EIO, before_renaming)
    CALLS[call](tmp_path)
    assert len(os.listdir(tmp_path)) == (2 if call == "several" else 1)


def test_files_that_cannot_be_removed_are_no_reason_to_say_that_none_were_written(tmp_path):
    (tmp_path / "old").mkdir()
    write_into(tmp_path, {"new": b"1"}, ["old", "nothing"])
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


def test_what_was_replaced_is_settled_once(tmp_path, monkeypatch):
    settled, settle = [], writing.Replacement.settle
    monkeypatch.setattr(writing.Replacement, "settle", lambda new: settled.append(settle(new)))
    write(tmp_path / "file")
    assert len(settled) == 1


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
