"""What flows at the cuts is kept in files, and told of where there is no room for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.streams import MIXED, Stream

_ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


@contextmanager
def _no_room(size: int) -> Iterator[None]:
    """Files end after so many bytes."""
    resource = pytest.importorskip("resource", reason="this system has no limits of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_come_back_in_whatever_order_they_were_put(axis):
    every = np.moveaxis(_ROWS, 0, axis)
    with Stream({}, len(_ROWS), {"x": axis}) as stream:
        for part in (slice(4, 6), slice(0, 2), slice(2, 4)):
            stream.put("x", part, np.take(every, range(6)[part], axis))
        np.testing.assert_array_equal(stream.batch("x", slice(1, 5)), np.take(every, range(1, 5), axis))


@pytest.mark.parametrize("axis", [0, MIXED])
def test_a_full_disk_is_told_of_when_a_tensor_is_new(axis):
    with (
        Stream({}, len(_ROWS), {"x": axis}) as stream,
        _no_room(32),
        pytest.raises(PconvError, match=r"temporary files: .+ TMPDIR"),
    ):
        stream.put("x", slice(0, 6), _ROWS)


def test_a_full_disk_is_told_of_when_a_tensor_goes_on():
    with Stream({}, len(_ROWS), {"x": 0}) as stream:
        stream.put("x", slice(0, 2), _ROWS[:2])
        with _no_room(48), pytest.raises(PconvError, match=r"temporary files: .+ TMPDIR"):
            stream.put("x", slice(2, 4), _ROWS[2:4])
        stream.put("x", slice(2, 4), _ROWS[2:4])
        np.testing.assert_array_equal(stream.batch("x", slice(0, 4)), _ROWS[:4])


def test_a_folder_for_temporary_files_that_is_none_is_told_of(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(PconvError, match=r"temporary files: .+ TMPDIR"):
        Stream({}, 1, {})


@pytest.mark.parametrize("other", [_ROWS[:2, :3], _ROWS[:2].astype(np.float64)])
def test_tensors_of_another_shape_or_type_are_refused(other):
    with Stream({}, len(_ROWS), {"x": 0}) as stream:
        stream.put("x", slice(2, 4), _ROWS[2:4])
        with pytest.raises(PconvError, match=r"'x' is float.. \(2, .\) for some samples, where float32 \(2, 4\)"):
            stream.put("x", slice(0, 2), other)
        np.testing.assert_array_equal(stream.batch("x", slice(2, 4)), _ROWS[2:4])
