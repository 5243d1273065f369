"""Archives of others: no code in them runs, and no size that they claim is believed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pconv_onnx.data.archives import read_npz

_CODE_RAN = []


class _Pickled:
    def __reduce__(self):
        return (_CODE_RAN.append, (True,))


def header(shape, descr="<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def refusal(path: Path) -> str:
    with pytest.raises(ValueError) as raised:
        read_npz(path)
    return str(raised.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array", [np.zeros((3, 0)), np.float32(1), np.asfortranarray(np.ones((4, 3))), np.array(["a", "bc"])]
)
def test_plain_arrays_come_through(array, save, tmp_path):
    save(tmp_path / "d.npz", x=array)
    np.testing.assert_array_equal(read_npz(tmp_path / "d.npz")["x"], array, strict=True)


def test_no_pickle_is_loaded(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.array([_Pickled()], dtype=object))
    assert "allow_pickle=False" in refusal(tmp_path / "d.npz")
    assert _CODE_RAN == []


@pytest.mark.parametrize("shape", [(10**15, 3), (2**40, 2**40), (1,), ()])
def test_an_array_that_is_not_as_large_as_it_says_is_refused(shape, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header(shape) + b"\0" * 8)
    assert refusal(tmp_path / "d.npz") == f"'x.npy' does not hold the array {list(shape)} that it says"


def test_a_negative_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header((-1, 8)))
    refusal(tmp_path / "d.npz")


def test_a_header_that_does_not_end_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header("(" * 200))
    refusal(tmp_path / "d.npz")


def test_an_archive_that_expands_absurdly_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    zeros = bytes(1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(header((300, 1 << 20), "|u1"))
        for _ in range(300):
            file.write(zeros)
    assert path.stat().st_size < 1 << 20
    assert refusal(path).startswith(f"it would expand from {os.path.getsize(path):,} to 314,5")


def test_what_compresses_well_and_is_small_is_taken(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((1000, 1000), np.float32))
    assert read_npz(tmp_path / "d.npz")["x"].shape == (1000, 1000)


def test_an_entry_is_not_counted_once_for_many_names(tmp_path):
    """Entries that share their bytes make a small file of any size."""
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((1 << 24,), "|u1") + bytes(1 << 24))
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    tail = bytearray(content[end:])
    tail[8:12] = (40).to_bytes(2, "little") * 2
    tail[12:16] = (40 * (end - start)).to_bytes(4, "little")
    path.write_bytes(content[:start] + 40 * content[start:end] + tail)
    assert "would expand" in refusal(path) or "verlap" in refusal(path)
