"""The integrate-and-fire neuron that runs one time-step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.neuron.coding import Rate


@dataclass(frozen=True, eq=False)
class SerialNeuron:
    """A layer of integrate-and-fire neurons with soft reset, run one time-step at a time.

    Membrane potentials are counted from the initial potential b, so they begin at zero: a neuron fires when its
    potential reaches θ − b.

    Attributes:
        steps: T, for which the initial potential was chosen.
        bias: ψ, which is added to the current of each step, `[R]`.
        threshold: θ − b, the potential at which it fires, `[R]`.
        reset: θ, which a spike subtracts from the potential (soft reset), `[R]`.
        levels: what a neuron emits if silent and if it fires, `[R, 2]`.
        channel_axis: the axis of the current that the rows belong to; None for R = 1.
    """

    steps: int
    bias: Array
    threshold: Array
    reset: Array
    levels: Array
    channel_axis: int | None = None

    @property
    def coding(self) -> Rate:
        """`rate`: all spikes are worth the same. The steps in which they come are not those of a parallel neuron."""
        return Rate(self.steps)

    def astype(self, dtype: np.dtype[Any]) -> SerialNeuron:
        """The neuron with its tables rounded to another type."""
        bias, threshold, reset, levels = (
            table.astype(dtype) for table in (self.bias, self.threshold, self.reset, self.levels)
        )
        return SerialNeuron(self.steps, bias, threshold, reset, levels, self.channel_axis)
