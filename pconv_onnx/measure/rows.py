"""Measurements of one network at one batch size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pconv_onnx.measure.timing import ratio, spread


@dataclass
class Row:
    """What was measured of one network at one batch size.

    Attributes:
        mode: as in `Candidate`.
        steps: its time-steps T, or of a quantised ANN its levels; None for the ANN as given.
        batch: samples a run.
        coding: how its trains carry spike counts; None of an ANN, and where neurons have different ones.
        seconds: of each run.
        ann_seconds: of the ANN in the same round; empty where the ANN cannot be run.
        peak_memory: of a process that runs it, in MiB; None where it is not known.
        error: why it could not be measured.
    """

    mode: str
    steps: int | None
    batch: int
    coding: str | None = None
    seconds: list[float] = field(default_factory=list)
    ann_seconds: list[float] = field(default_factory=list)
    peak_memory: float | None = None
    error: str | None = None

    def summary(self) -> dict[str, Any]:
        """One of the rows in the JSON document of `pconv-onnx bench`."""
        found = spread(self.seconds) if self.seconds else dict.fromkeys(("median_ms", "p10_ms", "p90_ms"))
        median = found["median_ms"]
        return {
            "mode": self.mode,
            "steps": self.steps,
            "coding": self.coding,
            "batch": self.batch,
            **found,
            "images_per_s": None if median is None else self.batch / median * 1e3,
            "ratio_to_ann": ratio(self.seconds, self.ann_seconds) if self.ann_seconds else None,
            "repetitions": len(self.seconds),
            "peak_memory_mib": self.peak_memory,
            "error": self.error,
        }
