"""Parquet files of others: columns that are arrays, and no more of them than the file is worth."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from dataclasses import replace
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

# Values of 4 bytes, one more than any file may expand to.
MANY = (1 << 26) + 1
LISTS = pyarrow.list_(pyarrow.float32())
# pyarrow 25 writes lists of a fixed length that are missing, and does not read them.
READS_MISSING = int(pyarrow.__version__.split(".")[0]) > 25


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
        (
            pyarrow.nulls(2, pyarrow.list_(pyarrow.float32(), 3)),
            "not lists of one length" if READS_MISSING else "Expected all lists to be of size=3",
        ),
    ],
)
def test_other_columns_are_told(column, told, tmp_path):
    assert told in refusal_of(read, write(tmp_path / "x.parquet", column))


def test_tensors_that_are_missing_are_told(tmp_path):
    kind = pyarrow.fixed_shape_tensor(pyarrow.float32(), (2, 3))
    column = pyarrow.ExtensionArray.from_storage(kind, pyarrow.nulls(2, kind.storage_type))
    told = "has missing values" if READS_MISSING else "Expected all lists to be of size=6"
    assert told in refusal_of(read, write(tmp_path / "x.parquet", column))


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
    zeros = pyarrow.array(np.zeros(MANY, np.int8))
    write(path, zeros, row_group_size=MANY)
    assert path.stat().st_size < 250_000
    told = refusal_of(parts_of, path)
    assert f"it would expand from {path.stat().st_size:,} to {4 * MANY:,} bytes, and may to {1 << 28:,}" in told
    assert told.endswith("write smaller row groups, or the arrays as .npz")


def spikes(kind: str) -> np.ndarray:
    """Few in 157 MB of floats; or frames that are shown 800 times each."""
    random = np.random.default_rng(0)
    if kind == "frames":
        return np.repeat(random.integers(0, 2, (30, 1, 1024), dtype=np.uint8), 800, axis=1)
    found = np.zeros((60, 20, 2, 128, 128), np.float32 if kind == "floats" else np.uint8)
    found.reshape(-1)[random.integers(0, found.size, 60_000)] = 1
    return found


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("kind", ["floats", "bytes", "frames"])
def test_spikes_that_an_archive_may_hold_are_read(kind, dictionary, tmp_path):
    tensors = spikes(kind)
    column = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(tensors)
    path = write(tmp_path / "x.parquet", column, compression="zstd", use_dictionary=dictionary)
    np.testing.assert_array_equal(read(path)["x"], tensors, strict=True)


class Frames(pyarrow.ExtensionType):
    """As the datasets library has types of its own."""

    def __init__(self) -> None:
        super().__init__(pyarrow.list_(LISTS), "tests.frames")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, *_) -> Frames:
        return cls()


def test_types_that_extend_others_are_what_they_are_stored_as(tmp_path):
    column = pyarrow.ExtensionArray.from_storage(Frames(), pyarrow.array([[[1, 2]], [[3, 4]]], pyarrow.list_(LISTS)))
    path = write(tmp_path / "x.parquet", column)
    pyarrow.register_extension_type(Frames())
    try:
        np.testing.assert_array_equal(read(path)["x"], np.float32([[[1, 2]], [[3, 4]]]), strict=True)
    finally:
        pyarrow.unregister_extension_type("tests.frames")


def test_a_column_is_not_charged_for_another_that_begins_as_it_does(tmp_path):
    mask = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(np.zeros(75_000_000, np.int8)), 75_000)
    path = write(tmp_path / "x.parquet", pyarrow.array(np.arange(1000.0)), mask, names=("x", "x.mask"))
    np.testing.assert_array_equal(read(path)["x"], np.arange(1000.0))
    assert "it would expand from" in refusal_of(read, path, "x.mask")


def test_labels_that_are_texts_are_told_what_labels_are(tmp_path):
    path = write(tmp_path / "x.parquet", [1.0], ["cat"], names=("x", "labels"))
    assert refusal_of(read, path, "x", "labels").endswith(
        "a label is the number of a class, an integer for each sample or for each of its tokens, "
        "or what an output should be, in floats"
    )


def test_pages_that_hold_more_than_the_footer_says_are_refused(tmp_path):
    path = one_row(tmp_path / "x.parquet", 70_000_000)
    assert path.stat().st_size < 200_000
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).num_values == 1
    assert "it would expand from" in refusal_of(read, path)


def test_columns_are_known_by_the_schema_and_not_by_what_their_pages_are_called(tmp_path):
    path = one_row(tmp_path / "x.parquet", 70_000_000)
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
    path = write(tmp_path / "x.parquet", pyarrow.nulls(4, pyarrow.list_(pyarrow.int8(), MANY // 4 + 1)))
    assert "it would expand from" in refusal_of(read, path)


@pytest.mark.parametrize("attack", ["page", "missing", "zeros"])
def test_what_is_refused_takes_no_memory(attack, tmp_path):
    path = tmp_path / "x.parquet"
    if attack == "page":
        one_row(path, 70_000_000)
    elif attack == "missing":
        write(path, pyarrow.nulls(4, pyarrow.list_(pyarrow.int8(), MANY // 4 + 1)))
    else:
        write(path, pyarrow.array(np.zeros(MANY, np.int8)), row_group_size=MANY)
    before = "import pyarrow.parquet, pyarrow.compute; from pconv_onnx.data.sources import parts_of"
    taken, told = peak_of(before, f"[part.read(['x']) for part in parts_of({str(path)!r})]")
    assert "it would expand from" in told
    assert taken < 24 << 20


def encoded(width: int, height: int, colour: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (colour,) * 3).save(file, "png")
    return file.getvalue()


def recipe(folder: Path, **entries) -> Path:
    (folder / "recipe.json").write_text(json.dumps({"images": "x.parquet", "input": "x", **entries}))
    return folder / "recipe.json"


@pytest.mark.parametrize("entries", [{}, {"size": 100}])
def test_pictures_of_a_row_group_are_parts_of_as_many_as_memory_takes(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS_AT_ONCE", 1 << 16)
    colours = [encoded(100, 100, colour) for colour in range(20)]
    write(tmp_path / "x.parquet", colours, np.arange(20.0), names=("x", "labels"), row_group_size=14)
    parts = parts_of(recipe(tmp_path, **entries))
    found = [part.read(["x", "labels"]) for part in parts]
    assert [part.lengths(["x"])["x"] for part in parts] == [6, 6, 2, 6]
    assert [len(part["x"]) for part in found] == [6, 6, 2, 6]
    for name, scale in (("x", 255), ("labels", 1)):
        values = np.concatenate([part[name].reshape(len(part[name]), -1)[:, 0] for part in found])
        np.testing.assert_allclose(values * scale, np.arange(20), rtol=1e-5)


def test_pictures_that_are_larger_than_the_first_are_counted_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS_AT_ONCE", 1 << 16)
    write(tmp_path / "x.parquet", [encoded(10, 10)] * 8 + [encoded(100, 100)] + [b"no picture"] * 7, row_group_size=8)
    _, large = parts_of(recipe(tmp_path))[:2]
    large = replace(large, rows=slice(0, 8))
    assert "more than 65,536 pixels together" in refusal_of(large.read, ["x"])


def test_parts_are_no_more_than_a_file_is_worth(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS_AT_ONCE", 100)
    write(tmp_path / "x.parquet", pyarrow.array([encoded(10, 10)]).take(pyarrow.array(np.zeros(600_000, np.int32))))
    assert "it would expand from" in refusal_of(parts_of, recipe(tmp_path))


def test_a_picture_that_is_none_is_told_with_its_row(tmp_path):
    write(tmp_path / "x.parquet", [encoded(2, 2)] * 5 + [b"no picture"], row_group_size=4)
    told = [refusal_of(part.read, ["x"]) for part in parts_of(recipe(tmp_path, size=2))[1:]]
    assert len(told) == 1
    assert "column 'x', row 5: it is not a picture in a known format" in told[0]


def test_a_large_text_that_is_there_many_times_takes_no_memory(tmp_path):
    blob = pyarrow.array([b"\x89PNG" + bytes(200 << 20)])
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(1000, np.int32)), blob)
    assert write(tmp_path / "x.parquet", column, compression="zstd").stat().st_size < 20_000
    before = "import pyarrow.parquet, pyarrow.compute; from pconv_onnx.data.sources import parts_of"
    path = recipe(tmp_path, size=8)
    taken, told = peak_of(before, f"[part.read(['x']) for part in parts_of({str(path)!r})]")
    assert "it would expand from" in told
    assert taken < 24 << 20


@pytest.mark.parametrize("column", [["text"], [1.0], [None], [{"path": "x"}], [{"bytes": None}], [[b"x"]]])
def test_columns_of_no_pictures_are_told(column, tmp_path):
    write(tmp_path / "x.parquet", column)
    assert "does not hold encoded pictures" in refusal_of(read, recipe(tmp_path))
