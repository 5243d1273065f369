"""Parquet files of others: columns that are arrays, and no more of them than the file is worth."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from memory import peak_of
from PIL import Image
from refusals import refusal_of

from pconv_onnx.data import pictures
from pconv_onnx.data.sources import parts_of

LISTS = pyarrow.list_(pyarrow.float32())


def write(path: Path, *columns, names=("x",), **options) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(list(columns), list(names)), path, **options)
    return path


def read(path: Path, *names: str) -> dict[str, np.ndarray]:
    (part,) = parts_of(path)
    return part.read(names or ["x"])


def varint(number: int, length: int = 1) -> bytes:
    """Thrift's, of a number that is not negative, in at least so many bytes."""
    number, found = 2 * number, []
    while number >= 128 or len(found) < length - 1:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def one_row(path: Path, count: int) -> Path:
    """Zeros in a list of one row, of which the footer says that there is one."""
    zeros = pyarrow.array(np.zeros(count, np.float32))
    write(
        path, pyarrow.ListArray.from_arrays(pyarrow.array([0, count], pyarrow.int32()), zeros), write_statistics=False
    )
    content = path.read_bytes()
    told = varint(count)
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    assert content.count(told, start)
    path.write_bytes(content[:start] + content[start:].replace(told, varint(1, len(told))))
    return path


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pyarrow.array([1, 2, 3], pyarrow.uint8()), np.uint8([1, 2, 3])),
        (pyarrow.array([True, False]), np.array([True, False])),
        (pyarrow.array(np.float16([1, 2])), np.float16([1, 2])),
        (pyarrow.array([5, 5, 7]).dictionary_encode(), np.int64([5, 5, 7])),
        (pyarrow.array([[1, 2], [3, 4]], pyarrow.large_list(pyarrow.int32())), np.int32([[1, 2], [3, 4]])),
        (pyarrow.array([[1, 2], [3, 4]], pyarrow.list_(pyarrow.int32(), 2)), np.int32([[1, 2], [3, 4]])),
        (pyarrow.array([[], []], LISTS), np.zeros((2, 0), np.float32)),
        (pyarrow.array([[[1], [2]]], pyarrow.list_(LISTS)), np.float32([[[1], [2]]])),
    ],
)
def test_numbers_and_lists_of_them_are_arrays(column, expected, tmp_path):
    np.testing.assert_array_equal(read(write(tmp_path / "x.parquet", column))["x"], expected, strict=True)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pyarrow.array(["a", "b"]), "is string, not numbers or lists of them"),
        (pyarrow.array(["a", "a"]).dictionary_encode(), "not numbers or lists of them"),
        (pyarrow.array([b"a"]), "is binary, not numbers"),
        (pyarrow.array([None, None]), "is null, not numbers"),
        (pyarrow.array([decimal.Decimal("1.5")]), "is decimal128(2, 1), not numbers"),
        (pyarrow.array([datetime.datetime(2020, 1, 1)]), "is timestamp[us], not numbers"),
        (pyarrow.array([datetime.time(1)]), "is time64[us], not numbers"),
        (pyarrow.array([[["a"]]]), "not numbers or lists of them"),
        (pyarrow.array([[1.0], [1.0, 2.0]]), "not lists of one length"),
        (pyarrow.array([[1.0], None]), "not lists of one length"),
        (pyarrow.array([[[1.0], []]]), "not lists of one length"),
        (pyarrow.array([1.0, None]), "has missing values"),
        (pyarrow.array([[1.0], [None]]), "has missing values"),
        (pyarrow.array([{"a": 1.0}]), "not lists of one length"),
        (pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())), "not lists of one length"),
        (pyarrow.array([[{"a": 1.0}]]), "not lists of one length"),
        (pyarrow.nulls(2, pyarrow.list_(pyarrow.float32(), 3)), "not lists of one length"),
    ],
)
def test_other_columns_are_told(column, told, tmp_path):
    assert told in refusal_of(read, write(tmp_path / "x.parquet", column))


def test_tensors_that_are_missing_are_told(tmp_path):
    kind = pyarrow.fixed_shape_tensor(pyarrow.float32(), (2, 3))
    column = pyarrow.ExtensionArray.from_storage(kind, pyarrow.nulls(2, kind.storage_type))
    assert "has missing values" in refusal_of(read, write(tmp_path / "x.parquet", column))


def test_a_column_that_is_there_twice_is_told_where_it_is_needed(tmp_path):
    path = write(tmp_path / "x.parquet", [1.0], [2], [3], names=("x", "labels", "labels"))
    assert read(path)["x"].tolist() == [1.0]
    assert "column 'labels' is there more than once" in refusal_of(read, path, "x", "labels")


def test_a_column_is_not_taken_for_one_within_another(tmp_path):
    path = write(tmp_path / "x.parquet", [{"a": 1.0}], [2.0], names=("x", "x.a"))
    assert read(path, "x.a")["x.a"].tolist() == [2.0]


@pytest.mark.parametrize("columns", [[], [pyarrow.array([], LISTS)], [pyarrow.nulls(0)]])
def test_files_without_rows_have_no_parts(columns, tmp_path):
    path = write(tmp_path / "x.parquet", *columns, names=["x"][: len(columns)])
    assert parts_of(path) == []
    (tmp_path / "recipe.json").write_text('{"images": "x.parquet"}')
    assert parts_of(tmp_path / "recipe.json") == []


def test_constant_columns_are_counted_before_they_are_read(tmp_path):
    path = tmp_path / "x.parquet"
    zeros = pyarrow.array(np.zeros(1 << 25, np.int8))
    write(path, zeros, row_group_size=1 << 25)
    assert path.stat().st_size < 200_000
    told = refusal_of(parts_of, path)
    assert f"it would expand from {path.stat().st_size:,} to {12 * (1 << 25):,} bytes" in told


def test_pages_that_hold_more_than_the_footer_says_are_refused(tmp_path):
    path = one_row(tmp_path / "x.parquet", 30_000_000)
    assert path.stat().st_size < 200_000
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).num_values == 1
    assert "it would expand from" in refusal_of(read, path)


def test_columns_are_known_by_the_schema_and_not_by_what_their_pages_are_called(tmp_path):
    path = one_row(tmp_path / "x.parquet", 30_000_000)
    content = path.read_bytes()
    called = content.index(b"\x01x\x04list")
    path.write_bytes(content[:called] + b"\x01z" + content[called + 2 :])
    assert "it would expand from" in refusal_of(read, path)


def test_pages_that_hold_less_than_the_footer_says_are_refused(tmp_path):
    path = write(tmp_path / "x.parquet", pyarrow.array(np.arange(10.0)), write_statistics=False)
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:start] + content[start:].replace(varint(10), varint(11)))
    assert "cannot read" in refusal_of(read, path)


def test_missing_lists_of_a_length_are_counted(tmp_path):
    path = write(tmp_path / "x.parquet", pyarrow.nulls(4, pyarrow.list_(pyarrow.int8(), 1 << 24)))
    assert "it would expand from" in refusal_of(read, path)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["page", "missing", "zeros"])
def test_what_is_refused_takes_no_memory(attack, tmp_path):
    path = tmp_path / "x.parquet"
    if attack == "page":
        one_row(path, 30_000_000)
    elif attack == "missing":
        write(path, pyarrow.nulls(4, pyarrow.list_(pyarrow.int8(), 1 << 24)))
    else:
        write(path, pyarrow.array(np.zeros(1 << 25, np.int8)), row_group_size=1 << 25)
    before = "import pyarrow.parquet, pyarrow.compute; from pconv_onnx.data.sources import parts_of"
    taken, told = peak_of(before, f"[part.read(['x']) for part in parts_of({str(path)!r})]")
    assert "it would expand from" in told
    assert taken < 24 << 20


def encoded(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "png")
    return file.getvalue()


def recipe(folder: Path, **entries) -> Path:
    (folder / "recipe.json").write_text(json.dumps({"images": "x.parquet", "input": "x", **entries}))
    return folder / "recipe.json"


def test_one_picture_many_times_is_decoded_until_it_is_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS_AT_ONCE", 1 << 16)
    write(tmp_path / "x.parquet", [encoded(100, 100)] * 10_000)
    assert "more than 65,536 pixels together" in refusal_of(read, recipe(tmp_path))


@pytest.mark.parametrize("column", [["text"], [1.0], [None], [{"path": "x"}], [{"bytes": None}], [[b"x"]]])
def test_columns_of_no_pictures_are_told(column, tmp_path):
    write(tmp_path / "x.parquet", column)
    assert "does not hold encoded pictures" in refusal_of(read, recipe(tmp_path))
