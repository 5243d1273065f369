"""Adds magnitudes to the source's values, which bound how far the values between neurons may differ by rounding.

Between neurons a network is also cut at operators without magnitudes (`rounding.ROWS`): their inputs are compared up to
rounding, and what they make of the source's own values must equal the source's in every bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import captured, is_if, once, subgraphs, unused
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.measure.parts import Part, parts
from pconv_onnx.measure.rounding import ROWS, Rounded, SizeUnknownError

# From here on operators broadcast as they do now, there is ConstantOfShape, and indices may be negative.
_LEAST_OPSET, _CONSTANTS_OF_SHAPE_OPSET, _NEGATIVE_INDICES_OPSET = 7, 9, 11
# What is drawn differs from run to run. A Dropout that is not the identity draws as well, but it has a row.
_DRAWN = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_SHAPES = ("Shape", "Size")
# A level, as the mean of spikes that were levels divided by T: a product, a quotient and a sum; and one table.
_OF_A_NEURON = 3, 1


@dataclass(frozen=True)
class Point:
    """A tensor of the source that segments end in.

    Attributes:
        tensor: its name in the source.
        exact: whether nothing is rounded on the way there, so that no bit may differ.
        rounded: what is, where that is known; its `magnitude` may be a tensor of which absolute values are taken.
        largest: the largest mean over time of magnitudes, where that is more than that of the mean.
    """

    tensor: str
    exact: bool = False
    rounded: Rounded | None = None
    largest: float = 0.0


@dataclass(frozen=True)
class Emitted:
    """What a neuron emits in the place of a tensor of the source.

    Attributes:
        dtype: the type that the source computes it in.
        largest: the largest mean of what time-steps have without their signs, where that may be larger than that of
            the mean; 0 where a silent neuron gives zero, since all that a train has then is of one sign.
    """

    dtype: np.dtype
    largest: float = 0.0


class Counterpart(Protocol):
    """What of the source the spiking network has, too."""

    def has(self, tensor: str) -> bool:
        """Whether it computes that tensor, without a time axis, so that a value can be put in its place."""

    def same_type(self, tensor: str) -> bool:
        """Whether that has the source's type there."""

    def in_time(self, tensor: str) -> bool:
        """Whether it has a form with a time axis there, beside that or alone."""


@dataclass
class Tapped:
    """The source, ready to be run.

    Attributes:
        model: the source with all values that are looked at as outputs.
        points: what segments end in, by tensor.
        cut: tensors whose values of the source are put into the spiking network, those of neurons not among them.
        taps: the outputs, by tensor.
        magnitudes: what computes magnitudes, and counts of operations, from values.
        conditions: tensors that decide which branch of an If is entered; each has a tap.
    """

    model: onnx.ModelProto = field(repr=False)
    points: dict[str, Point]
    cut: list[str]
    taps: dict[str, str]
    magnitudes: list[Part] = field(repr=False)
    conditions: list[str]


def with_magnitudes(
    source: Network,
    emitted: Mapping[str, Emitted],
    ends: Mapping[str, np.dtype],
    spiking: Counterpart,
    least: float = 0.0,
) -> Tapped:
    """Write magnitudes beside the values of a network.

    Args:
        source: the network.
        emitted: its tensors that neurons emit.
        ends: its tensors that segments have to end in, pre-activations and outputs, with their types.
        spiking: what the other network has of it.
        least: the smallest normal number of the type that the other network stores numbers in, where that is narrower:
            what is smaller is off by as much as that.

    Raises:
        KeyError: it has no tensor of that name.
    """
    writing = _Writing(source, emitted, spiking, least)
    marked, tapped = onnx.ModelProto(), onnx.ModelProto()
    marked.CopyFrom(source.proto)
    tapped.CopyFrom(source.proto)
    if source.opset >= _LEAST_OPSET:
        writing.needed = _needed(source, ends, set(emitted))
        writing.graph(marked.graph)
    points = {name: writing.point(name) for name in dict.fromkeys((*ends, *writing.cut))}
    dtypes = {**source.dtypes, **{name: neuron.dtype for name, neuron in emitted.items()}, **ends}
    types = {name: int(helper.np_dtype_to_tensor_dtype(dtype)) for name, dtype in dtypes.items()}
    used = set(source.names)
    types |= dict.fromkeys(writing.conditions, int(onnx.TensorProto.BOOL))
    tapping = dict.fromkeys((*points, *emitted, *writing.conditions))
    taps = expose(tapped.graph, {name: types[name] for name in tapping}, used)
    wanted: dict[str, int] = {}
    for point in points.values():
        if point.rounded is not None:
            wanted |= dict.fromkeys(point.rounded.counts, int(onnx.TensorProto.FLOAT))
            if point.rounded.magnitude not in taps:
                wanted[point.rounded.magnitude] = _magnitude_element(source, point.tensor)
    fed = {name: types[name] for name in dict.fromkeys((*emitted, *writing.cut))}
    return Tapped(tapped, points, list(writing.cut), taps, parts(marked, fed, wanted), list(writing.conditions))


def _magnitude_element(source: Network, name: str) -> int:
    wide = source.dtypes.get(name) == np.float64
    return onnx.TensorProto.DOUBLE if wide else onnx.TensorProto.FLOAT


def _needed(source: Network, ends: Iterable[str], stops: set[str]) -> set[str]:
    """The tensors that something between neurons is computed from."""
    makers = {name: node for node in once(source.proto.graph) for name in node.output if name}
    waiting, found = list(ends), set(stops)
    while waiting:
        name = waiting.pop()
        if name in makers and name not in found:
            node = makers[name]
            found.update(node.output)
            waiting += node.input
            waiting += [info.name for body in subgraphs(node) for info in body.output] if is_if(node) else ()
            waiting += captured(node)
    # What a neuron emits is not computed, unless something asks for it in another way.
    return found - stops


def _draws(node: onnx.NodeProto) -> bool:
    """Whether a node, or one in its bodies, gives something else in each run."""
    return node.op_type in _DRAWN or any(map(_draws, (inner for body in subgraphs(node) for inner in body.node)))


@dataclass(frozen=True)
class _Value:
    """A tensor whose values are the same for both networks, but for operations and stores that go into a leaf."""

    operations: int = 0
    stores: int = 1
    largest: float = 0.0


class _Writing:
    """State of one writing. Of each tensor that is computed from the inputs it says how it comes about.

    Of a float tensor by `Rounded` or `_Value`; other tensors are `_Value`s, too, where nothing that was rounded decides
    about them. None: it is not known.
    """

    def __init__(self, source: Network, emitted: Mapping[str, Emitted], spiking: Counterpart, least: float) -> None:
        self.source, self.emitted, self.spiking, self.least = source, emitted, spiking, least
        self.used = set(source.names)
        self.needed: set[str] = set()
        self.inputs = {info.name for info in source.proto.graph.input} - initializer_names(source.proto.graph)
        # As computed, and as it is read: once cut they are not the same.
        self.computed: dict[str, Rounded | _Value | None] = {}
        self.state: dict[str, Rounded | _Value | None] = {name: _Value() for name in self.inputs}
        self.state |= {name: _Value(*_OF_A_NEURON, neuron.largest) for name, neuron in emitted.items()}
        self.exact: set[str] = set(self.inputs)
        self.drawn: set[str] = set()
        # Of Ifs.
        self.conditions: dict[str, None] = {}
        # Where trains are decoded, too, the source's values take over.
        self.cut: dict[str, None] = {name: None for name in emitted if spiking.has(name)}
        self.tensors = {tensor.name: tensor for node in source.every_node() for tensor in node.inputs}

    def point(self, name: str) -> Point:
        """What is known of a tensor as it is computed."""
        if name in self.emitted:
            return Point(name, rounded=Rounded(name, *_OF_A_NEURON), largest=self.emitted[name].largest)
        if not self.varies(name):
            return Point(name, self.spiking.same_type(name), Rounded(name, 0, 1))
        found = self.computed.get(name, self.state[name] if name in self.inputs else None)
        if isinstance(found, _Value):
            found = Rounded(name, found.operations, found.stores)
        exact = name in self.exact and self.spiking.same_type(name)
        return Point(name, exact, None if exact else found)

    def is_float(self, name: str) -> bool:
        """Whether a tensor has a float type, or may have."""
        dtype = self.source.dtypes.get(name)
        return dtype is None or dtype.kind in "fV"

    def varies(self, name: str) -> bool:
        """Whether a tensor depends on the inputs, or is another in each run."""
        return name in self.source.computed_from_inputs or name in self.emitted or name in self.drawn

    def graph(self, graph: onnx.GraphProto) -> None:
        """Write the magnitudes of a graph into it."""
        self._scope(graph, None).finish(graph)

    def _scope(self, graph: onnx.GraphProto, outer: _Scope | None) -> _Scope:
        """Those of a graph or of a branch in one that is being written."""
        scope = _Scope(self, outer)
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if not self.needed.isdisjoint(node.output):
                self._node(scope, copy)
            else:
                scope.nodes.append(copy)
        return scope

    def _node(self, scope: _Scope, node: onnx.NodeProto) -> None:
        if _draws(node):
            self.drawn.update(node.output)
        if not any(self.varies(name) for name in node.output if name):
            scope.nodes.append(node)
        elif is_if(node):
            self._if(scope, node)
        else:
            scope.nodes.append(node)
            self._plain(scope, node)

    def _plain(self, scope: _Scope, node: onnx.NodeProto) -> None:
        read = [name for name in dict.fromkeys((*node.input, *captured(node))) if name and self.varies(name)]
        floats = [name for name in read if self.is_float(name)]
        standard = is_standard(node)
        if standard and node.op_type in _SHAPES:
            floats = []
        if not self.drawn.isdisjoint(node.output):
            self._cut_around(node, read)
            return
        if not floats:
            self._untouched(node, all(self.state.get(name) is not None for name in read if not self.is_float(name)))
            return
        row = ROWS.get(node.op_type) if standard else None
        rounded = None
        if row is not None:
            known = all(self.state.get(name) is not None for name in read)
            try:
                rounded = row(_Place(scope, node)) if known else []
            except SizeUnknownError:
                rounded = []
        if rounded is None:
            self._cut_around(node, read)
        else:
            for index, name in enumerate(node.output):
                found = rounded[index] if index < len(rounded) else None
                self._set(name, found)

    def _set(self, name: str, found: Rounded | _Value | None) -> None:
        if name and name not in self.emitted:
            self.computed[name] = self.state[name] = found

    def _untouched(self, node: onnx.NodeProto, known: bool) -> None:
        """Of what is computed without floats that were rounded nothing may differ, but for another type."""
        for name in filter(None, node.output):
            self._set(name, _Value() if known else None)
            if known and name not in self.emitted:
                self.exact.add(name)
                if not self.is_float(name):
                    self._cut(name)

    def _cut_around(self, node: onnx.NodeProto, read: Sequence[str]) -> None:
        """Cut in front of an operator without magnitudes, and behind it."""
        given = [self._cut(name) if self.is_float(name) else self.state.get(name) is not None for name in read]
        same = all(self.spiking.same_type(name) for name in read if self.is_float(name))
        known = all(given) and self.drawn.isdisjoint(node.output)
        for name in filter(None, node.output):
            self._set(name, None)
            if known and same and name not in self.emitted:
                self.exact.add(name)
            if not self._cut(name) and known and not self.is_float(name):
                self._keep(name)

    def _cut(self, name: str) -> bool:
        """Have the source's values put in the place of a tensor of the spiking network, where that is possible."""
        if name in self.inputs or name in self.emitted:
            return True
        if name not in self.cut:
            if name not in self.source.dtypes or not self.spiking.has(name):
                return False
            self.cut[name] = None
        self._keep(name)
        return True

    def _keep(self, name: str) -> None:
        """Reckon with the source's values, where all that reads a tensor is given these.

        What reads its form in time is given what was computed.
        """
        if name not in self.emitted and not self.spiking.in_time(name):
            self.state[name] = _Value()

    def _if(self, scope: _Scope, node: onnx.NodeProto) -> None:
        """What a branch gives is rounded as it is there; an If has as many outputs more as it has float ones."""
        bodies = list(subgraphs(node))
        inner = [self._scope(body, scope) for body in bodies]
        scope.nodes.append(node)
        condition = self.state.get(node.input[0]) is not None or not self.varies(node.input[0])
        if self.varies(node.input[0]):
            self.conditions[node.input[0]] = None
        for index, name in enumerate(list(node.output)):
            given = [body.output[index].name for body in bodies]
            states = [self.state.get(tensor) if self.varies(tensor) else _Value(1, 1) for tensor in given]
            if not condition or None in states:
                self._set(name, None)
            elif not self.is_float(name):
                self._set(name, _Value())
                self.exact.add(name)
                self._cut(name)
            else:
                rounded = [one.rounded(tensor) for one, tensor in zip(inner, given, strict=True)]
                for one, body, each in zip(inner, bodies, rounded, strict=True):
                    one.hand_out(body, each.magnitude, _magnitude_element(self.source, name))
                node.output.append(unused(f"{name}/magnitude", self.used))
                self._set(name, Rounded.joined(rounded, node.output[-1], products=False))
        for one, body in zip(inner, bodies, strict=True):
            one.finish(body)


class _Scope:
    """A graph that is being written: its nodes, and magnitudes of values that are read there."""

    def __init__(self, writing: _Writing, outer: _Scope | None) -> None:
        self.writing, self.outer = writing, outer
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.leaves: dict[str, str] = {}

    def rounded(self, name: str) -> Rounded:
        """How a float tensor comes about, with its magnitude written where it has none yet."""
        writing = self.writing
        state = writing.state.get(name) if writing.varies(name) else _Value(1, 1)
        if isinstance(state, Rounded):
            return state
        if state is None:
            raise SizeUnknownError
        return Rounded(self._leaf(name, state.largest), state.operations, state.stores)

    def filled(self, name: str) -> Rounded:
        """The same with values that are no larger than magnitudes."""
        found = self.rounded(name)
        if not found.hollow:
            return found
        magnitude = self.write("Add", [found.magnitude, self._leaf(name, 0.0)], [], 1)[0]
        return replace(found, magnitude=magnitude, hollow=False)

    def nothing(self, name: str) -> str:
        """Zeros of the shape of a tensor."""
        (shape,) = self.write("Shape", [name], [], 1)
        zero = numpy_helper.from_array(
            np.zeros(1, helper.tensor_dtype_to_np_dtype(_magnitude_element(self.writing.source, name)))
        )
        return self.write("ConstantOfShape", [shape], [helper.make_attribute("value", zero)], 1)[0]

    def _leaf(self, name: str, largest: float) -> str:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.leaves:
                return scope.leaves[name]
            scope = scope.outer
        element = _magnitude_element(self.writing.source, name)
        found = self.write("Abs", [name], [], 1)[0]
        if self.writing.source.dtypes.get(name) not in (np.float32, np.float64):
            found = self.write("Cast", [found], [helper.make_attribute("to", element)], 1)[0]
        if largest + self.writing.least:
            # No less than the largest of them: Max broadcasts in later opsets only.
            more = np.array(largest + self.writing.least, helper.tensor_dtype_to_np_dtype(element))
            found = self.write("Add", [found, self.constant(f"{name}/more", more)], [], 1)[0]
        self.leaves[name] = found
        return found

    def write(
        self, op_type: str, inputs: Sequence[str], attributes: Sequence[onnx.AttributeProto], outputs: int
    ) -> list[str]:
        """Write a node; the names of its outputs."""
        names = [unused(f"{inputs[0]}/{op_type}/magnitude", self.writing.used) for _ in range(outputs)]
        node = helper.make_node(op_type, list(inputs), names)
        node.attribute.extend(attributes)
        self.nodes.append(node)
        return names

    def constant(self, name: str, value: Array) -> str:
        """Write a constant; its name."""
        tensor = numpy_helper.from_array(value, unused(name, self.writing.used))
        self.initializers.append(tensor)
        return tensor.name

    def hand_out(self, body: onnx.GraphProto, name: str, element: int) -> None:
        """Make a tensor that is read in a branch one more of its outputs."""
        output = unused(f"{name}/out", self.writing.used)
        self.nodes.append(helper.make_node("Identity", [name], [output]))
        body.output.append(helper.make_tensor_value_info(output, element, None))

    def finish(self, graph: onnx.GraphProto) -> None:
        """Put the nodes into the graph."""
        del graph.node[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.initializers)


class _Place:
    """A node of the source, as rows of the table look at it."""

    def __init__(self, scope: _Scope, node: onnx.NodeProto) -> None:
        self.scope, self.node = scope, node

    def operand(self, index: int) -> Rounded:
        return self.scope.filled(self.node.input[index])

    def picked(self, index: int) -> Rounded:
        name, writing = self.node.input[index], self.scope.writing
        # In a narrower network a constant is rounded.
        if writing.varies(name) or writing.least or writing.source.opset < _CONSTANTS_OF_SHAPE_OPSET:
            return self.scope.rounded(name)
        return Rounded(self.scope.nothing(name), hollow=True)

    def given(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def constant(self, index: int) -> Array | None:
        return constant(self.scope.writing.tensors[self.node.input[index]])

    def varies(self, index: int) -> bool:
        return self.scope.writing.varies(self.node.input[index])

    def sizes(self, name: str) -> Sequence[int | str | None]:
        found = self.scope.writing.source.shapes.get(name)
        if found is None:
            raise SizeUnknownError
        return found

    def write(self, op_type: str, inputs: Sequence[str], attributes: Sequence[onnx.AttributeProto]) -> list[str]:
        return self.scope.write(op_type, inputs, attributes, len(self.node.output))

    def ratio(self, large: str, small: str) -> str:
        sizes = [self._as_float(self.scope.write("Size", [name], [], 1)[0]) for name in (large, small)]
        return self.scope.write("Div", sizes, [], 1)[0]

    def last_size(self, name: str) -> str:
        if self.scope.writing.source.opset < _NEGATIVE_INDICES_OPSET:
            raise SizeUnknownError
        (shape,) = self.scope.write("Shape", [name], [], 1)
        index = self.scope.constant(f"{name}/last", np.array(-1))
        return self._as_float(self.scope.write("Gather", [shape, index], [], 1)[0])

    def _as_float(self, name: str) -> str:
        return self.scope.write("Cast", [name], [helper.make_attribute("to", onnx.TensorProto.FLOAT)], 1)[0]
