"""The settings of a calibration: everything but the data."""

from __future__ import annotations

from dataclasses import dataclass

from pconv_onnx.basics.choices import NEURONS, NeuronsName
from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.neuron.coding import Coding
from pconv_onnx.neuron.parallel import MAX_LEVELS

# How far staircases reach: as each fits its inputs, as far as the largest value of each channel, or of all channels.
RULES = ("fit", "channel", "tensor")


@dataclass(frozen=True)
class Settings:
    """The kind of staircases to find.

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
    def on_either_side(self) -> int:
        """How many levels there are above zero, and below it, at most: no neuron has more of both."""
        return min(self.levels, MAX_LEVELS // 2)

    @property
    def told(self) -> list[object]:
        """As JSON has it."""
        return [self.levels, self.coding.name, self.method, self.neurons, self.signed]


def require_neurons(neurons: str, *, offsets: bool) -> None:
    """Raise if there is no such choice of neurons, or if neurons of products would get levels with an offset.

    Raises:
        PconvError: there are not.
        WrongArguments: they would.
    """
    if neurons not in NEURONS:
        raise PconvError(f"there are no neurons of '{neurons}'", f"choose {' or '.join(NEURONS)}")
    if neurons == "products" and offsets:
        raise WrongArguments(
            "levels with an offset give products no spikes to read, so neurons of products are of no use with them",
            "leave out signed, and mode 'serial', or choose neurons of activations",
        )
