"""What is asked of a calibration, besides the data."""

from __future__ import annotations

from dataclasses import dataclass

from pconv_onnx.basics.choices import NeuronsName
from pconv_onnx.neuron.coding import Coding

# How far staircases reach: as each fits its inputs, or by one scale for all channels, or by that of all for each.
RULES = ("fit", "tensor", "channel")


@dataclass(frozen=True)
class Settings:
    """The staircases that are to be found.

    Attributes:
        levels: how many there are above zero, or above an offset.
        coding: of the trains that are to carry them.
        method: one of `METHODS`.
        neurons: what gets a staircase: activations, or whatever products read as well.
        signed: whether values below zero are carried with an offset, so that trains have one sign.
        rule: how far staircases reach of methods that fit, one of `RULES`.
    """

    levels: int
    coding: type[Coding]
    method: str
    neurons: NeuronsName
    signed: bool
    rule: str = RULES[0]

    @property
    def told(self) -> list[object]:
        """As JSON has it."""
        return [self.levels, self.coding.name, self.method, self.neurons, self.signed]
