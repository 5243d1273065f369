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
    """`level · clip(⌊x/step + place + 1/2⌋, 0, T)`; everything broadcasts against the values.

    Sample by sample, so that what is computed in between stays in the caches of the processor.
    """

    @staticmethod
    def forward(
        context: Any, values: torch.Tensor, step: torch.Tensor, place: torch.Tensor, level: torch.Tensor, steps: int
    ) -> torch.Tensor:
        """Of each value; the line, cut off at its ends, tells all that gradients need."""
        line, found = torch.empty_like(values), torch.empty_like(values)
        for one, along, counts in _parts(step, values, line, found):
            torch.div(one, step, out=along).add_(place).clamp_(0, steps)
            torch.add(along, 0.5, out=counts).floor_().clamp_(0, steps).mul_(level)
        context.save_for_backward(line, step, place, level)
        context.steps = steps
        return found

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        """Through the rounding as if it were not there, and none beyond the ends."""
        line, step, place, level = context.saved_tensors
        of_values = torch.empty_like(line)
        of_line, on_line, of_level = (torch.zeros_like(step) for _ in range(3))
        for gradient, along, given in _parts(step, gradients[0], line, of_values):
            counts = torch.add(along, 0.5).floor_().clamp_(0, context.steps)
            of_level += counts.mul_(gradient).sum_to_size(step.shape)
            torch.mul(gradient, level, out=given)
            # As floats: products with truth values are slow.
            given.mul_(torch.gt(along, 0, out=counts)).mul_(torch.lt(along, context.steps, out=counts))
            of_line += given.sum_to_size(step.shape)
            on_line += torch.mul(given, along, out=counts).sum_to_size(step.shape)
            given.div_(step)
        # A value is (line − place)·step.
        return of_values, (place * of_line - on_line) / step, of_line, of_level, None


def _parts(table: torch.Tensor, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Of tensors along their first axis, one at a time, or all at once where channels run along it."""
    size = 1 if table.dim() < tensors[0].dim() else max(table.shape[0], 1)
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


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
