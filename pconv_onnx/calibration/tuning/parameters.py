"""What is tuned: the staircases of activations, and the weights and biases of layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.segments import Layer
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.writing import Correction, Quantised

# In steps: so far below the lowest threshold is what never fires.
_NEVER = 2.0**20


class _Staircase(torch.autograd.Function):
    """`level · clip(⌊x/step + place + 1/2⌋, 0, T)`; everything broadcasts against the values."""

    @staticmethod
    def forward(
        context: Any, values: torch.Tensor, step: torch.Tensor, place: torch.Tensor, level: torch.Tensor, steps: int
    ) -> torch.Tensor:
        """Of each value; only these are kept, since counts are found again at once."""
        context.save_for_backward(values, step, place, level)
        context.steps = steps
        return values.div(step).add_(place).add_(0.5).floor_().clamp_(0, steps).mul_(level)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Through the rounding as if it were not there, and none beyond the ends."""
        (gradient,), (values, step, place, level) = gradients, context.saved_tensors
        line = values / step + place
        counts = torch.floor(line + 0.5).clamp_(0, context.steps)
        within = (line > 0) & (line < context.steps)
        of_line = gradient * level * within
        return (
            of_line / step,
            (of_line * values).sum_to_size(step.shape) / -(step * step),
            of_line.sum_to_size(place.shape),
            (gradient * counts).sum_to_size(level.shape),
            None,
        )


class Steps(nn.Module):
    """A staircase, and what a channel gives that does not fire.

    Counts are rounded, and gradients pass as if they were not: through the slope between the ends, and none beyond
    (straight-through; Bengio et al., 2013). Step and level are the exponentials of parameters, so both stay positive.
    Where zero is a level between others, its place between two thresholds stays.
    """

    def __init__(self, entry: Quantised) -> None:
        """That of an entry."""
        super().__init__()
        self.entry = entry
        staircase = entry.staircase
        shift, step, level = (torch.from_numpy(np.array(table, np.float32)) for table in staircase.constants())
        # A channel that never fires has the lowest level, whatever its inputs are.
        place = torch.where(torch.from_numpy(staircase.silent), staircase.zero - _NEVER, shift / step)
        self.step = nn.Parameter(step.log())
        self.level = nn.Parameter(level.clamp_min(float(np.finfo(np.float32).tiny)).log())
        self.place = nn.Parameter(place, requires_grad=not staircase.zero)
        offset = np.zeros(1, np.float32) if entry.offset is None else entry.offset.astype(np.float32)
        self.offset = torch.from_numpy(np.broadcast_to(offset, level.shape).copy())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Of each value."""
        level, zero = self.level.exp(), self.entry.staircase.zero
        tables = self.step.exp(), self.place, level, -zero * level if zero else self.offset
        step, place, level, offset = (table.reshape(self.entry.channels.shape) for table in tables)
        found: torch.Tensor = _Staircase.apply(values, step, place, level, self.entry.staircase.steps)
        return found if self.entry.offset is None else found + offset

    def rates(self, rate: float) -> Iterator[dict[str, Any]]:
        """Parameters, and how far a step of the optimiser moves each at most."""
        yield {"params": [self.step, self.level], "lr": rate}
        yield {"params": [self.place], "lr": 3 * rate}

    def staircase(self) -> Staircase:
        """As it is now."""
        before = self.entry.staircase
        step, level, place = (
            table.detach().numpy().astype(np.float64) for table in (self.step.exp(), self.level.exp(), self.place)
        )
        found = Staircase(step * before.steps, step * place, level * before.steps, before.steps, before.zero)
        silent = before.silent
        return replace(
            found,
            threshold=np.where(silent, before.threshold, found.threshold),
            shift=np.where(silent, before.shift, found.shift),
            amplitude=np.where(silent, before.amplitude, found.amplitude),
        )


class Weights(nn.Module):
    """Weights and bias of a layer."""

    def __init__(self, layer: Layer, correction: Correction | None) -> None:
        """Those that were found, or its own."""
        super().__init__()
        self.output = layer.node.output[0]
        self.names = f"{self.output}/tuned/weights", f"{self.output}/tuned/bias"
        weights, bias = (layer.weights, layer.bias) if correction is None else (correction.weights, correction.bias)
        self.weights, self.bias = (nn.Parameter(torch.tensor(np.array(table, np.float32))) for table in (weights, bias))

    def rates(self, rate: float) -> Iterator[dict[str, Any]]:
        """Parameters, and how far a step of the optimiser moves each at most."""
        size = float(self.weights.detach().abs().mean())
        yield {"params": [self.weights, self.bias], "lr": 3 * rate * size}

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Parameters by the tensors that stand for them."""
        return zip(self.names, (self.weights, self.bias), strict=True)

    def correction(self) -> Correction:
        """As they are now."""
        return Correction(self.output, self._array(self.weights), self._array(self.bias))

    @staticmethod
    def _array(table: torch.Tensor) -> Array:
        found: Array = table.detach().numpy().copy()
        return found
