"""How many time-steps each activation gets where T is their mean: more where the outputs lose more.

Rounding to L levels makes a squared error of 1/L², and what the outputs lose of an activation that is quantised alone
is nearly so many times smaller. The mean counts neurons, so an activation costs as many time-steps as it has elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.faults import sizes_of
from pconv_onnx.calibration.functions import becomes_thresholds
from pconv_onnx.calibration.outcome import sensitivities
from pconv_onnx.calibration.settings import Settings, most_steps
from pconv_onnx.calibration.sweep import Found, Task, sweep
from pconv_onnx.data.samples import Samples
from pconv_onnx.engine.shards import Crew
from pconv_onnx.graph import Network
from pconv_onnx.graph.products import products
from pconv_onnx.graph.view import key_of
from pconv_onnx.recognise import Activation

# Of all numbers of time-steps those from T divided by so much to T times so much are given.
_FEWER, _MORE = 2, 4
# How staircases are found that are tried alone: they suit inputs that are quantised, as they will be.
_METHOD = "fit"

# Activations with as many time-steps each.
Group = Sequence[Activation]


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
        For each of the settings the number by the name of an activation.

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
        lost = sensitivities(network, found.activations, samples, len(samples))
        if not lost:
            raise PconvError(
                f"the outputs of {network.name} cannot be compared, so nothing tells where more time-steps help",
                "leave out `mixed=True`",
            )
        chosen = [entry.activation for entry in found.activations]
        sizes = sizes_of(network, [activation.output.name for activation in chosen], samples)
        given.append(allotted(joined(network, chosen), lost, sizes, settings))
    return given


def joined(network: Network, activations: Sequence[Activation]) -> list[Group]:
    """Activations in groups: trains that a Concat joins have as many time-steps, or none could read them as spikes."""
    groups: dict[str, set[str]] = {activation.output.name: {activation.output.name} for activation in activations}
    # Of each tensor the activations whose trains it carries.
    carried = {name: {name} for name in groups}
    ends = {key_of(product.node) for product in products(network)}
    for node in network.nodes:
        if key_of(node) in ends:
            continue
        read = set().union(*(carried.get(tensor.name, set()) for tensor in node.inputs))
        if node.op == "Concat":
            together = set().union(*(groups[name] for name in read))
            groups |= dict.fromkeys(together, together)
        for tensor in node.outputs:
            carried.setdefault(tensor.name, read)
    found: dict[frozenset[str], list[Activation]] = {}
    for activation in activations:
        found.setdefault(frozenset(groups[activation.output.name]), []).append(activation)
    return list(found.values())


def allotted(
    groups: Sequence[Group], lost: Mapping[str, float], sizes: Mapping[str, int], settings: Settings
) -> dict[str, int]:
    """Numbers of time-steps by the name of an activation.

    All begin with few. Then the next step goes where it saves most of what the outputs lose, for what it costs.

    Args:
        groups: activations that have as many each.
        lost: what the outputs lose of each alone, with the number of the settings for all, by name.
        sizes: elements of one sample of it, by the name of its output.
        settings: the mean, and the coding.
    """
    coding, steps = settings.coding, settings.coding.steps_for(settings.levels)
    weights = [sum(lost[one.name] for one in group) for group in groups]
    costs = [sum(sizes[one.output.name] for one in group) for group in groups]
    most = [max(t for t in range(1, _MORE * steps + 1) if _carries(group, t, settings)) for group in groups]
    given = [max(min(steps // _FEWER, largest), 1) for largest in most]
    left = sum(cost * (steps - number) for cost, number in zip(costs, given, strict=True))

    def saved(index: int) -> float:
        now, then = (coding.most(given[index] + more) for more in (0, 1))
        return weights[index] * (now**-2 - then**-2) / costs[index]

    while fit := [index for index, cost in enumerate(costs) if given[index] < most[index] and cost <= left]:
        best = max(fit, key=saved)
        if not saved(best):
            break
        given[best] += 1
        left -= costs[best]
    return {one.name: number for group, number in zip(groups, given, strict=True) for one in group}


def _carries(group: Group, steps: int, settings: Settings) -> bool:
    """Whether activations may have so many: there is such a train, and what became thresholds before still does."""
    coding, levels = settings.coding, settings.levels
    return steps <= most_steps(coding) and all(
        becomes_thresholds(one, coding.most(steps)) or not becomes_thresholds(one, levels) for one in group
    )
