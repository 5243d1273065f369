"""A spiking network with one fault at random: does `verify` call it different, and say where?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, numpy_helper

from pconv_onnx import PconvError, rewrite, session, verify
from pconv_onnx.graph.nesting import every_graph, subgraphs
from pconv_onnx.measure.verification import Verification

from .grown import grown
from .hostile import FOREIGN
from .workers import enter

Array = np.ndarray[Any, np.dtype[Any]]
_MODES = ("parallel", "folded")


@dataclass
class Corruption:
    """What was done to a network.

    Attributes:
        model: the network with the fault.
        what: told for a person.
        nodes: names of the nodes that it is in.
    """

    model: onnx.ModelProto
    what: str
    nodes: list[str]


def faults(seed: int) -> list[str]:
    """What `verify` gets wrong about the network of one seed, as it is and with a fault; empty where nothing."""
    random = np.random.default_rng(seed)
    source, feed = grown(seed)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            steps = 3 if random.random() < 0.25 else None
            spiking = rewrite(source, mode=_MODES[random.integers(2)], steps=steps).model
        except PconvError:  # nothing to convert
            return []
        right = verify(source, spiking, feed)
        found = [f"as it is: {told}" for told in right.differences]
        corruption = corrupted(spiking, random)
        told = "" if corruption is None else judged(source, spiking, corruption, feed).told
        return [*found, f"{corruption.what}: {told}"] if corruption is not None and told else found


@dataclass
class Answer:
    """What `verify` makes of a corrupted network.

    Attributes:
        found: `different`, `refused`, `without effect` or `not noticed`.
        told: what is wrong with it; empty where nothing.
        largest: the largest difference of a segment as a multiple of its bound.
        agreement: share of samples with the same top-1 as without the fault; None without classes.
    """

    found: str
    told: str = ""
    largest: float = 0.0
    agreement: float | None = None


def judged(source: onnx.ModelProto, spiking: onnx.ModelProto, corruption: Corruption, feed: dict[str, Array]) -> Answer:
    """Verify a corrupted network, and look whether its outputs are still those that it had."""
    enter(FOREIGN)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    before = session(spiking).run(None, feed)
    try:
        after = session(corruption.model, options=quiet).run(None, feed)
    except Exception:  # onnxruntime raises its own types, without a common base
        after = None
    enter("a corrupted network is verified")
    try:
        result = verify(source, corruption.model, feed)
    except PconvError:  # it is no network any more, or not one that rewrite wrote
        return Answer("refused")
    named = sorted(
        {layer.name for layer in result.layers if layer.mismatches or layer.altered}
        | {segment.name for segment in result.segments if segment.beyond}
    )
    behind = _ends_behind(corruption, result)
    if result.verdict == "different":
        elsewhere = f"named are {named}, and not {sorted(behind)}"
        return Answer("different", "" if set(named) <= behind else elsewhere)
    if after is None:
        return Answer("not noticed", f"it does not run, and it is {result.verdict}")
    if all(np.array_equal(one, other, equal_nan=True) for one, other in zip(before, after, strict=True)):
        return Answer("without effect")
    classes = next((pair for pair in zip(before, after, strict=True) if pair[0].ndim == 2), None)
    return Answer(
        "not noticed",
        f"outputs change, and it is {result.verdict}",
        max(segment.of_bound for segment in result.segments),
        None if classes is None else float(np.mean(classes[0].argmax(1) == classes[1].argmax(1))),
    )


def corrupted(spiking: onnx.ModelProto, random: np.random.Generator) -> Corruption | None:
    """The network with one fault; None where the one that was chosen cannot be done."""
    model = onnx.ModelProto()
    model.CopyFrom(spiking)
    # Shapes that the network had before the fault; they are no part of what it computes.
    del model.graph.value_info[:]
    found = _KINDS[random.integers(len(_KINDS))](model, random)
    return None if found is None else Corruption(model, *found)


def _pick(choices: Any, random: np.random.Generator) -> Any:
    choices = list(choices)
    return choices[random.integers(len(choices))] if choices else None


def _readers(model: onnx.ModelProto, name: str) -> list[str]:
    return [node.name for graph in every_graph(model.graph) for node in graph.node if name in node.input]


def _tables(model: onnx.ModelProto) -> set[str]:
    return {
        name
        for graph in every_graph(model.graph)
        for node in graph.node
        if node.op_type == "ParallelSpike"
        for name in node.input[1:]
    }


Found = tuple[str, list[str]] | None


def _constant(model: onnx.ModelProto, random: np.random.Generator, tables: bool) -> Found:
    """One number of an initializer."""
    known = _tables(model)
    tensor = _pick(
        (
            tensor
            for graph in every_graph(model.graph)
            for tensor in graph.initializer
            if (tensor.name in known) == tables and _readers(model, tensor.name)
        ),
        random,
    )
    if tensor is None:
        return None
    values = numpy_helper.to_array(tensor).copy()
    if not values.size:
        return None
    at = tuple(random.integers(size) for size in values.shape)
    if values.dtype == bool:
        values[at] = not values[at]
    elif values.dtype.kind == "f":
        changes = [-values[at], 2 * values[at], 0, values[at] + 1]
        # Of a weight that is within rounding.
        changes += [np.nextafter(values[at], values.dtype.type(9))] if tensor.name.endswith("/thresholds") else []
        values[at] = _pick(changes, random)
    else:
        values[at] += _pick([-1, 1], random)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return f"'{tensor.name}' at {at}", _readers(model, tensor.name)


def _weight(model: onnx.ModelProto, random: np.random.Generator) -> Found:
    return _constant(model, random, tables=False)


def _table(model: onnx.ModelProto, random: np.random.Generator) -> Found:
    return _constant(model, random, tables=True)


def _attribute(model: onnx.ModelProto, random: np.random.Generator) -> Found:
    """One number of an attribute."""
    numbers = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT)
    node, attribute = _pick(
        (
            (node, entry)
            for graph in every_graph(model.graph)
            for node in graph.node
            for entry in node.attribute
            if entry.type in numbers
        ),
        random,
    ) or (None, None)
    if node is None:
        return None
    change = _pick([-1, 1], random)
    if attribute.type == AttributeProto.FLOAT:
        attribute.f += change
    elif attribute.type == AttributeProto.INT:
        attribute.i += change
    elif len(attribute.ints):
        attribute.ints[random.integers(len(attribute.ints))] += change
    return f"{attribute.name} of {node.name}", [node.name]


def _edge(model: onnx.ModelProto, random: np.random.Generator) -> Found:
    """An input is another tensor that was there before."""
    graph = _pick(every_graph(model.graph), random)
    index = int(random.integers(len(graph.node))) if len(graph.node) else None
    if index is None or not graph.node[index].input:
        return None
    node = graph.node[index]
    before = [name for other in list(graph.node)[:index] for name in other.output if name]
    before += [info.name for info in graph.input] + [tensor.name for tensor in graph.initializer]
    at, other = int(random.integers(len(node.input))), _pick(before, random)
    if other is None or other == node.input[at]:
        return None
    was, node.input[at] = node.input[at], other
    return f"{node.name} reads '{other}' instead of '{was}'", [node.name]


def _removed(model: onnx.ModelProto, random: np.random.Generator) -> Found:
    """An operator hands its input on."""
    node = _pick(
        (node for graph in every_graph(model.graph) for node in graph.node if node.input and node.domain == ""), random
    )
    if node is None:
        return None
    name, op_type = node.name, node.op_type
    node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]], name))
    return f"{op_type} {name} is left out", [name]


def _doubled(model: onnx.ModelProto, random: np.random.Generator) -> Found:
    """An operator is applied twice."""
    graph = _pick(every_graph(model.graph), random)
    nodes = [
        index for index, node in enumerate(graph.node) if node.input and node.domain == "" and len(node.output) == 1
    ]
    if not nodes:
        return None
    index = _pick(nodes, random)
    again = onnx.NodeProto()
    again.CopyFrom(graph.node[index])
    again.name += "/again"
    graph.node[index].output[0] += "/once"
    again.input[0] = graph.node[index].output[0]
    kept = list(graph.node)
    kept.insert(index + 1, again)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(kept)
    return f"{again.op_type} {again.name} is there twice", [graph.node[index].name, again.name]


_KINDS: list[Callable[[onnx.ModelProto, np.random.Generator], Found]] = [
    _weight, _table, _attribute, _edge, _removed, _doubled,
]  # fmt: skip


def _ends_behind(corruption: Corruption, result: Verification) -> set[str]:
    """What segments end in, and neurons, that the fault reaches without going through another neuron."""
    graphs = list(every_graph(corruption.model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    holder = {info.name: node for node in nodes for body in subgraphs(node) for info in body.output}
    layers = {layer.name for layer in result.layers}
    segments = {segment.name for segment in result.segments}
    waiting = [node for node in nodes if node.name in corruption.nodes]
    found: set[str] = {node.name for node in waiting}
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        within = [inner for body in subgraphs(node) for graph in every_graph(body) for inner in graph.node]
        made = {name for one in (node, *within) for name in one.output}
        rising = made & holder.keys()
        while rising:
            rising = {name for one in rising for name in holder[one].output}
            made |= rising
            rising &= holder.keys()
        found |= made | {inner.name for inner in within}
        reading = [other for other in nodes if not made.isdisjoint(other.input) and other.output[0] not in seen]
        seen.update(other.output[0] for other in reading)
        found |= {other.name for other in reading}
        waiting += [other for other in reading if other.name not in layers]
    return found & (layers | segments)
