"""Pictures of others: of known formats and no more pixels than a photograph, whatever they say."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from memory import peak_of
from PIL import Image
from refusals import refusal_of

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.decoding import FORMATS, MOST_PIXELS, decode, pixels_in

PICTURE = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
KINDS = [name.lower() for name in FORMATS if name in (Image.init(), Image.SAVE)[1]]


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """A black picture of grey pixels, of one piece that expands to all of them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    squeeze = zlib.compressobj(9)
    lines = squeeze.compress(bytes(1 + width)) + b"".join(squeeze.compress(bytes(1 + width)) for _ in range(height - 1))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", lines + squeeze.flush()), chunk(b"IEND", b""))
    )


def claiming(width: int, height: int) -> bytes:
    """A picture of one pixel that says it has others."""
    content = png(1, 1)
    content = content[:16] + struct.pack(">II", width, height) + content[24:]
    return content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]


def refusal(content: bytes, side: int | None = None) -> str:
    return refusal_of(decode, io.BytesIO(content), side, "here")


@pytest.mark.parametrize("kind", KINDS)
def test_known_formats_are_decoded(kind):
    content = encoded(kind)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(io.BytesIO(content), None, "here"), expected)
    assert decode(io.BytesIO(content), 5, "here").shape == (5, 5, 3)
    assert pixels_in(io.BytesIO(content), "here") == 63


@pytest.mark.parametrize("kind", ["eps", "ico", "pcx"])
def test_other_formats_are_refused(kind):
    told = refusal(encoded(kind))
    assert told.startswith("cannot read a picture of here: it is not a picture in a known format (AVIF, BMP, ")


def test_formats_that_this_pillow_lacks_are_left_out(monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    assert decode(io.BytesIO(encoded("png")), None, "here").shape == PICTURE.shape
    assert "it is not a picture in a known format" in refusal(b"no picture")


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_are_cut_short_are_refused_or_decoded(kind):
    content = encoded(kind)
    refused = 0
    for stop in range(len(content)):
        try:
            assert decode(io.BytesIO(content[:stop]), None, "here").shape == PICTURE.shape
        except PconvError as error:
            assert str(error).startswith("cannot read a picture of here: ")
            refused += 1
    assert refused > len(content) / 4


@pytest.mark.parametrize(("width", "height", "side"), [(1 << 20, 1, 224), (1, 1 << 20, 224), (1, 1, 13_378)])
def test_more_pixels_than_photographs_have_are_refused(width, height, side):
    told = refusal(claiming(width, height), side)
    assert f"it has {width} × {height} pixels, resized to {side} × {side}" in told
    assert told.endswith(f"may have {MOST_PIXELS:,}; make it smaller")


@pytest.mark.parametrize(("width", "height"), [(13_378, 13_378), (30_000, 30_000)])
def test_more_pixels_than_pillow_takes_are_refused(width, height):
    assert refusal(claiming(width, height)).endswith("it has more than 178,956,970 pixels; make it smaller")


@pytest.mark.parametrize(("width", "height"), [(11_648, 8736), (13_377, 13_377), (30_000, 3000)])
def test_as_many_as_cameras_take_are_not_refused(width, height):
    assert pixels_in(io.BytesIO(claiming(width, height)), "here") == width * height


def test_as_many_as_photographs_have_are_decoded():
    assert decode(io.BytesIO(png(8192, 100)), None, "here").shape == (100, 8192, 3)


@pytest.mark.parametrize(("width", "height"), [(14_000, 14_000), (1 << 18, 64)])
def test_a_picture_that_is_refused_takes_no_memory(width, height, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(width, height))
    assert path.stat().st_size < 200_000
    before = "import PIL.Image, PIL.PngImagePlugin; from pconv_onnx.data.decoding import decode"
    taken, told = peak_of(before, f"decode(open({str(path)!r}, 'rb'), 1 << 12, 'here')")
    assert told.endswith("make it smaller")
    assert len(told.splitlines()) == 1
    assert taken < 32 << 20


def test_warnings_of_pillow_are_none_of_ours(recwarn):
    pixels_in(io.BytesIO(claiming(12_000, 8_000)), "here")
    assert not recwarn.list


def test_a_decoder_that_needs_too_much_is_told(monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    assert refusal(b"") == "cannot read a picture of here: MemoryError; mend it, or leave it out"
