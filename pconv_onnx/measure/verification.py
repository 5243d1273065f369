"""`verify`: does a spiking network compute what its source computes, layer by layer and end to end?"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import onnx

from pconv_onnx.answers.lines import verification_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MEMORY
from pconv_onnx.basics.domain import MIN_OPSET
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import Progress, shows_progress, track
from pconv_onnx.data.reading import load_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, DataSource, Samples
from pconv_onnx.graph import ModelSource, Network, load
from pconv_onnx.graph.carriers import in_carriers
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.passes.pipeline import respelled
from pconv_onnx.graph.passes.straight_through import without_straight_through
from pconv_onnx.graph.passes.taking_apart import taken_apart
from pconv_onnx.graph.record import Converted, Record
from pconv_onnx.graph.sketch import redrawn
from pconv_onnx.integer.proof.proving import prove
from pconv_onnx.measure.comparison import Comparison
from pconv_onnx.measure.counts import CountCheck
from pconv_onnx.measure.exactness import Exactness
from pconv_onnx.measure.layer_check import Layer, LayerCheck, Written, altered_trains
from pconv_onnx.measure.segment_check import SegmentCheck
from pconv_onnx.measure.segments import Segment
from pconv_onnx.measure.targets import TargetError, target_output
from pconv_onnx.measure.timing import session_options
from pconv_onnx.operators.domain import is_layer
from pconv_onnx.plan.modes import MODES
from pconv_onnx.recognise import recognise
from pconv_onnx.recognise.base import never, where_zero
from pconv_onnx.runtime.axes import by_sample, classes, sample_axes
from pconv_onnx.runtime.entrance import prepared, runnable
from pconv_onnx.runtime.memory import require_budget, samples_within
from pconv_onnx.runtime.observed import with_observed_shapes
from pconv_onnx.runtime.opening import import_onnxruntime, stock_session
from pconv_onnx.runtime.side_by_side import Sessions, batches, open_session, run_session

# The session of the network whose activations neurons stand for, where that is not the source: what calibration made
# of it, or the spelling in which it was read.
_CALIBRATED, _RESPELLED = "calibrated", "respelled"
# That of the spiking network in stock onnxruntime.
_BODIES = "bodies"

Verdict = Literal["equal", "measured", "different"]

# Share of the largest output that rounding in float32 explains.
_ROUNDING = 1e-4
# Rows of T·B that are run at once: a train of each neuron is made anew for each batch, and memory that large is slow to
# be had again and again.
_ROWS = 128


@dataclass
class Verification(Printed):
    """What `verify` found.

    Attributes:
        samples: samples compared.
        random_inputs: whether they were drawn, since no data was given.
        unoptimised: outputs of both networks compared with onnxruntime's graph optimisations disabled, so that every
            operator is what ONNX defines.
        as_run: outputs of both networks compared as a user runs them.
        source_itself: the source as a user runs it compared with the source unoptimised: what onnxruntime alone
            changes.
        spiking_itself: the same comparison for the spiking network.
        respelled: the source unoptimised compared with the spelling in which it was read, and with which neurons and
            segments are compared.
        straight_through: whether that spelling lacks sums of straight-through estimators, which round by themselves.
        taken_apart: whether that spelling has operators in parts, which round differently from the whole.
        load_errors: why `ann` or `snn` loads only with graph optimisations disabled, so that it is run only so.
        layers: results for each layer of neurons.
        segments: results for what lies between neurons, and behind the last ones.
        altered: what else of the spiking network differs from what `rewrite` wrote, one line each.
        branches_not_entered: number of branches of Ifs that no sample entered.
        per_step_outputs: number of outputs that give an output of the source at each step.
        correct: the number of right top-1 answers of both networks as a user runs them, if there are labels.
        target_errors: errors of both networks against the targets, if labels are floats.
        has_classes: whether an output looks like logits.
        atol: the tolerance on outputs, if one was given.
        integers: for a network with integer weights, what is proved and measured of the integers.
    """

    samples: int
    random_inputs: bool
    layers: list[Layer] = field(repr=False)
    segments: list[Segment] = field(repr=False)
    atol: float | None
    altered: list[str] = field(default_factory=list)
    branches_not_entered: int = 0
    per_step_outputs: int = 0
    unoptimised: Comparison = field(default_factory=Comparison)
    as_run: Comparison = field(default_factory=Comparison)
    source_itself: Comparison = field(default_factory=Comparison)
    spiking_itself: Comparison = field(default_factory=Comparison)
    respelled: Comparison = field(default_factory=Comparison)
    straight_through: bool = False
    taken_apart: bool = False
    load_errors: dict[str, str] = field(default_factory=dict)
    correct: dict[str, int] | None = None
    target_errors: dict[str, TargetError] | None = None
    has_classes: bool = False
    integers: Exactness | None = None

    @property
    def verdict(self) -> Verdict:
        """`different` if anything differs, `equal` if everything was compared and is equal, else `measured`."""
        if self.differences:
            return "different"
        return "measured" if self.not_compared else "equal"

    @property
    def passed(self) -> bool | None:
        """True for the verdict `equal`, False for `different`, None for `measured`."""
        return {"equal": True, "measured": None, "different": False}[self.verdict]

    @property
    def differences(self) -> list[str]:
        """What the spiking network does differently from its source, one line each.

        A difference is: a neuron that gives another spike count for the same input; a segment whose values, given the
        same values of neurons, differ by more than rounding explains; outputs of another shape, with a NaN or an
        infinity that the source does not have, or beyond `atol`; a network that does not load as its source does.
        Outputs that differ otherwise are no difference, since a spike that rounding flips affects later layers.
        """
        told = [
            f"neuron '{layer.name}' gives other spike counts than the source for the same input"
            for layer in self.layers
            if layer.mismatches
        ]
        told += [
            f"neuron '{layer.name}' is not what its time-steps make of the source's activation"
            for layer in self.layers
            if layer.altered
        ]
        told += [
            f"the segment to {segment.told} gives other values than the source for the same values of neurons"
            for segment in self.segments
            if segment.beyond
        ]
        told += self.altered
        told += self.integers.differences if self.integers is not None else []
        if self.respelled.max_abs_diff and not (self.straight_through or self.taken_apart):
            told.append("the source gives other values in the spelling that it was read in")
        settings = (self.unoptimised, self.as_run)
        if not all(math.isfinite(outputs.max_abs_diff) for outputs in settings):
            told.append("outputs differ without bound (a NaN, an infinity or another shape)")
        elif self.atol is not None and any(outputs.max_abs_diff > self.atol for outputs in settings):
            told.append(f"outputs differ by more than {self.atol:g}")
        if "snn" in self.load_errors and "ann" not in self.load_errors:
            told.append("onnxruntime loads the spiking network only with graph optimisations disabled")
        return told

    @property
    def not_compared(self) -> list[str]:
        """What could not be compared with the source, one line each."""
        calibrated = sum(layer.calibrated for layer in self.layers)
        others = sum(not layer.exact for layer in self.layers)
        missed = sum(layer.exact and not layer.reached for layer in self.layers)
        empty = self.unoptimised.samples and not self.unoptimised.elements + sum(row.elements for row in self.layers)
        unbounded = [segment.told for segment in self.segments if not segment.bounded]
        among = f", {unbounded[0]} among them" if len(unbounded) > 1 else ""
        own_rounding = f"whose own rounding changes outputs by up to {self.respelled.max_abs_diff:.3g}"
        given = _counted(calibrated, "neuron")
        whole = self.integers.weights if self.integers is not None else ""
        told = {
            "anything: neither outputs nor neurons have elements": empty,
            f"outputs, since a calibration gave {given} levels that the source does not have": calibrated and not whole,
            f"outputs, since weights are rounded to {whole}: compared is the same network in integers": whole,
            f"straight-through gradients, {own_rounding}": self.respelled.max_abs_diff and self.straight_through,
            f"operators that were taken apart, {own_rounding}": self.respelled.max_abs_diff and self.taken_apart,
            f"{_counted(others, 'neuron')} with T other than the source's levels": others,
            f"{_counted(missed, 'neuron')} in branches that no sample got to": missed,
            f"{_counted(self.branches_not_entered, 'branch')} that no sample got to": self.branches_not_entered,
            f"{_counted(self.per_step_outputs, 'output')} at each step": self.per_step_outputs,
            f"{_counted(len(unbounded), 'segment')} of which it is not known what rounding explains"
            f"{among or f', to {unbounded[0]}' if unbounded else ''}": len(unbounded),
        }
        return [text for text, count in told.items() if count]

    @property
    def layers_compared(self) -> int:
        """How many layers were compared with their source; where it is none, outputs alone were."""
        return sum(layer.count_mismatch_rate is not None for layer in self.layers)

    @property
    def outputs_differ(self) -> list[str]:
        """The settings in which outputs differ by more than `atol`, or without one by more than rounding explains."""
        tolerance = self.atol if self.atol is not None else _ROUNDING * self.unoptimised.magnitude
        return [name for name in ("unoptimised", "as_run") if getattr(self, name).max_abs_diff > tolerance]

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx verify`."""

        def outputs(comparison: Comparison) -> dict[str, Any]:
            # JSON has no infinity.
            known = comparison.samples and math.isfinite(comparison.max_abs_diff)
            return {
                "max_abs_diff": comparison.max_abs_diff if known else None,
                "top1_agreement": comparison.top1_agreement(self.has_classes),
            }

        correct = (self.correct if self.has_classes else None) or {}
        accuracy = {name: count / self.samples for name, count in correct.items()} or None
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "differences": self.differences,
            "not_compared": self.not_compared,
            **outputs(self.as_run),
            "samples": self.samples,
            "random_inputs": self.random_inputs,
            "atol": self.atol,
            "accuracy": accuracy,
            "target_error": self.target_errors and {name: e.summary() for name, e in self.target_errors.items()},
            "unoptimised": outputs(self.unoptimised),
            "source_against_itself": outputs(self.source_itself),
            "spiking_against_itself": outputs(self.spiking_itself),
            "outputs_differ": self.outputs_differ,
            "load_errors": self.load_errors,
            "layers_compared": self.layers_compared,
            "layers": [
                {
                    "name": layer.name,
                    "exact": layer.exact,
                    "calibrated": layer.calibrated,
                    "altered": layer.altered,
                    "count_mismatch_rate": layer.count_mismatch_rate,
                }
                for layer in self.layers
            ],
            "segments": [segment.summary() for segment in self.segments],
            "integer": self.integers.summary() if self.integers is not None else None,
        }

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return verification_lines(document)


@shows_progress
def verify(
    ann: ModelSource,
    snn: ModelSource,
    data: DataSource | None = None,
    *,
    batch_axis: BatchAxis = 0,
    atol: float | None = None,
    providers: Sequence[Any] | None = None,
    memory: int = MEMORY,
    progress: Progress = None,
) -> Verification:
    """Compare a spiking network with the network that it was made from.

    Each layer of neurons runs as it is deployed, on the pre-activation that the source computes (with graph
    optimisations disabled, so that every operator is what ONNX defines). Its spike counts must be the source's on every
    element. Everything between neurons runs on the source's values, and must give the source's values up to rounding:
    docs/verification.md. End-to-end differences of the outputs are reported, without graph optimisations and as a user
    runs the networks: a Conv over T·B rows may round differently from one over B rows, and onnxruntime's optimisations
    change both networks.

    Args:
        ann: the network that was rewritten: path of an ONNX file, or a model in memory.
        snn: the network that `rewrite` made from it.
        data: samples as `calibrate` takes them; by default seeded random inputs.
        batch_axis: the axis of the model's inputs that counts samples, as `calibrate` takes it.
        atol: tolerance on output values, a finite number that is not negative; None only reports differences.
        providers: execution providers, as `session` takes them, for the spiking network and for the source as a user
            runs it. The expected values of layers are computed on the CPU.
        memory: bytes that activations may take, as far as shapes are known. It sets how many samples run together, at
            least one.
        progress: as `calibrate` takes it.

    Raises:
        PconvError: a file cannot be read or run, `snn` was not made from `ann`, or the data do not fit.
    """
    require_budget(memory)
    if atol is not None and not 0 <= atol < math.inf:
        raise PconvError(f"{atol} is not a tolerance", "choose a finite number that is not negative")
    source, deployed = runnable(ann), load(snn)
    record, converted = _recorded(source, deployed)
    stood_for, changed = _stood_for(source, deployed, record)
    # Layers of integers are looked into in floats that hold these; what is deployed has to give the same.
    spiking, also_changed = in_carriers(deployed)
    changed += [name for name in also_changed if name not in changed]
    disabled = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = Sessions([source, deployed])

    def add(key: str, model: onnx.ModelProto, network: Network, level: Any, where: Sequence[Any] | None) -> None:
        sessions.add(key, partial(open_session, model, network.name, level, where, network.folder, keeps_memory=False))

    calibrated = _calibrated(converted, source, record)
    trains = MODES[record.mode].keeps_time
    origin, written = Written(stood_for), Written(spiking)
    checks = [LayerCheck(entry, entry in calibrated, origin, written, trains, providers) for entry in converted]
    _refuse_neurons_without_record(spiking, record, converted)
    _compare_tables([check for check in checks if not check.layer.exact], stood_for)
    outputs = [output.name for output in source.proto.graph.output]
    segments = SegmentCheck(stood_for, spiking, checks, outputs)
    if stood_for.proto is source.proto:
        add("ann unoptimised", segments.tapped.model, source, disabled, None)
    else:
        add("ann unoptimised", source.proto, source, disabled, None)
        key = _RESPELLED if record.calibrated_form is None else _CALIBRATED
        add(key, segments.tapped.model, stood_for, disabled, None)
    ends = _ends(sessions["ann unoptimised"])
    add("snn unoptimised", deployed.proto, deployed, disabled, providers)
    _check_ends(ends, _ends(sessions["snn unoptimised"]), source, spiking, record)
    for key, piece in segments.pieces.items():
        add(key, piece.part.model, spiking, disabled, None)
    for key, computing in segments.parts.items():
        add(key, computing.model, stood_for, disabled, None)
    runner = sessions["ann unoptimised"]
    samples = (
        load_samples(data, runner, batch_axis) if data is not None else random_samples(runner, batch_axis=batch_axis)
    )
    axes = sample_axes(runner, samples, outputs)
    del runner  # of large networks one session is open at a time
    altered = [f"weight '{name}' is not what calibration made it" for name in changed]
    if trains and record.kinds is not None:
        others = altered_trains(written, record.kinds, checks)
        altered += [
            f"trains of '{name}' are coded or decoded otherwise than its levels and record say" for name in others
        ]
    result = Verification(
        len(samples), data is None, [check.layer for check in checks], list(segments.segments), atol, altered
    )
    counts = CountCheck(deployed, checks)
    for key, network in (("ann", source), ("snn", replace(deployed, proto=counts.model))):
        try:
            add(key, network.proto, network, None, providers)
        except PconvError as error:
            result.load_errors[key] = error.message
    if counts.outputs:
        # Layers of integers run on their function bodies elsewhere.
        sessions.add(_BODIES, partial(_stock, deployed))
    if record.integer is not None:
        written_as = {key: record.integer.get(key) for key in ("weights", "input_bits", "islands")}
        result.integers = Exactness(**written_as, proof=prove(spiking))  # type: ignore[arg-type]
    if samples.labels is not None:
        result.correct = {"ann": 0, "snn": 0}
    if samples.targets is not None:
        result.target_errors = {"ann": TargetError(), "snn": TargetError()}
    steps = max((entry.steps for entry in converted), default=1)
    taken = segments.bytes_at_once(MODES[record.mode].time_steps(record.kinds or {}))
    parts = batches(samples, steps, min(samples_within(memory, taken), max(1, _ROWS // steps)))
    for part, feed in track(parts, "verifying", len(parts)):
        _verify_batch(result, segments, counts, sessions, outputs, axes, feed, samples, part)
    result.straight_through = without_straight_through(source) is not source
    result.taken_apart = taken_apart(source) is not source
    result.branches_not_entered = segments.branches_not_entered
    result.per_step_outputs = len(record.per_step_outputs)
    return result


def _stock(network: Network) -> Any:
    """A session of stock onnxruntime."""
    options = session_options()
    options.log_severity_level = 4  # errors are raised; logged as well they would be told twice
    return stock_session(network.proto, providers=["CPUExecutionProvider"], options=options)


def _counted(count: int, what: str) -> str:
    plural = what if count == 1 else f"{what}es" if what.endswith("ch") else f"{what}s"
    return f"{count} {plural}"


def _verify_batch(
    result: Verification,
    segments: SegmentCheck,
    counts: CountCheck,
    sessions: Sessions,
    names: list[str],
    axes: list[int | None] | None,
    feed: dict[str, Array],
    samples: Samples,
    part: slice,
) -> None:
    tapped = [output.name for output in segments.tapped.model.graph.output]
    whole = next(name for name in (_CALIBRATED, _RESPELLED, "ann unoptimised") if name in sessions)
    values = dict(zip(tapped, run_session(sessions[whole], feed), strict=True)) | feed
    segments.add(sessions, values)
    if result.integers is not None and counts.outputs and "snn" in sessions:
        result.integers.add_counts(counts.differing(run_session(sessions["snn"], feed, counts.outputs), values))
    outputs = {whole: by_sample([values[name] for name in names], axes)}
    del values
    outputs |= {
        name: by_sample(run_session(sessions[name], feed, names), axes)
        for name in ("ann unoptimised", "snn unoptimised", "ann", "snn")
        if name in sessions and name not in outputs
    }
    for comparison, expected, found in (
        (result.unoptimised, "ann unoptimised", "snn unoptimised"),
        (result.as_run, "ann", "snn"),
        (result.source_itself, "ann unoptimised", "ann"),
        (result.spiking_itself, "snn unoptimised", "snn"),
        (result.respelled, "ann unoptimised", _RESPELLED),
    ):
        if expected in outputs and found in outputs:
            comparison.add(outputs[expected], outputs[found], part.stop - part.start)
    if result.integers is not None:
        _compare_bits(result.integers, sessions, names, outputs, whole, samples, part, axes)
    index = classes(outputs["ann unoptimised"], part.stop - part.start)
    result.has_classes = index is not None

    def as_run(name: str) -> list[Array]:
        return outputs[name if name in outputs else f"{name} unoptimised"]

    if result.correct is not None and samples.labels is not None and index is not None:
        for name in result.correct:
            result.correct[name] += int((as_run(name)[index].argmax(1) == samples.labels[part]).sum())
    if result.target_errors is not None and samples.targets is not None:
        targets = samples.targets[part]
        index = target_output(names, outputs["ann unoptimised"], targets, "the source")
        for name in result.target_errors:
            result.target_errors[name] += TargetError.of(as_run(name)[index], targets)


# Samples that are run alone as well, of the first batch.
_ALONE = 3


def _compare_bits(
    integers: Exactness,
    sessions: Sessions,
    names: list[str],
    outputs: Mapping[str, list[Array]],
    form: str,
    samples: Samples,
    part: slice,
    axes: list[int | None] | None,
) -> None:
    """Compare runs of the spiking network with its integer form."""
    expected, runs = outputs[form], [outputs[key] for key in ("snn unoptimised", "snn") if key in outputs]
    if _BODIES in sessions and not part.start:
        runs.append(by_sample(run_session(sessions[_BODIES], samples.feed(part), names), axes))
    integers.add(expected, runs)
    if part.start or samples.fixed_batch is not None or not samples.first_everywhere:
        return
    key = "snn" if "snn" in sessions else "snn unoptimised"
    for index in range(min(_ALONE, part.stop)):
        alone = by_sample(run_session(sessions[key], samples.feed(slice(index, index + 1)), names), axes)
        if all(len(values) == part.stop for values in expected):
            integers.add([values[index : index + 1] for values in expected], [alone])


def _recorded(source: Network, spiking: Network) -> tuple[Record, list[Converted]]:
    """What the spiking network says of itself, and the activations that it converted.

    Raises:
        PconvError: it says nothing, or is a serial network, or was made from another source.
    """
    try:
        record = Record.read(spiking.proto)
    except ValueError as error:
        raise PconvError(
            f"{spiking.name} was not written by pconv-onnx rewrite", "pass the ANN first and then the spiking network"
        ) from error
    try:
        converted = record.converted
    except ValueError as error:
        raise PconvError(
            f"the record of {spiking.name} is not as rewrite wrote it", "rewrite the model again"
        ) from error
    if MODES[record.mode].one_step:
        raise PconvError(
            f"{spiking.name} is a serial network: its outputs depend on when spikes arrive and are not its source's",
            "verify what mode 'parallel' gives; accuracy is measured by evaluate with mode 'serial'",
        )
    if record.source_sha256 != source.sha256:
        raise PconvError(f"{spiking.name} was not made from {source.name}", "pass the file that was rewritten")
    return record, converted


def _stood_for(source: Network, spiking: Network, record: Record) -> tuple[Network, list[str]]:
    """The network whose activations the neurons stand for: the source, or what a calibration made of it.

    Returns:
        It, and the tensors of the spiking network that were calibrated and have been changed since.

    Raises:
        PconvError: the record does not have it.
    """
    if record.calibration is None and record.integer is None:
        return _with_sizes(respelled(source)), []
    try:
        if record.calibrated_form is None:
            raise ValueError("an earlier version wrote it")
        model, changed = redrawn(record.calibrated_form, source.proto, spiking.proto)
        network = load(model)
    except (ValueError, PconvError) as error:
        raise PconvError(
            f"the record of {spiking.name} does not have the network that calibration made: {error}",
            "rewrite the model again",
        ) from error
    if [info.name for info in source.proto.graph.output] != [info.name for info in model.graph.output]:
        raise PconvError(
            f"{spiking.name} was calibrated with other outputs than {source.name} has", "rewrite that again"
        )
    made = "calibration" if record.integer is None else "integer weights"
    return replace(network, name=f"what {made} made of {source.name}"), changed


def _with_sizes(network: Network) -> Network:
    """The network with sizes that onnx does not infer, of onnxruntime's own operators for one: rounding has them."""
    if network.opset < MIN_OPSET:
        return network
    hints = with_observed_shapes(fold(network)).hints
    return replace(network, hints=hints) if hints else network


def _compare_tables(checks: Sequence[LayerCheck], stood_for: Network) -> None:
    """Compare neurons with those that their steps make of the source's activations."""
    if checks:
        network = prepared(stood_for)
        found = {
            (one.input.name, one.output.name): one.spec
            for signs in (where_zero, never)
            for one in recognise(network, signs=signs)
        }
        for check in checks:
            spec = found.get((check.converted.input, check.converted.output))
            if spec is not None:
                check.compare_tables(spec)


def _calibrated(converted: Sequence[Converted], source: Network, record: Record) -> list[Converted]:
    """The activations whose levels the source does not have."""
    if record.integer is not None:
        return list(converted)
    if record.calibration is None:
        return []
    makers = {name: node for node in every_node(source.proto.graph) for name in node.output if name}
    given = set(record.calibration.get("outputs", ()))
    return [entry for entry in converted if not _is_of_the_source(entry, source, makers, given)]


def _is_of_the_source(
    entry: Converted, source: Network, makers: Mapping[str, onnx.NodeProto], given_levels: Collection[str]
) -> bool:
    """Whether the source has levels there that a count could be equal to, where a calibration gave others some.

    A neuron may have taken in what stands behind such a one, a scaling for example, or in front of it; what an offset
    is added to is no tensor of the source at all.
    """
    if entry.input not in source.names or entry.output not in source.names:
        return False
    waiting, seen = [entry.output], {entry.input}
    while waiting:
        name = waiting.pop()
        if name in given_levels:
            return False
        if name not in seen and name in makers:
            waiting += makers[name].input
        seen.add(name)
    return True


def _refuse_neurons_without_record(spiking: Network, record: Record, converted: Sequence[Converted]) -> None:
    """Raise where the network has a neuron of which it does not say what it was, so that nothing would compare it.

    Raises:
        PconvError: it has.
    """
    trains = MODES[record.mode].keeps_time
    named = {entry.node for entry in converted}
    # What encodes the levels of other neurons is compared as what decodes these.
    encoded = {name for name, kind in (record.kinds or {}).items() if kind.levels and set(kind.neurons) <= named}
    for node in every_node(spiking.proto.graph):
        try:
            unnamed = is_layer(node, trains) and node.name not in named and node.output[0] not in encoded
        except KeyError:  # of an attribute that neurons have
            unnamed = True
        if unnamed:
            raise PconvError(
                f"the record of {spiking.name} does not name the activation of its neuron '{node.name}'",
                "rewrite the model again",
            )


# Names of the inputs of a session, and types of its outputs by name.
_Ends = tuple[list[str], dict[str, str]]


def _ends(session: Any) -> _Ends:
    return [entry.name for entry in session.get_inputs()], {entry.name: entry.type for entry in session.get_outputs()}


def _check_ends(tapped: _Ends, snn: _Ends, source: Network, spiking: Network, record: Record) -> None:
    """Refuse networks whose inputs or outputs are not each other's, or are no tensors."""
    outputs = [output.name for output in source.proto.graph.output]
    if snn[0] != tapped[0] or list(snn[1]) != outputs + list(record.per_step_outputs):
        raise PconvError(f"{spiking.name} has other inputs or outputs than {source.name}", "rewrite that again")
    for name in outputs:
        if not tapped[1][name].startswith("tensor("):
            raise PconvError(f"output '{name}' of {source.name} is {tapped[1][name]}; only tensors can be compared")
