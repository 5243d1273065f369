"""QCFS as a trainable PyTorch module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.basics.errors import PconvError

# θ is kept at or above this; a normal number in float16 too.
_SMALLEST = 1e-4

# The first θ: how many values it is fitted to, which share of them counts in full, and the candidates: from the largest
# that does down to 1/1024 of it.
_SAMPLE = 2**14
_COUNTED = 0.999
_SHARES = tuple(2 ** (-step / 8) for step in range(81))


class _Floor(torch.autograd.Function):
    """⌊u⌋ with the gradient of u. Exporters see through it: the graph has a Floor and nothing else."""

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        return u.floor()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def _quantise(x: torch.Tensor, threshold: torch.Tensor, levels: int, below: int = 0) -> torch.Tensor:
    code: torch.Tensor = _Floor.apply(x / threshold * levels + 0.5)
    # Of one type: exporters fail on an integer beside a float.
    low, high = (-below / levels, 1.0) if below else (0, 1)
    return (code / levels).clamp(low, high) * threshold


class QCFS(nn.Module):
    """`y = θ · clip(⌊x/θ · L + 1/2⌋ / L, 0, 1)`: a ReLU with L levels between 0 and its threshold θ, which is learned.

    With N levels `below` zero it is clipped at −N/L in place of 0, as a Hardtanh is: its neuron has signed trains.

    The floor passes gradients straight through. So ∂y/∂x is 1 from −θ/2L up to θ + θ/2L and 0 outside; ∂y/∂θ is
    (y − x)/θ there, 1 above and 0 below. Source: Bu et al., "Optimal ANN-SNN conversion for high-accuracy and
    ultra-low-latency spiking neural networks" (ICLR 2022).

    Without a `threshold`, θ is NaN until the first forward in training mode, or `initialise`, sets it from data: to the
    value at which quantising these inputs has the least mean cubed error to their ReLU, the largest 0.1 % of them
    counted as no larger than the rest. So an outlier has no say, as it has in a maximum, and few levels get a lower θ,
    as from a percentile they do not. Under DistributedDataParallel set it before wrapping; otherwise each process would
    start from another θ.

    After an optimiser step took it to zero or below, θ is put back to the smallest positive number allowed, at the next
    forward in training mode or when training mode ends: it stays a plain parameter, in training and in ONNX.

    Args:
        levels: L, 1 to 256.
        threshold: θ, positive and in the units of x; a number for all of `shape`, or a tensor of that shape.
        shape: shape of θ, broadcast against x: `(1,)` for one, `(C, 1, 1)` for one a channel of `[B, C, H, W]`.
        below: N, how many levels as high as the others lie below zero, 0 to 256.

    Shapes: x `[B, …]`, y the same.
    """

    def __init__(
        self,
        levels: int,
        threshold: float | torch.Tensor | None = None,
        *,
        shape: Sequence[int] = (1,),
        below: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(levels, int) or not 1 <= levels <= MAX_STEPS:
            raise PconvError(f"{levels} is not a number of levels", f"choose a whole number from 1 to {MAX_STEPS}")
        if not isinstance(below, int) or not 0 <= below <= MAX_STEPS:
            raise PconvError(
                f"{below} is not a number of levels below zero", f"choose a whole number from 0 to {MAX_STEPS}"
            )
        value = torch.as_tensor(math.nan if threshold is None else threshold, dtype=torch.get_default_dtype())
        if value.numel() > 1 and value.shape != torch.Size(shape):
            raise PconvError(f"the threshold has shape {list(value.shape)}, not {list(shape)}", "pass shape as well")
        if threshold is not None and not bool(((value > 0) & value.isfinite()).all()):
            raise PconvError("the threshold is not positive and finite", "leave it out to have it set from data")
        self.levels = levels
        self.below = below
        self.threshold = nn.Parameter(value.expand(tuple(shape)).clone())
        self._initialised = False

    @property
    def initialised(self) -> bool:
        """Whether θ has a value."""
        # Asked of the tensor only until it has one: a traced forward must not depend on data.
        if not self._initialised:
            self._initialised = not bool(self.threshold.isnan().any())
        return self._initialised

    @torch.no_grad()
    def initialise(self, x: torch.Tensor) -> None:
        """Set θ from pre-activations x `[B, …]`; the class says how.

        Raises:
            PconvError: x has a NaN or an infinity, or does not fit the shape of θ.
        """
        try:
            rows = _rows(x, self.threshold.shape)
        except RuntimeError as error:
            raise PconvError(f"inputs of shape {list(x.shape)} do not fit {self}", "give it another shape") from error
        if not bool(rows.isfinite().all()):
            raise PconvError(f"the inputs that {self} is to be set from have a NaN or an infinity", "mend the data")
        peak, largest = rows.quantile(_COUNTED, dim=1, keepdim=True), rows.amax(1, keepdim=True)
        peak = peak.where(peak > 0, largest)
        # Where nothing is positive any θ fits; that of the others is of a sensible size.
        peak = peak.where(peak > 0, largest.amax().where(largest.amax() > 0, 1.0))
        rows = rows.minimum(peak)
        target, best, least = rows.relu(), peak, torch.full_like(peak, math.inf)
        for candidate in (peak * share for share in _SHARES):
            missed = (_quantise(rows, candidate, self.levels) - target).abs().pow(3).mean(1, keepdim=True)
            best, least = best.where(missed >= least, candidate), least.minimum(missed)
        self.threshold.copy_(best.clamp(min=_SMALLEST).reshape(self.threshold.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the activation, `[B, …]` to `[B, …]`, as the class describes it.

        Raises:
            PconvError: θ has no value yet and this is not training mode.
        """
        if not self.initialised:
            if not self.training:
                raise PconvError(
                    "a QCFS has no threshold yet",
                    "run the model on data in training mode once, load trained weights, or pass threshold",
                )
            self.initialise(x)
        elif self.training:
            self._keep_positive()
        return _quantise(x, self.threshold, self.levels, self.below)

    def train(self, mode: bool = True) -> QCFS:
        """Switch between training and evaluation; the last step of the optimiser may have been a bad one for θ."""
        super().train(mode)
        self._keep_positive()
        return self

    def _keep_positive(self) -> None:
        # Through .data: a module that is called twice must not spoil what autograd kept of the first call. NaN stays.
        self.threshold.data.clamp_(min=_SMALLEST)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._initialised = False

    def extra_repr(self) -> str:
        """For `print(model)`."""
        size = "" if self.threshold.numel() == 1 else f", shape={tuple(self.threshold.shape)}"
        return f"levels={self.levels}{size}{f', below={self.below}' if self.below else ''}"


def _rows(x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The values that meet each θ, a part of them where they are many: float32 `[θ's, values]`."""
    axes = [axis - len(shape) + x.ndim for axis, size in enumerate(shape) if size > 1]
    if any(axis < 1 or x.shape[axis] != shape[axis - x.ndim] for axis in axes):
        raise RuntimeError
    others = [axis for axis in range(x.ndim) if axis not in axes]
    rows = x.detach().permute(*axes, *others).reshape(shape.numel(), -1)
    # An odd stride does not always meet the same column of an image.
    return rows[:, :: rows.shape[1] // _SAMPLE | 1].float()
