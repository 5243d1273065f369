"""The staircase that a method chooses for one activation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration import staircases
from pconv_onnx.calibration.functions import Clip
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.statistics import Moments, PairHistogram

# What changes: `refit` weights, biases and activations, the others activations alone. The corrections of DA-QCFS are
# on top of the thresholds of another method, as the paper has them of `max`.
# Those that fit a staircase to its inputs; the others take it from the outputs of the reference.
FITTED = ("refit", "fit")

# Share of the largest output of all channels up to which a channel counts as never firing.
_SILENT = 1e-6

# Inputs of the staircase `[C, n]`, of the reference and of the quantised network, batch by batch of a shard.
Batches = Iterable[tuple[Array, Array]]
# Has each shard counted, and adds up what was found.
Gather = Callable[[Callable[[Batches], Any]], Any]


def choose(method: str, steps: int, gather: Gather, clip: Clip, *, centred: bool) -> Staircase:
    """A staircase whose inputs are those of the quantised network, and whose output is to be `clip` of the reference's.

    Args:
        method: one of `METHODS`.
        steps: T.
        gather: what counts the inputs.
        clip: the activation.
        centred: whether an error that is the same for all values does not count; `FITTED` methods make use of that.
    """
    inputs, outputs = gather(partial(_of_reference, clip))
    silent = outputs.maximum <= _SILENT * outputs.maximum.max()
    maximum = np.where(silent, 1, outputs.maximum)
    if method in FITTED:
        pairs = gather(partial(_pairs, clip, -maximum / 2, maximum))
        staircase = staircases.by_fit(pairs, steps, centred=centred)
    elif method.startswith(("mse", "percentile")):
        histogram = gather(partial(_histogram, clip, maximum))
        by = staircases.by_squared_error if method.startswith("mse") else staircases.by_percentile
        staircase = by(histogram, maximum, steps)
    else:
        staircase = staircases.by_maximum(maximum, steps)
    if method.endswith("da-qcfs"):
        staircase = staircases.with_shifts(staircase, inputs, gather(_of_quantised))
        staircase = staircases.with_amplitudes(staircase, outputs, gather(partial(_codes, staircase)))
    return staircases.with_silent(staircase, staircase.silent | silent)


def _of_reference(clip: Clip, batches: Batches) -> tuple[Moments, Moments]:
    """Of the inputs of the reference, and of its outputs."""
    inputs, outputs = Moments(), Moments()
    for reference, _ in batches:
        inputs.add(reference)
        outputs.add(clip(reference))
    return inputs, outputs


def _pairs(clip: Clip, low: Array, high: Array, batches: Batches) -> PairHistogram:
    """Of the inputs of the quantised network, with the outputs of the reference."""
    pairs = PairHistogram(low, high)
    for reference, values in batches:
        pairs.add(values, clip(reference))
    return pairs


def _histogram(clip: Clip, maximum: Array, batches: Batches) -> PairHistogram:
    """Of the outputs of the reference."""
    histogram = PairHistogram(np.zeros_like(maximum), maximum)
    for reference, _ in batches:
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
