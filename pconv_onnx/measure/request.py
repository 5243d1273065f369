"""The request of a benchmark: a network, and how to run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pconv_onnx.basics.choices import CodingName, ModeName, NeuronsName, WeightsName
from pconv_onnx.data.samples import BatchAxis, DataSource, Samples
from pconv_onnx.graph import ModelSource
from pconv_onnx.rewriting import Rewriting, rewrite


@dataclass(frozen=True, eq=False)
class Request:
    """A network and the ways to run it.

    Attributes:
        source: the ANN.
        name: its name in documents.
        samples: the samples that it runs on.
        random_inputs: whether samples were drawn at random, since no data were given.
        batch_axis: as `bench` takes it.
        calibration: the data on which it is calibrated, anew at each T; None if it is not.
        method: the method of the calibration.
        signed: as `rewrite` takes it.
        coding: as `rewrite` takes it.
        neurons: as `rewrite` takes it.
        weights: as `rewrite` takes it.
        input_bits: as `rewrite` takes it.
        input_range: as `rewrite` takes it.
        provider: the name of the execution provider, as `bench` takes it.
        steps: the numbers of time-steps.
    """

    source: ModelSource = field(repr=False)
    name: str
    samples: Samples = field(repr=False)
    random_inputs: bool
    batch_axis: BatchAxis
    calibration: DataSource | None = field(repr=False)
    method: str
    signed: bool
    coding: CodingName
    neurons: NeuronsName
    weights: WeightsName | None
    input_bits: int | None
    input_range: tuple[float, float] | None
    provider: str
    steps: Sequence[int]

    def rewritten(self, source: ModelSource, mode: ModeName, coding: CodingName, steps: int | None = None) -> Rewriting:
        """A network that has levels, as it is to be rewritten.

        Raises:
            PconvError: as of `rewrite`.
        """
        return rewrite(
            source,
            steps=steps,
            mode=mode,
            signed=self.signed,
            coding=coding,
            weights=self.weights,
            input_bits=self.input_bits,
            input_range=self.input_range,
            calibration=self.calibration if self.weights is not None else None,
            batch_axis=self.batch_axis,
        )
