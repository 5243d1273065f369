"""How many time-steps each activation gets where T is their mean: more where the outputs lose more.

Rounding to L levels makes a squared error of 1/L², and what the outputs lose of an activation that is quantised alone
is nearly so many times smaller. A time-step of an activation costs one for each of its neurons, and one for each
multiply-accumulate that reads them, as far as shapes tell: of these there are no more than with T everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pconv_onnx.basics.choices import MOST_MIXED_BITS
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.faults import sizes_of
from pconv_onnx.calibration.functions import becomes_thresholds, clip_of
from pconv_onnx.calibration.outcome import sensitivities
from pconv_onnx.calibration.settings import Settings, most_steps
from pconv_onnx.calibration.sweep import Found, Task, sweep
from pconv_onnx.data.samples import Samples
from pconv_onnx.engine.shards import Crew
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.products import OF_SHAPES
from pconv_onnx.graph.view import key_of
from pconv_onnx.neuron.coding import Rate
from pconv_onnx.plan.spike_driven import macs_of
from pconv_onnx.recognise import Activation

# Of all numbers of time-steps those from T divided by so much to T times so much are given.
_FEWER, _MORE = 2, 8
# Staircases are tried alone with so many levels, whatever T is, and as inputs suit them that are quantised.
_LEVELS, _METHOD = 15, "fit"
# Samples at most by which these are found, and on which they are tried.
MOST_MIXING = 100
_MOST_ALONE = 32


@dataclass(frozen=True, eq=False)
class Group:
    """Activations with as many time-steps each.

    Attributes:
        activations: one or more.
        cost: operations of a time-step, for one sample.
    """

    activations: Sequence[Activation]
    cost: int


def allotments(
    network: Network, activations: Sequence[Activation], samples: Samples, crew: Crew, several: Sequence[Settings]
) -> list[dict[str, int]]:
    """Numbers of time-steps whose mean is that of the settings, or less.

    Args:
        network: the source.
        activations: to be calibrated.
        samples: to measure on what the outputs lose.
        crew: of `Passes` over them.
        several: what is asked for; they differ in levels.

    Returns:
        For each of the settings the number by the name of an activation; not of those that the data do not suit.

    Raises:
        PconvError: onnxruntime cannot run the network, or its outputs tell of no activation what it costs.
    """
    trial = Task(replace(several[0], levels=_LEVELS, method=_METHOD), Found(), lambda _: None)
    (found,) = sweep(network, activations, samples.part(slice(0, 1)), crew, [trial])
    if isinstance(found, PconvError):
        raise found
    if not found.activations:
        return [{} for _ in several]
    lost = sensitivities(network, found.activations, samples, len(samples), _MOST_ALONE)
    if not lost:
        raise PconvError(
            f"the outputs of {network.name} cannot be compared, so nothing tells where more time-steps help",
            "leave out `mixed=True`",
        )
    groups = groups_of(network, [entry.activation for entry in found.activations], samples)
    return [allotted(groups, lost, settings) for settings in several]


def groups_of(network: Network, activations: Sequence[Activation], samples: Samples) -> list[Group]:
    """Activations in groups: trains that a Concat joins have as many time-steps, or none could read them as spikes.

    Raises:
        PconvError: onnxruntime cannot run the network.
    """
    names = [activation.output.name for activation in activations]
    costs: Counter[str] = Counter(sizes_of(network, names, samples))
    together = {name: {name} for name in names}
    # Of each tensor the activations whose trains it carries.
    carried = {name: {name} for name in names}
    batch = samples.fixed_batch or 1
    macs = {key_of(product.node): (product, (count or 0) // batch) for product, count in macs_of(network).items()}
    for node in network.nodes:
        if node.op in OF_SHAPES:
            continue
        if (product := macs.get(key_of(node))) is not None:
            read = set().union(*(carried.get(name, set()) for name in product[0].reads))
            # Those of a group share the cost.
            costs.update({name: product[1] // len(read) for name in read})
            continue
        read = set().union(*(carried.get(tensor.name, set()) for tensor in node.inputs))
        if node.op == "Concat" and is_standard(node):
            joined = set().union(*(together[name] for name in read))
            together |= dict.fromkeys(joined, joined)
        for tensor in node.outputs:
            carried.setdefault(tensor.name, read)
    found: dict[frozenset[str], list[Activation]] = {}
    for activation in activations:
        found.setdefault(frozenset(together[activation.output.name]), []).append(activation)
    return [Group(group, max(sum(costs[name] for name in members), 1)) for members, group in found.items()]


def allotted(groups: Sequence[Group], lost: Mapping[str, float], settings: Settings) -> dict[str, int]:
    """Numbers of time-steps by the name of an activation.

    All begin with few, but for those whose levels are their own, which fewer might not carry. Then the next step goes
    where it saves most of what the outputs lose, for what it costs.

    Args:
        groups: all activations.
        lost: what the outputs lose of each alone, with as many levels each, by name.
        settings: the mean, and the coding.
    """
    coding, steps = settings.coding, settings.coding.steps_for(settings.levels)
    weights = [sum(lost[one.name] for one in group.activations) for group in groups]
    most = [max(t for t in range(1, _MORE * steps + 1) if _carries(group, t, settings)) for group in groups]
    own = [any(one.unit is not None for one in group.activations) for group in groups]
    given = [steps if kept else max(steps // _FEWER, 1) for kept in own]
    left = sum(group.cost * (steps - number) for group, number in zip(groups, given, strict=True))

    def saved(index: int) -> float:
        now, then = (coding.most(given[index] + more) for more in (0, 1))
        return weights[index] * (now**-2 - then**-2) / groups[index].cost

    while fit := [i for i, group in enumerate(groups) if given[i] < most[i] and group.cost <= left]:
        best = max(fit, key=saved)
        if not saved(best):
            break
        given[best] += 1
        left -= groups[best].cost
    return {one.name: number for group, number in zip(groups, given, strict=True) for one in group.activations}


def _carries(group: Group, steps: int, settings: Settings) -> bool:
    """Whether activations may have so many: as T, or where thresholds stay what takes their place."""
    coding, levels = settings.coding, settings.levels
    largest = most_steps(coding) if coding is Rate else max(MOST_MIXED_BITS, coding.steps_for(levels))
    return steps <= largest and all(
        clip_of(one).rectifies or becomes_thresholds(one, coding.most(steps)) or not becomes_thresholds(one, levels)
        for one in group.activations
    )
