"""The settings of a calibration: everything but the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pconv_onnx.basics.choices import MAX_STEPS, NEURONS, READOUTS, NeuronsName, ReadoutsName
from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.neuron.coding import Coding, Rate
from pconv_onnx.neuron.parallel import MAX_LEVELS
from pconv_onnx.recognise import Activation

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
        readouts: whether activations that only outputs read get a staircase as well.
        rule: how far staircases reach of methods that fit, one of `RULES`.
        mixed: whether activations have levels of their own, and `levels` are those of the mean of their time-steps.
        own: levels of activations that have such, by name.
    """

    levels: int
    coding: type[Coding]
    method: str
    neurons: NeuronsName
    signed: bool
    readouts: ReadoutsName = READOUTS[0]
    rule: str = RULES[0]
    mixed: bool = False
    own: Mapping[str, int] = field(default_factory=dict)

    @property
    def on_either_side(self) -> int:
        """How many levels there are above zero, and below it, at most: no neuron has more of both."""
        return min(self.levels, MAX_LEVELS // 2)

    @property
    def steps(self) -> dict[str, int]:
        """Numbers of time-steps of activations that have their own, by name."""
        return {name: self.coding.steps_for(levels) for name, levels in self.own.items()}

    @property
    def told(self) -> list[object]:
        """As JSON has it."""
        return [self.levels, self.coding.name, self.method, self.neurons, self.signed, self.readouts, self.mixed]

    def with_steps(self, steps: Mapping[str, int]) -> Settings:
        """With numbers of time-steps of activations' own, by name."""
        return replace(self, own={name: self.coding.most(number) for name, number in steps.items()})

    def of(self, activation: Activation) -> Settings:
        """Those for an activation, whose levels may be its own."""
        return replace(self, levels=self.own.get(activation.name, self.levels))


def most_steps(coding: type[Coding]) -> int:
    """The largest number of time-steps that staircases are made for."""
    return MAX_STEPS if coding is Rate else coding.steps_for(MAX_LEVELS)


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
