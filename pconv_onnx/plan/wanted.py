"""What is wanted of the neurons of a network: time-steps, coding, signs, type."""

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
    """What is wanted of neurons.

    Attributes:
        steps: T; None for as many as the levels of each need.
        coding: of trains; `auto` chooses by the levels where `steps` is None, and is `rate` where it is not.
        signed: whether values below zero are carried with an offset: trains are then dense, and have one sign.
        precision: `float16` for what computes in float32; None for the type of the source.
    """

    steps: int | None = None
    coding: CodingName = "auto"
    signed: bool = False
    precision: Precision | None = None

    def zero(self, spec: QuantizerSpec) -> int:
        """k₀ of the trains of a quantiser, where they may be signed."""
        return 0 if self.signed else spec.zero

    def signs(self, spec: QuantizerSpec) -> bool:
        """Whether trains of a quantiser are to have signs: not where they would not have all levels in these steps."""
        if self.signed or not spec.zero:
            return False
        return self.steps is None or self.coding == "radix" or self.steps == reach_of(spec.levels, spec.zero)

    def codings(self, spec: QuantizerSpec) -> Iterator[type[Coding]]:
        """The codings of a quantiser's trains, the first that carries its levels before the others."""
        if self.coding != "auto":
            yield CODINGS[self.coding]
            return
        few = self.steps is not None or spec.levels <= _FEW
        yield Rate if few else Radix
        if self.steps is None:
            yield Radix if few else Rate
