"""Pictures, and the recipe that makes values of them."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.parts import LABELS

_LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Recipe:
    """How uint8 images `[H, W, 3]` become values of an input: `(value / 255 − mean) / std` in float32.

    Attributes:
        images: a folder of pictures, one subfolder a class if they have classes; a Parquet file, or a folder of such.
        input: name of the model's input.
        mean: of each colour.
        std: of each colour.
        layout: `NCHW` or `NHWC`.
        size: width and height to resize to; None leaves them as they are.
        column: of a Parquet file, with encoded pictures; None is the input's name.
        labels: column of a Parquet file with the numbers of classes, or with targets.
    """

    images: Path
    input: str = "image"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"
    size: int | None = None
    column: str | None = None
    labels: str = LABELS

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Of a JSON file with these keys; `images` may be relative to it.

        Raises:
            PconvError: it cannot be read, or a key is missing, unknown or has a value that means nothing.
        """
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PconvError(f"cannot read the recipe '{path}': {error}", "check it") from error
        checks = {
            "images": lambda value: isinstance(value, str),
            "input": lambda value: isinstance(value, str),
            "mean": _are_colours,
            "std": lambda value: _are_colours(value) and 0 not in value,
            "layout": lambda value: value in _LAYOUTS,
            "size": lambda value: value is None or (type(value) is int and value > 0),
            "column": lambda value: value is None or isinstance(value, str),
            "labels": lambda value: isinstance(value, str),
        }
        if not isinstance(entries, dict) or "images" not in entries or not entries.keys() <= checks.keys():
            raise PconvError(
                f"the recipe '{path}' is not an object with 'images' and others of {', '.join(checks)}",
                "see docs/scale-out.md",
            )
        for name, value in entries.items():
            if not checks[name](value):
                raise PconvError(f"'{name}' of the recipe '{path}' cannot be {value!r}", "see docs/scale-out.md")
        colours = {name: tuple(entries[name]) for name in ("mean", "std") if name in entries}
        return cls(**{**entries, **colours, "images": path.parent / entries["images"]})

    def prepared(self, images: Sequence[Array], where: str) -> Array:
        """Decoded images as the input takes them.

        Raises:
            PconvError: they differ in size.
        """
        if len({image.shape for image in images}) > 1:
            raise PconvError(f"the pictures of {where} differ in size", "give the recipe a size")
        values = (np.stack(images).astype(np.float32) / 255 - np.array(self.mean, np.float32)) / np.array(
            self.std, np.float32
        )
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values)

    def decoded(self, file: Any, where: str) -> Array:
        """One picture, uint8 `[H, W, 3]`.

        Raises:
            PconvError: it is none, or Pillow is missing.
        """
        try:
            from PIL import Image
        except ImportError as error:
            raise PconvError("pictures need Pillow", "pip install 'pconv-onnx[data]'") from error
        try:
            colour = Image.open(file).convert("RGB")
            return np.asarray(colour if self.size is None else colour.resize((self.size, self.size)))
        except (OSError, SyntaxError, ValueError) as error:  # SyntaxError is Pillow's for damaged PNGs
            raise PconvError(f"cannot read a picture of {where}: {error}", "") from error


def _are_colours(value: object) -> bool:
    """Whether it is a number for each colour."""
    return isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value)


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a folder, with their classes."""

    recipe: Recipe
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None

    @property
    def where(self) -> str:
        """The folder."""
        return f"'{self.recipe.images}'"

    def lengths(self) -> dict[str, int]:
        """By the number of files."""
        return dict.fromkeys([self.recipe.input, *([] if self.labels is None else [LABELS])], len(self.files))

    def read(self, names: Container[str]) -> dict[str, Array]:
        """Decoded and normalised."""
        images = [self.recipe.decoded(path, f"{self.where}, '{path.name}'") for path in self.files]
        arrays = {self.recipe.input: self.recipe.prepared(images, self.where)}
        return arrays if self.labels is None else arrays | {LABELS: np.array(self.labels)}
