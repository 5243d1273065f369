"""What the user wants of neurons: time-steps, coding, signs, type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pconv_onnx.basics.choices import CodingName, Precision
from pconv_onnx.neuron.coding import CODINGS, Coding, Radix, Rate, reach_of
from pconv_onnx.neuron.quantiser import QuantizerSpec

# The most levels for which `auto` chooses `rate`.
_FEW = 16


@dataclass(frozen=True)
class Wanted:
    """What the user wants of a network's neurons.

    Attributes:
        steps: number of time-steps T; None for as many as each neuron's levels need.
        coding: coding of the trains; `auto` chooses by the levels if `steps` is None, else it is `rate`.
        signed: whether values below zero are carried with an offset; trains then have one sign, and no silence at zero.
        precision: `float16` to compute in float16 instead of float32; None for the type of the source.
    """

    steps: int | None = None
    coding: CodingName = "auto"
    signed: bool = False
    precision: Precision | None = None

    def zero(self, spec: QuantizerSpec) -> int:
        """k₀ of a quantiser's trains: above zero if they are signed."""
        return 0 if self.signed else spec.zero

    def signs(self, spec: QuantizerSpec) -> bool:
        """Whether a quantiser's trains are signed: not if that would lose levels with these steps."""
        if self.signed or not spec.zero:
            return False
        return self.steps is None or self.coding == "radix" or self.steps == reach_of(spec.levels, spec.zero)

    def codings(self, spec: QuantizerSpec) -> Iterator[type[Coding]]:
        """The codings for a quantiser's trains, in the order in which they are tried."""
        if self.coding != "auto":
            yield CODINGS[self.coding]
            return
        few = self.steps is not None or spec.levels <= _FEW
        yield Rate if few else Radix
        if self.steps is None:
            yield Radix if few else Rate
