"""What a part of the data is, wherever it lies: a process reads those that it needs."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError

LABELS = "labels"
# What arrays of labels are called, unless an input has that name.
LABEL_NAMES = (LABELS, "label", "targets", "target", "y")
WHAT_LABELS_ARE = (
    "a label is the number of a class, an integer for each sample or for each of its tokens, or what an output should "
    "be, in floats"
)


class Part(Protocol):
    """Some of the samples. It can be pickled: whoever reads it may be another process."""

    @property
    def where(self) -> str:
        """How to call it in messages."""

    def lengths(self, names: Container[str]) -> Mapping[str, int]:
        """All its arrays by name; of those named the sizes of their first axes, 0 where they have no values.

        Raises:
            PconvError: it cannot be read.
        """

    def read(self, names: Container[str]) -> Mapping[str, Any]:
        """Its arrays by name, of those named all that it has.

        Raises:
            PconvError: it cannot be read.
        """


@dataclass(frozen=True)
class Given:
    """Arrays in memory."""

    where: str
    arrays: Mapping[str, Any]

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """As they are."""
        return {
            name: length_of(as_array(self.where, name, array).shape) if name in names else 0
            for name, array in self.arrays.items()
        }

    def read(self, names: Container[str]) -> Mapping[str, Any]:
        """As they are."""
        return self.arrays


def length_of(shape: tuple[int, ...]) -> int:
    """The size of the first axis of an array, 0 of a scalar and where it holds no values."""
    return shape[0] if shape and all(shape) else 0


def as_array(where: str, name: str, given: Any) -> Array:
    """What someone gives for an array.

    Raises:
        PconvError: it cannot be made one.
    """
    try:
        # A tensor of PyTorch may have gradients, or lie on a GPU.
        return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except Exception as error:  # NumPy's for lists of unequal length, and whatever objects of others raise
        raise PconvError(f"'{name}' in {where} is a {type(given).__name__} and no array: {error}") from error
