"""Layer by layer: each activation is quantised on what the layers before it give once they are quantised.

Two networks run side by side. The reference is the source; the quantised one has everything that was found so far. At
each segment the last layer's weights may be corrected, so that its pre-activation comes close to the reference's
although its inputs are quantised, and then a staircase is chosen for that pre-activation.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from pconv_onnx.calibration import staircases
from pconv_onnx.calibration.faults import faults_of
from pconv_onnx.calibration.functions import Clip, ascends, clip_of, function_of
from pconv_onnx.calibration.segments import Layer, Runner, Segment, cut, with_weights
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.statistics import Moments, NormalEquations, PairHistogram, cross_validated
from pconv_onnx.calibration.streams import Stream
from pconv_onnx.calibration.writing import Correction, Quantised
from pconv_onnx.data import Samples
from pconv_onnx.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.neuron import Array, smallest_float
from pconv_onnx.progress import track
from pconv_onnx.recognise import Activation

# What changes: `refit` weights, biases and activations, the others activations alone. The corrections of DA-QCFS are
# on top of the thresholds of another method, as the paper has them of `max`.
METHODS = ("refit", "fit", "da-qcfs", "mse+da-qcfs", "percentile+da-qcfs", "mse", "percentile", "max")

_BATCH = 25
_FLOAT = onnx.TensorProto.FLOAT
# Weights of the correction's own size against the residual, one of which is chosen for each layer; with the last only
# the bias is corrected.
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e6)
# Where the reference is silent only what is above zero is an error: that depends on the correction, hence twice.
_PASSES = 2
# Parts of the data, each to be served by what the others say.
_FOLDS = 2
# Inputs of a layer up to which its normal equations are solved: they are as many squared.
_MOST_INPUTS = 4608
# Steps up to which a mean error is left to the next layer's shift where weights are not corrected.
_CENTRED_STEPS = 4
# Name under which the pre-activation of the segment at hand is kept.
_BEFORE = "/before"
# Share of the largest output of all channels up to which a channel counts as never firing.
_SILENT = 1e-6


@dataclass
class Found:
    """What a sweep found.

    Attributes:
        activations: what takes the place of each.
        corrections: new weights by the output of their layer.
        errors: for each activation the mean squared error of its output, as a share of the output's mean square.
        uncorrected: outputs of layers that are too wide to be corrected.
        left: why activations stay that the data do not suit, by name.
    """

    activations: list[Quantised] = field(default_factory=list)
    corrections: dict[str, Correction] = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)
    uncorrected: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def sweep(network: Network, activations: Sequence[Activation], samples: Samples, steps: int, method: str) -> Found:
    """Choose a staircase for each activation.

    Args:
        network: the source.
        activations: element by element, in topological order.
        samples: the data; labels are not looked at.
        steps: T.
        method: one of `METHODS`.
    """
    with Stream(samples.arrays) as reference, Stream(samples.arrays) as quantised:
        return _Sweep(network, activations, samples, steps, method, (reference, quantised)).found


class _Sweep:
    """State of one sweep."""

    def __init__(
        self,
        network: Network,
        activations: Sequence[Activation],
        samples: Samples,
        steps: int,
        method: str,
        streams: tuple[Stream, Stream],
    ) -> None:
        self.network, self.samples, self.steps, self.method = network, samples, steps, method
        self.reference, self.quantised = streams
        self.found = Found()
        self.folds = _folds(samples)
        # Quantised activations are kept as codes, each worth a level above an offset. Corrected layers are nodes with
        # weights of their own.
        self.levels: dict[str, tuple[Array, Array]] = {}
        self.corrected: dict[str, list[onnx.NodeProto]] = {}
        self.weights: dict[str, Array] = {}
        outputs = [info.name for info in network.proto.graph.output if info.type.tensor_type.elem_type == _FLOAT]
        names = list(dict.fromkeys([*(activation.input.name for activation in activations), *outputs]))
        faults = faults_of(network, names, (feed for _, feed in samples.batches(_BATCH)))
        self.found.left = {a.name: faults[a.input.name] for a in activations if a.input.name in faults}
        segments = cut(network, [activation for activation in activations if activation.name not in self.found.left])
        segments = self._with_layers_to_correct(segments, set(outputs) - faults.keys())
        self.taken_back = self._taken_back(segments)
        segments = [segment for segment in segments if segment.activation is not None or segment.layer is not None]
        last_use = {name: index for index, segment in enumerate(segments) for name in segment.inputs}
        for index, segment in enumerate(track(segments, "calibrating", len(segments))):
            self._segment(segment)
            for name in segment.inputs:
                if last_use[name] == index and name not in samples.arrays:
                    self.reference.drop(name)
                    self.quantised.drop(name)

    def _with_layers_to_correct(self, segments: Sequence[Segment], outputs: Container[str]) -> list[Segment]:
        """The segments, with a layer where it is one to correct, before an activation or one of some outputs."""
        result = []
        computed: set[str] = set()
        corrected: set[str] = set()
        for segment in segments:
            wanted = segment.activation is not None or segment.target in outputs
            layer = segment.layer if self.method == "refit" and wanted else None
            output = layer.node.output[0] if layer is not None else ""
            if layer is not None and output not in corrected:
                if output in computed:  # settled, by an earlier segment that goes through it
                    layer = None
                elif layer.inputs > _MOST_INPUTS:
                    self.found.uncorrected.append(output)
                    layer = None
                else:
                    corrected.add(output)
            if segment.activation is not None or layer is not None:
                computed |= {node.output[0] for node in segment.nodes}
            result.append(replace(segment, layer=layer))
        return result

    def _taken_back(self, segments: Sequence[Segment]) -> set[str]:
        """Activations whose mean error does not count: all that read them correct it before the next activation.

        By the bias of a corrected layer; without, by the shift of the staircase there, which pays for few steps, and of
        many costs at padded borders.
        """
        shifts = self.method != "refit" and self.steps <= _CENTRED_STEPS
        left = {info.name for info in self.network.proto.graph.output}
        for segment in segments:
            if segment.activation is None or not (shifts or segment.layer is not None):
                left.update(segment.inputs)
        return {segment.activation.output.name for segment in segments if segment.activation is not None} - left

    def _segment(self, segment: Segment) -> None:
        """Correct the layer of a segment and quantise its activation, on everything before it."""
        clip, rows = clip_of(segment.activation), _Rows(self.network, segment)
        for part, values in self._run(segment, self.reference):
            self.reference.put(_BEFORE, part, values[segment.target], len(self.samples))
        layer = segment.layer
        # One that two segments end in is corrected in the first.
        if layer is not None and layer.node.output[0] not in self.corrected:
            self._correct(segment, layer, clip)
        if segment.activation is not None:
            for part, values in self._run(segment, self.quantised):
                self.quantised.put(_BEFORE, part, values[segment.target], len(self.samples))
            self._quantise(segment.activation, rows, clip)
        for stream in (self.reference, self.quantised):
            stream.drop(_BEFORE)

    def _run(self, segment: Segment, stream: Stream, also: str = "") -> Iterator[tuple[slice, dict[str, Array]]]:
        """What a segment computes, batch by batch."""
        if stream is self.quantised:
            nodes = (made for node in segment.nodes for made in self.corrected.get(node.output[0], [node]))
            segment = replace(segment, nodes=tuple(nodes))
        runner = Runner(self.network, segment, self.weights, also)
        for part, _ in self.samples.batches(_BATCH):
            feed = {}
            for name in segment.inputs:
                values = stream[name][part]
                if stream is self.quantised and name in self.levels:
                    level, offset = self.levels[name]
                    feed[name] = values * level + offset
                else:
                    feed[name] = np.ascontiguousarray(values)
            yield part, runner(feed)

    def _correct(self, segment: Segment, layer: Layer, clip: Clip) -> None:
        """Give a layer the weights with which its segment comes closest to the reference."""
        node = layer.node
        output = node.output[0]
        matrices, bias = layer.matrices()
        groups, outputs, inputs = matrices.shape
        names = (f"{output}/weights", f"{output}/bias")
        self.corrected[output] = with_weights(node, *names, f"{output}/product")
        grams: list[Array] = []
        for _ in range(_PASSES if clip.rectifies else 1):
            self.weights |= dict(zip(names, layer.arrays(matrices, bias), strict=True))
            folds = [NormalEquations.empty(groups, inputs + 1, outputs) for _ in range(_FOLDS)]
            for part, values in self._run(segment, self.quantised, also=node.input[0]):
                given, now = values[node.input[0]], values[segment.target]
                residual = (clip.nearest(self.reference[_BEFORE][part], now) - now).astype(np.float32)
                # A sample may have several rows.
                fold_of = np.resize(np.repeat(self.folds[part], -(-len(given) // len(self.folds[part]))), len(given))
                for index in np.unique(fold_of):
                    own = fold_of == index
                    with np.errstate(over="ignore", invalid="ignore"):
                        folds[index].add(layer.columns(given[own]), layer.rows(residual[own]), with_gram=not grams)
            if not all(np.isfinite(table).all() for fold in folds for table in (fold.gram, fold.moment)):
                raise PconvError(
                    f"the inputs of '{output}' are too large to be squared", "scale the data, or choose another method"
                )
            # The inputs are the same in each pass.
            grams = grams or [fold.gram for fold in folds]
            for fold, gram in zip(folds, grams, strict=True):
                fold.gram = gram
            change = cross_validated(folds, _RIDGES)
            matrices, bias = matrices + change[:, :-1].swapaxes(1, 2), bias + change[:, -1]
        weights, biases = layer.arrays(matrices, bias)
        self.weights |= dict(zip(names, (weights, biases), strict=True))
        self.found.corrections[output] = Correction(output, weights, biases)

    def _quantise(self, activation: Activation, rows: _Rows, clip: Clip) -> None:
        """Choose a staircase, and hand on what it makes of the quantised pre-activation.

        That of a Relu or of a Clip from zero takes its place; of any other activation it is a staircase of its output,
        which begins at the least that the reference gives.
        """
        name = activation.output.name
        free = not clip.rectifies
        function: Callable[[Array], Array] = clip
        least = np.zeros(1, np.float32)
        if free:
            function, clip = function_of(self.network, activation), Clip(0.0)
            least = self._from_the_least(function, rows)
        inputs, outputs = Moments(), Moments()
        for part, _ in self.samples.batches(_BATCH):
            inputs.add(rows(self.reference[_BEFORE][part]))
            outputs.add(rows(clip(self.reference[_BEFORE][part])))
        fitted = self.method in ("refit", "fit")
        # A mean error is no error where it is taken back: by an offset, or by a later layer.
        centred = free or name in self.taken_back
        staircase = self._staircase(rows, clip, inputs, outputs, centred=centred)
        staircase = staircases.with_silent(staircase, staircase.silent | _silent(outputs))
        level = rows.along_channels(staircase.constants()[2])
        residuals = Moments()
        error = square = 0.0
        for part, _ in self.samples.batches(_BATCH):
            before = self.quantised[_BEFORE][part]
            codes = rows.back(staircase.codes(rows(before)), before.shape)
            wanted = clip(self.reference[_BEFORE][part])
            residual = wanted - codes * level
            residuals.add(rows(residual))
            error += float(np.square(residual, dtype=np.float64).sum())
            square += float(np.square(wanted, dtype=np.float64).sum())
            self.reference.put(name, part, wanted + rows.along_channels(least), len(self.samples))
            self.quantised.put(name, part, codes.astype(np.uint8 if self.steps < 256 else np.uint16), len(self.samples))
        offset = thresholds = None
        if free:
            mean = residuals.mean if fitted else np.zeros_like(residuals.mean)
            error -= residuals.count * float(np.square(mean).sum())
            offset = (least + mean).astype(np.float32)
            staircase = staircases.with_shift(staircase, -least)
            thresholds = _thresholds(function, staircase, rows) if ascends(activation) else None
        self.levels[name] = level, rows.along_channels(np.zeros(1, np.float32) if offset is None else offset)
        self.found.activations.append(Quantised(activation, staircase, rows.axis, rows.rank, offset, thresholds))
        self.found.errors.append(error / square if square else 0.0)

    def _from_the_least(self, function: Callable[[Array], Array], rows: _Rows) -> Array:
        """Replace pre-activations by what a function makes of them, above the least `[C]` of the reference's."""
        least = Moments()
        for part, _ in self.samples.batches(_BATCH):
            least.add(-rows(function(self.reference[_BEFORE][part])))
        start = -least.maximum.astype(np.float32)
        for stream in (self.reference, self.quantised):
            for part, _ in self.samples.batches(_BATCH):
                above = function(stream[_BEFORE][part]) - rows.along_channels(start)
                stream.put(_BEFORE, part, above, len(self.samples))
        return start

    def _staircase(self, rows: _Rows, clip: Clip, inputs: Moments, outputs: Moments, *, centred: bool) -> Staircase:
        """That of the method."""
        maximum = np.where(_silent(outputs), 1, outputs.maximum)
        if self.method in ("refit", "fit"):
            pairs = PairHistogram(-maximum / 2, maximum)
            for part, _ in self.samples.batches(_BATCH):
                pairs.add(rows(self.quantised[_BEFORE][part]), rows(clip(self.reference[_BEFORE][part])))
            return staircases.by_fit(pairs, self.steps, centred=centred)
        if self.method.startswith(("mse", "percentile")):
            histogram = PairHistogram(np.zeros_like(maximum), maximum)
            for part, _ in self.samples.batches(_BATCH):
                values = rows(clip(self.reference[_BEFORE][part]))
                histogram.add(values, values)
            choose = staircases.by_squared_error if self.method.startswith("mse") else staircases.by_percentile
            staircase = choose(histogram, maximum, self.steps)
        else:
            staircase = staircases.by_maximum(maximum, self.steps)
        if not self.method.endswith("da-qcfs"):
            return staircase
        before, codes = Moments(), Moments()
        for part, _ in self.samples.batches(_BATCH):
            before.add(rows(self.quantised[_BEFORE][part]))
        staircase = staircases.with_shifts(staircase, inputs, before)
        for part, _ in self.samples.batches(_BATCH):
            codes.add(staircase.codes(rows(self.quantised[_BEFORE][part])))
        return staircases.with_amplitudes(staircase, outputs, codes)


def _folds(samples: Samples) -> Array:
    """Which part of the data each sample belongs to, by what it holds: neither its place nor its neighbours matter."""
    digests = np.zeros(len(samples), np.uint32)
    for index in range(len(samples)):
        for name in sorted(samples.arrays):
            digests[index] = zlib.crc32(np.ascontiguousarray(samples.arrays[name][index]).data, digests[index])
    return digests % _FOLDS


def _silent(outputs: Moments) -> Array:
    """`[C]`: which channels have no output worth a spike."""
    return outputs.maximum <= _SILENT * outputs.maximum.max()


def _thresholds(function: Callable[[Array], Array], staircase: Staircase, rows: _Rows) -> Array | None:
    """`[C, T]`: the inputs from which on an ascending function reaches each step of a staircase of its output.

    A step that it never reaches has +∞. None where the function differs within a channel.
    """
    counts = np.tile(np.arange(1, staircase.steps + 1), (len(staircase.threshold), 1))
    if function(rows.spread(counts.astype(np.float32))).shape != rows.spread(counts).shape:
        return None

    def reached(values: Array) -> Array:
        # Softsign has no value at infinity.
        values = np.nan_to_num(values)
        with np.errstate(over="ignore"):
            return staircase.codes(function(rows.spread(values)).reshape(values.T.shape).T) >= counts

    return np.nan_to_num(smallest_float(reached, counts.shape, np.dtype(np.float32)), nan=np.inf, posinf=np.inf)


class _Rows:
    """A pre-activation `[B, …]` as rows of channels `[C, n]`, and back."""

    def __init__(self, network: Network, segment: Segment) -> None:
        shape = network.shapes.get(segment.target)
        self.rank = len(shape or ())
        self.axis: int | None = None
        if shape is not None and len(shape) > 1:
            axis = len(shape) - 1 if _ends_in_matmul(segment) else 1
            self.axis = axis if isinstance(shape[axis], int) else None

    def __call__(self, values: Array) -> Array:
        """`[C, n]`; one row where there are no channels."""
        if self.axis is None:
            return values.reshape(1, -1)
        return np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)

    def along_channels(self, values: Array) -> Array:
        """`[C]` or `[1]` in a shape that broadcasts against the pre-activation."""
        if self.axis is None or values.size == 1:
            return values.reshape(())
        return values.reshape([-1, *[1] * (self.rank - self.axis - 1)])

    def spread(self, table: Array) -> Array:
        """A table `[C, n]` as n samples of one value a channel, of the pre-activation's rank."""
        shape = [1] * self.rank
        shape[0] = table.shape[1]
        if self.axis is not None:
            shape[self.axis] = len(table)
        return np.ascontiguousarray(table.T).reshape(shape)

    def back(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """Rows in the shape that they come from."""
        if self.axis is None:
            return rows.reshape(shape)
        moved = [shape[self.axis], *(size for axis, size in enumerate(shape) if axis != self.axis)]
        return np.moveaxis(rows.reshape(moved), 0, self.axis)


def _ends_in_matmul(segment: Segment) -> bool:
    """Whether channels come last, as behind a MatMul."""
    maker = {node.output[0]: node for node in segment.nodes if node.output}
    node = maker.get(segment.target)
    while node is not None and node.op_type in ("Add", "Identity", "Sub"):
        node = next((maker[name] for name in node.input if name in maker), None)
    return node is not None and node.op_type in ("Gemm", "LayerNormalization", "MatMul")
