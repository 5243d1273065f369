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
    READOUTS,
    WEIGHTS,
    CodingName,
    ModeName,
    NeuronsName,
    Precision,
    ReadoutsName,
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

# Any number of levels will do: which products read spikes does not depend on it.
_ANY_STEPS = 4


@dataclass(frozen=True, eq=False)
class Rewriting(Printed):
    """What `rewrite` did.

    Attributes:
        model: the spiking network; None after a dry run. If the source is too large for one file, large tensors stay in
            the source's files, and the model refers to them.
        plan: what was converted, what was not, and why.
        calibration: how ReLUs and other activations were quantised first; None without calibration data.
        neurons: what was to become a neuron: `activations` or `products`.
        integers: how weights were rounded to integers; None if they were not.
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
        """Why mode `integer` leaves activations on floats, by name; None in other modes, and after a dry run."""
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
    """List every activation of a model: what it is, whether `rewrite` would convert it, and if not, why.

    Also say which products would read spikes. For activations that need a calibration, it assumes that they have it.

    Args:
        source: path of an ONNX file, or a model in memory.
        neurons: as `rewrite` takes it.

    Returns:
        The JSON document of `pconv-onnx inspect`.

    Raises:
        PconvError: the model cannot be read, or is a spiking network already.
    """
    require_neurons(neurons, offsets=False)
    plan = make_plan(prepared(source), places=places(source) if neurons == "products" else ())
    calibrated = _once_calibrated(source, plan, neurons)
    expected = (calibrated or plan).spike_driven.summary()
    summary = {**plan.summary(), "neurons": neurons}
    return Inspection({**summary, "spike_driven": {**expected, "once_calibrated": calibrated is not None}})


def _once_calibrated(source: ModelSource, plan: Plan, neurons: NeuronsName) -> Plan | None:
    """The plan after a calibration, of which only the values of the levels are not known yet.

    None if no activation needs a calibration, or the network cannot be calibrated.
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
        steps: number of time-steps T of every neuron, 1 to 256. By default each neuron has as many as the levels of its
            activation need, which is lossless.
        coding: how spike trains carry spike counts. `rate`: count k is k equal spikes in T steps, as in the paper.
            `radix`: the spikes are binary digits of k, each worth twice that of the next step, so 8 steps carry 255
            levels. `auto` is `radix` for activations with more than 16 levels if neither `steps` nor `calibration` is
            given, else `rate`. Spikes have signs if there are levels below zero and zero is a level.
        neurons: what becomes a neuron: `activations`, or `products`: also the tensors that products (convolutions,
            matrix products, gates) read otherwise. Calibration gives these their levels.
        mode: what flows through the network. `parallel`: spike trains `[T·B, …]`; `folded`: their temporal means
            `[B, …]`; `serial`: one time-step in each run, which a `SerialSession` repeats; `integer`: spike counts as
            uint8, between layers with integer weights; `integer-parallel`: spike trains between the same layers
            (docs/integers.md).
        precision: `float16` computes a float32 network in float16; inputs and outputs keep their type. None keeps all
            types.
        signed: carry values below zero with an offset instead of signed spikes, and also convert activations without a
            level at zero. A silent neuron then emits its lowest value, so it saves no operations.
        calibration: data as `calibrate` takes them. Activations without levels are quantised first, to as many levels
            as `steps` time-steps carry in `coding`.
        batch_axis: the axis of the model's inputs that counts samples, for the calibration, as `calibrate` takes it.
        method: of the calibration; `refit` by default.
        weights: `int8` or `int4` rounds weights to integers, which float tensors hold, so that no sum rounds: all
            modes, batch sizes, thread counts and machines give the same bits (docs/integers.md). With a calibration,
            the integers are those that lose least on its data. Mode `integer` takes `int8` by default.
        input_bits: 8 also rounds the network's inputs, to 256 values. Without it the layers that read them compute on
            floats.
        input_range: lowest and highest value of these inputs; by default those in the calibration data.
        include: one shell pattern or several: only activations whose name fits are converted. By default all are.
        exclude: one or several: activations whose name fits stay as they are.
        per_step_outputs: for each output that has time-steps, add an output `<name>_per_step` `[T, B, …]`. Its row t is
            the mean over the first t steps. Steps are not causal, so that is not what a network with t steps gives.
        strict: raise if any activation is not converted, and write nothing.
        dry_run: only plan, and write nothing.
        force: allow `output` to replace the source.
        progress: as `calibrate` takes it.

    Raises:
        PconvError: the model cannot be read, nothing can be converted, or the file cannot be written.
    """
    if calibration is None and method is not None:
        raise PconvError(f"there is no calibration for the method '{method}'", "pass data as `calibration=`")
    offsets = signed or not mode_of(mode).codes
    if mode_of(mode) in OF_INTEGERS and weights is None:
        weights = WEIGHTS[0]
    all_spike = not mode_of(mode).codes or weights is not None or per_step_outputs or strict
    readouts: ReadoutsName = "spiking" if all_spike else READOUTS[0]
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
        # Errors that do not depend on the data are raised before the calibration, which takes long.
        outlined = with_levels(
            outline(source, steps, coding=coding, neurons=neurons, signed=offsets, readouts=readouts)
        )
        _note_another_opset(given, outlined.network.opset)
        calibrated = calibrate(
            source,
            calibration,
            batch_axis=batch_axis,
            steps=steps,
            coding=coding,
            neurons=neurons,
            signed=offsets,
            readouts=readouts,
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
            # Spike trains have the largest sums, and all modes are to have the same network.
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
    """Whether something needs data to have levels."""
    plan = make_plan(prepared(source), places=places(source) if neurons == "products" else ())
    return any(activation.status == "needs-calibration" for activation in plan.activations)


def _note_another_opset(given: Network, opset: int) -> None:
    if opset != given.opset:
        note(f"{given.name} uses opset {given.opset}; what is written uses opset {opset}")


def _require_neurons(plan: Plan, strict: bool) -> None:
    """Raise if a plan converts nothing, or, with `strict`, not everything.

    Raises:
        PconvError: nothing, or not all, can be converted.
    """
    told = by_reason((one.name, one.reason) for one in plan.activations if one.name not in plan.neurons)
    if not plan.neurons:
        hint = "" if told else "give products neurons: `neurons='products', calibration='data.npz', steps=T`"
        raise PconvError(f"nothing to convert in {plan.network.name}: {told or 'it has no activation'}", hint)
    if strict and told:
        raise PconvError(f"not all activations can be converted: {told}", "without `strict=True` the others are")
