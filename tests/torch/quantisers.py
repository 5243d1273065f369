"""Quantised activations as the repositories of LSQ, PACT, DoReFa and LSQ+ write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """x, with its gradient scaled."""
    y = x * scale
    return (x - y).detach() + y


def round_difference_first(x: Tensor) -> Tensor:
    return (x.round() - x).detach() + x


def round_value_first(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


class _SymbolicRound(_Round):
    @staticmethod
    def symbolic(graph: Any, x: Any) -> Any:
        return graph.op("Round", x)


ROUNDINGS = {
    "detach, difference first": round_difference_first,
    "detach, value first": round_value_first,
    "autograd.Function": _Round.apply,
    "autograd.Function with symbolic": _SymbolicRound.apply,
}


class Quantiser(nn.Module):
    """A quantiser of so many bits, whose rounding is one of `ROUNDINGS`."""

    def __init__(self, bits: int = 4, rounding: str = "detach, difference first", channels: int = 1) -> None:
        super().__init__()
        self.highest, self.round = 2**bits - 1, ROUNDINGS[rounding]
        spread = torch.linspace(0.6, 1.7, channels)
        self.spread = spread.reshape(-1, 1, 1) if channels > 1 else torch.tensor(1.0)


class Lsq(Quantiser):
    """Esser et al. 2020."""

    lowest = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scale = nn.Parameter(1.7 / self.highest * self.spread)

    def gradient_scale(self, x: Tensor) -> float:
        return 0.0131

    def forward(self, x: Tensor) -> Tensor:
        scale = scale_gradient(self.scale, self.gradient_scale(x))
        return self.round(torch.clamp(x / scale, self.lowest, self.highest)) * scale


class SignedLsq(Lsq):
    """The same of signed values."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lowest, self.highest = -(self.highest + 1) // 2, self.highest // 2


class LsqOfBatch(Lsq):
    """With a gradient that depends on how many values there are."""

    def gradient_scale(self, x: Tensor) -> float:
        return 1.0 / (self.highest * x.numel()) ** 0.5


class Pact(Quantiser):
    """Choi et al. 2018, with its clip as a clamp."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.alpha = nn.Parameter(1.7 * self.spread)

    def clip(self, x: Tensor) -> Tensor:
        return torch.clamp(x, torch.zeros_like(self.alpha), self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        gain = self.highest / self.alpha
        return self.round(self.clip(x) * gain) / gain


class PactMinimum(Pact):
    """With a ReLU and a minimum."""

    def clip(self, x: Tensor) -> Tensor:
        return torch.minimum(torch.relu(x), self.alpha)


class PactWhere(Pact):
    """With a ReLU and a choice."""

    def clip(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return torch.where(x < self.alpha, x, self.alpha)


class PactAbsolute(Pact):
    """With the paper's formula."""

    def clip(self, x: Tensor) -> Tensor:
        return 0.5 * (x.abs() - (x - self.alpha).abs() + self.alpha)


class DoReFa(Quantiser):
    """Zhou et al. 2016."""

    def forward(self, x: Tensor) -> Tensor:
        return self.round(torch.clamp(x, 0, 1) * self.highest) / self.highest


class LsqPlus(Lsq):
    """Bhalgat et al. 2020, of codes from zero."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.beta = nn.Parameter(-0.31 * self.spread)

    def forward(self, x: Tensor) -> Tensor:
        beta = scale_gradient(self.beta, 0.03)
        return super().forward(x - beta) + beta


class Affine(Quantiser):
    """A fake quantiser with a zero-point, written by hand."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register_buffer("scale", 1.7 / self.highest * self.spread)
        self.register_buffer("zero_point", torch.tensor(float(self.highest // 3)))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.clamp(self.round(x / self.scale) + self.zero_point, 0, self.highest)
        return (code - self.zero_point) * self.scale
