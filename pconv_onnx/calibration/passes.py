"""What a sweep has done with samples: tensors computed and kept, statistics counted, for the shards of one worker.

All that depends on several samples is left to the sweep, which adds up what each shard gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.choosing import Batches
from pconv_onnx.calibration.faults import Faults, faults_of, sizes_of
from pconv_onnx.calibration.functions import Clip, function_of
from pconv_onnx.calibration.segments import Layer, Runner, Segment
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.statistics import Moments, NormalEquations
from pconv_onnx.calibration.streams import Axis, Stream
from pconv_onnx.calibration.terms import FOLDS, Terms
from pconv_onnx.data.samples import Data
from pconv_onnx.graph import Network

# Samples that are computed at once: so few where tensors are large, and up to `_MOST` where these have few values each.
BATCH = 10
_MOST, _VALUES = 100, 1 << 21
# Names under which the pre-activations of the segment at hand are kept.
REFERENCE, QUANTISED = "reference", "quantised"

# Of quantised activations by name: they are kept as codes, each worth a level above an offset.
Levels = Mapping[str, tuple[Array, Array]]


class Passes:
    """The two networks of a sweep on some shards, one after the other. Each method yields a result for each shard."""

    def __init__(self, network: Network, data: Data, shards: Sequence[slice]) -> None:
        """Read the samples of the shards.

        Raises:
            PconvError: they cannot be read, or do not fit.
        """
        first = shards[0].start
        self.network, self.samples = network, data.part(slice(first, shards[-1].stop))
        self._shards = [slice(shard.start - first, shard.stop - first) for shard in shards]
        self._terms = Terms(self.samples, len(data))
        self._left = ExitStack()
        self._batch = BATCH
        # Along which axis of each tensor samples lie in the network.
        self._axes: dict[str, Axis] = {name: self.samples.axes.get(name, 0) for name in self.samples.arrays}
        self._axes_before: dict[str, Axis] = {}
        self._reference = self._stream(self.samples.arrays, self._axes)
        self._quantised_ones = [self._stream(self.samples.arrays, self._axes)]
        self._quantised = self._quantised_ones[0]
        self._before = self._stream({}, self._axes_before)
        # From what is kept to what is read of it.
        self._pooled: Callable[[Array], Array] = _unpooled

    def __enter__(self) -> Passes:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was kept."""
        self._left.close()

    def digest(self) -> Iterator[bytes]:
        """What samples the shards hold."""
        for shard in self._shards:
            total = hashlib.sha256()
            for name, array in sorted(self.samples.part(shard).arrays.items()):
                total.update(f"{name} {array.dtype} {array.shape} {self._axes[name]}".encode())
                total.update(np.ascontiguousarray(array).data)
            yield total.digest()

    def place(self, axes: Mapping[str, Axis]) -> Iterator[None]:
        """Take in along which axes of tensors at the cuts samples lie, and look how large these are."""
        self._axes |= axes
        largest = max(sizes_of(self.network, list(axes), self.samples).values())
        self._batch = min(max(_VALUES // max(largest, 1), BATCH), _MOST)
        return self._nothing()

    def faults(self, names: Sequence[str]) -> Iterator[Faults]:
        """What is wrong with tensors of the source."""
        axes = {name: self._axes[name] for name in names}
        return faults_of(self.network, axes, map(self.samples.part, self._shards), BATCH)

    def take_up(self, number: int) -> Iterator[None]:
        """Make the quantised network of this number the one that is meant from now on; without a call it is the first.

        Several run beside one reference. At the segment at hand only one of them keeps anything at a time.
        """
        while len(self._quantised_ones) <= number:
            self._quantised_ones.append(self._stream(self.samples.arrays, self._axes))
        self._quantised = self._quantised_ones[number]
        return self._nothing()

    def keep_reference(self, segment: Segment) -> Iterator[None]:
        """Compute and keep what a segment of the source leads to; where maxima alone are read, count these alone."""
        self._pooled = _unpooled if segment.maxima is None else function_of(self.network, segment.maxima)
        for name in (REFERENCE, QUANTISED):
            self._axes_before[name] = self._axes[segment.target]
        return self._keep(REFERENCE, self._runs(segment, self._reference, {}))

    def keep_quantised(self, segment: Segment, weights: Mapping[str, Array], levels: Levels) -> Iterator[None]:
        """Compute and keep what a segment of the quantised network leads to."""
        return self._keep(QUANTISED, self._runs(segment, self._quantised, weights, levels))

    def equations(
        self,
        segment: Segment,
        weights: Mapping[str, Array],
        levels: Levels,
        layer: Layer,
        clip: Clip,
        with_gram: bool,
    ) -> Iterator[tuple[NormalEquations, ...]]:
        """Normal equations of each fold, for the layer of a segment of the quantised network to meet the reference."""
        groups, outputs, inputs = layer.matrices()[0].shape
        axis = self._axes[segment.target] or 0
        moves = axis > 0 and layer.node.op_type != "Conv"
        for runs in self._runs(segment, self._quantised, weights, levels, layer.node.input[0]):
            folds = tuple(NormalEquations.empty(groups, inputs + 1, outputs) for _ in range(FOLDS))
            for part, values in runs:
                given, now, wanted = (
                    # Of a matrix product all are rows, in any order.
                    np.moveaxis(tensor, axis, 0) if moves else tensor
                    for tensor in (values[layer.node.input[0]], values[segment.target],
                                   self._before.batch(REFERENCE, part))
                )  # fmt: skip
                for fold, chosen in zip(folds, self._terms.of(part, now.size // len(layer.bias), inputs), strict=True):
                    now_there = layer.rows(now, chosen)
                    with np.errstate(over="ignore", invalid="ignore"):
                        missing = clip.nearest(layer.rows(wanted, chosen), now_there) - now_there
                        changes = layer.changes(missing).astype(np.float32)
                        fold.add(layer.columns(given, chosen), changes, with_gram=with_gram)
            yield folds

    def apply(self, activation: Segment, name: str) -> Iterator[None]:
        """Put the outputs of an activation in the place of its inputs, in `REFERENCE` or `QUANTISED`."""
        function = function_of(self.network, activation)
        for parts in self._batches():
            for part in parts:
                self._before.put(name, part, function(self._before.batch(name, part)))
            yield None

    def count_reference(
        self, count: Callable[[Iterator[Array]], Any], channels: Channels, start: Array
    ) -> Iterator[Any]:
        """What a count over the reference's pre-activations `[C, n]` above `start` gives."""
        for parts in self._batches():
            yield count(channels.rows(self._at_hand(REFERENCE, part)) - start.reshape(-1, 1) for part in parts)

    def gather(self, count: Callable[[Batches], Any], channels: Channels, start: Array) -> Iterator[Any]:
        """What a count over the pre-activations `[C, n]` above `start` gives."""

        def batches(parts: Iterator[slice]) -> Batches:
            for part in parts:
                reference, quantised = (channels.rows(self._at_hand(name, part)) for name in (REFERENCE, QUANTISED))
                yield reference - start.reshape(-1, 1), quantised - start.reshape(-1, 1)

        for parts in self._batches():
            yield count(batches(parts))

    def hand_on_reference(self, name: str, clip: Clip) -> Iterator[float]:
        """Keep what an activation gives in the reference; the sum of the squares of that."""
        for parts in self._batches():
            square = 0.0
            for part in parts:
                wanted = clip(self._before.batch(REFERENCE, part))
                square += float(np.square(self._pooled(wanted), dtype=np.float64).sum())
                self._reference.put(name, part, wanted)
            yield square

    def hand_on(
        self, name: str, staircase: Staircase, channels: Channels, clip: Clip, start: Array
    ) -> Iterator[tuple[Moments, float]]:
        """Keep the codes of what takes an activation's place; moments of its error, and the sum of that squared."""
        level = channels.along(staircase.constants()[2])
        for parts in self._batches():
            residuals, error = Moments(), 0.0
            for part in parts:
                given = self._before.batch(QUANTISED, part)
                codes = channels.back(staircase.codes(channels.rows(given)), given.shape)
                wanted = clip(self._at_hand(REFERENCE, part))
                residual = wanted - channels.along(start) - self._pooled(codes) * level
                residuals.add(channels.rows(residual))
                error += float(np.square(residual, dtype=np.float64).sum())
                self._quantised.put(name, part, codes.astype(np.uint8 if staircase.steps < 256 else np.uint16))
            yield residuals, error

    def pass_on(self, name: str) -> Iterator[None]:
        """Keep what is at hand in both networks as the outputs of an activation that stays as it is."""
        for parts in self._batches():
            for part in parts:
                self._reference.put(name, part, self._before.batch(REFERENCE, part))
                self._quantised.put(name, part, self._before.batch(QUANTISED, part))
            yield None

    def drop(self, names: Sequence[str]) -> Iterator[None]:
        """Forget the pre-activations at hand, and activations that nothing needs any more."""
        for name in (REFERENCE, QUANTISED):
            self._before.drop(name)
        for name in names:
            for stream in (self._reference, *self._quantised_ones):
                stream.drop(name)
        return self._nothing()

    def _at_hand(self, name: str, part: slice) -> Array:
        """What is read of the pre-activations, or of what took their place."""
        return self._pooled(self._before.batch(name, part))

    def _stream(self, given: dict[str, Array], axes: Mapping[str, Axis]) -> Stream:
        return self._left.enter_context(Stream(given, len(self.samples), axes))

    def _nothing(self) -> Iterator[None]:
        return iter([None] * len(self._shards))

    def _batches(self) -> Iterator[Iterator[slice]]:
        """The batches of each shard."""
        for shard in self._shards:
            yield (
                slice(shard.start + part.start, shard.start + part.stop)
                for part, _ in self.samples.part(shard).batches(self._batch)
            )

    def _runs(
        self,
        segment: Segment,
        stream: Stream,
        weights: Mapping[str, Array],
        levels: Levels | None = None,
        also: str = "",
    ) -> Iterator[Iterator[tuple[slice, dict[str, Array]]]]:
        """What a segment computes, batch by batch of each shard."""
        runner = Runner(self.network, segment, dict(weights), also)

        def feed(name: str, part: slice) -> Array:
            values = stream.batch(name, part)
            if levels is None or name not in levels:
                return values
            level, offset = levels[name]
            return values * level + offset

        for parts in self._batches():
            yield ((part, runner({name: feed(name, part) for name in segment.inputs})) for part in parts)

    def _keep(self, name: str, shards: Iterator[Iterator[tuple[slice, dict[str, Array]]]]) -> Iterator[None]:
        for runs in shards:
            for part, values in runs:
                (target,) = values.values()
                self._before.put(name, part, target)
            yield None


def _unpooled(values: Array) -> Array:
    return values
