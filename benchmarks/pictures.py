"""Pictures as networks take them: float32 `[3, H, W]` of a uint8 RGB picture `[H, W, 3]`, and files of them."""

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
    """Files that are read and prepared when they are wanted; a slice is an array `[N, 3, H, W]`."""

    files: Sequence[Path]
    prepare: Preparation

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, chosen: slice) -> np.ndarray:
        return np.stack([self.prepare(np.asarray(Image.open(file).convert("RGB"))) for file in self.files[chosen]])


def efficientnet_lite0(picture: np.ndarray) -> np.ndarray:
    """The middle 224 × 224 pixels, (pixel − 127) / 128."""
    return ((_middle(picture, 224).astype(np.float32) - 127) / 128).transpose(2, 0, 1)


def squeezenet(picture: np.ndarray) -> np.ndarray:
    """The middle 227 × 227 pixels, as blue, green, red, minus their means."""
    return (_middle(picture, 227)[..., ::-1].astype(np.float32) - _CAFFE_MEANS).transpose(2, 0, 1)


def nudenet(picture: np.ndarray, side: int = 320) -> np.ndarray:
    """The whole picture, black on the right or below to make it square, at that size, from 0 to 1.

    Pillow's bilinear filter is OpenCV's, which nudenet takes, where pictures grow.
    """
    height, width, _ = picture.shape
    longest = max(height, width)
    square = np.pad(picture, ((0, longest - height), (0, longest - width), (0, 0)))
    resized = Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR)
    return (np.asarray(resized, np.float32) / 255).transpose(2, 0, 1)


def _middle(picture: np.ndarray, side: int) -> np.ndarray:
    top, left = ((size - side) // 2 for size in picture.shape[:2])
    return picture[top : top + side, left : left + side]
