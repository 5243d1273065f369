"""From a network to its plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from pconv_onnx.basics.choices import CODINGS, MAX_STEPS, PRECISIONS, CodingName, ModeName, Precision
from pconv_onnx.basics.errors import PconvError, WrongArguments, listed
from pconv_onnx.graph import Network
from pconv_onnx.graph.tensors import references
from pconv_onnx.graph.view import key_of
from pconv_onnx.neuron.quantiser import Neuron
from pconv_onnx.plan.in_time import between_neurons, bypassed, hands_spikes_on, in_time, unused
from pconv_onnx.plan.modes import Mode, mode_of
from pconv_onnx.plan.plan import Plan, Planned
from pconv_onnx.plan.selection import (
    chosen,
    encoded_by,
    if_a_neuron_encodes_it,
    names_of,
    of_one_type,
    refuse_patterns_of_nothing,
    refuse_spiking,
    refused,
    why_not_wanted,
)
from pconv_onnx.plan.wanted import Wanted
from pconv_onnx.recognise import Activation, recognise
from pconv_onnx.recognise.base import never
from pconv_onnx.recognise.calibratable import READOUT, readouts, why_not_calibrated
from pconv_onnx.temporal.kinds import Kind


def make_plan(
    network: Network,
    *,
    mode: ModeName = "parallel",
    steps: int | None = None,
    coding: CodingName = "auto",
    precision: Precision | None = None,
    signed: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    per_step_outputs: bool = False,
    why_it_stays: Callable[[str, Sequence[str]], str] | None = None,
    places: Sequence[Planned] = (),
    no_activations: Collection[str] = (),
) -> Plan:
    """Decide what becomes of every activation and every tensor.

    Args:
        network: the source, of opset `MIN_OPSET` or later.
        mode: one of `MODES`.
        steps: T of every neuron; by default each neuron has as many as the levels of its activation need, which is
            lossless.
        coding: how trains carry spike counts, as in `Wanted`.
        precision: `float16` computes a float32 network in float16; None keeps the source's type.
        signed: whether values below zero are carried with an offset, so that activations without a level at zero are
            converted as well.
        include: shell patterns of activation names; if given, other activations stay as they are.
        exclude: shell patterns of names of activations that stay as they are.
        per_step_outputs: whether outputs are also given at each step.
        why_it_stays: gives the calibration's reason why an activation has no levels, from the name of its input and its
            operator types; empty if the calibration did not look at it. None without a calibration.
        places: tensors that products read and that have no levels, so that they are only listed.
        no_activations: keys of nodes that only look like activations: they quantise the network's inputs.

    Raises:
        PconvError: the network is already a spiking one; `mode`, `steps`, `coding` or `precision` is out of range; a
            pattern matches no activation; no output has a time axis.
        WrongArguments: `mode` or `per_step_outputs` does not go with the coding.
    """
    chosen_mode = mode_of(mode)
    if steps is not None and steps not in range(1, MAX_STEPS + 1):
        raise PconvError(f"{steps!r} is not a number of time-steps", f"choose 1 to {MAX_STEPS}")
    if coding not in CODINGS:
        raise PconvError(f"there is no coding '{coding}'", f"choose {', '.join(CODINGS)}")
    if coding == "radix" and not chosen_mode.codes:
        raise WrongArguments(
            f"mode '{mode}' runs one time-step at a time, whose spikes are worth the same, and has no coding 'radix'",
            "choose coding 'rate', or mode 'parallel' or 'folded'",
        )
    if per_step_outputs and coding == "auto":
        coding = "rate"
    # A number of NumPy's could not be recorded.
    wanted = Wanted(None if steps is None else int(steps), coding, signed, precision)
    if precision not in (None, *PRECISIONS):
        raise PconvError(f"there is no precision '{precision}'", f"choose {', '.join(PRECISIONS)}")
    if precision is not None and references(network.proto):
        raise PconvError(
            f"{network.name} is too large for one file, and precision {precision} is for models that are not",
            "leave this network in float32",
        )
    if per_step_outputs and not chosen_mode.keeps_time:
        raise WrongArguments(f"mode '{mode}' has no time-steps to hand out", "choose mode 'parallel'")
    refuse_spiking(network)
    signs = wanted.signs if chosen_mode.codes else never
    recognised = _if_data_can_help(
        network,
        [
            activation
            for activation in recognise(network, signs=signs)
            if not any(key_of(node) in no_activations for node in activation.nodes)
        ],
    )
    every_one: list[Activation | Planned] = [*recognised, *places]
    names = [name for one in every_one for name in names_of(one)]
    refuse_patterns_of_nothing(network, names, (*include, *exclude))
    found = [
        _if_it_fits(chosen(activation, wanted, chosen_mode, include, exclude, why_it_stays), chosen_mode, network)
        for activation in recognised
    ]
    activations = of_one_type(found)
    neurons: dict[str, Neuron] = {}
    for index, activation in enumerate(activations):
        if activation.spec is None:
            continue
        try:
            neurons[activation.name] = chosen_mode.neuron(activation.spec, wanted)
        except ValueError as error:
            activations[index] = refused(activation, str(error))
    encoded = encoded_by(activation for activation in activations if activation.name in neurons)
    activations = [if_a_neuron_encodes_it(activation, encoded) for activation in activations]
    replaced: dict[str, Activation | None] = {}
    for activation in activations:
        if activation.name in neurons:
            replaced.update({key_of(node): None for node in activation.nodes})
            replaced[key_of(activation.nodes[-1])] = activation
    chosen_mode.refuse_neurons(network, neurons)
    passages, kinds = in_time(network, network.graph, neurons, replaced, weights=coding != "rate")
    chosen_mode.refuse_nodes(network, activations, replaced, passages, kinds)
    activations = [activation for activation in activations if not hands_spikes_on(activation, passages)]
    if not chosen_mode.keeps_time:
        passages = {}
    replaced |= dict.fromkeys(unused(network, network.graph, replaced, passages)[0])
    return Plan(
        network,
        chosen_mode,
        [*(_planned(activation) for activation in activations), *(_if_wanted(one, include, exclude) for one in places)],
        neurons,
        {key: ended.name if ended is not None else None for key, ended in replaced.items()},
        passages,
        kinds,
        _per_step_outputs(network, kinds, neurons) if per_step_outputs and neurons else {},
        between_neurons(network, activations, neurons),
        bypassed(activations, neurons),
    )


def _if_data_can_help(network: Network, activations: Sequence[Activation]) -> list[Activation]:
    """The activations; refused are those that need a calibration that `calibrate` would not give them."""
    stay = {id(one): READOUT for one in readouts(network, activations)}
    found = []
    for one in activations:
        reason = stay.get(id(one), "")
        if not reason and one.status == "needs-calibration":
            reason = why_not_calibrated(network, one)
        found.append(refused(one, reason) if reason else one)
    return found


def _if_it_fits(activation: Activation, mode: Mode, network: Network) -> Activation:
    """The activation; refused if it has levels and the mode has no neuron for it."""
    reason = mode.why_not(activation, network) if activation.spec is not None else ""
    return refused(activation, reason) if reason else activation


def _if_wanted(place: Planned, include: Sequence[str], exclude: Sequence[str]) -> Planned:
    """A place; refused if the user does not want it converted."""
    reason = why_not_wanted(names_of(place), include, exclude)
    return replace(place, status="refused", reason=reason) if reason else place


def _planned(activation: Activation) -> Planned:
    return Planned(
        activation.name,
        activation.encoding,
        activation.op_types,
        tuple(map(key_of, activation.nodes)),
        activation.input.name,
        activation.output.name,
        activation.status,
        activation.reason,
        activation.spec,
        activation.also_called,
    )


def _per_step_outputs(network: Network, kinds: Mapping[str, Kind], neurons: Mapping[str, Neuron]) -> dict[str, str]:
    """A new name for each output that has a time axis.

    Raises:
        PconvError: no output has one, or the mean over the first steps of a train would have no meaning.
    """
    weighted = [name for name, neuron in neurons.items() if neuron.coding.weighted]
    if weighted:
        raise WrongArguments(
            f"spikes of {network.name} have weights ('{weighted[0]}' is in coding 'radix'), and the mean over the "
            "first of them, behind a bias, stands for nothing",
            "choose `coding='rate'`, or leave `per_step_outputs=True` out",
        )
    names = [output.name for output in network.proto.graph.output]
    in_time = [name for name in names if name in kinds]
    if not in_time:
        told = listed([f"'{name}'" for name in names])
        raise PconvError(
            f"no output of {network.name} has time-steps: {told} come after an operator that needs the temporal mean",
            "leave `per_step_outputs=True` out",
        )
    per_step: dict[str, str] = {}
    for name in in_time:
        per_step[name] = f"{name}_per_step"
        while per_step[name] in network.names:
            per_step[name] += "_"
    return per_step
