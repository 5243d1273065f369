"""Every neuron of a spiking network and everything between them, run on the values that the source has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import once
from pconv_onnx.measure.layer_check import LayerCheck
from pconv_onnx.measure.magnitudes import Emitted, with_magnitudes
from pconv_onnx.measure.rounding import Units
from pconv_onnx.measure.segments import End, Neuron, Segment, cut
from pconv_onnx.runtime.memory import alive_at_once, sample_bytes
from pconv_onnx.runtime.side_by_side import Sessions, run_session


class SegmentCheck:
    """The neurons and segments of one spiking network.

    Attributes:
        tapped: the source, to be run by whoever has the samples.
        pieces: parts of the spiking network, by the name that their session is to have.
    """

    def __init__(self, source: Network, spiking: Network, checks: Sequence[LayerCheck], outputs: Sequence[str]) -> None:
        """Cut both networks.

        Raises:
            PconvError: the record names a tensor that the source does not have.
        """
        self._source, self._spiking, self._checks = source, spiking, checks
        means = next((check.neuron.levels.dtype for check in checks if not check.layer.exact), None)
        emitted = {check.converted.output: _emitted(check) for check in checks}
        ends = {check.converted.input: np.dtype(check.converted.dtype) for check in checks}
        ends |= {name: source.dtypes.get(name, np.dtype(np.float32)) for name in outputs}
        try:
            self.tapped = with_magnitudes(source, emitted, ends, _Counterpart(source, spiking, checks))
        except KeyError as error:
            raise PconvError(
                f"the record of the spiking network names a tensor {error} that {source.name} does not have",
                "rewrite the model again",
            ) from error
        neurons = [
            Neuron(check.layer.name, check.converted.input, check.converted.output, check.node, check.input_steps)
            for check in checks
        ]
        pieces = cut(spiking, neurons, self.tapped.cut, outputs, self.tapped.points, means=means)
        self.pieces = {f"segment {index}": piece for index, piece in enumerate(pieces)}
        types = {*source.dtypes.values(), *spiking.dtypes.values()}
        self._units = Units.of({*types, *(check.neuron.levels.dtype for check in checks)})
        self._steps = max((check.neuron.steps for check in checks if check.spikes), default=1)
        self._emitting = {check.node.output[0]: check for check in checks}

    @property
    def segments(self) -> Iterable[Segment]:
        """What is found of each."""
        return (end.segment for piece in self.pieces.values() for end in piece.ends)

    def bytes_at_once(self, steps: Mapping[str, int]) -> int:
        """What a sample takes, as far as shapes tell.

        Args:
            steps: of tensors of the spiking network that have a time axis the number of time-steps, by name.
        """
        taps = sum(sample_bytes(self._source, name, {}) for name in self.tapped.points)
        currents = [
            check.bytes_at_once(sample_bytes(self._source, check.converted.input, {})) for check in self._checks
        ]
        return 2 * taps + max(
            2 * alive_at_once(self._source, {}), alive_at_once(self._spiking, steps), max(currents, default=0)
        )

    def add(self, sessions: Sessions, values: Mapping[str, Array]) -> None:
        """Take in one batch.

        Args:
            sessions: those of the pieces among them.
            values: what the source computes, by the names of its outputs and inputs.
        """
        taps = self.tapped.taps
        emitted: dict[str, Array] = {}
        waiting = dict(self._emitting)
        last = {name: key for key, piece in self.pieces.items() for name in piece.fed.values()}

        def emit(check: LayerCheck) -> Array:
            current, value = (values[taps[name]] for name in (check.converted.input, check.converted.output))
            # Of a branch that was not entered it is empty.
            reached = current.size and value.size
            return check.add(current, value) if reached else value.astype(check.neuron.levels.dtype)

        for key, piece in self.pieces.items():
            feed = {}
            for name, tensor in piece.fed.items():
                if tensor in waiting:
                    emitted[tensor] = emit(waiting.pop(tensor))
                if tensor in emitted:
                    feed[name] = emitted[tensor]
                else:
                    feed[name] = values[taps.get(tensor, tensor)]
                    dtype = self._spiking.dtypes.get(tensor)
                    feed[name] = feed[name] if dtype is None else feed[name].astype(dtype, copy=False)
            found = run_session(sessions[key], feed, [end.output for end in piece.ends])
            for end, value in zip(piece.ends, found, strict=True):
                self._compare(end, values, value)
            del feed, found
            for tensor in [tensor for tensor in emitted if last[tensor] == key]:
                del emitted[tensor]
        for check in waiting.values():
            emit(check)

    def _compare(self, end: End, values: Mapping[str, Array], found: Array) -> None:
        point, taps = end.point, self.tapped.taps
        expected = values[taps[point.tensor]]
        if not values[taps[end.reached]].size and end.segment.kind != "output":
            return
        if end.steps > 1 and found.ndim and len(found) == end.steps * len(expected):
            # A sum of float32 or wider, as the neuron takes it.
            wide = np.float64 if found.dtype == np.float64 else np.float32
            found = found.reshape(end.steps, *expected.shape[:1], *found.shape[1:]).mean(axis=0, dtype=wide)
        limit: Array | None = None
        if point.exact:
            limit = np.zeros(())
        elif point.rounded is not None:
            magnitudes = np.maximum(np.abs(values[taps[point.rounded.magnitude]]), point.largest)
            counted = sum(float(values[taps[name]].sum()) for name in point.rounded.counts)
            limit = self._units.limit(point.rounded, magnitudes, counted, self._steps)
        end.segment.add(expected, found, limit)


def _emitted(check: LayerCheck) -> Emitted:
    levels = check.neuron.levels.astype(np.float64)
    signed = check.spikes and levels[:, 0].any()
    return Emitted(np.dtype(check.converted.dtype), float(np.abs(levels).max()) if signed else 0.0)


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

    def same_type(self, tensor: str) -> bool:
        # Of a narrower network inputs are cast.
        return self._as_precise and self._source.get(tensor) == self._spiking.get(tensor)
