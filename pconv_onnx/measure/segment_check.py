"""Runs every neuron of a spiking network, and everything between neurons, on the source's values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import once
from pconv_onnx.measure.layer_check import LayerCheck
from pconv_onnx.measure.magnitudes import Emitted, with_magnitudes
from pconv_onnx.measure.parts import Part
from pconv_onnx.measure.rounding import FLOATS, Units
from pconv_onnx.measure.segments import End, Neuron, Segment, cut
from pconv_onnx.runtime.memory import alive_at_once, sample_bytes
from pconv_onnx.runtime.side_by_side import Sessions, run_session

# Tensors of the size of what is compared: the mean, magnitudes, bounds, differences and their shares, some of them of
# eight bytes.
_COMPARED = 8


class SegmentCheck:
    """The neurons and segments of one spiking network.

    Attributes:
        tapped: the source, to be run by whoever has the samples.
        pieces: parts of the spiking network, by the name that their session is to have.
        parts: those of the source that compute magnitudes, likewise.
    """

    def __init__(self, source: Network, spiking: Network, checks: Sequence[LayerCheck], outputs: Sequence[str]) -> None:
        """Cut both networks.

        Raises:
            PconvError: the record names a tensor that the source does not have.
        """
        self._source, self._spiking = source, spiking
        means = next((check.neuron.levels.dtype for check in checks if not check.layer.exact), None)
        emitted = {check.converted.output: _emitted(check) for check in checks}
        ends = {check.converted.input: np.dtype(check.converted.dtype) for check in checks}
        ends |= {name: source.dtypes.get(name, np.dtype(np.float32)) for name in outputs}
        types = {*source.dtypes.values(), *spiking.dtypes.values()}
        self._units = Units.of({*types, *(check.neuron.levels.dtype for check in checks)})
        least = self._units.smallest if self._units.stored > self._units.computed else 0.0
        try:
            self.tapped = with_magnitudes(source, emitted, ends, _Counterpart(source, spiking, checks), least)
        except KeyError as error:
            raise PconvError(
                f"the record of the spiking network names a tensor {error} that {source.name} does not have",
                "rewrite the model again",
            ) from error
        neurons = [
            Neuron(check.layer.name, check.converted.input, check.converted.output, check.node, check.input_steps)
            for check in checks
        ]
        try:
            pieces = cut(spiking, neurons, self.tapped.cut, outputs, self.tapped.points, means=means)
        except (KeyError, IndexError) as error:
            raise PconvError(
                f"{spiking.name} is not there any more as rewrite wrote it: {error}",
                "compare before other tools edit the spiking network",
            ) from error
        self._taken: dict[str, set[bool]] = {name: set() for name in self.tapped.conditions}
        self.pieces = {f"segment {index}": piece for index, piece in enumerate(pieces)}
        self.parts = {f"magnitudes {index}": part for index, part in enumerate(self.tapped.magnitudes)}
        self._computing = {name: key for key, part in self.parts.items() for name in part.ends}
        self._steps = max((check.neuron.steps for check in checks if check.spikes), default=1)
        self._emitting = {check.node.output[0]: check for check in checks}

    @property
    def segments(self) -> Iterable[Segment]:
        """What is found of each."""
        return (end.segment for piece in self.pieces.values() for end in piece.ends.values())

    @property
    def branches_not_entered(self) -> int:
        """How many branches no sample got to, but those within such."""
        return sum(len(taken) == 1 for taken in self._taken.values())

    def bytes_at_once(self, steps: Mapping[str, int]) -> int:
        """What a sample takes, as far as shapes tell.

        Args:
            steps: of tensors of the spiking network that have a time axis the number of time-steps, by name.
        """
        source = partial(sample_bytes, self._source, steps={})
        values = sum(map(source, self.tapped.taps))
        # What a run hands out is there twice.
        most = values + alive_at_once(self._source.proto.graph, source)
        pending = 0
        waiting, last = dict(self._emitting), self._last_use()
        for key, piece in self.pieces.items():
            tensors = piece.part.fed.values()
            for check in (waiting.pop(tensor) for tensor in tensors if tensor in waiting):
                most = max(most, values + pending + check.bytes_at_once(source(check.converted.input)))
                pending += sample_bytes(self._spiking, check.node.output[0], steps)
            size = partial(self._size_in, piece.part, steps)
            ends = {end.point.tensor: end.steps for end in piece.ends.values()}
            run = alive_at_once(piece.part.model.graph, size) + sum(source(name) * ends[name] for name in ends)
            compared = _COMPARED * sum(map(source, ends))
            most = max(most, values + pending + max(run, compared))
            pending -= sum(sample_bytes(self._spiking, name, steps) for name in tensors if last[name] == key)
        whole = alive_at_once(self._spiking.proto.graph, partial(sample_bytes, self._spiking, steps=steps))
        return max(most, whole)

    def _size_in(self, part: Part, steps: Mapping[str, int], name: str) -> int:
        """What a sample takes in a tensor of a part of the spiking network; what it is given is pending already."""
        return 0 if name in part.fed else sample_bytes(self._spiking, name, steps)

    def _last_use(self) -> dict[str, str]:
        """The last piece that each tensor is given to."""
        return {name: key for key, piece in self.pieces.items() for name in piece.part.fed.values()}

    def add(self, sessions: Sessions, values: Mapping[str, Array]) -> None:
        """Take in one batch.

        Args:
            sessions: those of the parts among them.
            values: what the source computes, by the names of its outputs and inputs.
        """
        taps = self.tapped.taps
        emitted: dict[str, Array] = {}
        magnitudes: dict[str, Array] = {}
        waiting, last_fed = dict(self._emitting), self._last_use()
        last_needed = {
            name: key for key, piece in self.pieces.items() for end in piece.ends.values() for name in _needs(end)
        }

        def emit(check: LayerCheck) -> Array:
            current, value = (values[taps[name]] for name in (check.converted.input, check.converted.output))
            if not _is_reached(current) or not _is_reached(value):
                return value.astype(check.neuron.levels.dtype)
            if current.shape != value.shape or not current.ndim or value.dtype not in FLOATS:
                raise PconvError(
                    f"the record of {self._spiking.name} names no activation for its neuron '{check.layer.name}'",
                    "rewrite the model again",
                )
            return check.add(current, value)

        for name, taken in self._taken.items():
            if _is_reached(values[taps[name]]):
                taken.update(values[taps[name]].ravel().tolist())
        for key, piece in self.pieces.items():
            feed = {}
            for name, tensor in piece.part.fed.items():
                if tensor in waiting:
                    emitted[tensor] = emit(waiting.pop(tensor))
                if tensor in emitted:
                    feed[name] = emitted[tensor]
                else:
                    dtype = self._spiking.dtypes.get(tensor)
                    feed[name] = values[taps.get(tensor, tensor)].astype(dtype, copy=False)
            found = dict(zip(piece.ends, run_session(sessions[key], feed, list(piece.ends)), strict=True))
            del feed
            _drop(emitted, last_fed, key)
            for output, end in piece.ends.items():
                self._compare(end, values, found.pop(output), partial(self._magnitude, sessions, values, magnitudes))
            _drop(magnitudes, last_needed, key)
        for check in waiting.values():
            emit(check)

    def _magnitude(
        self, sessions: Sessions, values: Mapping[str, Array], magnitudes: dict[str, Array], name: str
    ) -> Array:
        """A magnitude, or a count, computed with others of the same part where it is not there yet."""
        if name in self.tapped.taps:
            return np.abs(values[self.tapped.taps[name]])
        if name not in magnitudes:
            key = self._computing[name]
            part, taps = self.parts[key], self.tapped.taps
            feed = {name: values[taps.get(tensor, tensor)] for name, tensor in part.fed.items()}
            found = run_session(sessions[key], feed, list(part.ends.values()))
            magnitudes |= dict(zip(part.ends, found, strict=True))
        return magnitudes[name]

    def _compare(self, end: End, values: Mapping[str, Array], found: Array, magnitude: Callable[[str], Array]) -> None:
        point, taps = end.point, self.tapped.taps
        expected = values[taps[point.tensor]]
        if not _is_reached(values[taps[end.reached]]) and end.segment.kind != "output":
            return
        if end.steps > 1:
            found = _mean(found, end.steps, expected)
        limit: Array | None = None
        if point.exact:
            limit = np.zeros(())
        elif point.rounded is not None:
            counted = sum(float(magnitude(name).sum()) for name in point.rounded.counts)
            least = np.maximum(magnitude(point.rounded.magnitude), point.largest)
            limit = self._units.limit(point.rounded, least, counted, self._steps)
        end.segment.add(expected, found, limit)


def _is_reached(value: Array) -> bool:
    """Whether a run got to where a tensor is computed: of a branch that is not entered, `expose` gives `[0]`."""
    return value.shape != (0,)


def _mean(current: Array, steps: int, expected: Array) -> Array:
    """The temporal mean `[B, …]` of a current `[T·B, …]`; of one with other rows than these it as it is, on an axis."""
    if not current.ndim or not expected.ndim or len(current) != steps * len(expected):
        return current[np.newaxis]
    # A sum of float32 or wider, as the neuron takes it.
    wide = np.float64 if current.dtype == np.float64 else np.float32
    return np.asarray(current.reshape(steps, len(expected), *current.shape[1:]).mean(axis=0, dtype=wide))


def _needs(end: End) -> list[str]:
    """The magnitude that the bound of a segment is a share of, and what counts operations."""
    rounded = end.point.rounded
    return [] if rounded is None else [rounded.magnitude, *rounded.counts]


def _drop(arrays: dict[str, Array], last: Mapping[str, str], key: str) -> None:
    """Forget what no piece after this one uses."""
    for name in [name for name in arrays if last.get(name, key) == key]:
        del arrays[name]


def _emitted(check: LayerCheck) -> Emitted:
    levels, coding = check.neuron.levels.astype(np.float64), check.neuron.coding
    silent, worth = (np.abs(table.astype(np.float64)) for table in coding.values(check.neuron.levels))
    largest = 0.0
    if check.spikes and silent.any():
        largest = float(np.maximum(silent, worth).mean(axis=1).max())
    elif check.spikes and coding.signed:
        # Of a level that is a rounded multiple less an offset a train has as much as its spikes are multiples.
        unit = -levels[:, [coding.zero - 1]]
        exact = levels == unit * (np.arange(levels.shape[1]) - coding.zero)
        largest = 0.0 if exact.all() else float((levels[:, -1] - levels[:, 0]).max())
    return Emitted(np.dtype(check.converted.dtype), largest)


class _Counterpart:
    """What of the source a spiking network has, too."""

    def __init__(self, source: Network, spiking: Network, checks: Sequence[LayerCheck]) -> None:
        neurons = {check.node.output[0] for check in checks}
        made = {name for node in once(spiking.proto.graph) for name in node.output}
        self._made, self._source, self._spiking = made - neurons, source.dtypes, spiking.dtypes
        self._as_precise = all(check.neuron.levels.dtype == check.converted.dtype for check in checks)

    def has(self, tensor: str) -> bool:
        dtype = self._spiking.get(tensor)
        return tensor in self._made and dtype is not None and dtype != ml_dtypes.bfloat16

    def in_time(self, tensor: str) -> bool:
        # As lowerings call it, or longer where the source has that name.
        return not self._made.isdisjoint((f"{tensor}/steps", f"{tensor}/steps_"))

    def same_type(self, tensor: str) -> bool:
        # Of a narrower network inputs are cast.
        return self._as_precise and self._source.get(tensor) == self._spiking.get(tensor)
