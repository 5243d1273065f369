"""The parts of data in files. A process reads only the parts that it needs."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import glob
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.archives import read_npz, shapes_in_npz
from pconv_onnx.data.cifar import CifarPictures, batches_in
from pconv_onnx.data.columns import BYTES_OF_LEVELS, dense, largest_page, numbers_of, require_worth
from pconv_onnx.data.decoding import decode, pixels_in
from pconv_onnx.data.limits import TooLargeError, require_moderate
from pconv_onnx.data.pages import Chunk, Group, groups
from pconv_onnx.data.parts import LABELS, WHAT_LABELS_ARE, Part, length_of
from pconv_onnx.data.pictures import Pictures, Recipe, number_at_once

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_PARQUET, _NPZ = ".parquet", ".npz"
# Of a data set that is cut into such, one is meant.
_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
# Pictures of a folder that are one part: as many are decoded at once.
_PICTURES_A_PART = 250
# Encoded pictures that are taken from a file at once, at most, and bytes of them where all are as large as can be.
_ENCODED_AT_ONCE, _BYTES_AT_ONCE = 32, 1 << 27
# Bytes that a part takes itself, without its samples.
_BYTES_OF_A_PART = 512


@dataclass(frozen=True)
class NpzFile:
    """An `.npz` of plain arrays."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return f"'{self.path}'"

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """From the headers of its members."""
        with _readable(self.path):
            return {name: length_of(shape or ()) for name, shape in shapes_in_npz(self.path, names).items()}

    def read(self, names: Container[str]) -> dict[str, Array]:
        """Those arrays; others may be of types that are not read."""
        with _readable(self.path):
            return read_npz(self.path, names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Faults of an `.npz` in one line."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise PconvError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}", "check it") from error
    except TooLargeError as error:
        raise PconvError(f"cannot read '{path}': {error}", "write it as several files, or not compressed") from error
    except ValueError as error:
        raise PconvError(f"'{path}' is not an .npz of plain arrays: {error}", "write it with numpy.savez") from error


@dataclass(frozen=True)
class ParquetRows:
    """Rows of a row group of a Parquet file: a column an array, of tensors, of nested lists or of encoded pictures.

    Attributes:
        path: of the file.
        group: number of the row group.
        held: what that has of each column.
        before: rows of the file in front of the group.
        of_group: rows of the group.
        rows: of these the ones that are the part.
        columns: names of all.
        recipe: for pictures.
    """

    path: Path
    group: int
    held: Group
    before: int
    of_group: int
    rows: slice
    columns: tuple[str, ...]
    recipe: Recipe | None

    @property
    def where(self) -> str:
        """Its file."""
        return f"'{self.path}'"

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """From the footer of the file."""
        return dict.fromkeys(self._named(), self._count)

    def read(self, names: Container[str]) -> dict[str, Array]:
        """Those columns; others may be of types that no array has."""
        named = {name: column for name, column in self._named().items() if name in names}
        with _readable_parquet(self.path) as parquet, parquet.ParquetFile(self.path) as file:
            return {name: self._array(file, name, column) for name, column in named.items()}

    def parts(self) -> Iterator[ParquetRows]:
        """The same rows in parts of as many pictures as may be in memory at once.

        Raises:
            PconvError: there is a picture that cannot be read.
            ValueError: there would be absurdly many.
        """
        recipe = self.recipe
        if recipe is None or self.columns.count(column := self._named().get(recipe.input, "")) != 1:
            yield self
            return
        a_part = number_at_once(recipe, lambda: self._pixels(column))
        require_moderate(self._count // a_part * _BYTES_OF_A_PART, self.path.stat().st_size)
        for start in range(0, self._count, a_part):
            yield replace(self, rows=slice(start, min(start + a_part, self._count)))

    @property
    def _count(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def _named(self) -> dict[str, str]:
        """Columns by the name of the array that they become."""
        if self.recipe is None:
            return {name: name for name in self.columns}
        named = {self.recipe.input: self.recipe.column or self.recipe.input, LABELS: self.recipe.labels}
        return {name: column for name, column in named.items() if column in self.columns}

    def _array(self, file: Any, name: str, column: str) -> Array:
        where = f"{self.where}, column '{column}'"
        if self.columns.count(column) > 1:
            raise PconvError(f"{where} is there more than once", "leave one of them")
        if self.recipe is not None and name == self.recipe.input:
            pictures = (decode(content, self.recipe.size, row) for content, row in self._encoded(file, column))
            return self.recipe.prepared(pictures, self._count, where)
        hint = WHAT_LABELS_ARE if name == LABELS else "store numbers"
        numbers = numbers_of(file.schema_arrow.field(column).type, where, hint)
        require_worth(self.path, self._held(column), column, numbers, self.of_group)
        array = dense(file.read_row_group(self.group, columns=[column]).column(column), where)
        if len(array) != self.of_group:
            raise ValueError(f"column '{column}' has {len(array)} rows, and its group {self.of_group}")
        return array[self.rows]

    def _held(self, column: str) -> tuple[Chunk, ...]:
        """What is stored of a column, and of what lies within it: by the schema, for names elsewhere are not read."""
        return self.held[self.columns.index(column)]

    def _pixels(self, column: str) -> int:
        """Of the first picture."""
        with _readable_parquet(self.path) as parquet, parquet.ParquetFile(self.path) as file:
            for content, row in self._encoded(file, column):
                return pixels_in(content, row)
        raise PconvError(f"{self.where}, column '{column}' has fewer rows than it says", "write it again")

    def _encoded(self, file: Any, column: str) -> Iterator[tuple[IO[bytes], str]]:
        """Pictures one by one, and how to call them: a file of few bytes may have one of them many times."""
        largest = largest_page(self.path, self._held(column), column)
        at_once = max(1, min(_ENCODED_AT_ONCE, _BYTES_AT_ONCE // max(largest, 1)))
        row = 0
        for batch in file.iter_batches(at_once, row_groups=[self.group], columns=[column]):
            values = batch.column(column)
            for index in range(max(self.rows.start - row, 0), min(self.rows.stop - row, len(values))):
                where = f"{self.where}, column '{column}', row {self.before + row + index}"
                yield io.BytesIO(_bytes_of(values[index].as_py(), where)), where
            row += len(values)
            if row >= self.rows.stop:
                return


def _bytes_of(value: Any, where: str) -> bytes:
    """A picture as it is stored: the datasets library keeps structs of `bytes` and `path`."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise PconvError(f"{where} does not hold encoded pictures", "a recipe is for these alone")
    return content


@contextmanager
def _readable_parquet(path: Path) -> Iterator[Any]:
    """The module that reads Parquet; faults of a file in one line."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise PconvError("Parquet needs pyarrow", "pip install 'pconv-onnx[data]'") from error
    try:
        yield pyarrow.parquet
    except TooLargeError as error:
        raise PconvError(f"cannot read '{path}': {error}", "write smaller row groups, or the arrays as .npz") from error
    # Arrow's own, and what Python makes of texts and numbers that are none.
    except (OSError, MemoryError, KeyError, OverflowError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise PconvError(f"cannot read '{path}' as Parquet: {error}", "check it") from error


def parts_of(source: str | os.PathLike[str]) -> list[Part]:
    """The parts of what a path names: an `.npz`, a Parquet file, a recipe, or a folder of one of the former two.

    Parquet files may lie in folders of that folder. A path with `*` names all files that it fits.

    Raises:
        PconvError: there is nothing to read, or it cannot be read.
    """
    path = Path(source)
    if path.suffix == ".json":
        recipe = Recipe.read(path)
        files = _files(recipe.images, _PARQUET)
        if files:
            return [part for file in files for part in _groups(file, recipe)]
        batches = batches_in(recipe.images)
        return [part for file in batches for part in CifarPictures.parts(file, recipe)] or [*_pictures(recipe)]
    files = _files(path, _PARQUET)
    if files:
        return [part for file in files for part in _groups(file, None)]
    files = _files(path, _NPZ) or ([] if _is_folder(path) or batches_in(path) else [path])
    if not files:
        raise PconvError(
            f"'{path}' holds no .npz and no Parquet files",
            "write them with numpy.savez; for pictures, CIFAR's too, pass a recipe, a .json file (docs/scale-out.md)",
        )
    return [NpzFile(file) for file in files]


def _files(path: Path, suffix: str) -> list[Path]:
    """Those of that kind that a path names, or that a folder holds; Parquet files may be deeper in it.

    Raises:
        PconvError: they are of several splits, of which one is meant.
    """
    if not _is_folder(path):
        fitting = sorted(map(Path, glob(str(path), recursive=True))) if "*" in str(path) else []
        return [file for file in fitting or [path] if file.suffix == suffix]
    files = _listed(path, f"**/*{suffix}" if suffix == _PARQUET else f"*{suffix}")
    splits = {split: file for file in reversed(files) if (split := _split(file.relative_to(path)))}
    if len(splits) > 1:
        name, file = min(splits.items())
        one = file.parent if name in file.parent.parts else file.with_name(f"{name}*{suffix}")
        raise PconvError(f"'{path}' has the splits {', '.join(sorted(splits))}", f"name one of them, such as '{one}'")
    return files


def _split(file: Path) -> str:
    """That which a file belongs to by its folder or by how its name begins, as Hugging Face has them; or none."""
    words = (re.split(r"[-_.]", part)[0] for part in reversed(file.parts))
    return next((word for word in words if word in _SPLITS), "")


def _is_folder(path: Path) -> bool:
    """Not of a name that is too long for one, which `Path.is_dir` raises for."""
    return os.path.isdir(path)


def _listed(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder in order of their names.

    Raises:
        PconvError: it cannot be looked into.
    """
    try:
        return sorted(folder.glob(pattern))
    except (OSError, ValueError) as error:
        raise PconvError(f"cannot look into '{folder}': {getattr(error, 'strerror', None) or error}") from error


def _groups(path: Path, recipe: Recipe | None) -> Iterator[ParquetRows]:
    """Those that have rows, in parts where these are too many at once."""
    with _readable_parquet(path) as parquet:
        with open_file(path) as content:
            size = os.fstat(content.fileno()).st_size
            held = groups(content)
        with parquet.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        if min(rows, default=0) < 0:
            raise ValueError("it has a row group with a negative number of rows")
        if len(held) != len(rows) or any(len(group) != len(columns) for group in held):
            raise ValueError("its footer does not list the columns of each row group")
        require_moderate(sum(rows) * BYTES_OF_LEVELS, size)
        for group, (count, before) in enumerate(zip(rows, accumulate(rows, initial=0), strict=False)):
            if count:
                whole = ParquetRows(path, group, held[group], before, count, slice(0, count), columns, recipe)
                yield from whole.parts()


def _pictures(recipe: Recipe) -> Iterator[Pictures]:
    """The pictures of a folder in order of their names; labels count its sorted subfolders."""
    folder = recipe.images
    files = [
        path
        for path in _listed(folder, "**/*")
        if path.suffix.lower() in _PICTURES and not path.relative_to(folder).parts[0].startswith(".")
    ]
    if not files:
        raise PconvError(f"'{folder}' holds no pictures ({', '.join(_PICTURES)}) and no Parquet files", "")
    if len({path.parent == folder for path in files}) > 1:
        raise PconvError(f"'{folder}' holds pictures beside subfolders of pictures", "which have classes?")
    # A class is a subfolder of the folder itself, however deep its pictures lie; one without pictures has its number.
    names = sorted(path.name for path in _listed(folder, "*") if _is_folder(path) and not path.name.startswith("."))
    classes = {name: index for index, name in enumerate(names)}
    a_part = min(_PICTURES_A_PART, Pictures(recipe, tuple(files[:1]), None).number_at_once())
    for first in range(0, len(files), a_part):
        chosen = tuple(files[first : first + a_part])
        labels = (
            None if files[0].parent == folder else tuple(classes[path.relative_to(folder).parts[0]] for path in chosen)
        )
        yield Pictures(recipe, chosen, labels)
