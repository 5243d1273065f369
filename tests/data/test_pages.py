"""Pages of Parquet files: counted by their own headers, as Arrow writes them and as nobody should."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pconv_onnx.data.pages import Chunk, Extent, extent, groups


def header(*fields: bytes) -> bytes:
    return b"".join(fields) + b"\0"


def page(values: int, expanded: int, content: bytes) -> bytes:
    """With its header, whose sizes are below 64."""
    sizes = [b"\x15", bytes([2 * expanded]), b"\x15", bytes([2 * len(content)])]
    return header(b"\x15\0", *sizes, b"\x2c\x15", bytes([2 * values]), b"\0") + content


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_what_arrow_writes_is_counted(version, dictionary, compression, tmp_path):
    values = np.arange(100_000, dtype=np.float32) % 1000
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"x": values}), path, compression=compression, use_dictionary=dictionary,
        data_page_version=version, data_page_size=10_000, write_page_checksum=True,
    )  # fmt: skip
    chunk = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with path.open("rb") as file:
        held = extent(file, start, start + chunk.total_compressed_size)
    assert held.values == 100_000 + 1000 * dictionary
    # Arrow counts the headers as well.
    assert held.expanded <= chunk.total_uncompressed_size < held.expanded + 20_000


def test_a_page_of_several_kinds_has_the_values_of_all():
    content = header(b"\x15\x06\x15\x02\x15\0\x2c\x15\0\0\x3c\x15\x7e\0")
    assert extent(io.BytesIO(content), 0, len(content)) == Extent(63, 1, 1)


def test_pages_are_added_up():
    content = page(3, 9, b"abc") + page(4, 1, b"")
    assert extent(io.BytesIO(b"PAR1" + content + b"more"), 4, 4 + len(content)) == Extent(7, 10, 9)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x15", "cut short"),
        (header(b"\x25\x02"), "no size where it should"),
        (header(b"\x25\x01\x15\x02"), "no size where it should"),
        (header(b"\x25\x02\x15\x01"), "no size where it should"),
        (header(b"\x2c\0"), "another kind"),
        (header(b"\x25\x02\x15\x02\x2c\x1c\0\0"), "another kind"),
        (b"\x1c" * 90, "nested too deeply"),
        (b"\x1c" * 100_000, "nested too deeply"),
        (header(b"\x1b"), "a value of no kind"),
        (header(b"\x19\xf5" + b"\xff" * 9), "a list of 9,223,372,036,854,775,807 entries"),
        (b"\x18" + b"\xff" * 9 + b"\x7f", "cut short"),
        (b"\x18\x7f", "cut short"),
        (b"\x19" * 9, "cut short"),
        (b"\x19\x19" * 100_000, "nested too deeply"),
        (header(b"\x25\x02\x15\x02\x06\x04\x02"), "a field twice"),
        (header(b"\x25\x02\x15\x02\x0c\x8a\x80\x08\x15\x7e\0"), "that there is not"),
    ],
)
def test_headers_that_are_none_are_refused(content, told):
    with pytest.raises(ValueError, match=told):
        extent(io.BytesIO(content), 0, len(content))


def footer(*fields: bytes) -> io.BytesIO:
    content = header(*fields)
    return io.BytesIO(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1")


SCHEMA = b"\x29\x2c\x55\x02\0\0"


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 2, b"PAR1" + b"\0" * 8, b"PAR1\xff\0\0\0PAR1", b"text" * 9]
)
def test_what_is_no_parquet_file_is_told(content):
    with pytest.raises(ValueError, match="it is no Parquet file, or is cut short"):
        groups(io.BytesIO(content))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([], "lacks what it must have"),
        ([SCHEMA], "lacks what it must have"),
        ([SCHEMA, b"\x29\x1c\0"], "lacks what it must have"),
        ([SCHEMA, b"\x29\x1c\x19\x1c\0\0"], "lacks what it must have"),
        ([SCHEMA, b"\x29\x1c\x19\x0c\0"], "of other columns than its schema"),
        ([b"\x29\x1c\x55\x02\0", b"\x29\x0c"], "is cut short"),
        ([b"\x29\x0c", b"\x29\x0c"], "is cut short"),
        ([b"\x25\x02"], "another kind"),
        ([b"\x1c" * 90], "nested too deeply"),
        ([b"\x1b"], "a value of no kind"),
        ([SCHEMA, b"\x29\x1c\x19\x1c\x3c\x55\x01\0\0\0"], "no size where it should"),
    ],
)
def test_faults_of_a_footer_are_told_of_it(fields, told):
    with pytest.raises(ValueError, match=f"^its footer .*{told}"):
        groups(footer(*fields))


def test_columns_are_those_of_the_fields_of_the_schema(tmp_path):
    """A name may begin as another does, with a point behind."""
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"x": [1, 2], "x.y": [{"a": 1, "b": [{"c": 1, "d": 2}]}] * 2, "z": [1.0, 2.0]})
    pyarrow.parquet.write_table(table, path, row_group_size=1)
    with path.open("rb") as file:
        held = groups(file)
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    assert [[len(field) for field in group] for group in held] == [[1, 3, 1]] * 2
    for index, group in enumerate(held):
        told = [metadata.row_group(index).column(leaf) for leaf in range(5)]
        starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in told]
        assert [chunk for field in group for chunk in field] == [
            Chunk(chunk.num_values, start, start + chunk.total_compressed_size)
            for chunk, start in zip(told, starts, strict=True)
        ]


@pytest.mark.parametrize("entry", [b"\0", b"\x15\0\0"])
def test_a_footer_takes_no_more_memory_than_its_bytes_are_worth(entry):
    count = 900_000
    many = b"\x19\xfc" + bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14]) + entry * count
    file = footer(many)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="lacks what it must have"):
            groups(file)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(file.getvalue())
    finally:
        tracemalloc.stop()


def test_a_long_header_of_a_page_is_read():
    content = header(b"\x15\0\x15\x12\x15\x06\x2c\x15\x06\0\x18\xc0\x3e" + bytes(8000)) + b"abc"
    assert extent(io.BytesIO(content), 0, len(content)) == Extent(3, 9, 9)
