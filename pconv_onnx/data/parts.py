"""What a part of the data is, wherever it lies: a process reads those that it needs."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

LABELS = "labels"


class Part(Protocol):
    """Some of the samples. It can be pickled: whoever reads it may be another process."""

    @property
    def where(self) -> str:
        """How to call it in messages."""

    def lengths(self) -> Mapping[str, int]:
        """Its arrays by name, with the sizes of their first axes, without their values; 0 for a scalar.

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

    def lengths(self) -> dict[str, int]:
        """As they are."""
        return {name: (np.shape(array) or (0,))[0] for name, array in self.arrays.items()}

    def read(self, names: Container[str]) -> Mapping[str, Any]:
        """As they are."""
        return self.arrays
