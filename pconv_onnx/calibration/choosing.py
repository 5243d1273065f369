"""The staircase that a method chooses for one activation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import CORRECTING
from pconv_onnx.calibration import staircases
from pconv_onnx.calibration.functions import Clip
from pconv_onnx.calibration.settings import Settings
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.statistics import Moments, PairHistogram

# What changes: `refit` weights, biases and activations, the others activations alone. The corrections of DA-QCFS are
# on top of the thresholds of another method, as the paper has them of `max`.
# Those that fit a staircase to its inputs; the others take it from the outputs of the reference.
FITTED = (*CORRECTING, "fit")

# Share of the largest output of all channels up to which a channel counts as never firing.
_SILENT = 1e-6

# Channels share a scale where that multiplies their squared errors by less than a time-step more would divide them in
# radix: of small values it makes small counts, with fewer spikes.
_ALIKE = 4.0

# Inputs of the staircase `[C, n]`, of the reference and of the quantised network, batch by batch of a shard; or of the
# reference alone.
Batches = Iterable[tuple[Array, Array]]
# Has each shard counted, and adds up what was found: over both, and over the reference.
Gather = Callable[[Callable[[Batches], Any]], Any]
OfReference = Callable[["partial[Any]"], Any]


def choose(
    settings: Settings,
    gather: Gather,
    of_reference: OfReference,
    clip: Clip,
    *,
    centred: bool,
    lowest: Array | None = None,
) -> Staircase:
    """A staircase whose inputs are those of the quantised network, and whose output is to be `clip` of the reference's.

    Args:
        settings: levels above zero, and the method.
        gather: what counts the inputs.
        of_reference: what counts those of the reference.
        clip: the activation.
        centred: whether an error that is the same for all values does not count; `FITTED` methods make use of that.
        lowest: `[C]`, the least outputs of the reference, where there are to be as many levels below zero as well.
    """
    method, steps = settings.method, settings.levels if lowest is None else settings.on_either_side
    inputs, outputs = of_reference(partial(_of_reference, clip))
    signed = lowest is not None
    least = np.zeros_like(outputs.maximum) if lowest is None else np.minimum(lowest, 0)
    reach = np.maximum(outputs.maximum, -least)
    silent = reach <= _SILENT * reach.max()
    reach = np.where(silent, 1, reach)
    if settings.rule == "channel" and reach.max() ** 2 < _ALIKE * np.square(reach).mean():
        reach = np.full_like(reach, reach.max())
    if method in FITTED and settings.rule == "fit":
        pairs = gather(partial(_pairs, clip, least - reach / 2, reach))
        levels, zero = (2 * steps, steps) if signed else (steps, 0)
        staircase = staircases.by_fit(pairs, levels, centred=centred, zero=zero)
    else:
        # What serves distances from zero serves both sides.
        histogram = partial(_histogram, np.abs if signed else clip, reach)
        if method.startswith("mse"):
            staircase = staircases.by_squared_error(of_reference(histogram), reach, steps)
        elif method.startswith("percentile"):
            staircase = staircases.by_percentile(of_reference(histogram), reach, steps)
        else:
            staircase = staircases.by_maximum(reach, steps)
        staircase = staircases.mirrored(staircase) if signed else staircase
    if method.endswith("da-qcfs"):
        staircase = staircases.with_shifts(staircase, inputs, gather(_of_quantised))
        staircase = staircases.with_amplitudes(staircase, outputs, gather(partial(_codes, staircase)))
    staircase = staircases.with_silent(staircase, staircase.silent | silent)
    return staircases.trimmed(staircase, least, outputs.maximum, settings.coding) if signed else staircase


def _of_reference(clip: Clip, batches: Iterable[Array]) -> tuple[Moments, Moments]:
    """Of the inputs of the reference, and of its outputs."""
    inputs, outputs = Moments(), Moments()
    for reference in batches:
        inputs.add(reference)
        outputs.add(clip(reference))
    return inputs, outputs


def _pairs(clip: Clip, low: Array, high: Array, batches: Batches) -> PairHistogram:
    """Of the inputs of the quantised network, with the outputs of the reference."""
    pairs = PairHistogram(low, high)
    for reference, values in batches:
        pairs.add(values, clip(reference))
    return pairs


def _histogram(clip: Callable[[Array], Array], maximum: Array, batches: Iterable[Array]) -> PairHistogram:
    """Of the outputs of the reference, or of how far they are from zero."""
    histogram = PairHistogram(np.zeros_like(maximum), maximum)
    for reference in batches:
        histogram.add(clip(reference), clip(reference))
    return histogram


def _of_quantised(batches: Batches) -> Moments:
    """Of the inputs of the quantised network."""
    given = Moments()
    for _, values in batches:
        given.add(values)
    return given


def _codes(staircase: Staircase, batches: Batches) -> Moments:
    """Of the spike counts that a staircase gives."""
    codes = Moments()
    for _, values in batches:
        codes.add(staircase.codes(values))
    return codes
