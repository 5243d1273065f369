"""All weights and staircases at once, by gradients of how far the quantised network's values are from the source's.

No labels are needed: the source is the teacher, with its outputs and with what each activation gives. The latter keeps
a network of many layers from drifting where few samples tell of its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.progress import track
from pconv_onnx.calibration.holding import blocks_of, chosen
from pconv_onnx.calibration.sweep import Found
from pconv_onnx.calibration.tuning.tunable import Tunable
from pconv_onnx.data.samples import Data
from pconv_onnx.graph import Network

# Found by measurement on ResNet-20 and SqueezeNet (docs/calibration.md). Batches, samples of each, batches over which
# the optimiser's steps grow to their full size, and that size: a share of a level.
_BATCHES, _SIZE, _GROWING, _RATE = 300, 16, 20, 3e-3
# Batches that tell how large values are, and in the end how large errors are.
_FEW = 8


def tuned(network: Network, found: Found, samples: Data) -> Found:
    """Continue from what a sweep found.

    Args:
        network: the source.
        found: where to begin.
        samples: to tune on; no labels are looked at.

    Returns:
        What gradients lead to; the start where there is nothing to change or to compare, or values become infinite.

    Raises:
        PconvError: the network has bodies.
    """
    tunable, draw = Tunable(network, found), _Draw(samples)
    scales, rates = _scales(tunable, draw), tunable.rates(_RATE)
    if not scales or not rates:
        return found
    optimiser = torch.optim.Adam(rates)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _share_of_rate)
    for _ in track(range(_BATCHES), "tuning", _BATCHES):
        loss = torch.stack(list(_errors(tunable, draw(), scales).values())).sum()
        if not torch.isfinite(loss):
            return found
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        measured = [_errors(tunable, draw(), scales) for _ in range(_FEW)]
    return tunable.found([float(np.mean([float(errors.get(n, 0.0)) for errors in measured])) for n in tunable.steps])


class _Draw:
    """Draws batches, the same ones in each run."""

    def __init__(self, samples: Data) -> None:
        self._samples, self._generator = samples, np.random.default_rng(0)

    def __call__(self) -> dict[str, Array]:
        fixed, blocks = self._samples.fixed_batch, blocks_of(self._samples)
        # A model with a batch of its own takes one of these at a time.
        count = 1 if fixed else min(_SIZE, blocks)
        part = chosen(self._samples, np.sort(self._generator.choice(blocks, count, replace=False)))
        return part.part(slice(0, len(part))).feed(slice(None))


def _scales(tunable: Tunable, draw: _Draw) -> dict[str, float]:
    """By tensor: mean square of what an activation gives, and variance of an output.

    None of what is always zero, or not finite.
    """
    totals: dict[str, float] = {}
    for values in (tunable.reference(draw()) for _ in range(_FEW)):
        for name, value in values.items():
            centred = value - value.mean() if name in tunable.outputs else value
            totals[name] = totals.get(name, 0.0) + float(centred.double().square().mean()) / _FEW
    return {name: total for name, total in totals.items() if total and math.isfinite(total)}


def _errors(tunable: Tunable, feed: Mapping[str, Array], scales: Mapping[str, float]) -> dict[str, torch.Tensor]:
    """What is lost of each activation and output, as a share."""
    reference, values = tunable.reference(feed), tunable.quantised(feed)
    return {name: (values[name] - reference[name]).square().mean() / scale for name, scale in scales.items()}


def _share_of_rate(batch: int) -> float:
    """How far steps go: growing, and then falling as a cosine does."""
    return min(1.0, (batch + 1) / _GROWING) * max(0.5 * (1 + math.cos(math.pi * batch / _BATCHES)), 0.02)
