"""Columns of Parquet files as arrays: of numbers, tensors or nested lists of them, and no more than a file is worth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.files import open_file
from pconv_onnx.data.limits import require_moderate
from pconv_onnx.data.pages import Chunk, extent

# Bytes of a number as it is read, and of how deep in lists it lies.
BYTES_OF_A_VALUE = 12


def require_worth(path: Path, held: Sequence[Chunk], column: str, least: int = 0) -> None:
    """Raise where a column of a row group would take absurdly more memory than the file.

    Args:
        path: of the file.
        held: what the row group has of the column.
        column: its name.
        least: values that it becomes in any case, more than it stores where lists of one length are missing.

    Raises:
        OSError: it cannot be read.
        ValueError: it would, or has no such pages.
    """
    values = expanded = 0
    with open_file(path) as content:
        for chunk in held:
            found = extent(content, chunk.start, chunk.stop)
            # Where pages have less than the footer says, more is looked for behind them.
            if found.values < chunk.values:
                raise ValueError(f"column '{column}' has {found.values:,} values, and should have {chunk.values:,}")
            values, expanded = values + found.values, expanded + found.expanded
        require_moderate(max(values, least) * BYTES_OF_A_VALUE + expanded, os.fstat(content.fileno()).st_size)


def values_of_a_row(kind: Any, where: str) -> int:
    """How many numbers a row of a type has, as far as the type says; at least 1.

    Raises:
        PconvError: it is of no numbers.
    """
    from pyarrow import types

    count, inner = 1, _storage(kind)
    while _is_list(inner):
        count *= inner.list_size if types.is_fixed_size_list(inner) else 1
        inner = inner.value_type
    if types.is_nested(inner):
        raise _no_lists(where, kind)
    if types.is_dictionary(inner):
        inner = inner.value_type
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        raise PconvError(f"{where} is {kind}, not numbers or lists of them", "store numbers")
    return max(count, 1)


def dense(column: Any, where: str) -> Array:
    """Arrow's values, which may be tensors or lists of lists, as one array.

    Raises:
        PconvError: a value is missing, or lists differ in length.
    """
    import pyarrow
    import pyarrow.compute

    values = column.combine_chunks()
    shape = [len(values)]
    if isinstance(values, pyarrow.FixedShapeTensorArray) and not values.null_count:
        return np.asarray(values.to_numpy_ndarray())
    while _is_list(values.type):
        lengths = pyarrow.compute.list_value_length(values).unique().to_pylist()
        if len(lengths) != 1 or None in lengths:
            raise _no_lists(where, values.type)
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise PconvError(f"{where} has missing values", "fill them in, or leave these rows out")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _no_lists(where: str, kind: Any) -> PconvError:
    return PconvError(f"{where} is {kind}, not lists of one length", "store tensors of one shape")


def _storage(kind: Any) -> Any:
    """What a tensor is stored as, or a type itself."""
    import pyarrow

    return kind.storage_type if isinstance(kind, pyarrow.FixedShapeTensorType) else kind


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
