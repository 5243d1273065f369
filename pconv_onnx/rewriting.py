"""`inspect` and `rewrite`: from a model to a plan, and on to a spiking model."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import onnx

from pconv_onnx.answers.lines import plan_lines, rewriting_lines
from pconv_onnx.answers.printing import Document, Part, Printed
from pconv_onnx.basics.arguments import each
from pconv_onnx.basics.choices import (
    METHODS,
    NEURONS,
    WEIGHTS,
    CodingName,
    ModeName,
    NeuronsName,
    Precision,
    WeightsName,
)
from pconv_onnx.basics.errors import PconvError, note
from pconv_onnx.basics.places import require_writable
from pconv_onnx.basics.progress import Progress, shows_progress
from pconv_onnx.basics.reasons import by_reason
from pconv_onnx.calibration import Calibration, calibrate, outline, places
from pconv_onnx.calibration.settings import require_neurons
from pconv_onnx.data.given import read_again
from pconv_onnx.data.samples import BatchAxis, DataSource
from pconv_onnx.graph import ModelSource, Network, load, refuse_to_overwrite, require_own_file, save
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.sketch import sketch
from pconv_onnx.integer.form import IntegerForm, integer_form
from pconv_onnx.integer.settings import require_integers
from pconv_onnx.lower.fusing.fusing import ON_FLOATS
from pconv_onnx.lower.modes import lower
from pconv_onnx.plan.modes import OF_INTEGERS, mode_of
from pconv_onnx.plan.plan import Plan
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.runtime.entrance import prepared

# What reads spikes does not depend on how many levels a calibration gives.
_ANY_STEPS = 4


@dataclass(frozen=True, eq=False)
class Rewriting(Printed):
    """What `rewrite` did.

    Attributes:
        model: the spiking network; None after a dry run. Where its source is too large for one file, large tensors
            stay in the source's files, which it names as the source does.
        plan: why it is as it is.
        calibration: how its ReLUs were quantised first, if they were.
        neurons: what was to become a neuron.
        integers: how its weights were made such, if they were.
    """

    model: onnx.ModelProto | None = field(repr=False)
    plan: Plan
    calibration: Calibration | None = None
    neurons: NeuronsName = NEURONS[0]
    integers: IntegerForm | None = None

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx rewrite`."""
        calibration = self.calibration.found_summary() if self.calibration is not None else None
        integers = None
        if self.integers is not None:
            integers = {**self.integers.summary(), "neurons_on_floats": self._neurons_on_floats()}
        return {**self.plan.summary(), "neurons": self.neurons, "calibration": calibration, "integer": integers}

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return rewriting_lines(document if self.model is not None else {**document, "output": None})

    def _neurons_on_floats(self) -> dict[str, str] | None:
        """Why mode `integer` leaves activations on floats, by name; None in other modes, and of a mere plan."""
        if self.model is None or self.plan.mode not in OF_INTEGERS:
            return None
        names = {entry.node: entry.name for entry in Record.read(self.model).converted}
        return {
            names[node.name]: entry.value
            for node in every_node(self.model.graph)
            for entry in node.metadata_props
            if entry.key == ON_FLOATS and node.name in names
        }


class Inspection(Document):
    """What `inspect` found: the JSON document of `pconv-onnx inspect`."""

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return plan_lines(document)


def inspect(source: ModelSource, *, neurons: NeuronsName = NEURONS[0]) -> Inspection:
    """Every activation of a model: what it is, whether `rewrite` would convert it, and if not why.

    And which products would read spikes: where activations need a calibration, once they have had one.

    Args:
        source: path of an ONNX file, or a model in memory.
        neurons: as `rewrite` takes it.

    Returns:
        The JSON document of `pconv-onnx inspect`.

    Raises:
        PconvError: the model cannot be read, or is a spiking one already.
    """
    require_neurons(neurons, offsets=False)
    plan = make_plan(prepared(source), places=places(source) if neurons == "products" else ())
    calibrated = _once_calibrated(source, plan, neurons)
    expected = (calibrated or plan).spike_driven.summary()
    summary = {**plan.summary(), "neurons": neurons}
    return Inspection({**summary, "spike_driven": {**expected, "once_calibrated": calibrated is not None}})


def _once_calibrated(source: ModelSource, plan: Plan, neurons: NeuronsName) -> Plan | None:
    """The plan of a network whose activations data gave levels, which a calibration knows but for values.

    None where none needs that, or it cannot be calibrated.
    """
    if all(activation.status != "needs-calibration" for activation in plan.activations):
        return None
    try:
        return make_plan(prepared(outline(source, _ANY_STEPS, coding="radix", neurons=neurons).model), coding="radix")
    except PconvError:
        return None


@shows_progress
def rewrite(
    source: ModelSource,
    output: str | os.PathLike[str] | None = None,
    *,
    steps: int | None = None,
    coding: CodingName = "auto",
    neurons: NeuronsName = NEURONS[0],
    mode: ModeName = "parallel",
    precision: Precision | None = None,
    signed: bool = False,
    calibration: DataSource | None = None,
    batch_axis: BatchAxis = 0,
    method: str | None = None,
    weights: WeightsName | None = None,
    input_bits: int | None = None,
    input_range: tuple[float, float] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    per_step_outputs: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress = None,
) -> Rewriting:
    """Replace each quantised activation by a parallel spiking neuron.

    Args:
        source: path of an ONNX file, or a model in memory.
        output: where to write the spiking model; None only returns it.
        steps: time-steps T of every neuron, 1 to 256; by default each has as many as the levels of its source need,
            which is lossless.
        coding: how trains carry spike counts. `rate`, the paper's: k of T equal spikes for the k-th level. `radix`: its
            binary digits, spikes of each step worth twice those of the next, so that 255 levels take 8 steps. `auto`
            is `rate`, but without `steps` or a calibration `radix` for activations of more than 16 levels. Where levels
            below zero exist and zero is one, trains have signs.
        neurons: what becomes a neuron: activations, or `products`: what products (convolutions, matrix products, gates)
            read as well, as `calibrate` takes it. Where it has no levels, it is told as what needs a calibration.
        mode: `parallel`, `folded`, `serial`: one time-step, which a `SerialSession` repeats, or `integer`: layers of
            integer weights that read and give spike counts as uint8, with their neurons inside; `integer-parallel` has
            trains in their place (docs/integers.md).
        precision: `float16` turns a float32 network into that type, inputs and outputs excepted; None keeps its type.
        signed: carry values below zero with an offset, not with signs, and convert activations whose levels lack zero
            as well. Where silent such neurons emit their lowest value, so that every time-step costs what dense values
            cost.
        calibration: data as `calibrate` takes them; ReLUs are then quantised first, to the levels that `steps` have in
            the coding.
        batch_axis: along which axis of the inputs samples of the calibration lie in the model, as `calibrate` takes it.
        method: of the calibration, `refit` unless another is named.
        weights: `int8` or `int4` rounds weights to integers, which float tensors carry, so that no sum of the network
            rounds: modes, batches, threads and machines give the same bits (docs/integers.md). With a calibration, to
            those that lose least on its data. Mode `integer` has int8 unless int4 is asked for.
        input_bits: 8 quantises the network's inputs as well, without which the first layers compute on floats.
        input_range: least and largest value of these inputs; those of the calibration by default.
        include: one shell pattern or several of activation names to convert; by default all.
        exclude: one or several of activation names to leave as they are.
        per_step_outputs: add to each output that has time-steps an output `<name>_per_step` `[T, B, …]`, row t the mean
            over the first t steps. Steps are not causal: that is not what the network gives with t steps.
        strict: refuse to write anything where an activation is not converted.
        dry_run: only plan.
        force: allow `output` to be the source.
        progress: as `calibrate` takes it.

    Raises:
        PconvError: the model cannot be read, nothing can be converted, or the file cannot be written.
    """
    if calibration is None and method is not None:
        raise PconvError(f"there is no calibration for the method '{method}'", "pass data as `calibration=`")
    offsets = signed or not mode_of(mode).codes
    if mode_of(mode) in OF_INTEGERS and weights is None:
        weights = WEIGHTS[0]
    require_neurons(neurons, offsets=offsets)
    require_integers(
        weights,
        input_bits,
        input_range,
        {
            "mode 'serial'": not mode_of(mode).codes,
            f"precision '{precision}'": precision is not None,
            "signed levels with an offset": signed,
            "outputs at each step": per_step_outputs,
        },
    )
    if output is not None and not force:
        refuse_to_overwrite(source, output)
    if output is not None:
        require_own_file(output, {"the calibration's data": calibration})
    if output is not None and not dry_run:
        require_writable(output)
    given = load(source)
    if weights is not None:  # activations and weights are found on the same data
        calibration = read_again(calibration)

    def planned(
        network: Network,
        calibrated: Calibration | None = None,
        no_activations: Collection[str] = (),
        mode: ModeName = mode,
    ) -> Plan:
        plan = make_plan(
            network,
            mode=mode,
            steps=steps,
            coding=coding,
            precision=precision,
            signed=signed,
            include=each(include),
            exclude=each(exclude),
            per_step_outputs=per_step_outputs,
            why_it_stays=calibrated.why_it_stays if calibrated is not None else None,
            places=places(source) if neurons == "products" and calibrated is None else (),
            no_activations=no_activations,
            also_called=_also_called(calibrated),
        )
        _require_neurons(plan, strict)
        return plan

    def with_levels(calibrated: Calibration) -> Plan:
        return planned(prepared(replace(given, proto=calibrated.model)), calibrated)

    calibrated = None
    # Integer weights take data for networks that have levels already.
    if calibration is None or (weights is not None and not _lacks_levels(source, neurons)):
        if method is not None:
            raise PconvError(f"{given.name} has levels: nothing is calibrated by '{method}'", "leave `method=` out")
        network = prepared(given)
        _note_another_opset(given, network.opset)
        plan = planned(network)
    else:
        if steps is None:
            raise PconvError("calibration needs a number of time-steps", "pass `steps=`")
        # What no data change is told before a calibration takes its time.
        outlined = with_levels(outline(source, steps, coding=coding, neurons=neurons, signed=offsets))
        _note_another_opset(given, outlined.network.opset)
        calibrated = calibrate(
            source,
            calibration,
            batch_axis=batch_axis,
            steps=steps,
            coding=coding,
            neurons=neurons,
            signed=offsets,
            method=method or METHODS[0],
        )
        plan = with_levels(calibrated)
    integers = None
    if weights is not None:
        integers = integer_form(plan, weights, input_bits, input_range, calibration, batch_axis)

    def lowered(plan: Plan, stands_for: onnx.ModelProto | None) -> onnx.ModelProto:
        model = lower(plan, None if calibrated is None else calibrated.provenance())
        if stands_for is not None:
            form = sketch(stands_for, given.proto, model)
            replace(Record.read(model), calibrated_form=form).write(model)
        return model

    if integers is None:
        model = None if dry_run else lowered(plan, None if calibrated is None else calibrated.model)
    else:
        for form in integers.by_grain():
            network = prepared(replace(given, proto=form.model))
            # Trains have the largest sums, and modes are to have the same network.
            trains = partial(planned, network, calibrated, form.no_activations, "parallel")
            if form.is_coarsest or not form.proved(lower(trains())).overflows:
                break
        plan = planned(network, calibrated, form.no_activations)
        integers, model = form, None
        if not dry_run:
            model = lowered(plan, form.model)
            integers = form.proved(model)
            integers.require_exact()
            replace(Record.read(model), integer=integers.record()).write(model)
    if output is not None and model is not None:
        save(model, output, plan.network.folder)
    return Rewriting(model, plan, calibrated, neurons, integers)


def _lacks_levels(source: ModelSource, neurons: NeuronsName) -> bool:
    """Whether there is something that only data give levels."""
    plan = make_plan(prepared(source), places=places(source) if neurons == "products" else ())
    return any(activation.status == "needs-calibration" for activation in plan.activations)


def _also_called(calibrated: Calibration | None) -> dict[str, str]:
    """What the source calls what a calibration gave levels besides, by name."""
    found = calibrated.found.activations if calibrated is not None else ()
    return {entry.activation.name: entry.activation.also_called for entry in found}


def _note_another_opset(given: Network, opset: int) -> None:
    if opset != given.opset:
        note(f"{given.name} uses opset {given.opset}; what is written uses opset {opset}")


def _require_neurons(plan: Plan, strict: bool) -> None:
    """Raise where a plan converts nothing, or, if that is wanted, not all.

    Raises:
        PconvError: it does so.
    """
    told = by_reason((one.name, one.reason) for one in plan.activations if one.name not in plan.neurons)
    if not plan.neurons:
        hint = "" if told else "give products neurons: `neurons='products', calibration='data.npz', steps=T`"
        raise PconvError(f"nothing to convert in {plan.network.name}: {told or 'it has no activation'}", hint)
    if strict and told:
        raise PconvError(f"not all activations can be converted: {told}", "without `strict=True` the others are")
