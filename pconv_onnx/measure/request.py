"""What a benchmark is asked to measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pconv_onnx.basics.choices import CodingName, NeuronsName
from pconv_onnx.data.samples import BatchAxis, DataSource, Samples
from pconv_onnx.graph import ModelSource


@dataclass(frozen=True, eq=False)
class Request:
    """A network and the ways in which it is run.

    Attributes:
        source: the ANN.
        name: what to call it.
        samples: those it runs on.
        random_inputs: whether they were drawn, since no data was given.
        batch_axis: as `bench` took it.
        calibration: the data that its ReLUs are quantised on, at each T anew, if they are.
        method: of the calibration.
        signed: as `rewrite` takes it.
        coding: likewise.
        neurons: likewise.
        provider: where networks run.
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
    provider: str
    steps: Sequence[int]
