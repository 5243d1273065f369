"""The spiking network between its neurons: cut there, and run on the values that the source has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph import Network
from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import captured, every_node, subgraphs, unused
from pconv_onnx.measure.magnitudes import Point
from pconv_onnx.measure.rounding import FLOATS
from pconv_onnx.operators.domain import MEAN_OP_TYPE, attribute, is_operator
from pconv_onnx.operators.means import temporal_mean_body


@dataclass
class Segment:
    """What the spiking network computes from the source's values, against what the source does.

    Attributes:
        name: the activation, output or tensor that it ends in.
        kind: which of these, `neuron`, `output` or `tensor`.
        bounded: whether it is known how far rounding alone may take it.
        elements: values compared.
        beyond: values that differ by more than rounding explains.
        max_abs_diff: the largest difference; infinite where shapes differ, or where one has a NaN or an infinity that
            the other has not.
        of_bound: the largest difference as a multiple of what rounding explains there; up to 1 it does.
    """

    name: str
    kind: str
    bounded: bool = True
    elements: int = 0
    beyond: int = 0
    max_abs_diff: float = 0.0
    of_bound: float = 0.0

    @property
    def told(self) -> str:
        """What it ends in, for messages."""
        return f"{self.kind} '{self.name}'"

    def summary(self) -> dict[str, Any]:
        """Its part of the JSON document of `verify`; JSON has no infinity."""
        return {
            "name": self.name,
            "kind": self.kind,
            "bounded": self.bounded,
            "elements": self.elements,
            "beyond": self.beyond,
            "max_abs_diff": self.max_abs_diff if np.isfinite(self.max_abs_diff) else None,
            "of_bound": self.of_bound if np.isfinite(self.of_bound) else None,
        }

    def add(self, expected: Array, found: Array, limit: Array | None) -> None:
        """Take in one batch; a limit of None says that it is not known, where it is not finite likewise.

        Args:
            expected: values of the source.
            found: those of the spiking network.
            limit: how far they may lie apart, element by element.
        """
        self.elements += expected.size
        if expected.shape != found.shape:
            self.max_abs_diff = np.inf
            self.beyond += max(expected.size, 1)
            return
        if expected.dtype not in FLOATS:
            wrong = int((expected != found).sum())
            self.beyond += wrong
            self.max_abs_diff = max(self.max_abs_diff, float(wrong > 0))
            return
        wide = np.float64 if np.float64 in (expected.dtype, found.dtype) else np.float32
        expected, found = expected.astype(wide, copy=False), found.astype(wide, copy=False)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(expected - found)
        if not np.isfinite(difference).all():
            same = (expected == found) | (np.isnan(expected) & np.isnan(found))
            difference = np.where(same, 0, np.where(np.isnan(difference), np.inf, difference))
        self.max_abs_diff = max(self.max_abs_diff, float(difference.max(initial=0)))
        if limit is None:
            self.bounded = False
            return
        # Where that is not finite it is as good as not known.
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = difference / limit
        if not limit.all():
            shares = np.where(difference > 0, shares, 0)
        most = shares.max(initial=0)
        if np.isnan(most) or not np.isfinite(limit).all():
            unknown = ~np.isfinite(np.broadcast_to(limit, shares.shape)) & (difference > 0)
            self.bounded &= not unknown.any()
            shares = np.where(unknown | np.isnan(shares), 0, shares)
            most = shares.max(initial=0)
        if most > 1:
            self.beyond += int((shares > 1).sum())
        self.of_bound = max(self.of_bound, float(most))


@dataclass(frozen=True)
class End:
    """Where a segment ends.

    Attributes:
        point: the tensor of the source.
        output: its name in the piece that computes it.
        reached: the tensor of the source that is empty where a run does not get there.
        steps: time-steps that it has there.
        segment: what is found.
    """

    point: Point
    reached: str
    output: str
    steps: int
    segment: Segment


@dataclass(frozen=True)
class Piece:
    """A part of the spiking network that is run by itself, with one segment or several that have nodes in common.

    Attributes:
        model: the part.
        fed: what it is given of the source, by the name of its input the tensor of the spiking network.
        ends: of segments.
    """

    model: onnx.ModelProto = field(repr=False)
    fed: Mapping[str, str]
    ends: Sequence[End]


@dataclass(frozen=True)
class Neuron:
    """A neuron of the spiking network as segments see it.

    Attributes:
        name: of its activation.
        input: the pre-activation, a tensor of the source.
        output: the activation, likewise.
        node: its node.
        steps: time-steps that its current has there.
    """

    name: str
    input: str
    output: str
    node: onnx.NodeProto
    steps: int


def cut(
    spiking: Network,
    neurons: Sequence[Neuron],
    tensors: Sequence[str],
    outputs: Sequence[str],
    points: Mapping[str, Point],
    *,
    means: np.dtype[Any] | None = None,
) -> list[Piece]:
    """The pieces of a spiking network between its neurons.

    Args:
        spiking: the network.
        neurons: all of its layers.
        tensors: what else it is cut at.
        outputs: names of its outputs that the source has as well.
        points: what is known of each end, by the source's name.
        means: the type of neurons, where some have not all of the source's values: trains are then not decoded into
            levels; means are taken, which may be any value.
    """
    model = onnx.ModelProto()
    model.CopyFrom(spiking.proto)
    graph = model.graph
    used = set(spiking.names)
    layers = {neuron.node.name: neuron for neuron in neurons}
    fed = {name: unused(f"{name}/fed", used) for name in (*(n.node.output[0] for n in neurons), *tensors)}
    currents: dict[str, str] = {}
    _rewire(graph, fed, layers, currents, used)
    if means is not None:
        _take_means(model, spiking.opset, means)
    made = {name for node in every_node(graph) for name in node.output}
    types = _types(spiking, neurons)
    del graph.output[:]
    ends = []
    for name, neuron in layers.items():
        output = expose(graph, currents[name], types[neuron.node.output[0]], used)
        ends.append(End(points[neuron.input], neuron.output, output, neuron.steps, Segment(neuron.name, "neuron")))
    for kind, names in (("output", outputs), ("tensor", [name for name in tensors if name not in outputs])):
        for name in names:
            # Of a neuron that is an output itself there is nothing behind it.
            if name in made and name in points:
                ends.append(
                    End(points[name], name, expose(graph, name, types.get(name, 1), used), 1, Segment(name, kind))
                )
    inputs = {info.name: info for info in graph.input}
    given = {new: old for old, new in fed.items()}
    for new, old in given.items():
        inputs[new] = helper.make_tensor_value_info(new, types[old], None)
    return [
        Piece(part, {name: given.get(name, name) for name in (info.name for info in part.graph.input)}, there)
        for part, there in _parts(model, inputs, ends)
    ]


def _take_means(model: onnx.ModelProto, opset: int, dtype: np.dtype[Any]) -> None:
    """Put means of currents in the place of what decodes trains."""
    for node in (node for node in every_node(model.graph) if is_operator(node)):
        steps = attribute(node, "input_steps")
        node.CopyFrom(
            helper.make_node(MEAN_OP_TYPE, [node.input[0]], list(node.output), node.name, domain=DOMAIN, steps=steps)
        )
    if all(function.name != MEAN_OP_TYPE for function in model.functions):
        model.functions.append(temporal_mean_body(opset, dtype))


def _types(spiking: Network, neurons: Sequence[Neuron]) -> dict[str, int]:
    types = {name: int(helper.np_dtype_to_tensor_dtype(dtype)) for name, dtype in spiking.dtypes.items()}
    for neuron in neurons:
        types[neuron.node.output[0]] = types[neuron.node.input[1]]
    return types


def _rewire(
    graph: onnx.GraphProto,
    fed: Mapping[str, str],
    layers: Mapping[str, Neuron],
    currents: dict[str, str],
    used: set[str],
    is_body: bool = False,
) -> None:
    """Have all that reads a tensor which is fed read that, and each neuron hand its current on."""
    nodes = []
    for node in graph.node:
        node.input[:] = [fed.get(name, name) for name in node.input]
        for body in subgraphs(node):
            _rewire(body, fed, layers, currents, used, is_body=True)
        if node.name in layers and layers[node.name].node.output[0] == node.output[0]:
            currents[node.name] = unused(f"{node.name}/current", used)
            node = helper.make_node("Identity", [node.input[0]], [currents[node.name]])
        nodes.append(node)
    if is_body:
        # What a body hands out it has to make itself.
        for output in (output for output in graph.output if output.name in fed):
            renamed = unused(output.name, used)
            nodes.append(helper.make_node("Identity", [fed[output.name]], [renamed]))
            output.name = renamed
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def _parts(
    model: onnx.ModelProto, inputs: Mapping[str, onnx.ValueInfoProto], ends: Sequence[End]
) -> Iterator[tuple[onnx.ModelProto, list[End]]]:
    """The parts of a model that have no computed tensor in common, each as a model of its own."""
    graph = model.graph
    nodes = list(graph.node)
    reads = [{name for name in (*node.input, *captured(node)) if name} for node in nodes]
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    varies = set(inputs)
    for node, names in zip(nodes, reads, strict=True):
        if not varies.isdisjoint(names):
            varies.update(node.output)
    # Nodes that a computed tensor joins, as trees whose roots name the parts; constants join nothing.
    parent = list(range(len(nodes)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    needed = _behind((end.output for end in ends), maker, reads)
    for index in needed:
        for name in reads[index]:
            if name in varies and name in maker:
                parent[root(maker[name])] = root(index)
    there: dict[int, list[End]] = {}
    for end in ends:
        there.setdefault(root(maker[end.output]), []).append(end)
    infos = {info.name: info for info in graph.output}
    for part in sorted(there.values(), key=lambda part: maker[part[0].output]):
        indices = sorted(_behind((end.output for end in part), maker, reads))
        names = {name for index in indices for name in reads[index]}
        body = helper.make_graph(
            [nodes[index] for index in indices],
            "segment",
            [info for name, info in inputs.items() if name in names],
            [infos[end.output] for end in part],
            [tensor for tensor in graph.initializer if tensor.name in names],
            sparse_initializer=[tensor for tensor in graph.sparse_initializer if tensor.values.name in names],
        )
        yield (
            helper.make_model(
                body, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
            ),
            part,
        )


def _behind(names: Iterable[str], maker: Mapping[str, int], reads: Sequence[Collection[str]]) -> set[int]:
    """The nodes that tensors are computed by."""
    waiting, found = list(names), set()
    while waiting:
        index = maker.get(waiting.pop())
        if index is not None and index not in found:
            found.add(index)
            waiting += reads[index]
    return found
