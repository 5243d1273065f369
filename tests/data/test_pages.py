"""Pages of Parquet files: counted by their own headers, as Arrow writes them and as nobody should."""

from __future__ import annotations

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pconv_onnx.data.pages import Extent, extent


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
    assert extent(io.BytesIO(content), 0, len(content)) == Extent(63, 1)


def test_pages_are_added_up():
    content = page(3, 9, b"abc") + page(4, 1, b"")
    assert extent(io.BytesIO(b"PAR1" + content + b"more"), 4, 4 + len(content)) == Extent(7, 10)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x15", "cut short"),
        (header(b"\x25\x02"), "without its size"),
        (header(b"\x25\x01\x15\x02"), "without its size"),
        (header(b"\x25\x02\x15\x01"), "without its size"),
        (header(b"\x2c\0"), "without its size"),
        (header(b"\x25\x02\x15\x02\x2c\x1c\0\0"), "without its size"),
        (b"\x1c" * 90, "nested too deeply"),
        (b"\x1c" * 100_000, "nested too deeply"),
        (header(b"\x1b"), "a header that is none"),
        (header(b"\x19\xf5" + b"\xff" * 9), "without its size"),
        (b"\x18" + b"\xff" * 9 + b"\x7f", "without its size"),
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
