"""The plan of a rewriting: pure data with every decision. Lowerings read it and decide nothing.

Nodes are named by `graph.view.key_of`, tensors by their names, so that a plan can be printed, compared and pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import same_fields
from pconv_onnx.basics.errors import listed, printable
from pconv_onnx.graph import Network
from pconv_onnx.graph.view import key_of
from pconv_onnx.neuron.coding import Coding
from pconv_onnx.neuron.quantiser import Neuron, QuantizerSpec
from pconv_onnx.plan.modes import Mode
from pconv_onnx.plan.spike_driven import SpikeDriven, macs_of, spike_driven
from pconv_onnx.recognise.base import Status
from pconv_onnx.temporal.kinds import Kind, Passage, Spikes


@dataclass(frozen=True, eq=False)
class Planned:
    """An activation of the source, and what becomes of it.

    Attributes:
        name: its name in reports and patterns, unique in the network.
        encoding: how it is quantised, such as `qcfs`.
        op_types: operator types of its nodes.
        nodes: keys of its nodes, in topological order; perhaps not all of them if it is not converted.
        input: name of its pre-activation.
        output: name of its output.
        status: `converted` if it becomes a neuron, else `needs-calibration` or `refused`.
        reason: why it does not become one; empty if it does.
        spec: its operations, if it is converted.
        also_called: another name that patterns may use; empty if there is none.
    """

    name: str
    encoding: str
    op_types: Sequence[str]
    nodes: Sequence[str]
    input: str
    output: str
    status: Status
    reason: str
    spec: QuantizerSpec | None
    also_called: str = ""


@dataclass(frozen=True, eq=False)
class Plan:
    """Every decision about one network in one mode.

    Attributes:
        network: the source.
        mode: what flows in the rewritten network.
        activations: all activations that were found, converted or not, in topological order.
        neurons: the neuron of each converted activation, by the activation's name.
        replaced: keys of the nodes that are removed, each with the name of the activation that it ends, or None.
        passages: how each node that stays runs, by key; nodes that are missing here run unchanged.
        kinds: kind in time of the tensors that have one, by their name in the source, within the graph that computes
            them; bodies get Static tensors, and tensors that are missing here are Static. In modes without a time axis
            it is the kind that they have in mode `parallel`.
        per_step_outputs: names of the outputs that also give an output of the source at each step, by its name.
        hybrid: names of the activations that stay analog behind one neuron and in front of another; a network that has
            any is a hybrid.
        bypassed: names of the neurons that their pre-activation bypasses as an analog current.
    """

    network: Network
    mode: Mode
    activations: Sequence[Planned] = field(repr=False)
    neurons: Mapping[str, Neuron] = field(repr=False)
    replaced: Mapping[str, str | None] = field(repr=False)
    passages: Mapping[str, Passage] = field(repr=False)
    kinds: Mapping[str, Kind] = field(repr=False)
    per_step_outputs: Mapping[str, str]
    hybrid: Sequence[str]
    bypassed: Sequence[str]

    def __eq__(self, other: object) -> bool:
        """Whether another plan decides the same about the same network."""
        return same_fields(self, other)

    __hash__ = None  # type: ignore[assignment]  # it has dictionaries

    def __str__(self) -> str:
        """Every decision, one a line."""
        lines = [f"{self.network!r} in mode {self.mode.name}", "activations"]
        for activation in self.activations:
            neuron = self.neurons.get(activation.name)
            told = _told(neuron.coding) if neuron is not None else activation.reason
            ends = f"{activation.input} to {activation.output}"
            lines.append(f"  {activation.name} ({activation.encoding}, {ends}): {activation.status}, {told}")
        lines.append("nodes, by the tensor that they give")
        lines += [f"  {key}: goes" for key, ended in self.replaced.items() if ended is None]
        lines += [
            f"  {key}: becomes the neuron of {ended}" for key, ended in self.replaced.items() if ended is not None
        ]
        for key, passage in self.passages.items():
            changed = [f"input {index} at each step" for index in passage.lifted]
            changed += [f"input {index} decoded" for index in passage.held]
            changed += [f"input {index} a constant" for index in passage.constants]
            changed += [f"input {index} encoded again, {_told(coding)}" for index, coding in passage.recoded.items()]
            changed += [f"as {passage.runs_as}"] if passage.runs_as else []
            changed += ["on decoded inputs, its output encoded again"] if passage.encodes else []
            lines.append(f"  {key}: in time{''.join(f', {change}' for change in changed)}")
        lines.append("tensors in time")
        lines += [f"  {name}: {_kind(kind)}" for name, kind in self.kinds.items()]
        for title, names in (
            ("outputs at each step", self.per_step_outputs.values()),
            ("analog between", self.hybrid),
            ("bypassed by an analog current", self.bypassed),
        ):
            lines.append(f"{title}: {listed(names) or 'none'}")
        return "\n".join(map(printable, lines))

    @property
    def kinds_in_time(self) -> Mapping[str, Kind]:
        """Kind of every tensor that has a time axis in the rewritten network."""
        return self.kinds if self.mode.keeps_time else {}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which all neurons compute."""
        return next(iter(self.neurons.values())).levels.dtype

    @property
    def source_dtype(self) -> np.dtype[Any]:
        """The type in which the replaced activations compute."""
        return next(a.spec.dtype for a in self.activations if a.spec is not None and a.name in self.neurons)

    @property
    def steps(self) -> int | None:
        """T if all neurons have the same, else None."""
        steps = {neuron.steps for neuron in self.neurons.values()}
        return steps.pop() if len(steps) == 1 else None

    @cached_property
    def spike_driven(self) -> SpikeDriven:
        """Which multiply-accumulates have a spike train as an operand, as far as shapes are known."""
        macs = {
            product: count
            for product, count in macs_of(self.network).items()
            if key_of(product.node) not in self.replaced
        }
        analog = {one.output: one.name for one in self.activations if one.name not in self.neurons}
        return spike_driven(self.network, self.kinds, macs, analog, self.replaced)

    def summary(self) -> dict[str, Any]:
        """The JSON document of `inspect` and `rewrite --dry-run`."""
        codings = {name: neuron.coding for name, neuron in self.neurons.items()}
        rows = [
            {
                "name": activation.name,
                "also_called": activation.also_called or None,
                "op_types": activation.op_types,
                "encoding": activation.encoding,
                "dtype": str(activation.spec.dtype) if activation.spec else None,
                "levels": activation.spec.levels if activation.spec else None,
                "steps": codings[activation.name].steps if activation.name in codings else None,
                "coding": codings[activation.name].name if activation.name in codings else None,
                "zero": codings[activation.name].zero if activation.name in codings else None,
                "signed": is_signed(activation.spec) if activation.spec else None,
                "rms_error": activation.spec.rms_error(self.neurons[activation.name])
                if activation.spec and activation.name in codings
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
            "mode": self.mode.name,
            "precision": str(self.dtype) if self.neurons else None,
            "per_step_outputs": list(self.per_step_outputs.values()),
            "hybrid": list(self.hybrid),
            "bypassed": list(self.bypassed),
            "spike_driven": self.spike_driven.summary(),
            "counts": {
                "converted": statuses.count("converted"),
                "needs_calibration": statuses.count("needs-calibration"),
                "refused": statuses.count("refused"),
            },
        }


def _told(coding: Coding) -> str:
    return f"T = {coding.steps} in coding '{coding.name}'{', signed' if coding.signed else ''}"


def _kind(kind: Kind) -> str:
    return f"spikes, {_told(kind.coding)}" if isinstance(kind, Spikes) else f"current, T = {kind.steps}"


def is_signed(spec: QuantizerSpec) -> bool:
    """Whether a silent neuron emits something other than zero."""
    return bool((spec.silent != 0).any())
