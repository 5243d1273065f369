"""Finds the array of labels in the data, and arrays that are not used."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pconv_onnx.basics.errors import PconvError, listed, warn
from pconv_onnx.data.parts import LABEL_NAMES, LABELS, Part

# Names of arrays that may be labels but are not taken as such unless the user says so.
_LIKELY = ("class", "classes", "category", "ground_truth", "gt", "y_true", "y_train", "y_test", "fine_label",
           "fine_labels", "coarse_label", "coarse_labels", "label_ids", "answers")  # fmt: skip
# How much of a name has to be the same.
_ALIKE = 0.75


@dataclass(frozen=True)
class Labelled:
    """A part of the data whose labels, if it has any, are called `labels`.

    Attributes:
        part: the same as it is.
        inputs: names of the model's inputs, which are not taken for labels.
    """

    part: Part
    inputs: Sequence[str]

    @property
    def where(self) -> str:
        """As the part says."""
        return self.part.where

    def lengths(self, names: Container[str]) -> dict[str, int]:
        """As the part says."""
        return self._renamed(self.part.lengths(_Asked(names, self.inputs)))

    def read(self, names: Container[str]) -> dict[str, Any]:
        """As the part says."""
        return self._renamed(self.part.read(_Asked(names, self.inputs)))

    def _renamed(self, held: Mapping[str, Any]) -> dict[str, Any]:
        own = self._own(held)
        return {LABELS if name == own else name: value for name, value in held.items()}

    def _own(self, held: Collection[str]) -> str | None:
        """What the part calls its labels.

        Raises:
            PconvError: several arrays may be.
        """
        found = [name for name in LABEL_NAMES if name in held and name not in self.inputs]
        if len(found) > 1 and LABELS not in found:
            raise PconvError(
                f"of {self.where} each of {_quoted(found)} may be labels", f"call the right one '{LABELS}'"
            )
        return found[0] if found and LABELS not in self.inputs else None


@dataclass(frozen=True)
class _Asked:
    """Names of arrays to read, with all that labels may be called."""

    names: Container[str]
    inputs: Sequence[str]

    def __contains__(self, name: object) -> bool:
        return name in self.names or (LABELS in self.names and name in LABEL_NAMES and name not in self.inputs)


def warn_of_unused(where: str, held: Collection[str], inputs: Sequence[str]) -> None:
    """Say which arrays are of no use, and what they may have been meant for.

    Args:
        where: how to call the data.
        held: names of its arrays, labels as `labels`.
        inputs: names of the model's inputs, each of which is there.
    """
    unused = [name for name in held if name not in inputs and name != LABELS]
    if unused:
        meant = [] if LABELS in held else [name for name in unused if _is_like_labels(name)]
        told = f"; if '{meant[0]}' is labels, call it '{LABELS}'" if meant else ""
        warn(f"arrays of {where} that are neither an input of the model nor labels: {_quoted(unused)}{told}")


def _is_like_labels(name: str) -> bool:
    known = (*LABEL_NAMES, *_LIKELY)
    return bool(get_close_matches(name.lower(), [entry for entry in known if len(entry) > 1], 1, _ALIKE))


def _quoted(names: Collection[str]) -> str:
    return listed([f"'{name}'" for name in names])
