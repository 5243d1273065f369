"""What a report tells besides the timings: plan, accuracy, spike statistics and verification of the same network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx

from pconv_onnx.basics.choices import PROVIDERS, ModeName
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.samples import Samples
from pconv_onnx.measure.evaluation import evaluate
from pconv_onnx.measure.statistics import stats
from pconv_onnx.measure.verification import verify
from pconv_onnx.rewriting import Rewriting, inspect, rewrite

if TYPE_CHECKING:
    from pconv_onnx.measure.benchmarking import Benchmark

# Samples that spikes are counted on; layer by layer they take long.
_SAMPLES = 200


def gather(benchmark: Benchmark) -> dict[str, Any]:
    """The parts of the document: `plan`, `evaluation`, `statistics`, `verification`.

    Each is the summary of the function that finds it out, or `error`, the reason that there is none. After an
    interruption the rest is left out, and the benchmark is said to be stopped.
    """
    quantised = benchmark.quantised.get(max(benchmark.steps)) if benchmark.calibration is not None else None
    source = benchmark.source if quantised is None else quantised
    # Where the source has levels each neuron has their number, which is lossless.
    networks: dict[str, Rewriting] = {}

    def spiking(mode: ModeName) -> Rewriting:
        if mode not in networks:
            networks[mode] = rewrite(source, mode=mode, signed=benchmark.signed)
        return networks[mode]

    def rewritten(mode: ModeName) -> onnx.ModelProto:
        model = spiking(mode).model
        assert model is not None  # only a dry run gives none
        return model

    def plan() -> dict[str, Any]:
        try:
            return spiking("parallel").summary()
        except PconvError:  # no train has so many steps; what is there is told all the same
            return inspect(source)

    def evaluation() -> dict[str, Any]:
        return evaluate(
            benchmark.source,
            benchmark.samples,
            batch_axis=benchmark.batch_axis,
            steps=benchmark.steps,
            signed=benchmark.signed,
            calibration=benchmark.calibration,
            method=benchmark.method if benchmark.calibration is not None else None,
            quantised=benchmark.quantised,
        ).summary()

    def statistics() -> dict[str, Any]:
        # At the price of one step; it counts the spikes of mode parallel.
        return stats(rewritten("folded"), _few(benchmark)).summary()

    def verification() -> dict[str, Any]:
        return verify(source, rewritten("parallel"), _few(benchmark), providers=PROVIDERS[benchmark.provider]).summary()

    tasks: list[Callable[[], dict[str, Any]]] = [plan, evaluation, statistics, verification]
    found = {}
    for task in tasks:
        try:
            if benchmark.interrupted:
                raise KeyboardInterrupt
            found[task.__name__] = task()
        except PconvError as error:
            found[task.__name__] = {"error": str(error)}
        except KeyboardInterrupt:
            benchmark.interrupt()
            found[task.__name__] = {"error": "interrupted"}
    return found


def _few(benchmark: Benchmark) -> Samples:
    """Some of the samples, in whole batches where the model insists on a size."""
    batch = benchmark.samples.fixed_batch or 1
    return benchmark.samples.part(slice(0, max(1, _SAMPLES // batch) * batch))
