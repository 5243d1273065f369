"""Samples in memory, or in objects of other libraries, as parts. None of these libraries is imported."""

from __future__ import annotations

import sys
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pconv_onnx.basics.errors import PconvError, listed
from pconv_onnx.data.parts import LABELS, Given, Part, as_array

_DATA = "the data"
# Samples that are taken from an indexable object at once.
_AT_ONCE = 250


def given_parts(source: Any, inputs: Sequence[str]) -> list[Part]:
    """The parts of data given in Python.

    Args:
        source: arrays by the names of inputs; an object with onnxruntime's `get_next()`; one array, or the arrays of
            all inputs as a tuple, in which labels may follow; a Dataset of PyTorch or of Hugging Face; or any iterable
            of batches, each a mapping, a tuple, a list or an array.
        inputs: names of the model's inputs, in its order.

    Raises:
        PconvError: it is none of these, or a batch does not have an array for each input.
    """
    if isinstance(source, Mapping):
        if source and all(_has_columns(value) for value in source.values()):
            raise PconvError(f"the data are splits: {_quoted(source)}", "give one of them")
        return [Given(_DATA, source)]
    if hasattr(source, "get_next"):
        return _batches(_until_none(source), inputs)
    if _has_columns(source) or _is_torch(source, "Dataset"):
        return _dataset(source, inputs)
    if isinstance(source, tuple) or _is_array(source):
        return [Given(_DATA, _by_name(source, inputs, _DATA))]
    if isinstance(source, Iterable):
        return _batches(source, inputs)
    raise PconvError(
        f"data are given as a path, as arrays or as batches of them, not as {type(source).__name__}",
        "write {'NAME': array}, with the name of the model's input",
    )


class _Span:
    """A part that is some rows of the data, with arrays of these names."""

    rows: range
    names: Collection[str]

    @property
    def where(self) -> str:
        """The data."""
        return _DATA

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """As many of each array as there are rows."""
        return dict.fromkeys(self.names, len(self.rows))


@dataclass(frozen=True)
class Rows(_Span):
    """Some samples of an object that has them by their number, each a mapping, a tuple or an array.

    Attributes:
        samples: the object.
        rows: which of them.
        inputs: names of the model's inputs.
        names: of the arrays that it has.
    """

    samples: Any
    rows: range
    inputs: Sequence[str]
    names: Collection[str]

    def read(self, names: Container[str]) -> Mapping[str, Any]:
        """Their values, one sample after another."""
        return _stacked((self.samples[row] for row in self.rows), self.inputs, self.rows.start, names)


@dataclass(frozen=True)
class Columns(_Span):
    """Some rows of a Dataset of Hugging Face: a column an array.

    Attributes:
        dataset: in the format that is read.
        rows: which of them.
        names: of the columns; those of a transform of the user's are its own.
    """

    dataset: Any
    rows: range
    names: Collection[str]

    def read(self, names: Container[str]) -> Mapping[str, Any]:
        """Those columns."""
        held = [name for name in self.names if name in names]
        stored = all(name in self.dataset.column_names for name in self.names)
        dataset = self.dataset.select_columns(held) if stored else self.dataset
        return {name: _array(column) for name, column in dataset[self.rows.start : self.rows.stop].items()}


def _array(column: Any) -> Any:
    """A column, which a transform may have made a list of tensors."""
    return [as_array(_DATA, "", value) for value in column] if isinstance(column, list) else column


def _dataset(source: Any, inputs: Sequence[str]) -> list[Part]:
    by_number = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if not by_number or _is_torch(source, "IterableDataset"):
        return list(_streamed(source.with_format("numpy") if _has_columns(source) else source, inputs))
    spans = [range(start, min(start + _AT_ONCE, len(source))) for start in range(0, len(source), _AT_ONCE)]
    if _has_columns(source):
        # Unless a user chose a format, numbers are lists of Python's, which have no type.
        dataset = source if (source.format or {}).get("type") else source.with_format("numpy")
        named = tuple(dataset[:1]) if (source.format or {}).get("type") == "custom" else tuple(source.column_names)
        return [Columns(dataset, span, named) for span in spans]
    names = _by_name(source[0], inputs, f"sample 0 of {_DATA}") if spans else ()
    return [Rows(source, span, inputs, tuple(names)) for span in spans]


def _streamed(samples: Iterable[Any], inputs: Sequence[str]) -> Iterator[Part]:
    """Samples without numbers, all of which are read."""
    iterator, first = iter(samples), 0
    while some := list(islice(iterator, _AT_ONCE)):
        yield Given(_DATA, _stacked(iter(some), inputs, first, None))
        first += len(some)


def _stacked(
    samples: Iterator[Any], inputs: Sequence[str], first: int, names: Container[str] | None
) -> dict[str, list[Any]]:
    """Samples that follow each other, by the names of their arrays."""
    found: dict[str, list[Any]] = {}
    for row, sample in enumerate(samples, first):
        where = f"sample {row} of {_DATA}"
        named = _by_name(sample, inputs, where)
        if found and named.keys() != found.keys():
            raise PconvError(f"{where} has {_quoted(named)}, and those before it have {_quoted(found)}", "mend it")
        for name, value in named.items():
            found.setdefault(name, []).append(value)
    return {name: _array_of(values, name, first) for name, values in found.items() if names is None or name in names}


def _array_of(values: list[Any], name: str, first: int) -> Any:
    arrays = [as_array(f"sample {first + row} of {_DATA}", name, value) for row, value in enumerate(values)]
    return as_array(_DATA, name, arrays)


def read_again(source: Any) -> Any:
    """The same samples from what can be read more than once, as batches that are read once cannot."""
    if hasattr(source, "get_next"):
        return list(_until_none(source))
    return list(source) if isinstance(source, Iterator) else source


def _until_none(reader: Any) -> Iterator[Any]:
    return iter(reader.get_next, None)


def _batches(source: Iterable[Any], inputs: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    for index, batch in enumerate(source):
        where = f"batch {index} of {_DATA}"
        parts.append(Given(where, _by_name(batch, inputs, where)))
    return parts


def _by_name(values: Any, inputs: Sequence[str], where: str) -> Mapping[str, Any]:
    """Arrays by their names: those of the inputs in their order, and labels behind them, unless they have names."""
    if isinstance(values, Mapping):
        return values
    if not isinstance(values, tuple | list):
        values = (values,)
    if len(values) == 2 and isinstance(values[0], Mapping | tuple | list):
        return {**_by_name(values[0], inputs, where), LABELS: values[1]}
    if len(values) not in (len(inputs), len(inputs) + 1):
        raise PconvError(
            f"{where} has {_count(len(values), 'array')}, and the model has {_count(len(inputs), 'input')}: "
            f"{_quoted(inputs)}",
            "give one array for each, and labels behind them, or arrays by the names of inputs",
        )
    for value in values:
        if isinstance(value, str | bytes):
            raise PconvError(f"{where} is a {type(value).__name__}", "give arrays, by the names of inputs")
    return dict(zip([*inputs, LABELS], values, strict=False))


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and not isinstance(value, type)


def _has_columns(value: Any) -> bool:
    """Whether it is a Dataset of Hugging Face."""
    return all(hasattr(value, name) for name in ("column_names", "features", "with_format"))


def _is_torch(value: Any, name: str) -> bool:
    """Whether it is an object of PyTorch, which was imported then."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, getattr(data, name))


def _quoted(names: Collection[str]) -> str:
    return listed([f"'{name}'" for name in names])


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
