"""Places that are no places, compared and asked for."""

from __future__ import annotations

import pytest

from pconv_onnx.basics.places import same_file


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
