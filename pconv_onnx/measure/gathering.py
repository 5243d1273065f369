"""The parts of a report besides timings: plan, accuracy, spike statistics and verification of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from pconv_onnx.basics.choices import PROVIDERS, ModeName
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.samples import Samples
from pconv_onnx.measure.evaluation import evaluate
from pconv_onnx.measure.request import Request
from pconv_onnx.measure.statistics import stats
from pconv_onnx.measure.verification import verify
from pconv_onnx.plan.modes import FOLDED, PARALLEL
from pconv_onnx.rewriting import Rewriting, inspect

# Samples that spikes are counted on; layer by layer they take long.
_SAMPLES = 200


def gather(request: Request, models: Mapping[int, onnx.ModelProto], interrupted: bool) -> tuple[dict[str, Any], bool]:
    """Measure the parts of the document: `plan`, `evaluation`, `statistics`, `verification`.

    Each is the summary of the function that measures it, or has `error`, the reason why it is missing. After an
    interruption the rest is left out.

    Args:
        request: the request of the benchmark.
        models: the networks that calibration made from the source, by T.
        interrupted: whether the user ended it already.

    Returns:
        The parts, and whether the user ended it.
    """
    quantised = models.get(max(request.steps)) if request.calibration is not None else None
    source = request.source if quantised is None else quantised
    # Where the source has levels each neuron has their number, which is lossless.
    coding = "rate" if quantised is not None and request.coding == "auto" else request.coding
    networks: dict[str, Rewriting] = {}

    def spiking(mode: ModeName) -> Rewriting:
        if mode not in networks:
            networks[mode] = request.rewritten(source, mode, coding)
        return networks[mode]

    def rewritten(mode: ModeName) -> onnx.ModelProto:
        model = spiking(mode).model
        assert model is not None  # only a dry run gives none
        return model

    def plan() -> dict[str, Any]:
        try:
            return spiking(PARALLEL.name).summary()
        except PconvError:  # no train has so many steps; what is there is told all the same
            return inspect(source)

    def evaluation() -> dict[str, Any]:
        return evaluate(
            request.source,
            request.samples,
            batch_axis=request.batch_axis,
            steps=request.steps,
            coding=request.coding,
            neurons=request.neurons,
            signed=request.signed,
            calibration=request.calibration,
            method=request.method if request.calibration is not None else None,
            weights=request.weights,
            input_bits=request.input_bits,
            input_range=request.input_range,
            quantised=models,
        ).summary()

    def statistics() -> dict[str, Any]:
        # At the price of one step; it counts the spikes of mode parallel.
        return stats(rewritten(FOLDED.name), _few(request)).summary()

    def verification() -> dict[str, Any]:
        return verify(source, rewritten(PARALLEL.name), _few(request), providers=PROVIDERS[request.provider]).summary()

    tasks: list[Callable[[], dict[str, Any]]] = [plan, evaluation, statistics, verification]
    found = {}
    for task in tasks:
        try:
            if interrupted:
                raise KeyboardInterrupt
            found[task.__name__] = task()
        except PconvError as error:
            found[task.__name__] = {"error": str(error)}
        except KeyboardInterrupt:
            interrupted = True
            found[task.__name__] = {"error": "interrupted"}
    return found, interrupted


def _few(request: Request) -> Samples:
    """Some of the samples, in whole batches where the model insists on a size."""
    batch = request.samples.fixed_batch or 1
    return request.samples.part(slice(0, max(1, _SAMPLES // batch) * batch))
