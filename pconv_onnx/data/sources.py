"""Where samples lie: each part of the data by itself, so that a process reads those that it needs."""

from __future__ import annotations

import io
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.archives import read_npz, shapes_in_npz
from pconv_onnx.data.parts import LABELS, Part
from pconv_onnx.data.pictures import Pictures, Recipe

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
            return {name: shape[0] if shape else 0 for name, shape in shapes_in_npz(self.path).items()}

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
        with _readable_parquet(self.path) as parquet:
            table = parquet.ParquetFile(self.path).read_row_group(self.group, columns=list(named.values()))
        return {name: self._array(name, column, table.column(column)) for name, column in named.items()}

    def _named(self) -> dict[str, str]:
        """Columns by the name of the array that they become."""
        if self.recipe is None:
            return {name: name for name in self.columns}
        named = {self.recipe.input: self.recipe.column or self.recipe.input, LABELS: self.recipe.labels}
        return {name: column for name, column in named.items() if column in self.columns}

    def _array(self, name: str, column: str, chunks: Any) -> Array:
        values = chunks.combine_chunks()
        where = f"{self.where}, column '{column}'"
        if self.recipe is not None and name == self.recipe.input:
            # The datasets library keeps pictures as structs of `bytes` and `path`.
            rows = [row["bytes"] if isinstance(row, dict) else row for row in values.to_pylist()]
            if not all(isinstance(row, bytes) for row in rows):
                raise PconvError(f"{where} does not hold encoded pictures", "a recipe is for these alone")
            return self.recipe.prepared([self.recipe.decoded(io.BytesIO(row), where) for row in rows], where)
        return _dense(values, where)


def _dense(values: Any, where: str) -> Array:
    """Arrow's values, which may be tensors or lists of lists, as one array.

    Raises:
        PconvError: a value is missing, lists differ in length, or it is of no type that an array has.
    """
    import pyarrow
    import pyarrow.compute

    shape = [len(values)]
    tensors = getattr(pyarrow, "FixedShapeTensorArray", ())
    if isinstance(values, tensors):
        return np.asarray(values.to_numpy_ndarray())
    while pyarrow.types.is_nested(values.type):
        lengths = pyarrow.compute.list_value_length(values).unique().to_pylist() if _is_list(values.type) else []
        if len(lengths) != 1 or None in lengths:
            raise PconvError(f"{where} is {values.type}, not lists of one length", "store tensors of one shape")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise PconvError(f"{where} has missing values", "fill them in, or leave these rows out")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _is_list(kind: Any) -> bool:
    import pyarrow

    return bool(
        pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind)
    )


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
    except (OSError, pyarrow.ArrowException) as error:
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
        parts: list[Part] = [part for file in files for part in _groups(file, recipe)]
        return parts or list(_pictures(recipe))
    files = _files(path, _PARQUET)
    if files:
        return [part for file in files for part in _groups(file, None)]
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise PconvError(
            f"'{path}' holds no .npz and no Parquet files",
            "write them with numpy.savez; for a folder of pictures pass a recipe, a .json file (docs/scale-out.md)",
        )
    return [NpzFile(file) for file in files]


def _files(path: Path, suffix: str) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob(f"*{suffix}"))
    return [path] if path.suffix == suffix else []


def _groups(path: Path, recipe: Recipe | None) -> Iterator[ParquetGroup]:
    with _readable_parquet(path) as parquet, parquet.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    for group, count in enumerate(rows):
        yield ParquetGroup(path, group, count, columns, recipe)


def _pictures(recipe: Recipe) -> Iterator[Pictures]:
    """The pictures of a folder in order of their names; labels count its sorted subfolders."""
    folder = recipe.images
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    if not files:
        raise PconvError(f"'{folder}' holds no pictures ({', '.join(_PICTURES)}) and no Parquet files", "")
    if len({path.parent == folder for path in files}) > 1:
        raise PconvError(f"'{folder}' holds pictures beside subfolders of pictures", "which have classes?")
    names = sorted({path.parent.name for path in files})
    classes = {name: index for index, name in enumerate(names)}
    for first in range(0, len(files), _PICTURES_A_PART):
        chosen = tuple(files[first : first + _PICTURES_A_PART])
        labels = None if files[0].parent == folder else tuple(classes[path.parent.name] for path in chosen)
        yield Pictures(recipe, chosen, labels)
