"""The source in sweeps: what it gives at the segment at hand, computed and counted once for all of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.functions import clip_of, segment_of
from pconv_onnx.calibration.passes import REFERENCE
from pconv_onnx.calibration.segments import Segment
from pconv_onnx.calibration.statistics import Moments
from pconv_onnx.engine.shards import Crew
from pconv_onnx.graph import Network
from pconv_onnx.recognise import Activation


class Reference:
    """The source at one segment after another.

    Attributes:
        alone: the activation that the segment leads to, by itself, where it is neither a Relu nor a Clip from zero.
        square: sum of the squares of what the activation gives.
    """

    def __init__(self, network: Network, crew: Crew) -> None:
        """Of a network, whose samples a crew of `Passes` has."""
        self._network, self._crew = network, crew
        self.alone: Segment | None = None
        self.square = 0.0
        self._counted: dict[Hashable, Any] = {}

    def come_to(self, segment: Segment) -> None:
        """Compute what a segment leads to."""
        self._counted, self.alone = {}, None
        self._crew.call("keep_reference", replace(segment, activation=None, layer=None, readout=None))

    def activate(self, activation: Activation) -> None:
        """Compute what the activation makes of that. With `alone` it takes its place."""
        clip = clip_of(activation)
        if not clip.rectifies:
            self.alone = segment_of(self._network, activation)
            self._crew.call("apply", self.alone, REFERENCE)
        self.square = self._crew.call("hand_on_reference", activation.output.name, clip)

    def count(self, count: partial[Any], channels: Channels, start: Array) -> Any:
        """What a count over what is at hand, `[C, n]` above `start`, gives."""
        key = (count.func, *map(_key, count.args), channels, _key(start))
        if key not in self._counted:
            self._counted[key] = self._crew.call("count_reference", count, channels, start)
        return self._counted[key]

    def extremes(self, channels: Channels) -> tuple[Moments, Moments]:
        """Moments, and those of −1 times the values."""
        found: tuple[Moments, Moments] = self.count(partial(_both), channels, np.zeros(1, np.float32))
        return found


def _both(batches: Iterable[Array]) -> tuple[Moments, Moments]:
    moments, negative = Moments(), Moments()
    for rows in batches:
        moments.add(rows)
        negative.add(-rows)
    return moments, negative


def _key(value: Any) -> Hashable:
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
