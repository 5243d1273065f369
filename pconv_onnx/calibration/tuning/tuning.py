"""All weights and staircases at once, by gradients of how far the quantised network's values are from the source's.

No labels are needed: the source is the teacher. First it teaches its outputs and what each activation gives. The latter
keeps a network of many layers from drifting where few samples tell of its outputs. Then, where an output has classes,
it also teaches how it distributes them (Hinton et al., "Distilling the knowledge in a neural network", 2015). That
helps where few levels are left. Fewer samples than classes would be learnt by heart: there the time goes to values.
What was found before stays to be chosen from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from pconv_onnx.basics.progress import track
from pconv_onnx.calibration.holding import blocks_of, chosen
from pconv_onnx.calibration.sweep import Found
from pconv_onnx.calibration.tuning.tunable import Tunable
from pconv_onnx.data.samples import Data, Samples
from pconv_onnx.graph import Network
from pconv_onnx.runtime.axes import classes
from pconv_onnx.runtime.likeness import are_probabilities

# Found by measurement on ResNet-20 and SqueezeNet (docs/calibration.md). Samples of a batch, and batches over which the
# optimiser's steps grow to their full size.
_SIZE, _GROWING = 16, 20
# Batches by values alone, and with classes, whose divergence has a weight then.
_BY_VALUES, _WITH_CLASSES, _WEIGHT = 400, 300, 10.0
# That size, by values and with classes; a share of a level.
_RATE, _LOWER_RATE = 3e-3, 1.5e-3
# What logits are divided by before distributions are compared, so that unlikely classes count as well.
_TEMPERATURE = 2.0
# Batches that tell how large values are, and in the end how large errors are.
_FEW = 8


def tuned(network: Network, found: Found, samples: Data) -> list[Found]:
    """Continue from what a sweep found.

    Args:
        network: the source.
        found: where to begin.
        samples: to tune on; no labels are looked at.

    Returns:
        What gradients lead to, first by values alone and then, where an output has classes, by these as well; nothing
        where there is nothing to change or to compare, or values become infinite at once.

    Raises:
        PconvError: the network has bodies.
    """
    tunable, draw = Tunable(network, found), _Draw(samples)
    losses = _Losses(tunable, draw)
    results: list[Found] = []
    for batches, rate, weight in _stages(losses.classes, len(samples)):
        rates = tunable.rates(rate)
        if not losses.scales or not rates:
            break
        optimiser = torch.optim.Adam(rates)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_share_of_rate, batches))
        for _ in track(range(batches), "tuning", batches):
            loss = losses.of(draw(), weight)
            if not torch.isfinite(loss):
                return results
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        results.append(tunable.found(losses.errors()))
    return results


def _stages(classes: int, samples: int) -> list[tuple[int, float, float]]:
    """Batches, a rate and the weight of classes, of which there may be none; in turn."""
    if not classes:
        return [(_BY_VALUES, _RATE, 0.0)]
    if samples < classes:
        return [(_BY_VALUES + _WITH_CLASSES, _RATE, 0.0)]
    return [(_BY_VALUES, _RATE, 0.0), (_WITH_CLASSES, _LOWER_RATE, _WEIGHT)]


class _Draw:
    """Draws batches, the same ones in each run."""

    def __init__(self, samples: Data) -> None:
        self._samples, self._generator = samples, np.random.default_rng(0)

    def __call__(self) -> Samples:
        fixed, blocks = self._samples.fixed_batch, blocks_of(self._samples)
        # A model with a batch of its own takes one of these at a time.
        count = 1 if fixed else min(_SIZE, blocks)
        part = chosen(self._samples, np.sort(self._generator.choice(blocks, count, replace=False)))
        return part.part(slice(0, len(part)))


class _Losses:
    """What is lost of the source.

    Attributes:
        scales: by tensor: mean square of what is read of an activation, and variance of an output; none of what is
            always zero, or not finite.
        with_classes: the first output that has classes; None where none has.
        classes: how many it has; 0 where none has.
    """

    def __init__(self, tunable: Tunable, draw: _Draw) -> None:
        self._tunable, self._draw = tunable, draw
        self.with_classes: str | None = None
        self.classes = 0
        self._probable = False
        totals: dict[str, float] = {}
        for part in (draw() for _ in range(_FEW)):
            values = tunable.reference(part.feed(slice(None)))
            for name, value in values.items():
                centred = value - value.mean() if name in tunable.outputs else value
                totals[name] = totals.get(name, 0.0) + float(centred.double().square().mean()) / _FEW
            outputs = [values[name].numpy() for name in tunable.outputs]
            index = classes(outputs, len(part))
            if index is not None:
                self.with_classes, self._probable = tunable.outputs[index], are_probabilities(outputs[index])
                self.classes = outputs[index].shape[1]
        self.scales = {name: total for name, total in totals.items() if total and math.isfinite(total)}

    def of(self, part: Samples, weight: float) -> torch.Tensor:
        """The shares that are lost of activations and outputs, and the weighted divergence of classes, added up."""
        reference, values = self._values(part)
        total = torch.stack(list(self._shares(reference, values).values())).sum()
        if not weight or self.with_classes is None:
            return total
        theirs, ours = (self._distribution(each[self.with_classes]) for each in (reference, values))
        divergence = functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
        # Its gradients shrink as the square of the temperature.
        return total + weight * _TEMPERATURE**2 * divergence

    def errors(self) -> list[float]:
        """The mean share that is lost of each activation now, on a few batches."""
        with torch.no_grad():
            measured = [self._shares(*self._values(self._draw())) for _ in range(_FEW)]
        compared = self._tunable.compared.values()
        return [float(np.mean([float(shares.get(name, 0.0)) for shares in measured])) for name in compared]

    def _values(self, part: Samples) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Of the source and of the quantised network."""
        feed = part.feed(slice(None))
        return self._tunable.reference(feed), self._tunable.quantised(feed)

    def _shares(
        self, reference: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        return {name: (values[name] - reference[name]).square().mean() / scale for name, scale in self.scales.items()}

    def _distribution(self, rows: torch.Tensor) -> torch.Tensor:
        """Logarithms of probabilities, at the temperature."""
        rows = rows.clamp_min(torch.finfo(rows.dtype).tiny).log() if self._probable else rows
        return torch.log_softmax(rows / _TEMPERATURE, -1)


def _share_of_rate(batches: int, batch: int) -> float:
    """How far steps go: growing, and then falling as a cosine does."""
    return min(1.0, (batch + 1) / _GROWING) * max(0.5 * (1 + math.cos(math.pi * batch / batches)), 0.02)
