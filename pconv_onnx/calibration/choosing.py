"""The staircase that a method chooses for one activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pconv_onnx.calibration import staircases
from pconv_onnx.calibration.functions import Clip
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.statistics import Moments, PairHistogram
from pconv_onnx.neuron import Array

# What changes: `refit` weights, biases and activations, the others activations alone. The corrections of DA-QCFS are
# on top of the thresholds of another method, as the paper has them of `max`.
METHODS = ("refit", "fit", "da-qcfs", "mse+da-qcfs", "percentile+da-qcfs", "mse", "percentile", "max")
# Those that fit a staircase to its inputs; the others take it from the outputs of the reference.
FITTED = ("refit", "fit")

# Share of the largest output of all channels up to which a channel counts as never firing.
_SILENT = 1e-6

# Inputs of the staircase `[C, n]`, of the reference and of the quantised network: batch by batch, each time anew.
Batches = Callable[[], Iterator[tuple[Array, Array]]]


def choose(method: str, steps: int, batches: Batches, clip: Clip, *, centred: bool) -> Staircase:
    """A staircase whose inputs are those of the quantised network, and whose output is to be `clip` of the reference's.

    Args:
        method: one of `METHODS`.
        steps: T.
        batches: inputs.
        clip: the activation.
        centred: whether an error that is the same for all values does not count; `FITTED` methods make use of that.
    """
    inputs, outputs = Moments(), Moments()
    for reference, _ in batches():
        inputs.add(reference)
        outputs.add(clip(reference))
    silent = outputs.maximum <= _SILENT * outputs.maximum.max()
    maximum = np.where(silent, 1, outputs.maximum)
    if method in FITTED:
        pairs = PairHistogram(-maximum / 2, maximum)
        for reference, values in batches():
            pairs.add(values, clip(reference))
        staircase = staircases.by_fit(pairs, steps, centred=centred)
    elif method.startswith(("mse", "percentile")):
        histogram = PairHistogram(np.zeros_like(maximum), maximum)
        for reference, _ in batches():
            histogram.add(clip(reference), clip(reference))
        by = staircases.by_squared_error if method.startswith("mse") else staircases.by_percentile
        staircase = by(histogram, maximum, steps)
    else:
        staircase = staircases.by_maximum(maximum, steps)
    if method.endswith("da-qcfs"):
        staircase = _corrected(staircase, batches, inputs, outputs)
    return staircases.with_silent(staircase, staircase.silent | silent)


def _corrected(staircase: Staircase, batches: Batches, inputs: Moments, outputs: Moments) -> Staircase:
    """With the shifts of DA-QCFS, from what the reference has at the staircase."""
    given, codes = Moments(), Moments()
    for _, values in batches():
        given.add(values)
    staircase = staircases.with_shifts(staircase, inputs, given)
    for _, values in batches():
        codes.add(staircase.codes(values))
    return staircases.with_amplitudes(staircase, outputs, codes)
