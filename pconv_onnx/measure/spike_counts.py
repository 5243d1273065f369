"""Counts the spikes of layers of neurons, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.data.samples import to_first
from pconv_onnx.temporal.kinds import Spikes

_EXAMPLES = 32


@dataclass(eq=False)
class SpikingLayer:
    """The spike counts of one layer of neurons, added up batch by batch.

    Attributes:
        name: name of the activation that it was.
        kind: the trains that it emits.
        channels_last: whether channels are the last axis, not the one behind the samples; a channel axis of the trains
            is what counts.
        samples: samples counted on; fewer than there are where it is in a branch that not all get to.
        histogram: `[S+1]`, how often a neuron has each count.
        fewest: `[C]`, the lowest count of each channel (`[0]` before the first batch).
        most: `[C]`, the highest.
        example_neurons: indices of up to 32 neurons, evenly chosen from all of a sample, row by row.
        example_counts: their counts in the first sample that got to the layer.
    """

    name: str
    kind: Spikes = field(repr=False)
    channels_last: bool = False
    samples: int = field(init=False, default=0)
    histogram: Array = field(init=False, repr=False)
    fewest: Array = field(init=False, repr=False)
    most: Array = field(init=False, repr=False)
    example_neurons: list[int] = field(init=False, repr=False, default_factory=list)
    example_counts: list[int] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is counted yet."""
        self.histogram = np.zeros(self.highest + 1, np.int64)
        self.fewest, self.most = np.empty((2, 0), np.int64)

    @property
    def steps(self) -> int:
        """T."""
        return self.kind.steps

    @property
    def highest(self) -> int:
        """S, the highest spike count."""
        return self.kind.levels.shape[1] - 1

    @property
    def spikes(self) -> int:
        """The number of spikes: digits that are not zero."""
        return int(self.histogram @ self.kind.coding.operations(np.arange(self.highest + 1)))

    @property
    def sites(self) -> int:
        """The number of spikes that could be: one for each neuron, step and sample."""
        return int(self.histogram.sum()) * self.steps

    def add(self, counts: Array, samples: int, sample_axis: int | None) -> None:
        """Take in the counts of one batch of that many samples, which lie along that axis; None: all are of one."""
        self.histogram += np.bincount(counts.reshape(-1), minlength=self.highest + 1)
        counts = to_first(counts, sample_axis)
        if counts.ndim == 1:
            counts = counts[:, np.newaxis]
        channel_axis = counts.ndim - 1 if self.channels_last else 1
        if self.kind.channel_axis is not None:
            channel_axis = self.kind.channel_axis + (sample_axis is None or self.kind.channel_axis < sample_axis)
        others = tuple(axis for axis in range(counts.ndim) if axis != channel_axis)
        fewest, most = counts.min(axis=others, initial=self.highest), counts.max(axis=others, initial=0)
        self.fewest = np.minimum(self.fewest, fewest) if self.samples else fewest
        self.most = np.maximum(self.most, most) if self.samples else most
        self.samples += samples
        if not self.example_neurons:
            first = counts.reshape(-1)[: counts.size // samples]
            chosen = np.unique(np.linspace(0, first.size - 1, _EXAMPLES).astype(int))[: first.size]
            self.example_neurons, self.example_counts = chosen.tolist(), first[chosen].tolist()

    def summary(self) -> dict[str, Any]:
        """Its row in the JSON document."""
        return {
            "name": self.name,
            "channels": len(self.most),
            "neurons": int(self.histogram.sum()) // max(self.samples, 1),
            "steps": self.steps,
            "coding": self.kind.coding.name,
            "zero": self.kind.coding.zero,
            "operations": self.spikes,
            "firing_rate": ratio(self.spikes, self.sites),
            "spike_counts": self.histogram.tolist(),
            "silent_channels": int(((self.most == self.kind.coding.zero) & (self.fewest == self.most)).sum()),
            "saturated_channels": int((self.fewest == self.highest).sum()),
            "example_neurons": self.example_neurons,
            "example_counts": self.example_counts,
        }


def spike_counts(means: Array, kind: Spikes) -> Array:
    """The spike count of each neuron, from the means `[B, …]` of their trains: which of the levels each is."""
    # NumPy searches no bfloat16; float32 holds each type exactly.
    levels, means = kind.levels.astype(np.float32), means.astype(np.float32)
    if kind.channel_axis is None:
        return np.searchsorted(levels[0], means)
    counts = np.empty(means.shape, np.int64)
    for channel, row in enumerate(levels):
        where = (slice(None),) * kind.channel_axis + (channel,)
        counts[where] = np.searchsorted(row, means[where])
    return counts


def not_zero(counts: Array, kind: Spikes) -> Array:
    """How many of the T values of each train are not zero: all of them where a silent neuron emits something."""
    silent, firing = (table != 0 for table in kind.coding.values(kind.levels))
    digits = abs(kind.coding.digits(np.arange(kind.levels.shape[1]))).astype(np.int64)
    table = firing.astype(np.int64) @ digits + silent * (kind.steps - digits.sum(axis=0))
    return kind.encoder().looked_up(table, counts)


def ratio(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None
