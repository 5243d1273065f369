"""What is asked of a calibration, besides the data."""

from __future__ import annotations

from dataclasses import dataclass

from pconv_onnx.basics.choices import NeuronsName
from pconv_onnx.neuron.coding import Coding


@dataclass(frozen=True)
class Settings:
    """The staircases that are to be found.

    Attributes:
        levels: how many there are above zero, or above an offset.
        coding: of the trains that are to carry them.
        method: one of `METHODS`.
        neurons: what gets a staircase: activations, or whatever products read as well.
        signed: whether values below zero are carried with an offset, so that trains have one sign.
    """

    levels: int
    coding: type[Coding]
    method: str
    neurons: NeuronsName
    signed: bool

    @property
    def told(self) -> list[object]:
        """As JSON has it."""
        return [self.levels, self.coding.name, self.method, self.neurons, self.signed]
