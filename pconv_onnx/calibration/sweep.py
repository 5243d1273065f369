"""Layer by layer: each activation is quantised on what the layers before it give once they are quantised.

Two networks run side by side. The reference is the source; the quantised one has everything that was found so far. At
each segment the last layer's weights may be corrected, so that its pre-activation comes close to the reference's
although its inputs are quantised, and then a staircase is chosen for that pre-activation.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.choosing import FITTED, choose
from pconv_onnx.calibration.faults import axes_and_faults
from pconv_onnx.calibration.functions import Clip, ascends, clip_of, function_of, thresholds_of
from pconv_onnx.calibration.segments import Layer, Runner, Segment, cut, with_weights
from pconv_onnx.calibration.staircases import Staircase, with_shift
from pconv_onnx.calibration.statistics import Moments, NormalEquations, cross_validated
from pconv_onnx.calibration.streams import Stream
from pconv_onnx.calibration.writing import Correction, Quantised
from pconv_onnx.data import Samples
from pconv_onnx.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.neuron import Array
from pconv_onnx.progress import track
from pconv_onnx.recognise import Activation

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
# Names under which the pre-activations of the segment at hand are kept.
_REFERENCE, _QUANTISED = "reference", "quantised"


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
    # Of the tensors to calibrate as well, once they are known.
    axes = {name: samples.axes.get(name, 0) for name in samples.arrays}
    given = samples.arrays, len(samples), axes
    with Stream(*given) as reference, Stream(*given) as quantised:
        return _Sweep(network, activations, samples, steps, method, axes, (reference, quantised)).found


class _Sweep:
    """State of one sweep."""

    def __init__(
        self,
        network: Network,
        activations: Sequence[Activation],
        samples: Samples,
        steps: int,
        method: str,
        axes: dict[str, int | None],
        streams: tuple[Stream, Stream],
    ) -> None:
        self.network, self.samples, self.steps, self.method, self.axes = network, samples, steps, method, axes
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
        found, faults = axes_and_faults(network, names, samples, _BATCH)
        # Each activation works element by element.
        axes |= found | {a.output.name: found[a.input.name] for a in activations}
        self.found.left = {a.name: faults[a.input.name] for a in activations if a.input.name in faults}
        segments = cut(network, [activation for activation in activations if activation.name not in self.found.left])
        segments = self._with_layers_to_correct(segments, set(outputs) - faults.keys())
        self.taken_back = self._taken_back(segments)
        segments = [segment for segment in segments if segment.activation is not None or segment.layer is not None]
        last_use = {name: index for index, segment in enumerate(segments) for name in segment.inputs}
        for index, segment in enumerate(track(segments, "calibrating", len(segments))):
            axis = axes.get(segment.target, 0)
            with Stream({}, len(samples), {_REFERENCE: axis, _QUANTISED: axis}) as before:
                self._segment(segment, before)
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

    def _segment(self, segment: Segment, before: Stream) -> None:
        """Correct the layer of a segment and quantise its activation, on everything before it."""
        for part, values in self._run(segment, self.reference):
            before.put(_REFERENCE, part, values[segment.target])
        layer = segment.layer
        # One that two segments end in is corrected in the first.
        if layer is not None and layer.node.output[0] not in self.corrected:
            self._correct(segment, layer, before)
        if segment.activation is not None:
            for part, values in self._run(segment, self.quantised):
                before.put(_QUANTISED, part, values[segment.target])
            self._quantise(segment.activation, Channels.of(self.network, segment, self.axes[segment.target]), before)

    def _run(self, segment: Segment, stream: Stream, also: str = "") -> Iterator[tuple[slice, dict[str, Array]]]:
        """What a segment computes, batch by batch."""
        if stream is self.quantised:
            nodes = (made for node in segment.nodes for made in self.corrected.get(node.output[0], [node]))
            segment = replace(segment, nodes=tuple(nodes))
        runner = Runner(self.network, segment, self.weights, also)
        for part, _ in self.samples.batches(_BATCH):
            feed = {}
            for name in segment.inputs:
                values = stream.batch(name, part)
                if stream is self.quantised and name in self.levels:
                    level, offset = self.levels[name]
                    feed[name] = values * level + offset
                else:
                    feed[name] = values
            yield part, runner(feed)

    def _correct(self, segment: Segment, layer: Layer, before: Stream) -> None:
        """Give a layer the weights with which its segment comes closest to the reference."""
        node, clip = layer.node, clip_of(segment.activation)
        output = node.output[0]
        matrices, bias = layer.matrices()
        groups, outputs, inputs = matrices.shape
        names = (f"{output}/weights", f"{output}/bias")
        self.corrected[output] = with_weights(node, *names, f"{output}/product")
        grams: list[Array] = []
        axis = self.axes[segment.target] or 0
        moves = axis != 0 and node.op_type != "Conv"
        for _ in range(_PASSES if clip.rectifies else 1):
            self.weights |= dict(zip(names, layer.arrays(matrices, bias), strict=True))
            folds = [NormalEquations.empty(groups, inputs + 1, outputs) for _ in range(_FOLDS)]
            for part, values in self._run(segment, self.quantised, also=node.input[0]):
                given, now = values[node.input[0]], values[segment.target]
                residual = (clip.nearest(before.batch(_REFERENCE, part), now) - now).astype(np.float32)
                if moves:  # of a matrix product both are rows, in any order
                    given, residual = (np.moveaxis(rows, axis, 0) for rows in (given, residual))
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

    def _quantise(self, activation: Activation, channels: Channels, before: Stream) -> None:
        """Choose a staircase, and hand on what it makes of the quantised pre-activation.

        That of a Relu or of a Clip from zero takes its place; of any other activation it is a staircase of its output,
        which begins at the least that the reference gives.
        """
        clip = clip_of(activation)
        if clip.rectifies:
            staircase = self._chosen(activation, channels, before, clip)
            self._hand_on(Quantised(activation, staircase, channels), before)
            return
        function = function_of(self.network, activation)
        least = Moments()
        for part, _ in self.samples.batches(_BATCH):
            for name in (_REFERENCE, _QUANTISED):
                before.put(name, part, function(before.batch(name, part)))
            least.add(-channels.rows(before.batch(_REFERENCE, part)))
        offset = -least.maximum.astype(np.float32)
        staircase = self._chosen(activation, channels, before, Clip(0.0), offset)
        thresholds = thresholds_of(function, staircase, channels) if ascends(activation) else None
        self._hand_on(Quantised(activation, staircase, channels, offset, thresholds), before)

    def _chosen(
        self, activation: Activation, channels: Channels, before: Stream, clip: Clip, offset: Array | None = None
    ) -> Staircase:
        """The staircase of the method, for a clip of what is above an offset `[C]`."""
        start = np.zeros(1, np.float32) if offset is None else offset

        def batches() -> Iterator[tuple[Array, Array]]:
            for part, _ in self.samples.batches(_BATCH):
                reference, quantised = (channels.rows(before.batch(name, part)) for name in (_REFERENCE, _QUANTISED))
                yield reference - start.reshape(-1, 1), quantised - start.reshape(-1, 1)

        # A mean error is no error where it is taken back: by an offset, or by a later layer.
        centred = offset is not None or activation.output.name in self.taken_back
        return with_shift(choose(self.method, self.steps, batches, clip, centred=centred), -start)

    def _hand_on(self, entry: Quantised, before: Stream) -> None:
        """Keep what an activation gives in the reference and, quantised, the codes of what takes its place.

        An offset is where its staircase begins; methods that fit add the mean error to it.
        """
        name, channels = entry.activation.output.name, entry.channels
        clip, codes_of = clip_of(entry.activation), entry.staircase.codes
        start = np.zeros(1, np.float32) if entry.offset is None else entry.offset
        level = channels.along(entry.staircase.constants()[2])
        residuals = Moments()
        error = square = 0.0
        for part, _ in self.samples.batches(_BATCH):
            given = before.batch(_QUANTISED, part)
            codes = channels.back(codes_of(channels.rows(given)), given.shape)
            wanted = clip(before.batch(_REFERENCE, part))
            residual = wanted - channels.along(start) - codes * level
            residuals.add(channels.rows(residual))
            error += float(np.square(residual, dtype=np.float64).sum())
            square += float(np.square(wanted, dtype=np.float64).sum())
            self.reference.put(name, part, wanted)
            self.quantised.put(name, part, codes.astype(np.uint8 if self.steps < 256 else np.uint16))
        if entry.offset is not None and self.method in FITTED:
            error -= residuals.count * float(np.square(residuals.mean).sum())
            start = (start + residuals.mean).astype(np.float32)
            entry = replace(entry, offset=start)
        self.levels[name] = level, channels.along(start)
        self.found.activations.append(entry)
        self.found.errors.append(error / square if square else 0.0)


def _folds(samples: Samples) -> Array:
    """Which part of the data each sample belongs to, by what it holds: neither its place nor its neighbours matter."""
    digests = np.zeros(len(samples), np.uint32)
    for index in range(len(samples)):
        for name in sorted(samples.arrays):
            digests[index] = zlib.crc32(np.ascontiguousarray(samples.arrays[name][index]).data, digests[index])
    return digests % _FOLDS
