"""Compares the outputs of two networks, batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.runtime.axes import classes


@dataclass
class Comparison:
    """Differences between the outputs of two networks, added up batch by batch.

    Attributes:
        max_abs_diff: largest difference of an output value; infinite where shapes differ, or where one network has a
            NaN or an infinity that the other has not; 1 of strings that differ, which may be numbers written out.
        magnitude: largest finite value of the float outputs expected.
        agreeing: samples on which the largest logit is the same.
        samples: samples compared; 0 where one of the networks could not be run.
        elements: output values compared.
    """

    max_abs_diff: float = 0.0
    magnitude: float = 0.0
    agreeing: int = 0
    samples: int = 0
    elements: int = 0

    def add(self, expected: list[Array], found: list[Array], count: int) -> None:
        """Add the outputs of one batch; top-1 is that of the first output with classes."""
        for left, right in zip(expected, found, strict=True):
            self.max_abs_diff = max(self.max_abs_diff, _difference(left, right))
            self.magnitude = max(self.magnitude, _magnitude(left))
        self.samples += count
        self.elements += sum(left.size for left in expected)
        index = classes(expected, count)
        if index is not None and found[index].shape == expected[index].shape:
            self.agreeing += int((expected[index].argmax(1) == found[index].argmax(1)).sum())

    def top1_agreement(self, has_classes: bool) -> float | None:
        """Share of samples with the same top-1; None where no output has classes or nothing was compared."""
        return self.agreeing / self.samples if has_classes and self.samples else None


def _difference(left: Array, right: Array) -> float:
    """Largest difference between two outputs; values that are the same, NaN and infinities too, differ by nothing."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return math.inf
    if left.dtype.kind not in "fiub":
        return float(not np.array_equal(left, right))
    left, right = left.astype(np.float64), right.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(left - right))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _magnitude(values: Array) -> float:
    """Largest finite float of an output."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else np.zeros(0)
    return float(np.abs(finite).max(initial=0.0))
