"""Pictures, and the recipe that turns them into a model's inputs."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.decoding import MOST_PIXELS, decode, pixels_in
from pconv_onnx.data.parts import LABELS

# Pixels of the pictures that are in memory at once: 3 GiB as floats.
MOST_PIXELS_AT_ONCE = 1 << 28
# Bytes of a recipe, which has eight short entries.
_LONGEST_RECIPE = 1 << 16
_LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Recipe:
    """How uint8 images `[H, W, 3]` become values of an input: `(value / 255 − mean) / std` in float32.

    Attributes:
        images: a folder of pictures, one subfolder a class if they have classes; a Parquet file, or a folder of such; a
            batch of CIFAR, or a folder of such.
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
        entries = _document(path)
        checks = {
            "images": lambda value: isinstance(value, str),
            "input": lambda value: isinstance(value, str),
            "mean": _are_colours,
            "std": lambda value: _are_colours(value) and np.array(value, np.float32).all(),
            "layout": lambda value: value in _LAYOUTS,
            "size": lambda value: value is None or (type(value) is int and 0 < value and value * value <= MOST_PIXELS),
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
                raise PconvError(
                    f"'{name}' of the recipe '{path}' cannot be {reprlib.repr(value)}", "see docs/scale-out.md"
                )
        colours = {name: tuple(entries[name]) for name in ("mean", "std") if name in entries}
        recipe = cls(**{**entries, **colours, "images": path.parent / entries["images"]})
        with np.errstate(over="ignore"):
            extremes = np.array([[0] * 3, [255] * 3], np.float32)
            recipe._normalise(extremes)
        if not np.isfinite(extremes).all():
            raise PconvError(f"'mean' and 'std' of the recipe '{path}' turn pictures into infinities", "correct them")
        return recipe

    def prepared(self, images: Iterable[Array], number: int, where: str) -> Array:
        """So many decoded images as the input takes them.

        Raises:
            PconvError: they differ in size, have too many pixels together, or are not so many.
        """
        values, done = np.empty(0, np.float32), 0
        for image in images:
            if not done:
                values = self._room(number, image.shape, where)
            if image.shape != values.shape[1:]:
                raise PconvError(f"the pictures of {where} differ in size", "give the recipe a size")
            values[done] = image
            self._normalise(values[done])
            done += 1
        if done != number:
            raise PconvError(f"{where} has {done} pictures, and should have {number}", "write it again")
        return values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values

    def _room(self, number: int, shape: tuple[int, ...], where: str) -> Array:
        """For values of images `[number, H, W, 3]`, which lie in memory as the layout has them."""
        height, width, colours = shape
        if number * height * width > MOST_PIXELS_AT_ONCE:
            raise PconvError(
                f"the pictures of {where} have more than {MOST_PIXELS_AT_ONCE:,} pixels together",
                "give the recipe a size, or write fewer in a row group",
            )
        if self.layout == "NHWC":
            return np.empty((number, *shape), np.float32)
        return np.empty((number, colours, height, width), np.float32).transpose(0, 2, 3, 1)

    def _normalise(self, values: Array) -> None:
        values /= 255
        values -= np.array(self.mean, np.float32)
        values /= np.array(self.std, np.float32)


def _document(path: Path) -> Any:
    """What a recipe says, whatever it is.

    Raises:
        PconvError: it is no JSON, or cannot be read.
    """
    try:
        with open_file(path) as file:
            content = file.read(_LONGEST_RECIPE + 1)
        if len(content) > _LONGEST_RECIPE:
            raise ValueError(f"it is longer than {_LONGEST_RECIPE:,} bytes")
        return json.loads(content.decode(), object_pairs_hook=_entries, parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        told = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise PconvError(f"cannot read the recipe '{path}': {told}", "check it") from error


def _entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("it has a key twice")
    return entries


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _are_colours(value: object) -> bool:
    """Whether it is a number for each colour, as large as float32 takes it."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(number) in (int, float) and abs(number) <= _LARGEST for number in value)
    )


_LARGEST = float(np.finfo(np.float32).max)


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

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """By the number of files."""
        return dict.fromkeys([self.recipe.input, *([] if self.labels is None else [LABELS])], len(self.files))

    def read(self, names: Container[str]) -> dict[str, Array]:
        """Decoded and normalised."""
        images = (self._decoded(path) for path in self.files)
        arrays = {self.recipe.input: self.recipe.prepared(images, len(self.files), self.where)}
        return arrays if self.labels is None else arrays | {LABELS: np.array(self.labels)}

    def _decoded(self, path: Path) -> Array:
        with _readable(path, self.where) as (file, where):
            return decode(file, self.recipe.size, where)

    def number_at_once(self) -> int:
        """How many of them may be in memory at once, where all are as large as the first.

        Raises:
            PconvError: that cannot be read.
        """
        return number_at_once(self.recipe, lambda: self._pixels(self.files[0]))

    def _pixels(self, path: Path) -> int:
        with _readable(path, self.where) as (file, where):
            return pixels_in(file, where)


def number_at_once(recipe: Recipe, pixels: Callable[[], int]) -> int:
    """How many pictures may be in memory at once.

    Args:
        recipe: that says how large they become.
        pixels: of one of them, which is looked at where the recipe does not say.
    """
    return MOST_PIXELS_AT_ONCE // (pixels() if recipe.size is None else recipe.size**2)


@contextmanager
def _readable(path: Path, folder: str) -> Iterator[tuple[IO[bytes], str]]:
    """A picture's file, and how to call it."""
    where = f"{folder}, '{path.name}'"
    try:
        file = open_file(path)
    except OSError as error:
        raise PconvError(f"cannot read a picture of {where}: {error.strerror}", "mend it, or leave it out") from error
    with file:
        yield file, where
