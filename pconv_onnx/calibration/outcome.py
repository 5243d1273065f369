"""How a calibration changes the outputs: by all activations together, and by each alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.progress import track
from pconv_onnx.calibration.holding import few
from pconv_onnx.calibration.passes import BATCH
from pconv_onnx.calibration.rules import comparable, output_errors
from pconv_onnx.calibration.writing import Quantised, quantised_model
from pconv_onnx.data.samples import Data, Samples, to_first
from pconv_onnx.engine.shards import merged
from pconv_onnx.graph import Network
from pconv_onnx.runtime.axes import classes
from pconv_onnx.runtime.likeness import Likeness, divergences, mask_of, same_answers
from pconv_onnx.runtime.side_by_side import open_session, run_session

# The most samples on which outputs are compared; `held_out` holds out no more.
_MOST = 100
# Of these, those on which each activation is tried alone. A sweep runs each of two networks twice or more on all that
# it sees; so many runs for each activation do not take longer than that.
_LEAST_ALONE, _MOST_ALONE = 4, 16
_RUNS_OF_A_SWEEP = 4
# Networks that are open at once, and bytes of them: the source is run once for all of these.
_AT_ONCE, _BYTES_AT_ONCE = 8, 1 << 28
# Limits below or above which an outcome is poor.
_LEAST_AGREEMENT, _LARGEST_ERROR = 0.9, 0.1


@dataclass(frozen=True)
class Outcome:
    """The quantised network's outputs compared with the source's.

    Attributes:
        samples: the number of samples on which they were compared.
        held_out: whether the calibration has not seen these samples.
        agreement: share of samples on which both have the same top-1; None where no output has classes.
        output_error: squared error as a share of the variance of the source's outputs, in the mean over channels;
            None where these cannot be compared, infinite where the quantised network's are not finite.
        divergence: what the quantised network does not tell of the classes, in nats, in the mean over samples
            (`likeness.divergences`); None where no output has classes, infinite where values are not finite.
        cosine: mean cosine similarity of the first output that has one, of samples or of tokens; None without one.
        sensitivity: by activation the output error of the source with that activation alone quantised; empty where it
            was not measured.
    """

    samples: int
    held_out: bool
    agreement: float | None
    output_error: float | None
    cosine: float | None
    divergence: float | None = None
    sensitivity: Mapping[str, float] = field(default_factory=dict)

    @property
    def poor(self) -> bool:
        """Whether fewer than nine of ten answers agree, or a tenth of the variance or more is lost."""
        disagrees = self.agreement is not None and self.agreement < _LEAST_AGREEMENT
        return disagrees or (self.output_error is not None and self.output_error > _LARGEST_ERROR)

    @property
    def lost(self) -> float | None:
        """What tells which of two networks is nearer to the source; None where outputs cannot be compared."""
        return self.output_error if self.divergence is None else self.divergence

    def summary(self) -> dict[str, Any]:
        """Its JSON document; sensitivities are in the rows of activations."""
        told = asdict(self) | {"poor": self.poor}
        told |= {name: finite(told[name]) for name in ("output_error", "divergence")}
        del told["sensitivity"]
        return told


def finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and np.isfinite(value) else None


def outcomes_of(network: Network, models: Sequence[onnx.ModelProto], data: Data, *, held_out: bool) -> list[Outcome]:
    """Compare quantised networks with their source.

    Args:
        network: the source.
        models: what was made of it.
        data: samples; of many some.
        held_out: whether the calibration has not seen them.

    Raises:
        PconvError: onnxruntime cannot run a network.
    """
    if not models:
        return []
    samples = _some(data, _MOST)
    axes = comparable(network, samples)
    runners = [open_session(proto, network.name) for proto in (network.proto, *models)]
    alike = [tuple(Likeness() for _ in axes) for _ in models]
    # Of outputs with classes how many answers are the source's, and the sum of the divergences.
    answers: list[tuple[int, float] | None] = [None for _ in models]
    for part, feed in samples.batches(BATCH) if axes else ():
        count = part.stop - part.start
        runs = (run_session(runner, feed, list(axes)) for runner in runners)
        expected, *others = ([to_first(*pair) for pair in zip(run, axes.values(), strict=True)] for run in runs)
        mask, index = mask_of(samples.part(part)), classes(expected, count)
        for number, found in enumerate(others):
            pairs = zip(found, expected, strict=True)
            alike[number] = merged((alike[number], tuple(Likeness.of(*pair, count, mask) for pair in pairs)))
            if index is not None and found[index].shape == expected[index].shape:
                own = found[index], expected[index]
                these = int(same_answers(*own).sum()), float(divergences(*own).sum())
                answers[number] = merged((answers[number] or (0, 0.0), these))
    errors = output_errors(network, {str(n): model for n, model in enumerate(models)}, samples, BATCH, active=1)
    return [
        Outcome(
            len(samples),
            held_out,
            None if told is None else told[0] / len(samples),
            errors.get(str(number)),
            next((cosine["mean"] for one in every if (cosine := one.cosine()) is not None), None),
            None if told is None else told[1] / len(samples),
        )
        for number, (every, told) in enumerate(zip(alike, answers, strict=True))
    ]


def sensitivities(
    network: Network, activations: Sequence[Quantised], data: Data, seen: int, most: int = _MOST_ALONE
) -> dict[str, float]:
    """What the outputs lose where one activation alone is quantised, by its name; empty where they cannot be compared.

    All others, and all weights, are the source's. Corrected weights make up for activations before them, which are not
    quantised here, and would be errors by themselves.

    Args:
        network: the source.
        activations: what takes the place of each.
        data: samples; of many some.
        seen: samples of the calibration, whose time bounds that of this.
        most: samples that are enough.

    Raises:
        PconvError: onnxruntime cannot run a network.
    """
    bound = _RUNS_OF_A_SWEEP * seen // len(activations)
    samples = _some(data, min(max(bound, _LEAST_ALONE), most))
    size = max(min(_AT_ONCE, _BYTES_AT_ONCE // network.proto.ByteSize()), 1)
    groups = [activations[start : start + size] for start in range(0, len(activations), size)]
    found: dict[str, float] = {}
    for group in track(groups, "measuring sensitivity", len(groups)):
        models = {entry.activation.name: quantised_model(network, [entry], {}) for entry in group}
        found |= output_errors(network, models, samples, BATCH, active=1)
    return found


def _some(data: Data, most: int) -> Samples:
    chosen = few(data, most)
    return chosen.part(slice(0, len(chosen)))
