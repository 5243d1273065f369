"""The plan of a rewriting: pure data, decided here and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pconv_onnx.basics.choices import MAX_STEPS, MODES, PRECISIONS, Mode, Precision
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.graph import Network
from pconv_onnx.graph.flow import flow
from pconv_onnx.graph.nesting import captured, every_node
from pconv_onnx.graph.network import Graph
from pconv_onnx.graph.tensors import references
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.neuron.quantiser import Neuron, QuantizerSpec
from pconv_onnx.operators.domain import is_neuron
from pconv_onnx.recognise import Activation, recognise
from pconv_onnx.temporal.kinds import STATIC, Kind, Passage, Spikes, Static
from pconv_onnx.temporal.rules import transfer
from pconv_onnx.temporal.site import Site


@dataclass(frozen=True, eq=False)
class Plan:
    """Every decision about one network in one mode.

    Attributes:
        network: the source.
        mode: `parallel` (spike trains flow), `folded` (their temporal means do) or `serial` (one time-step does).
        activations: all that were found, converted or not, in topological order.
        neurons: the neuron of each converted activation, by its name.
        replaced: the nodes that go, by identity, each with the activation that it ends, or None.
        passages: how each node that stays runs, by identity; those that are not there run as they are.
        kinds: kind in time of every tensor of the rewritten network, by its name in the source, within the graph that
            computes it: bodies are given Static tensors. Tensors that are not there are Static.
        per_step_outputs: names of the outputs that hand one of the source's out at each step as well, by its name.
        hybrid: names of the activations that stay analog between neurons, behind one and in front of another; a network
            that has any is a hybrid.
    """

    network: Network = field(repr=False)
    mode: Mode
    activations: Sequence[Activation] = field(repr=False)
    neurons: dict[str, Neuron] = field(repr=False)
    replaced: dict[int, Activation | None] = field(repr=False)
    passages: dict[int, Passage] = field(repr=False)
    kinds: dict[str, Kind] = field(repr=False)
    per_step_outputs: dict[str, str]
    hybrid: Sequence[str]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that all neurons compute in."""
        return next(iter(self.neurons.values())).levels.dtype

    @property
    def source_dtype(self) -> np.dtype[Any]:
        """The type that the activations which neurons replace compute in."""
        return next(a.spec.dtype for a in self.activations if a.spec is not None and a.name in self.neurons)

    @property
    def steps(self) -> int | None:
        """T where all neurons have the same, else None."""
        steps = {neuron.steps for neuron in self.neurons.values()}
        return steps.pop() if len(steps) == 1 else None

    def summary(self) -> dict[str, Any]:
        """The JSON document of `inspect` and `rewrite --dry-run`."""
        steps = {name: neuron.steps for name, neuron in self.neurons.items()}
        rows = [
            {
                "name": activation.name,
                "op_types": activation.op_types,
                "encoding": activation.encoding,
                "dtype": str(activation.spec.dtype) if activation.spec else None,
                "levels": activation.spec.levels if activation.spec else None,
                "steps": steps.get(activation.name),
                "signed": _is_signed(activation.spec) if activation.spec else None,
                "rms_error": activation.spec.rms_error(steps[activation.name])
                if activation.spec and activation.name in steps
                else None,
                "status": activation.status,
                "reason": activation.reason,
            }
            for activation in self.activations
        ]
        statuses = [activation.status for activation in self.activations]
        return {
            "activations": rows,
            "steps": self.steps,
            "mode": self.mode,
            "precision": str(self.dtype) if self.neurons else None,
            "per_step_outputs": list(self.per_step_outputs.values()),
            "hybrid": list(self.hybrid),
            "counts": {
                "converted": statuses.count("converted"),
                "needs_calibration": statuses.count("needs-calibration"),
                "refused": statuses.count("refused"),
            },
        }


def make_plan(
    network: Network,
    *,
    mode: Mode = "parallel",
    steps: int | None = None,
    precision: Precision | None = None,
    signed: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    per_step_outputs: bool = False,
    why_it_stays: Callable[[Activation], str] | None = None,
) -> Plan:
    """Decide what becomes of every activation and every tensor.

    Args:
        network: the source, of opset `MIN_OPSET` or later.
        mode: one of `MODES`.
        steps: T of every neuron; by default each neuron has its source's levels, which is lossless.
        precision: `float16` to compute in that type what the source computes in float32; None keeps the source's type.
        signed: whether activations whose lowest value is not zero are converted as well.
        include: shell patterns of activation names; where given, others are left as they are.
        exclude: shell patterns of activation names that are left as they are.
        per_step_outputs: whether outputs are handed out at each step as well.
        why_it_stays: what the calibration, if there was one, says of an activation without levels; empty of others.

    Raises:
        PconvError: the network is already a spiking one; `mode`, `steps` or `precision` is out of range; a pattern
            matches no activation; no output has a time axis.
    """
    if mode not in MODES:
        raise PconvError(f"there is no mode '{mode}'", f"choose one of {', '.join(MODES)}")
    if steps is not None and steps not in range(1, MAX_STEPS + 1):
        raise PconvError(f"{steps!r} is not a number of time-steps", f"choose 1 to {MAX_STEPS}")
    # One of NumPy's could not be recorded.
    steps = None if steps is None else int(steps)
    if precision not in (None, *PRECISIONS):
        raise PconvError(f"there is no precision '{precision}'", f"choose {', '.join(PRECISIONS)}")
    if precision is not None and references(network.proto):
        raise PconvError(
            f"{network.name} is too large for one file, and precision {precision} is for models that are not",
            "leave this network in float32",
        )
    if per_step_outputs and mode != "parallel":
        raise WrongArguments(f"mode '{mode}' has no time-steps to hand out", "choose mode 'parallel'")
    refuse_spiking(network)
    recognised = recognise(network)
    _refuse_patterns_of_nothing(network, recognised, (*include, *exclude))
    found = [_chosen(activation, signed, include, exclude, why_it_stays) for activation in recognised]
    if mode == "serial":
        found = [_if_potentials_may_be_there(activation, network) for activation in found]
    activations = _of_one_type(found)
    neurons: dict[str, Neuron] = {}
    for index, activation in enumerate(activations):
        if activation.spec is None:
            continue
        try:
            neurons[activation.name] = _neuron(activation.spec, mode, steps, precision)
        except ValueError as error:
            activations[index] = _refused(activation, str(error))
    encoded = {activation.input.name for activation in activations if activation.name in neurons}
    activations = [_if_a_neuron_encodes_it(activation, encoded) for activation in activations]
    replaced: dict[int, Activation | None] = {}
    for activation in activations:
        if activation.name in neurons:
            replaced.update({id(node): None for node in activation.nodes})
            replaced[id(activation.nodes[-1])] = activation
    if mode == "serial":
        _refuse_different_steps(network, neurons)
    passages, kinds = _in_time(network, network.graph, neurons, replaced)
    if mode == "serial":
        _refuse_what_one_step_cannot_do(network, activations, replaced, passages, kinds)
    # A Relu or Clip on spikes within its bounds is the identity, and nothing that stays analog.
    activations = [activation for activation in activations if not _hands_spikes_on(activation, passages)]
    if mode != "parallel":
        passages, kinds = {}, {}
    replaced |= dict.fromkeys(_unused(network, network.graph, replaced, passages)[0])
    per_step = _per_step_outputs(network, kinds) if per_step_outputs and neurons else {}
    hybrid = _between_neurons(network, activations, neurons)
    return Plan(network, mode, activations, neurons, replaced, passages, kinds, per_step, hybrid)


def _neuron(spec: QuantizerSpec, mode: Mode, steps: int | None, precision: Precision | None) -> Neuron:
    """The neuron of a quantiser in the type that is asked for.

    Raises:
        ValueError: there is none, or no trains carry its values where they have to.
    """
    if mode != "folded" and (steps or spec.levels) > MAX_STEPS:
        raise ValueError(
            f"it has {spec.levels} levels and a train has up to {MAX_STEPS} steps; mode 'folded' takes it, as does "
            "--steps with fewer"
        )
    neuron: Neuron = spec.serial_neuron(steps) if mode == "serial" else spec.neuron(steps)
    if precision is not None:
        if spec.dtype != np.float32:
            raise ValueError(f"it computes in {spec.dtype}; precision {precision} is for what computes in float32")
        neuron = neuron.astype(np.dtype(precision))
    if mode == "parallel" and isinstance(neuron, ParallelNeuron) and not neuron.carried_by_trains:
        raise ValueError(
            f"its levels are not evenly spaced in {neuron.levels.dtype}, so no train of equal spikes carries them; "
            "mode 'folded' takes it"
        )
    return neuron


def _refuse_different_steps(network: Network, neurons: dict[str, Neuron]) -> None:
    """Raise where neurons would have to run for different numbers of time-steps.

    Raises:
        PconvError: they would.
    """
    counts = sorted({neuron.steps for neuron in neurons.values()})
    if len(counts) > 1:
        told = f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"
        raise PconvError(
            f"the activations of {network.name} have {told} levels, and mode 'serial' runs all neurons for the same "
            "number of time-steps",
            "pass --steps",
        )


# Of trains that are not sorted the maximum is not the train of the maximum, nor the minimum that of the minimum.
_EXTREMA = {"MaxPool": "maximum", "GlobalMaxPool": "maximum", "ReduceMax": "maximum", "Max": "maximum",
            "ReduceMin": "minimum", "Min": "minimum"}  # fmt: skip


def _refuse_what_one_step_cannot_do(
    network: Network,
    activations: Sequence[Activation],
    replaced: dict[int, Activation | None],
    passages: dict[int, Passage],
    kinds: dict[str, Kind],
) -> None:
    """Raise where a node needs the temporal mean, which a network of one time-step never has.

    Raises:
        PconvError: one does.
    """
    owners = {id(node): activation for activation in activations for node in activation.nodes}
    for node, proto in network.graph.pairs():
        in_time = [name for name in (*proto.input, *sorted(captured(proto))) if name in kinds]
        # A tensor has the same shape at each step.
        passes = (id(node) in passages and proto.op_type not in _EXTREMA) or proto.op_type == "Shape"
        if id(node) in replaced or not in_time or passes:
            continue
        owner = owners.get(id(node))
        what = f"activation '{owner.name}'" if owner else f"{proto.op_type} '{proto.name or proto.output[0]}'"
        if id(node) in passages:
            extremum = _EXTREMA[proto.op_type]
            why = f"takes a {extremum} over spikes, which the trains of serial neurons, not being sorted, do not have"
        else:
            why = f"needs the temporal mean of '{owner.input.name if owner else in_time[0]}'"
            if owner is not None and owner.reason:
                why += f": {owner.reason}"
        raise PconvError(
            f"mode 'serial' cannot take {network.name}, one time-step at a time: {what} {why}",
            "modes 'parallel' and 'folded' take it",
        )


def _is_signed(spec: QuantizerSpec) -> bool:
    """Whether a silent neuron emits something other than zero."""
    return bool((spec.silent != 0).any())


def _refused(activation: Activation, reason: str) -> Activation:
    return replace(activation, status="refused", reason=reason, spec=None)


def _hands_spikes_on(activation: Activation, passages: dict[int, Passage]) -> bool:
    passage = passages.get(id(activation.nodes[-1])) if len(activation.nodes) == 1 else None
    return passage is not None and all(isinstance(kind, Spikes) for kind in passage.kinds)


def _per_step_outputs(network: Network, kinds: dict[str, Kind]) -> dict[str, str]:
    """A name of its own for each output that has a time axis.

    Raises:
        PconvError: none has.
    """
    names = [output.name for output in network.proto.graph.output]
    in_time = [name for name in names if name in kinds]
    if not in_time:
        told = ", ".join(f"'{name}'" for name in names)
        raise PconvError(
            f"no output of {network.name} has time-steps: {told} come after an operator that needs the temporal mean",
            "leave --per-step-outputs out",
        )
    per_step: dict[str, str] = {}
    for name in in_time:
        per_step[name] = f"{name}_per_step"
        while per_step[name] in network.names:
            per_step[name] += "_"
    return per_step


def refuse_spiking(network: Network) -> None:
    """Raise where the network has been rewritten already.

    Raises:
        PconvError: it has.
    """
    nodes = list(every_node(network.proto.graph))
    if any(map(is_neuron, nodes)):
        raise PconvError(f"{network.name} is a spiking network already", "pass the ANN that it was made from")
    used = {node.domain for node in nodes} | {entry.domain for entry in network.proto.functions}
    if DOMAIN in used:
        raise PconvError(f"{network.name} uses the operator domain '{DOMAIN}' for something else", "rename that domain")


def _refuse_patterns_of_nothing(network: Network, activations: Sequence[Activation], patterns: Sequence[str]) -> None:
    """Raise where a pattern has no effect: a name is misspelt.

    Raises:
        PconvError: one matches no activation, converted or not.
    """
    for pattern in patterns:
        if not any(fnmatchcase(activation.name, pattern) for activation in activations):
            raise PconvError(f"'{pattern}' matches no activation of {network.name}", "pconv-onnx inspect lists them")


def _chosen(
    activation: Activation,
    signed: bool,
    include: Sequence[str],
    exclude: Sequence[str],
    why_it_stays: Callable[[Activation], str] | None,
) -> Activation:
    if activation.spec is None:
        reason = why_it_stays(activation) if why_it_stays is not None else ""
        return _refused(activation, reason) if reason else activation
    if include and not any(fnmatchcase(activation.name, pattern) for pattern in include):
        return _refused(activation, "not among those to include")
    if any(fnmatchcase(activation.name, pattern) for pattern in exclude):
        return _refused(activation, "excluded")
    if _is_signed(activation.spec) and not signed:
        # The value itself would make as many reasons as there are activations.
        reason = (
            "its lowest value is not zero, so its neurons would emit something while silent and save no operations; "
            "--signed converts it all the same"
        )
        return _refused(activation, reason)
    return activation


def _if_potentials_may_be_there(activation: Activation, network: Network) -> Activation:
    if activation.spec is None:
        return activation
    others = "modes 'parallel' and 'folded' convert it"
    if place := network.place(activation.nodes[0]):
        return _refused(activation, f"it is in {place}, where no membrane potential can be kept; {others}")
    if network.shape(activation.input) is None:
        # An input or output of a model has a shape, if only of open sizes.
        return _refused(activation, f"how many axes its input has is not known; {others}")
    return activation


def _if_a_neuron_encodes_it(activation: Activation, encoded: Collection[str]) -> Activation:
    """Told as what it is where a neuron follows at once, as behind all that `calibrate` left: levels are no remedy."""
    if activation.status != "needs-calibration" or activation.output.name not in encoded:
        return activation
    reason = "it has no levels of its own and stays, on the temporal mean; the neuron behind it encodes its output"
    return replace(activation, reason=reason)


def _of_one_type(activations: Sequence[Activation]) -> list[Activation]:
    """Activations of the type that most have; a model carries one function body of the neuron, which has one type."""
    types = Counter(activation.spec.dtype for activation in activations if activation.spec is not None)
    if len(types) <= 1:
        return list(activations)
    common = types.most_common(1)[0][0]
    return [
        activation
        if activation.spec is None or activation.spec.dtype == common
        else _refused(
            activation,
            f"it computes in {activation.spec.dtype} and most others in {common}; neurons of one model have one type",
        )
        for activation in activations
    ]


def _in_time(
    network: Network, graph: Graph, neurons: dict[str, Neuron], replaced: dict[int, Activation | None]
) -> tuple[dict[int, Passage], dict[str, Kind]]:
    """One walk in topological order: neurons emit spikes, rules say what becomes of them.

    A body is a network of its own: it sees the tensors around it by name, so it is given the decoded ones.
    """
    passages: dict[int, Passage] = {}
    kinds: dict[str, Kind] = {}
    for node in graph.nodes:
        bodies = network.bodies(node)
        for body in bodies:
            inner_passages, inner_kinds = _in_time(network, body, neurons, replaced)
            passages |= inner_passages
            kinds |= inner_kinds
        if id(node) in replaced:
            ended = replaced[id(node)]
            if ended is not None:
                neuron = neurons[ended.name]
                kinds[ended.output.name] = Spikes(neuron.steps, neuron.levels, neuron.channel_axis)
        elif not bodies:
            passage = transfer(Site(network, node, [kinds.get(tensor.name, STATIC) for tensor in node.inputs]))
            for tensor, kind in zip(node.outputs, passage.kinds, strict=True):
                if tensor.name and not isinstance(kind, Static):
                    kinds[tensor.name] = kind
                    passages[id(node)] = passage
    return passages, kinds


def _between_neurons(network: Network, activations: Sequence[Activation], neurons: dict[str, Neuron]) -> list[str]:
    """Names of activations that are not converted, depend on one neuron and affect another.

    One walk forwards and one back over the source, in which activations that become neurons are still whole.
    """
    converted = [activation for activation in activations if activation.name in neurons]
    behind = {activation.output.name for activation in converted}
    in_front = {activation.input.name for activation in converted}
    steps = list(flow(network, network.graph))
    for inputs, outputs in steps:
        if not behind.isdisjoint(inputs):
            behind |= outputs
    for inputs, outputs in reversed(steps):
        if not in_front.isdisjoint(outputs):
            in_front |= inputs
    return [
        activation.name
        for activation in activations
        if activation.name not in neurons
        and any(tensor.name in behind for node in activation.nodes for tensor in node.inputs)
        and any(tensor.name in in_front for node in activation.nodes for tensor in node.outputs)
    ]


def _unused(
    network: Network, graph: Graph, replaced: dict[int, Activation | None], passages: dict[int, Passage]
) -> tuple[set[int], set[str]]:
    """The nodes, by identity, whose values nothing needs: constants of activations, computed numbers of rows.

    Returns:
        These, and the names of the tensors that are needed.
    """
    unused: set[int] = set()
    needed = {output.name for output in graph.proto.output}
    for node, proto in reversed(list(graph.pairs())):
        bodies = network.bodies(node)
        if id(node) in replaced:
            ended = replaced[id(node)]
            if ended is not None:
                needed.add(ended.input.name)
        elif proto.output and needed.isdisjoint(proto.output) and not bodies:
            unused.add(id(node))
        else:
            passage = passages.get(id(node))
            constants = passage.constants if passage is not None else {}
            needed.update(name for index, name in enumerate(proto.input) if index not in constants)
        for body in bodies:
            unused_there, needed_there = _unused(network, body, replaced, passages)
            unused |= unused_there
            needed |= needed_there
    return unused, needed
