"""Networks with integer weights: the proof that sums are exact, and whether outputs always have the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import cut
from pconv_onnx.integer.proof.proving import Proof


@dataclass
class Exactness:
    """Outputs of a spiking network against those of its integer form, the ANN in the same integers.

    Attributes:
        weights: `int8` or `int4`.
        input_bits: of a code of the network's inputs; None where these are floats.
        islands: why operators compute on floats, by name, as the record has it.
        proof: of the spiking network.
        elements: output values compared: each as run without graph optimisations and with them, and of a few samples
            alone.
        differing: of these, which have other bits.
        counts: spike counts compared, of layers of integers; 0 of a network that has none.
        differing_counts: of these, which are others.
    """

    weights: str
    input_bits: int | None
    islands: Mapping[str, str]
    proof: Proof
    elements: int = 0
    differing: int = 0
    counts: int = 0
    differing_counts: int = 0

    def add(self, expected: Sequence[Array], runs: Iterable[Sequence[Array]]) -> None:
        """Take in the outputs of some samples, from the integer form and from runs of the spiking network."""
        for found in runs:
            for left, right in zip(expected, found, strict=True):
                self.elements += left.size
                self.differing += left.size if left.shape != right.shape else int((_bits(left) != _bits(right)).sum())

    def add_counts(self, layers: Iterable[tuple[int, int]]) -> None:
        """Take in of each layer of integers how many counts were compared, and how many of these are others."""
        for compared, differing in layers:
            self.counts += compared
            self.differing_counts += differing

    @property
    def differences(self) -> list[str]:
        """What is not as it has to be, a line each."""
        told = [
            f"sums of {bound.op_type} '{cut(bound.name)}' may reach {bound.largest:,.0f}, more than floats hold exactly"
            for bound in self.proof.overflowing
        ]
        if self.differing_counts:
            told.append(f"{self.differing_counts} of {self.counts} spike counts are others than its integer form gives")
        if self.proof.exact and self.differing:
            told.append(
                f"{self.differing} of {self.elements} output values have other bits than its integer form gives"
            )
        return told

    def summary(self) -> dict[str, Any]:
        """Its part of the JSON document of `pconv-onnx verify`."""
        worst = self.proof.worst
        return {
            "weights": self.weights,
            "input_bits": self.input_bits,
            "exact": self.proof.exact,
            "sums": len(self.proof.bounds),
            "largest_sum": None if worst is None else worst.share,
            "islands": {name: self.islands.get(name, reason) for name, reason in self.proof.islands.items()},
            "elements": self.elements,
            "differing": self.differing,
            "counts": self.counts,
            "differing_counts": self.differing_counts,
        }


def _bits(values: Array) -> Array:
    """Floats as integers of their bits, but that zeros and values that are none are alike."""
    if values.dtype.kind != "f":
        return values
    plain = np.where(np.isnan(values), np.nan, values + values.dtype.type(0)).astype(values.dtype)
    return plain.view(f"u{values.dtype.itemsize}")
