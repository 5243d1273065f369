"""Segments: a spiking network is cut at its neurons, and what lies between runs on the source's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import every_node, unused
from pconv_onnx.measure.magnitudes import Point
from pconv_onnx.measure.parts import Part, parts
from pconv_onnx.measure.rounding import FLOATS
from pconv_onnx.operators.domain import MEAN_OP_TYPE, attribute, is_operator
from pconv_onnx.operators.means import temporal_mean_body


@dataclass
class Segment:
    """What the spiking network computes between neurons from the source's values, compared with the source.

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
            self._take_in(np.full((), np.inf), np.zeros(()))
        elif expected.dtype not in FLOATS:
            self._take_in((expected != found).astype(np.float32), limit)
        else:
            wide = np.float64 if np.float64 in (expected.dtype, found.dtype) else np.float32
            expected, found = expected.astype(wide, copy=False), found.astype(wide, copy=False)
            with np.errstate(invalid="ignore", over="ignore"):
                difference = np.abs(expected - found)
            if not np.isfinite(difference).all():
                same = (expected == found) | (np.isnan(expected) & np.isnan(found))
                difference = np.where(same, 0, np.where(np.isnan(difference), np.inf, difference))
            self._take_in(difference, limit)

    def _take_in(self, difference: Array, limit: Array | None) -> None:
        """Hold differences, none of them NaN, against their bounds."""
        self.max_abs_diff = max(self.max_abs_diff, float(difference.max(initial=0)))
        if limit is None:
            self.bounded = False
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = difference / limit
        if not limit.all() or not np.isfinite(limit).all():
            # A bound that is not finite is as good as none.
            unknown = ~np.isfinite(np.broadcast_to(limit, shares.shape)) & (difference > 0)
            self.bounded &= not unknown.any()
            shares = np.where(unknown | (difference == 0), 0, shares)
        most = float(shares.max(initial=0))
        if most > 1:
            self.beyond += int((shares > 1).sum())
        self.of_bound = max(self.of_bound, most)


@dataclass(frozen=True)
class End:
    """Where a segment ends.

    Attributes:
        point: the tensor of the source.
        reached: the tensor of the source that is empty where a run does not get there.
        steps: time-steps that it has in the spiking network.
        segment: what is found.
    """

    point: Point
    reached: str
    steps: int
    segment: Segment


@dataclass(frozen=True)
class Piece:
    """A part of the spiking network, with one segment or several that have nodes in common.

    Attributes:
        part: the part.
        ends: of segments, by its output.
    """

    part: Part
    ends: Mapping[str, End]


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
    types = {name: int(helper.np_dtype_to_tensor_dtype(dtype)) for name, dtype in spiking.dtypes.items()}
    for neuron in neurons:
        types[neuron.node.output[0]] = types[neuron.node.input[1]]
    used = set(spiking.names)
    currents = _hand_currents_on(model.graph, {neuron.node.name: neuron for neuron in neurons}, used)
    if means is not None:
        _take_means(model, spiking.opset, means)
    ends: dict[str, End] = {}
    elements: dict[str, int] = {}
    for neuron in neurons:
        name = currents[neuron.node.name]
        ends[name] = End(points[neuron.input], neuron.output, neuron.steps, Segment(neuron.name, "neuron"))
        elements[name] = types[neuron.node.output[0]]
    made = {name for node in every_node(model.graph) for name in node.output}
    for name in (name for name in tensors if name in made and name not in outputs):
        ends[name] = End(points[name], name, 1, Segment(name, "tensor"))
        elements[name] = types[name]
    # What a neuron makes of its own activation is compared already.
    own = {neuron.node.output[0] for neuron in neurons if neuron.node.output[0] == neuron.output}
    for name in (name for name in outputs if name not in own):
        handed = unused(f"{name}/output", used)
        model.graph.node.append(helper.make_node("Identity", [name], [handed]))
        ends[handed] = End(points[name], name, 1, Segment(name, "output"))
        elements[handed] = types.get(name, int(onnx.TensorProto.FLOAT))
    fed = {name: types[name] for name in (*(neuron.node.output[0] for neuron in neurons), *tensors)}
    return [
        Piece(part, {output: ends[name] for name, output in part.ends.items()}) for part in parts(model, fed, elements)
    ]


def _hand_currents_on(graph: onnx.GraphProto, layers: Mapping[str, Neuron], used: set[str]) -> dict[str, str]:
    """Put what only hands its current on in the place of each neuron; the names that currents have then."""
    currents = {}
    for node in (node for node in every_node(graph) if is_operator(node) and node.name in layers):
        currents[node.name] = unused(f"{node.name}/current", used)
        node.CopyFrom(helper.make_node("Identity", [node.input[0]], [currents[node.name]], node.name))
    return currents


def _take_means(model: onnx.ModelProto, opset: int, dtype: np.dtype[Any]) -> None:
    """Put means of currents in the place of what decodes trains."""
    for node in (node for node in every_node(model.graph) if is_operator(node)):
        steps = attribute(node, "input_steps")
        node.CopyFrom(
            helper.make_node(MEAN_OP_TYPE, [node.input[0]], list(node.output), node.name, domain=DOMAIN, steps=steps)
        )
    if all(function.name != MEAN_OP_TYPE for function in model.functions):
        model.functions.append(temporal_mean_body(opset, dtype))
