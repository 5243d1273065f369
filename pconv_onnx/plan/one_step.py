"""Refuses what mode `serial` cannot have: neurons of different T, temporal means, membrane potentials in branches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.view import key_of
from pconv_onnx.neuron.quantiser import Neuron
from pconv_onnx.recognise import Activation
from pconv_onnx.temporal.kinds import Kind, Passage


def refuse_different_steps(network: Network, neurons: Mapping[str, Neuron]) -> None:
    """Raise if neurons need different numbers of time-steps.

    Raises:
        PconvError: they do.
    """
    counts = sorted({neuron.steps for neuron in neurons.values()})
    if len(counts) > 1:
        told = f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"
        raise PconvError(
            f"the activations of {network.name} have {told} levels, and mode 'serial' runs all neurons for the same "
            "number of time-steps",
            "pass `steps=`",
        )


# The maximum of trains that are not sorted is not the train of the maximum; likewise the minimum.
_EXTREMA = {"MaxPool": "maximum", "GlobalMaxPool": "maximum", "ReduceMax": "maximum", "Max": "maximum",
            "ReduceMin": "minimum", "Min": "minimum"}  # fmt: skip


def refuse_what_one_step_cannot_do(
    network: Network,
    activations: Sequence[Activation],
    replaced: Collection[str],
    passages: Mapping[str, Passage],
    kinds: Mapping[str, Kind],
) -> None:
    """Raise if a node needs the temporal mean, which a network of one time-step never has.

    Raises:
        PconvError: a node does.
    """
    owners = {key_of(node): activation for activation in activations for node in activation.nodes}
    for proto in network.proto.graph.node:
        key = key_of(proto)
        in_time = [name for name in (*proto.input, *sorted(captured(proto))) if name in kinds]
        # A tensor has the same shape at each step.
        held = passages[key].held if key in passages else ()
        passes = (key in passages and not held and proto.op_type not in _EXTREMA) or proto.op_type == "Shape"
        if key in replaced or not in_time or passes:
            continue
        owner = owners.get(key)
        mean = proto.input[held[0]] if held else in_time[0]
        what = f"activation '{owner.name}'" if owner else f"{proto.op_type} '{proto.name or key}'"
        if key in passages and not held:
            extremum = _EXTREMA[proto.op_type]
            why = f"takes a {extremum} over spikes, which the trains of serial neurons, not being sorted, do not have"
        else:
            why = f"needs the temporal mean of '{owner.input.name if owner else mean}'"
            if owner is not None and owner.reason:
                why += f": {owner.reason}"
        raise PconvError(
            f"mode 'serial' cannot take {network.name}, one time-step at a time: {what} {why}",
            "modes 'parallel' and 'folded' take it",
        )


def why_no_potentials(activation: Activation, network: Network) -> str:
    """Why no membrane potential can be kept for an activation; empty if one can."""
    others = "modes 'parallel' and 'folded' convert it"
    if place := network.place(activation.nodes[0]):
        return f"it is in {place}, where no membrane potential can be kept; {others}"
    if network.shape(activation.input) is None:
        # Inputs and outputs of a model need a shape, at least one of open sizes.
        return f"how many axes its input has is not known; {others}"
    return ""
