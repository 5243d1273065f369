"""Archives of others: no code in them runs, and no size that they claim is believed."""

from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pconv_onnx.data.archives import read_npz, shapes_in_npz

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
    assert refusal(tmp_path / "d.npz") == "'x.npy' holds objects or records, not a plain array"
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
    assert refusal(path).endswith(" bytes, and may to 268,435,456")


def test_what_compresses_well_and_is_small_is_taken(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((1000, 1000), np.float32))
    assert read_npz(tmp_path / "d.npz")["x"].shape == (1000, 1000)


@pytest.mark.parametrize("names", [2, 40])
def test_an_entry_is_not_counted_once_for_many_names(names, tmp_path):
    """Entries that share their bytes make a small file of any size."""
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((1 << 24,), "|u1") + bytes(1 << 24))
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    tail = bytearray(content[end:])
    tail[8:12] = names.to_bytes(2, "little") * 2
    tail[12:16] = (names * (end - start)).to_bytes(4, "little")
    path.write_bytes(content[:start] + names * content[start:end] + tail)
    # zipfile looks at this by itself in some versions.
    assert "verlap" in refusal(path)


def forged(path: Path, kind: int, content: bytes, claimed: int) -> Path:
    """An archive of one entry that claims another size than its content expands to."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("x.npy", content)
        archive.infolist()[0].file_size = claimed
    return path


def peak_of(read, path: Path) -> int:
    """Bytes that are taken, at most, while an archive is refused or read."""
    tracemalloc.start()
    try:
        read(path)
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_expand_whole_are_refused_before_they_do(kind, tmp_path):
    path = forged(tmp_path / "d.npz", kind, header((1 << 20,), "|u1") + bytes(1 << 25), 1 << 20)
    assert refusal(path) == "'x.npy' is compressed by another method than deflate"
    assert peak_of(read_npz, path) < 1 << 21


@pytest.mark.parametrize("size", [10, 1000])
def test_no_more_is_expanded_than_an_entry_claims(size, tmp_path):
    text = header((size,), "|u1")
    path = forged(tmp_path / "d.npz", zipfile.ZIP_DEFLATED, text + bytes(1 << 25), len(text) + size)
    assert peak_of(read_npz, path) < 1 << 21
    assert peak_of(lambda path: shapes_in_npz(path, ["x"]), path) < 1 << 21


def test_more_than_there_is_is_refused(tmp_path):
    text = header((1 << 20,), "|u1")
    refusal(forged(tmp_path / "d.npz", zipfile.ZIP_DEFLATED, text + bytes(1000), len(text) + (1 << 20)))


def test_a_size_that_no_file_has_is_refused(tmp_path):
    path = forged(tmp_path / "d.npz", zipfile.ZIP_DEFLATED, header((2**60,), "|u1"), 2**60)
    assert refusal(path).endswith(f"to {2**60:,} bytes, and may to {1 << 28:,}")


def test_an_encrypted_entry_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros(3))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    for place, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(place) + offset] |= 1
    (tmp_path / "d.npz").write_bytes(content)
    assert "is encrypted" in refusal(tmp_path / "d.npz")


def test_what_is_no_array_is_not_expanded(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.arange(3))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", bytes(1 << 25))
    assert list(read_npz(path)) == ["x"]
    assert peak_of(read_npz, path) < 1 << 21


def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("x.npy", header((1,)) + bytes(4))
    assert refusal(tmp_path / "d.npz") == "it has two entries 'x.npy'"


def test_a_header_is_no_longer_than_numpy_writes_them(tmp_path):
    length = 1 << 25
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", length) + b" " * length
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    refusal(tmp_path / "d.npz")
    assert peak_of(read_npz, tmp_path / "d.npz") < 1 << 21


@pytest.mark.parametrize("text", ["-" * 9000 + "1", "[" * 9000, "{" * 90, "{'descr': [], 'shape': (", "{[]: 1}"])
def test_a_header_that_is_no_literal_is_refused(text, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
    refusal(tmp_path / "d.npz")


@pytest.mark.parametrize("descr", ["f4,i4", "(3,)f4", "|S0", "|V0", "|O"])
def test_types_that_are_not_plain_are_refused(descr, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header((0,) if descr != "|S0" else (2**40,), descr))
    assert "'x.npy' holds objects or records" in refusal(tmp_path / "d.npz")


@pytest.mark.parametrize("shape", [(-1, -4), (-2, -2), (-1,)])
def test_negative_sizes_that_multiply_to_what_there_is_are_refused(shape, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header(shape) + bytes(16))
    with pytest.raises(ValueError, match="does not hold the array"):
        shapes_in_npz(tmp_path / "d.npz", ["x"])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "d.npz")
    with pytest.raises(OSError, match="it is not a file"):
        read_npz(tmp_path / "d.npz")


def unread(folder: Path, kind: str) -> Path:
    """An archive with one array that can be read and one that cannot."""
    path = folder / "d.npz"
    others = {"records": np.zeros(5, [("t", "i8"), ("x", "u2")]), "objects": np.array([{}], object)}
    np.savez(path, x=np.arange(3), **({"y": others[kind]} if kind in others else {}))
    if kind == "lzma":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
            archive.writestr("y.npy", header((1,)) + bytes(4))
    if kind == "bomb":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("y.npy", "w") as file:
            file.write(header((300, 1 << 20), "|u1"))
            for _ in range(300):
                file.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize("kind", ["records", "objects", "lzma", "bomb"])
def test_what_nobody_asks_for_is_left_unread(kind, tmp_path):
    path = unread(tmp_path, kind)
    refusal(path)
    np.testing.assert_array_equal(read_npz(path, ["x"])["x"], np.arange(3))
    assert shapes_in_npz(path, ["x"]) == {"x": (3,), "y": None}
