"""Places on disk: what is none, links that lead nowhere, and which are one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from refusals import refusal_of

from pconv_onnx import rewrite
from pconv_onnx.basics.places import require_new_folder, require_place, require_writable, same_file
from pconv_onnx.basics.writing import write_atomically


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


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("n" * 300, "File name too long"),
        ("a\0b", "no file can have that name"),
        ("\ud800", "no file can have that name"),
    ],
)
def test_a_name_that_nothing_can_have_is_no_place(name, reason, ask, tmp_path):
    told = refusal_of(ask, tmp_path / name)
    assert told.startswith("cannot write '") and told.endswith(f"': {reason}; choose another place")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ask", ASKED)
def test_the_folder_of_all_is_no_place(ask):
    assert "'/'" in refusal_of(ask, Path("/"))


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
