"""Layer by layer: each activation is quantised on what the layers before it give once they are quantised.

Networks run side by side. The reference is the source; a quantised one has everything that was found so far. At each
segment the last layer's weights may be corrected, so that its pre-activation comes close to the reference's
although its inputs are quantised, and then a staircase is chosen for that pre-activation.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import CORRECTING
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import track
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.choosing import FITTED, Batches, choose
from pconv_onnx.calibration.faults import axes_of
from pconv_onnx.calibration.functions import (
    Clip,
    becomes_thresholds,
    clip_of,
    function_of,
    lowest_of,
    thresholds_of,
)
from pconv_onnx.calibration.maxima import CHANNELS, maxima_of
from pconv_onnx.calibration.passes import QUANTISED, Levels
from pconv_onnx.calibration.reference import Reference
from pconv_onnx.calibration.segments import Layer, Segment, cut, with_weights
from pconv_onnx.calibration.settings import RULES, Settings
from pconv_onnx.calibration.staircases import Staircase, by_levels, repeated, with_shift
from pconv_onnx.calibration.statistics import cross_validated
from pconv_onnx.calibration.writing import Correction, Quantised
from pconv_onnx.data.samples import Samples
from pconv_onnx.engine.shards import Crew
from pconv_onnx.graph import Network
from pconv_onnx.graph.channels import contracted
from pconv_onnx.graph.nesting import captured
from pconv_onnx.recognise import Activation, recognise
from pconv_onnx.recognise.base import PRODUCT
from pconv_onnx.recognise.calibratable import readouts

_FLOAT = onnx.TensorProto.FLOAT
# Weights of the correction's own size against the residual, one of which is chosen for each layer; with the last only
# the bias is corrected.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 1e6)
# Where the reference is silent only what is above zero is an error: that depends on the correction, hence twice.
_PASSES = 2
# Inputs of a layer up to which its normal equations are solved: they are as many squared.
MOST_INPUTS = 4608
# Steps up to which a mean error is left to the next layer's shift where weights are not corrected.
_CENTRED_STEPS = 4


@dataclass
class Found:
    """What a sweep found.

    Attributes:
        activations: what takes the place of each.
        corrections: new weights by the output of their layer.
        errors: for each activation the mean squared error of its output, or of the maxima that alone are read of it,
            as a share of their mean square.
        uncorrected: outputs of layers that are too wide to be corrected.
        left: why activations stay that the data do not suit, by name.
        steps: numbers of time-steps that are activations' own, by name.
        rule: how far staircases of methods that fit reach, one of `RULES`.
        rule_errors: where several were tried, what each left of the outputs, as `rules.output_errors` has it.
        tuning_errors: what `refit` and `tune` lost, as `Outcome.lost` has it, where the network was tuned; the better
            one is here.
        finished: whether the sweep came to its end.
    """

    activations: list[Quantised] = field(default_factory=list)
    corrections: dict[str, Correction] = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)
    uncorrected: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    rule: str = RULES[0]
    rule_errors: dict[str, float] = field(default_factory=dict)
    tuning_errors: dict[str, float] = field(default_factory=dict)
    finished: bool = False

    def copy(self) -> Found:
        """What is here now: a sweep goes on adding."""
        return replace(self, activations=[*self.activations], corrections={**self.corrections}, errors=[*self.errors])


@dataclass(frozen=True)
class Task:
    """What is asked of one sweep.

    Attributes:
        settings: that they all share, but for levels, coding, rule and what activations have of their own.
        begun: what was found before it was interrupted, which is not chosen again.
        keep: is called with what was found so far whenever there is more.
    """

    settings: Settings
    begun: Found
    keep: Callable[[Found], None]


def sweep(
    network: Network,
    activations: Sequence[Activation],
    first: Samples,
    crew: Crew,
    tasks: Sequence[Task],
) -> list[Found | PconvError]:
    """Choose a staircase for each activation, in several sweeps beside one run of the source.

    Args:
        network: the source.
        activations: element by element, in topological order.
        first: a first sample, or more.
        crew: of `Passes` over the data.
        tasks: one a sweep.

    Returns:
        What each found, or why it failed: values are too large to be computed with, or what was found before is of
        another network.

    Raises:
        PconvError: onnxruntime cannot run the source.
    """
    begun = {number: task for number, task in enumerate(tasks) if not task.begun.finished}
    if not begun:
        return [task.begun for task in tasks]
    cuts = _Cuts(network, activations, first, crew, tasks[0].settings.method)
    reference = Reference(network, crew)
    sweeps = {number: _Sweep(cuts, reference, number, task) for number, task in begun.items()}
    last_use = {name: index for index, segment in enumerate(cuts.segments) for name in segment.inputs}
    for index, segment in enumerate(track(cuts.segments, "calibrating", len(cuts.segments))):
        reference.come_to(segment)
        for one in sweeps.values():
            one.attempt(_Sweep.correct, segment)
        if segment.activation is not None:
            reference.activate(segment.activation)
            for one in sweeps.values():
                one.attempt(_Sweep.quantise, segment)
        crew.call("drop", [name for name in segment.inputs if last_use[name] == index])
        for one in sweeps.values():
            one.keep(finished=index == len(cuts.segments) - 1)
    ended = {number: one.failure or one.found for number, one in sweeps.items()}
    return [ended.get(number, task.begun) for number, task in enumerate(tasks)]


class _Cuts:
    """The source as all sweeps see it.

    Attributes:
        axes: along which axes of tensors samples lie.
        left: why activations stay, by name.
        segments: in topological order, each with its layer where that is one to correct.
        uncorrected: outputs of layers that are too wide for that.
    """

    def __init__(
        self, network: Network, activations: Sequence[Activation], first: Samples, crew: Crew, method: str
    ) -> None:
        self.network, self.crew = network, crew
        outputs = [info.name for info in network.proto.graph.output if info.type.tensor_type.elem_type == _FLOAT]
        given = {one.output.name for one in activations}
        stay = [one for one in readouts(network, recognise(network)) if one.output.name not in given]
        names = list(dict.fromkeys([*(one.input.name for one in (*activations, *stay)), *outputs]))
        axes = axes_of(network, names, first)
        # Each activation works element by element.
        self.axes = axes | {a.output.name: axes[a.input.name] for a in activations}
        crew.call("place", self.axes)
        # What a Relu or a Clip gives of finite values is finite; SELU and others may overflow.
        overflowing = [a.output.name for a in activations if not clip_of(a).rectifies]
        faults = crew.call("faults", list(dict.fromkeys([*names, *overflowing])))
        told = {a.name: faults.get(a.input.name) or faults.get(a.output.name) for a in activations}
        self.left = {name: reason for name, reason in told.items() if reason}
        kept = [activation for activation in activations if activation.name not in self.left]
        segments = cut(network, kept, [one for one in stay if one.input.name not in faults])
        # Published methods are fitted to all values.
        self._maxima = maxima_of(network, kept) if method in FITTED else {}
        self.uncorrected: list[str] = []
        self._all = self._with_layers_to_correct(segments, set(outputs) - faults.keys(), method)
        self.segments = [one for one in self._all if one.activation is not None or one.layer is not None]

    def _with_layers_to_correct(
        self, segments: Sequence[Segment], outputs: Container[str], method: str
    ) -> list[Segment]:
        """The segments, with a layer where it is one to correct: not before outputs other than these."""
        result = []
        computed: set[str] = set()
        corrected: set[str] = set()
        for segment in segments:
            wanted = (segment.activation or segment.readout) is not None or segment.target in outputs
            layer = segment.layer if method in CORRECTING and wanted else None
            output = layer.node.output[0] if layer is not None else ""
            if layer is not None and output not in corrected:
                if output in computed:  # settled, by an earlier segment that goes through it
                    layer = None
                elif layer.inputs > MOST_INPUTS:
                    self.uncorrected.append(output)
                    layer = None
                else:
                    corrected.add(output)
            if segment.activation is not None or layer is not None:
                computed |= {node.output[0] for node in segment.nodes}
            result.append(replace(segment, layer=layer, maxima=self._pooling_of(segment)))
        return result

    def _pooling_of(self, segment: Segment) -> Segment | None:
        """The pooling that alone reads an activation, where it is neither across samples nor across channels."""
        if segment.activation is None or self.axes[segment.target] not in (0, None):
            return None
        same = Channels.of(self.network, segment).axis in (None, CHANNELS)
        return self._maxima.get(segment.activation.output.name) if same else None

    def taken_back(self, settings: Settings) -> set[str]:
        """Activations whose mean error does not count: all that read them correct it before the next activation.

        By the bias of a corrected layer; without, by the shift of the staircase there, which pays for few steps, and of
        many costs at padded borders. A readout has no shift.
        """
        shifts = settings.method not in CORRECTING and settings.levels <= _CENTRED_STEPS
        left = {info.name for info in self.network.proto.graph.output}
        # What leads to an output may go through a readout, and so through the layer that is corrected before it.
        settled = {id(node) for one in self._all if one.readout is not None and one.layer for node in one.nodes}
        for segment in self._all:
            if segment.activation is None and segment.readout is None:
                nodes = [node for node in segment.nodes if id(node) not in settled]
                left |= {name for node in nodes for name in (*node.input, *captured(node))}
            elif segment.layer is None and not (shifts and segment.activation is not None):
                left.update(segment.inputs)
        return {segment.activation.output.name for segment in self._all if segment.activation is not None} - left


class _Sweep:
    """State of one sweep: what was decided so far. Everything that looks at samples is a pass of the crew.

    Attributes:
        found: so far.
        failure: why it came no farther.
    """

    def __init__(self, cuts: _Cuts, reference: Reference, number: int, task: Task) -> None:
        self.network, self.crew, self.settings = cuts.network, cuts.crew, task.settings
        self._axes, self._reference, self._number, self._keep = cuts.axes, reference, number, task.keep
        # What is known already.
        self.corrections = task.begun.corrections
        pairs = zip(task.begun.activations, task.begun.errors, strict=True)
        self.entries = {entry.activation.name: (entry, error) for entry, error in pairs}
        self.found = Found(
            uncorrected=[*cuts.uncorrected],
            left={**cuts.left},
            steps=task.begun.steps,
            rule=task.settings.rule,
            rule_errors=task.begun.rule_errors,
        )
        self.failure: PconvError | None = None
        self.taken_back = cuts.taken_back(task.settings)
        # Corrected layers are nodes with weights of their own.
        self.levels: dict[str, tuple[Array, Array]] = {}
        self.corrected: dict[str, list[onnx.NodeProto]] = {}
        self.weights: dict[str, Array] = {}

    def attempt(self, step: Callable[[_Sweep, Segment], None], segment: Segment) -> None:
        """Take a step at a segment, unless one failed before."""
        if self.failure is not None:
            return
        self.crew.call("take_up", self._number)
        try:
            step(self, segment)
        except PconvError as error:
            self.failure = error

    def keep(self, *, finished: bool) -> None:
        """Have what was found so far kept, unless a step failed."""
        if self.failure is None:
            self.found.finished = finished
            self._keep(self.found)

    def correct(self, segment: Segment) -> None:
        """Correct the layer of a segment, on everything before it."""
        layer = segment.layer
        # One that two segments end in is corrected in the first.
        if layer is not None and layer.node.output[0] not in self.corrected:
            self._correct(segment, layer)

    def quantise(self, segment: Segment) -> None:
        """Quantise the activation of a segment, on everything before it."""
        assert segment.activation is not None  # or there is none
        self.crew.call("keep_quantised", *self._quantised(segment))
        self._quantise(segment.activation, self._channels(segment, segment.activation))

    def _channels(self, segment: Segment, activation: Activation) -> Channels:
        """Those of a pre-activation; in front of products with weights the ones that these have rows for."""
        read = {contracted(reader) for reader in activation.output.outputs} if activation.encoding == PRODUCT else set()
        axis = read.pop() if len(read) == 1 else None
        return Channels.of(self.network, segment, self._axes[segment.target], axis)

    def _quantised(self, segment: Segment) -> tuple[Segment, dict[str, Array], Levels]:
        """A segment as it is in the quantised network, with what it needs: weights, and levels of its inputs."""
        nodes = tuple(made for node in segment.nodes for made in self.corrected.get(node.output[0], [node]))
        used = {name for node in nodes for name in (*node.input, *captured(node))}
        weights = {name: self.weights[name] for name in sorted(used & self.weights.keys())}
        levels = {name: self.levels[name] for name in segment.inputs if name in self.levels}
        return replace(segment, activation=None, layer=None, readout=None, nodes=nodes), weights, levels

    def _correct(self, segment: Segment, layer: Layer) -> None:
        """Give a layer the weights with which its segment comes closest to the reference."""
        output = layer.node.output[0]
        names = (f"{output}/weights", f"{output}/bias")
        self.corrected[output] = with_weights(layer.node, *names, f"{output}/product")
        correction = self.corrections.get(output)
        if correction is None:
            correction = Correction(output, *self._solved(segment, layer, names))
        elif correction.weights.shape != layer.weights.shape or correction.bias.shape != layer.bias.shape:
            raise _of_another(output)
        self.weights |= dict(zip(names, (correction.weights, correction.bias), strict=True))
        self.found.corrections[output] = correction

    def _solved(self, segment: Segment, layer: Layer, names: tuple[str, str]) -> tuple[Array, Array]:
        """Weights and bias of the corrected layer, which are called so while they are looked for."""
        clip, output = clip_of(segment.activation or segment.readout), layer.node.output[0]
        matrices, bias = layer.matrices()
        grams: list[Array] = []
        for _ in range(_PASSES if clip.rectifies else 1):
            self.weights |= dict(zip(names, layer.arrays(matrices, bias), strict=True))
            folds = self.crew.call("equations", *self._quantised(segment), layer, clip, not grams)
            if not all(np.isfinite(table).all() for fold in folds for table in (fold.gram, fold.moment)):
                raise PconvError(
                    f"the inputs of '{output}' are too large to be squared", "scale the data, or choose another method"
                )
            # The inputs are the same in each pass.
            grams = grams or [fold.gram for fold in folds]
            for fold, gram in zip(folds, grams, strict=True):
                fold.gram = gram
            change = cross_validated(folds, RIDGES)
            matrices, bias = matrices + change[:, :-1].swapaxes(1, 2), bias + change[:, -1]
        return layer.arrays(matrices, bias)

    def _quantise(self, activation: Activation, each: Channels) -> None:
        """Choose what takes an activation's place, unless it is known, and hand on what that makes of its input."""
        channels = Channels(None, each.rank) if self.settings.rule == "tensor" else each
        clip, known = clip_of(activation), self.entries.get(activation.name)
        if clip.rectifies:
            entry = known[0] if known else Quantised(activation, self._chosen(activation, channels, clip), channels)
        else:
            self.crew.call("apply", self._reference.alone, QUANTISED)
            entry = known[0] if known else self._of_output(activation, channels, each)
        if known and not self._fits(entry, each):
            raise _of_another(activation.name)
        entry, error = self._handed_on(entry, known)
        name = activation.output.name
        self.levels[name] = entry.channels.along(entry.staircase.constants()[2]), entry.channels.along(_start(entry))
        self.found.activations.append(entry)
        self.found.errors.append(error)

    def _fits(self, entry: Quantised, each: Channels) -> bool:
        """Whether what is known has as many channels as the activation, or one for all."""
        count = 1 if entry.channels.axis is None else self.network.shapes[entry.activation.input.name][each.axis or 0]
        return entry.channels in (each, Channels(None, each.rank)) and len(entry.staircase.threshold) == count

    def _of_output(self, activation: Activation, channels: Channels, each: Channels) -> Quantised:
        """A staircase of the output: around zero or, where trains are to have one sign, from the reference's least on.

        Levels without end are kept as they are where there are enough for the reference.

        Args:
            activation: one that is neither a Relu nor a Clip from zero.
            channels: that get a staircase each.
            each: those that the activation has.
        """
        assert self._reference.alone is not None  # or it is no such activation
        function, levels = function_of(self.network, self._reference.alone), self.settings.of(activation).levels
        moments, negative = self._reference.extremes(channels)
        offset = -negative.maximum.astype(np.float32)
        bounded = None
        if activation.unit is not None:
            lowest = lowest_of(function, channels, len(offset))
            bounded = by_levels(activation.unit, moments.maximum - lowest, levels)
            offset = offset if bounded is None else lowest
        if bounded is not None:
            staircase = with_shift(bounded, -offset)
        elif self.settings.signed:
            staircase = with_shift(self._chosen(activation, channels, Clip(0.0), start=offset), -offset)
        else:
            staircase = self._chosen(activation, channels, Clip(), lowest=offset)
            offset = staircase.offset
        thresholds = None
        if becomes_thresholds(activation, levels):
            thresholds = thresholds_of(function, staircase, channels)
            if thresholds is None and channels != each:
                # It is another function in each channel.
                count = self.network.shapes[activation.input.name][each.axis or 0]
                assert isinstance(count, int)  # or there would be no axis
                staircase, offset, channels = repeated(staircase, count), np.repeat(offset, count), each
                thresholds = thresholds_of(function, staircase, channels)
        return Quantised(activation, staircase, channels, offset, thresholds)

    def _chosen(
        self,
        activation: Activation,
        channels: Channels,
        clip: Clip,
        *,
        start: Array | None = None,
        lowest: Array | None = None,
    ) -> Staircase:
        """The staircase of the method for a clip of what is above `start` `[C]`, or for all from `lowest` on."""
        origin = np.zeros(1, np.float32) if start is None else start

        def gather(count: Callable[[Batches], Any]) -> Any:
            return self.crew.call("gather", count, channels, origin)

        def of_reference(count: partial[Any]) -> Any:
            return self._reference.count(count, channels, origin)

        # A mean error is no error where it is taken back: by an offset, or by a later layer.
        centred = start is not None or activation.output.name in self.taken_back
        settings = self.settings.of(activation)
        return choose(settings, gather, of_reference, clip, centred=centred, lowest=lowest)

    def _handed_on(self, entry: Quantised, known: tuple[Quantised, float] | None) -> tuple[Quantised, float]:
        """Keep the codes of what takes an activation's place.

        Returns:
            What is known or, otherwise, that and its error. An offset is where its staircase begins; methods that fit
            add the mean error to it where trains have one sign.
        """
        name, start = entry.activation.output.name, _start(entry)
        residuals, error = self.crew.call(
            "hand_on", name, entry.staircase, entry.channels, clip_of(entry.activation), start
        )
        if known is not None:
            return known
        if not np.isfinite(error):
            raise PconvError(
                f"the values of '{name}' are too large to be quantised", "scale the data, or choose another method"
            )
        if entry.offset is not None and self.settings.method in FITTED and self.settings.signed:
            error -= residuals.count * float(np.square(residuals.mean).sum())
            entry = replace(entry, offset=(start + residuals.mean).astype(np.float32))
        square = self._reference.square
        return entry, error / square if square else 0.0


def _start(entry: Quantised) -> Array:
    """Where its staircase begins, `[C]` or `[1]`."""
    return np.zeros(1, np.float32) if entry.offset is None else entry.offset


def _of_another(name: str) -> PconvError:
    return PconvError(f"what an earlier run kept of '{name}' does not fit this network", "remove the file of `cache=`")
