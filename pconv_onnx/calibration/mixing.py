"""How many time-steps each activation gets where T is their mean: more where the outputs lose more.

Rounding to L levels makes a squared error of 1/L², and what the outputs lose of an activation that is quantised alone
is nearly so many times smaller. A time-step of an activation costs an operation for each of its neurons, and those of
the products that read them, as far as shapes tell: the network then takes no more operations than with T everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.faults import sizes_of
from pconv_onnx.calibration.functions import becomes_thresholds
from pconv_onnx.calibration.outcome import sensitivities
from pconv_onnx.calibration.settings import Settings, most_steps
from pconv_onnx.calibration.sweep import Found, Task, sweep
from pconv_onnx.data.samples import Samples
from pconv_onnx.engine.shards import Crew
from pconv_onnx.graph import Network
from pconv_onnx.graph.view import key_of
from pconv_onnx.plan.spike_driven import macs_of
from pconv_onnx.recognise import Activation

# Of all numbers of time-steps those from T divided by so much to T times so much are given.
_FEWER, _MORE = 2, 4
# How staircases are found that are tried alone: they suit inputs that are quantised, as they will be.
_METHOD = "fit"


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
    network: Network,
    activations: Sequence[Activation],
    samples: Samples,
    crew: Crew,
    several: Sequence[Settings],
) -> list[dict[str, int]]:
    """Numbers of time-steps whose mean is that of the settings, or less.

    Args:
        network: the source.
        activations: to be calibrated.
        samples: to measure on what the outputs lose.
        crew: of `Passes` over them.
        several: what is asked for.

    Returns:
        For each of the settings the number by the name of an activation; not of those that the data do not suit.

    Raises:
        PconvError: onnxruntime cannot run the network, or its outputs tell of no activation what it costs.
    """
    alone = [Task(replace(settings, method=_METHOD), Found(), lambda _: None) for settings in several]
    given = []
    for settings, found in zip(
        several, sweep(network, activations, samples.part(slice(0, 1)), crew, alone), strict=True
    ):
        if isinstance(found, PconvError):
            raise found
        if not found.activations:
            given.append({})
            continue
        lost = sensitivities(network, found.activations, samples, len(samples))
        if not lost:
            raise PconvError(
                f"the outputs of {network.name} cannot be compared, so nothing tells where more time-steps help",
                "leave out `mixed=True`",
            )
        chosen = [entry.activation for entry in found.activations]
        given.append(allotted(groups_of(network, chosen, samples), lost, settings))
    return given


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
    macs = {key_of(product.node): (product, count or 0) for product, count in macs_of(network).items()}
    for node in network.nodes:
        if (product := macs.get(key_of(node))) is not None:
            read = set().union(*(carried.get(name, set()) for name in product[0].reads))
            # Those of a group share the cost.
            costs.update({name: product[1] // len(read) for name in read})
            continue
        read = set().union(*(carried.get(tensor.name, set()) for tensor in node.inputs))
        if node.op == "Concat":
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

    All begin with few. Then the next step goes where it saves most of what the outputs lose, for what it costs.

    Args:
        groups: all activations.
        lost: what the outputs lose of each alone, with the number of the settings for all, by name.
        settings: the mean, and the coding.
    """
    coding, steps = settings.coding, settings.coding.steps_for(settings.levels)
    weights = [sum(lost[one.name] for one in group.activations) for group in groups]
    most = [max(t for t in range(1, _MORE * steps + 1) if _carries(group, t, settings)) for group in groups]
    given = [max(min(steps // _FEWER, largest), 1) for largest in most]
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
    """Whether activations may have so many: there is such a train, and what became thresholds before still does."""
    coding, levels = settings.coding, settings.levels
    return steps <= most_steps(coding) and all(
        becomes_thresholds(one, coding.most(steps)) or not becomes_thresholds(one, levels) for one in group.activations
    )
