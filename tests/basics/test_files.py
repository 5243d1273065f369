"""Ordinary files are opened, and nothing that could be waited for, whenever it comes."""

from __future__ import annotations

import os
import stat

import pytest

from pconv_onnx.basics.files import open_file


def test_a_file_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    (tmp_path / "link").symlink_to("x")
    for name in ("x", "link"):
        with open_file(tmp_path / name) as file:
            assert file.read() == b"content"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused(make, tmp_path):
    make(tmp_path / "x")
    with pytest.raises(OSError, match="it is not a file"):
        open_file(tmp_path / "x")


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    """Whoever looks at the path sees a file, and opens a pipe."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "x")
    seen = os.stat(tmp_path / "file")
    assert stat.S_ISREG(seen.st_mode)
    monkeypatch.setattr(os, "stat", lambda *_, **__: seen)
    with pytest.raises(OSError, match="it is not a file"):
        open_file(tmp_path / "x")
