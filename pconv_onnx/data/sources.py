"""Where samples lie: each part of the data by itself, so that a process reads those that it needs."""

from __future__ import annotations

import io
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.archives import read_npz, shapes_in_npz
from pconv_onnx.data.columns import BYTES_OF_A_VALUE, dense, require_worth, values_of_a_row
from pconv_onnx.data.decoding import decode
from pconv_onnx.data.limits import require_moderate
from pconv_onnx.data.pages import Chunk, chunks
from pconv_onnx.data.parts import LABELS, Part, length_of
from pconv_onnx.data.pictures import Pictures, Recipe, number_at_once

_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_PARQUET = ".parquet"
# Pictures of a folder that are one part: as many are decoded at once.
_PICTURES_A_PART = 250


@dataclass(frozen=True)
class NpzFile:
    """An `.npz` of plain arrays."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return f"'{self.path}'"

    def lengths(self) -> dict[str, int]:
        """From the headers of its members."""
        with _readable(self.path):
            return {name: length_of(shape) for name, shape in shapes_in_npz(self.path).items()}

    def read(self, names: Container[str]) -> dict[str, Array]:
        """All of it."""
        with _readable(self.path):
            return read_npz(self.path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Faults of an `.npz` in one line."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise PconvError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}", "check it") from error
    except ValueError as error:
        raise PconvError(f"'{path}' is not an .npz of plain arrays: {error}", "write it with numpy.savez") from error


@dataclass(frozen=True)
class ParquetGroup:
    """A row group of a Parquet file: a column an array, of tensors, of nested lists or of encoded pictures."""

    path: Path
    group: int
    rows: int
    columns: tuple[str, ...]
    held: tuple[Chunk, ...]
    recipe: Recipe | None

    @property
    def where(self) -> str:
        """Its file."""
        return f"'{self.path}'"

    def lengths(self) -> dict[str, int]:
        """From the footer of the file."""
        return {name: self.rows for name in self._named()}

    def read(self, names: Container[str]) -> dict[str, Array]:
        """Those columns; others may be of types that no array has."""
        named = {name: column for name, column in self._named().items() if name in names}
        with _readable_parquet(self.path) as parquet, parquet.ParquetFile(self.path) as file:
            return {name: self._array(file, name, column) for name, column in named.items()}

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
            require_worth(self.path, self._held(file, column), column)
            pictures = (decode(io.BytesIO(content), self.recipe.size, where) for content in self._encoded(file, column))
            array = self.recipe.prepared(pictures, where)
        else:
            each = values_of_a_row(file.schema_arrow.field(column).type, where)
            require_worth(self.path, self._held(file, column), column, self.rows * each)
            array = dense(file.read_row_group(self.group, columns=[column]).column(column), where)
        if len(array) != self.rows:
            raise ValueError(f"column '{column}' has {len(array)} rows, and its group {self.rows}")
        return array

    def _held(self, file: Any, column: str) -> list[Chunk]:
        """What is stored of a column, and of what lies within it: by the schema, for names elsewhere are not read."""
        paths = (file.schema.column(index).path for index in range(len(self.held)))
        return [chunk for path, chunk in zip(paths, self.held, strict=True) if f"{path}.".startswith(f"{column}.")]

    def _encoded(self, file: Any, column: str) -> Iterator[bytes]:
        """Pictures one by one: a file of few bytes may have one of them many times."""
        for batch in file.iter_batches(1, row_groups=[self.group], columns=[column]):
            for row in batch.column(column).to_pylist():
                # The datasets library keeps pictures as structs of `bytes` and `path`.
                content = row.get("bytes") if isinstance(row, dict) else row
                if not isinstance(content, bytes):
                    raise PconvError(
                        f"{self.where}, column '{column}' does not hold encoded pictures", "a recipe is for these alone"
                    )
                yield content


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
    # Arrow's own, and what Python makes of texts and numbers that are none.
    except (OSError, MemoryError, KeyError, OverflowError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise PconvError(f"cannot read '{path}' as Parquet: {error}", "check it") from error


def parts_of(source: str | os.PathLike[str]) -> list[Part]:
    """The parts of what a path names: an `.npz`, a Parquet file, a recipe, or a folder of one of the former two.

    Raises:
        PconvError: there is nothing to read, or it cannot be read.
    """
    path = Path(source)
    if path.suffix == ".json":
        recipe = Recipe.read(path)
        files = _files(recipe.images, _PARQUET)
        return [part for file in files for part in _groups(file, recipe)] if files else [*_pictures(recipe)]
    files = _files(path, _PARQUET)
    if files:
        return [part for file in files for part in _groups(file, None)]
    files = _listed(path, "*.npz") if _is_folder(path) else [path]
    if not files:
        raise PconvError(
            f"'{path}' holds no .npz and no Parquet files",
            "write them with numpy.savez; for a folder of pictures pass a recipe, a .json file (docs/scale-out.md)",
        )
    return [NpzFile(file) for file in files]


def _files(path: Path, suffix: str) -> list[Path]:
    if _is_folder(path):
        return _listed(path, f"*{suffix}")
    return [path] if path.suffix == suffix else []


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


def _groups(path: Path, recipe: Recipe | None) -> Iterator[ParquetGroup]:
    """Those that have rows."""
    with _readable_parquet(path) as parquet:
        with open_file(path) as content:
            size = os.fstat(content.fileno()).st_size
            held = chunks(content)
        with parquet.ParquetFile(path) as file:
            columns, leaves = tuple(file.schema_arrow.names), len(file.schema)
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        if min(rows, default=0) < 0:
            raise ValueError("it has a group of less than no rows")
        if len(held) != len(rows) or any(len(group) != leaves for group in held):
            raise ValueError("its groups cannot be told apart")
        require_moderate(sum(rows) * BYTES_OF_A_VALUE, size)
    for group, count in enumerate(rows):
        if count:
            yield ParquetGroup(path, group, count, columns, held[group], recipe)


def _pictures(recipe: Recipe) -> Iterator[Pictures]:
    """The pictures of a folder in order of their names; labels count its sorted subfolders."""
    folder = recipe.images
    files = [path for path in _listed(folder, "**/*") if path.suffix.lower() in _PICTURES]
    if not files:
        raise PconvError(f"'{folder}' holds no pictures ({', '.join(_PICTURES)}) and no Parquet files", "")
    if len({path.parent == folder for path in files}) > 1:
        raise PconvError(f"'{folder}' holds pictures beside subfolders of pictures", "which have classes?")
    names = sorted({path.parent.name for path in files})
    classes = {name: index for index, name in enumerate(names)}
    a_part = min(_PICTURES_A_PART, number_at_once(recipe, files[0]))
    for first in range(0, len(files), a_part):
        chosen = tuple(files[first : first + a_part])
        labels = None if files[0].parent == folder else tuple(classes[path.parent.name] for path in chosen)
        yield Pictures(recipe, chosen, labels)
