"""What is to be calibrated: activations without levels, and places in front of products, as an outline tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pconv_onnx.basics.choices import METHODS, NEURONS
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.reasons import by_reason
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.functions import becomes_thresholds, clip_of
from pconv_onnx.calibration.places import Place, activations, places_of, products_at, with_places
from pconv_onnx.calibration.settings import Settings
from pconv_onnx.calibration.staircases import Staircase, mirrored
from pconv_onnx.calibration.writing import Quantised, quantised_model
from pconv_onnx.graph import ModelSource, Network, load
from pconv_onnx.graph.passes.late_normalisation import normalised_late
from pconv_onnx.graph.passes.pipeline import in_standard_operators
from pconv_onnx.graph.tensors import references
from pconv_onnx.graph.view import key_of
from pconv_onnx.neuron.coding import Radix
from pconv_onnx.plan.plan import Planned
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.plan.selection import refuse_spiking
from pconv_onnx.plan.spike_driven import off_spikes
from pconv_onnx.recognise import Activation, recognise
from pconv_onnx.recognise.base import Status
from pconv_onnx.recognise.calibratable import READOUT, readouts, why_not_calibrated
from pconv_onnx.runtime.entrance import prepared
from pconv_onnx.temporal.kinds import Kind

# An activation without levels, and why it gets none; empty where it can.
Told = tuple[Activation, str]


def quantisable(source: ModelSource) -> Network:
    """The network as it is calibrated.

    Raises:
        PconvError: it cannot be read, is too large, or is a spiking one.
    """
    network = load(source)
    if references(network.proto):
        raise PconvError(
            f"{network.name} is too large for one file, and calibration takes models that are not",
            "quantise it where it is trained (QCFS)",
        )
    network = prepared(network)
    refuse_spiking(network)
    return in_standard_operators(network)


def to_calibrate(network: Network, settings: Settings) -> tuple[Network, list[Activation], list[Told]]:
    """The network with an Identity in front of products that are to read spikes, and what gets levels.

    Returns:
        It, what can be calibrated in topological order, and what cannot.

    Raises:
        PconvError: nothing can.
    """
    network, placed = _placed(network) if settings.neurons == "products" else (network, {})
    told, recognised = _told(network, placed), recognise(network)
    if not told and (count := len(recognised)):
        raise PconvError(
            f"nothing to calibrate in {network.name}: all of its activations ({count}) have levels of their own",
            "pass it to pconv-onnx rewrite",
        )
    if settings.readouts == "analog":
        stay = {one.output.name for one in readouts(network, recognised)}
        # Where all others have levels, these are what there is to calibrate.
        if any(not reason and one.output.name not in stay for one, reason in told):
            told = [(one, READOUT if one.output.name in stay else reason) for one, reason in told]
    chosen, left = [one for one, reason in told if not reason], [entry for entry in told if entry[1]]
    require(chosen, left, network)
    return network, chosen, left


def places(source: ModelSource) -> list[Planned]:
    """What neurons would stand in front of, for products to read spikes, once all activations are calibrated.

    Raises:
        PconvError: as `calibrate`.
    """
    network, placed = _placed(quantisable(source))
    found = []
    for one in activations(network, placed):
        readers = products_at(one.nodes[0])
        op_types, keys = [node.op for node in readers], tuple(map(key_of, readers))
        reason = why_not_calibrated(network, one)
        status: Status = "refused" if reason else one.status
        ends = one.input.name, one.output.name
        found.append(Planned(one.name, one.encoding, op_types, keys, *ends, status, reason or one.reason, None))
    return found


def _placed(network: Network) -> tuple[Network, dict[str, Place]]:
    """The network with an Identity in front of products that are to read spikes, and these by what it gives."""
    placed: dict[str, Place] = {}
    kinds = _kinds(network, placed)
    late = normalised_late(network, {key_of(product.node) for product in off_spikes(network, kinds)})
    if late is not network:
        network, kinds = late, _kinds(late, placed)
    for behind in (False, True):
        found, right_in_front = (places_of(network, kinds, placed, behind=place) for place in (behind, True))
        network, more = with_places(network, found)
        placed |= more
        if found == right_in_front:
            break
        # What a Concat makes of trains may be no train: then a neuron stands behind it.
        kinds = _kinds(network, placed)
    return network, placed


def _told(network: Network, placed: Mapping[str, Place]) -> list[Told]:
    """What has no levels, activations and what stands in front of products, in topological order."""
    without = [activation for activation in recognise(network) if activation.spec is None]
    order = {id(node): index for index, node in enumerate(network.every_node())}
    without = sorted([*without, *activations(network, placed)], key=lambda one: order[id(one.nodes[0])])
    return [(activation, why_not_calibrated(network, activation)) for activation in _apart(without)]


def _apart(found: Sequence[Activation]) -> list[Activation]:
    """Those of which each node is in one at most: of clips in a row several may be read as one."""
    taken: set[int] = set()
    kept = []
    for activation in sorted(found, key=lambda one: -len(one.nodes)):
        nodes = set(map(id, activation.nodes))
        if taken.isdisjoint(nodes):
            taken |= nodes
            kept.append(activation)
    chosen = set(map(id, kept))
    return [activation for activation in found if id(activation) in chosen]


def _kinds(network: Network, placed: Mapping[str, Place]) -> Mapping[str, Kind]:
    """What tensors are in time once all that can be is calibrated, whatever the time-steps."""
    chosen = [one for one, reason in _told(network, placed) if not reason]
    settings = Settings(Radix.most(4), Radix, METHODS[0], NEURONS[0], False)
    model = quantised_model(network, outlined(network, chosen, settings), {})
    return make_plan(prepared(replace(network, proto=model)), coding="radix").kinds


def outlined(network: Network, chosen: Sequence[Activation], settings: Settings) -> list[Quantised]:
    """What takes the places of activations, but for values."""
    # Steps and levels that no type rounds, so small that no clip cuts any off, and different, as θ and a are.
    theta, amplitude = (np.full(1, settings.levels * scale) for scale in (2.0**-12, 2.0**-14))
    rising = Staircase(theta, np.zeros(1), amplitude, settings.levels)
    around_zero = mirrored(Staircase(theta, np.zeros(1), amplitude, settings.on_either_side))
    entries = []
    for activation in chosen:
        channels = Channels(None, len(network.shape(activation.input) or ()))
        if clip_of(activation).rectifies:
            entries.append(Quantised(activation, rising, channels))
            continue
        staircase = rising if settings.signed else around_zero
        shift, step, _ = staircase.constants()
        edges = (np.arange(staircase.steps, dtype=np.float32) + np.float32(0.5)) * step - shift
        thresholds = edges.reshape(1, -1) if becomes_thresholds(activation, settings.levels) else None
        entries.append(Quantised(activation, staircase, channels, staircase.offset, thresholds))
    return entries


def require(chosen: Sequence[object], left: Sequence[Told], network: Network) -> None:
    """Raise where no activation can be calibrated.

    Raises:
        PconvError: none can; it tells why.
    """
    if not chosen:
        told = by_reason((activation.name, reason) for activation, reason in left) or "it has no activation"
        raise PconvError(f"nothing to calibrate in {network.name}: {told}")
