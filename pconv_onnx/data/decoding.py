"""Decodes pictures with Pillow, in known formats only, with no more pixels than photographs have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError

# Pixels of a picture, 683 MiB in Pillow: as many as Pillow itself takes (twice its MAX_IMAGE_PIXELS), written here so
# that it is known before a picture is looked at.
MOST_PIXELS = 178_956_970
# What Pillow decodes in this process, where it was built with it: for EPS, say, it starts another program.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_SMALLER = "make it smaller"


def decode(file: IO[bytes], side: int | None, where: str) -> Array:
    """A picture, uint8 `[H, W, 3]`.

    Args:
        file: that holds it, encoded.
        side: width and height to resize it to; None leaves it as it is.
        where: how to call it in messages.

    Raises:
        PconvError: it is none, or has too many pixels, or Pillow is missing.
    """
    with _opened(file, side, where) as picture:
        colour = picture.convert("RGB")
        return np.asarray(colour if side is None else colour.resize((side, side)))


def resized(image: Array, side: int) -> Array:
    """A decoded picture, uint8 `[H, W, 3]`, with another width and height.

    Raises:
        PconvError: Pillow is missing.
    """
    return np.asarray(_pillow().fromarray(np.ascontiguousarray(image)).resize((side, side)))


def pixels_in(file: IO[bytes], where: str) -> int:
    """Of a picture, from its header alone.

    Raises:
        PconvError: as `decode` does.
    """
    with _opened(file, None, where) as picture:
        return int(picture.width * picture.height)


@contextmanager
def _opened(file: IO[bytes], side: int | None, where: str) -> Iterator[Any]:
    """A picture of which the header alone is read; faults of it in one line."""
    Image = _pillow()
    told, hint = f"cannot read a picture of {where}", "mend it, or leave it out"
    try:
        with warnings.catch_warnings():
            # What Pillow warns of is refused, or does no harm.
            warnings.simplefilter("ignore")
            Image.init()
            with Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN]) as picture:
                _require_moderate(picture.width, picture.height, side or 1, where)
                yield picture
    except PconvError:
        raise
    except Image.UnidentifiedImageError as error:  # its words are an object's address
        raise PconvError(f"{told}: it is not a picture in a known format ({', '.join(FORMATS)})", hint) from error
    except Image.DecompressionBombError as error:
        raise PconvError(f"{told}: it has more than {MOST_PIXELS:,} pixels", _SMALLER) from error
    except Exception as error:  # Pillow's decoders raise whatever their parsing meets
        raise PconvError(f"{told}: {str(error) or type(error).__name__}", hint) from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise PconvError("pictures need Pillow", "pip install 'pconv-onnx[data]'") from error
    return Image


def _require_moderate(width: int, height: int, side: int, where: str) -> None:
    # Between its two directions a picture that is resized has one size of before and one of after.
    if not 0 < max(width, side) * max(height, side) <= MOST_PIXELS or not width * height:
        resized = f", resized to {side} × {side}" if side > 1 else ""
        raise PconvError(
            f"cannot read a picture of {where}: it has {width} × {height} pixels{resized}, and may have "
            f"{MOST_PIXELS:,}",
            _SMALLER,
        )
