"""A serial network as a graph of the Neuromorphic Intermediate Representation.

In NIR a spike is 1, a node takes the sum of what its edges bring, and tensors have no batch axis. So each tensor of the
network is kept as a sum of outputs of NIR nodes, each with a factor per channel that is still to be multiplied into the
weights of whoever reads it: there the amplitudes of spikes, means of pools and constants of the network end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.external import values
from pconv_onnx.graph.nesting import captured, unused
from pconv_onnx.graph.windows import entry, pads
from pconv_onnx.operators.domain import SERIAL_OP_TYPE

Shape = tuple[int, ...]
_ONE = np.ones(1)


@dataclass(frozen=True, eq=False)
class _Term:
    """An output of a NIR node, as a part of a sum.

    Attributes:
        node: its name.
        scale: what it is to be multiplied by, `[C]` or `[1]`.
        alone: whether nothing else reads the node.
    """

    node: str
    scale: Array = field(default_factory=lambda: _ONE)
    alone: bool = True


@dataclass(eq=False)
class _Affine:
    """A convolution or matrix, open to what comes behind it as long as nothing else reads it.

    Attributes:
        weight: `[M, C, …]`, of all groups in one; a matrix where there are no further axes.
        bias: `[M]`.
        shape: of its input, without the batch.
        strides: by spatial axis, as are `pads`, the same at both ends, and `dilations`.
    """

    weight: Array
    bias: Array
    shape: Shape
    strides: list[int]
    pads: list[int]
    dilations: list[int]

    def followed_by(self, matrix: Array, strides: Sequence[int]) -> None:
        """Multiply its channels by a matrix `[M', M]`, or by factors `[M | 1]`, at positions so far apart."""
        if matrix.ndim == 1:
            self.weight = self.weight * matrix.reshape(-1, *[1] * (self.weight.ndim - 1))
            self.bias = self.bias * matrix
        else:
            self.weight, self.bias = np.tensordot(matrix, self.weight, axes=1), matrix @ self.bias
        self.strides = [own * further for own, further in zip(self.strides, strides, strict=True)]


def nir_graph(network: Network, potentials: dict[str, str], steps: int | None, nir: Any) -> Any:
    """The `nir.NIRGraph` of a serial network.

    Args:
        network: what `rewrite` wrote in mode `serial`.
        potentials: its membrane potentials, by input the output that the next step takes.
        steps: T.
        nir: the package of that name.

    Raises:
        PconvError: something of the network has no counterpart in NIR.
    """
    return _Walk(network, potentials, nir).graph(steps)


class _Walk:
    """State of one translation: the nodes and edges so far, and what each tensor is in terms of them."""

    def __init__(self, network: Network, potentials: dict[str, str], nir: Any) -> None:
        self.network, self.potentials, self.nir = network, potentials, nir
        self.constants = _constants(network)
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.names: set[str] = set()
        self.tensors: dict[str, list[_Term]] = {}

    def graph(self, steps: int | None) -> Any:
        source = self.network.proto.graph
        inputs = [i.name for i in source.input if i.name not in self.constants and i.name not in self.potentials]
        outputs = [o.name for o in source.output if o.name not in self.potentials.values()]
        if len(inputs) != 1 or len(outputs) != 1:
            raise PconvError(
                f"the network has {len(inputs)} inputs and {len(outputs)} outputs; readers of NIR take one of each",
                "export the part of the ANN between one input and one output",
            )
        nodes = self._computing(outputs[0])
        self.uses = Counter([*outputs, *(tensor.name for node in nodes for tensor in _operands(node))])
        shape = self.shape(inputs[0])
        self.tensors[inputs[0]] = [_Term(self.add(inputs[0], self.nir.Input({"input": np.array(shape)})))]
        for node in nodes:
            terms = _RULES[node.op](self, node)
            only = self.uses[node.outputs[0].name] == 1
            self.tensors[node.outputs[0].name] = [replace(term, alone=term.alone and only) for term in terms]
        self._output(outputs[0])
        for name, layer in self.nodes.items():
            if isinstance(layer, _Affine):
                self.nodes[name] = self._written(layer)
        metadata = {"pconv_onnx": version("pconv-onnx")} | ({} if steps is None else {"steps": steps})
        return self.nir.NIRGraph(self.nodes, self.edges, metadata)

    def _computing(self, output: str) -> list[gs.Node]:
        """The nodes whose values reach the output, in order; refuses those without a counterpart."""
        wanted, found = {output}, []
        for node in reversed(self.network.nodes):
            if (
                wanted.intersection(tensor.name for tensor in node.outputs)
                and node.outputs[0].name not in self.constants
            ):
                found.append(node)
                wanted.update(tensor.name for tensor in _operands(node))
        found.reverse()
        foreign = [node for node in found if not (is_standard(node) or _is_neuron(node)) or node.op not in _RULES]
        if foreign:
            more = f", nor have {len(foreign) - 1} further nodes" if foreign[1:] else ""
            raise PconvError(f"{_called(foreign[0])} has no counterpart in NIR{more}", "NIR is for CNNs and MLPs")
        return found

    def _output(self, name: str) -> None:
        """Readers return the output of one node."""
        terms = self.plain(name, self.tensors[name])
        if len(terms) > 1 or not isinstance(self.nodes[terms[0].node], _Affine):
            channels = np.eye(self.shape(name)[0])
            terms = [_Term(self.affine(name, self.pointwise(self.shape(name), channels), terms))]
        self.connect(terms, self.add("output", self.nir.Output({"output": np.array(self.shape(name))})))

    def _written(self, layer: _Affine) -> Any:
        weight, bias = layer.weight.astype(np.float32), layer.bias.astype(np.float32)
        if weight.ndim == 2:
            return self.nir.Affine(weight, bias)
        if weight.ndim == 3:
            size, stride, padding, dilation = layer.shape[1], layer.strides[0], layer.pads[0], layer.dilations[0]
            return self.nir.Conv1d(size, weight, stride, padding, dilation, 1, bias)
        settings = (tuple(values) for values in (layer.strides, layer.pads, layer.dilations))
        return self.nir.Conv2d(layer.shape[1:], weight, *settings, 1, bias)

    def shape(self, name: str) -> Shape:
        """Shape of a tensor without the batch."""
        shape = self.network.shapes.get(name, ())
        if len(shape) < 2 or not all(isinstance(size, int) for size in shape[1:]):
            raise PconvError(
                f"the shape of '{name}', {list(shape) or 'unknown'}, is open beyond the batch; NIR wants sizes",
                "give the inputs of the ANN fixed sizes, and rewrite it again",
            )
        return tuple(int(size) for size in shape[1:] if size is not None)

    def input(self, node: gs.Node) -> list[_Term]:
        """What a node of one input reads."""
        return self.tensors[self.variable(node, 0)]

    def variable(self, node: gs.Node, index: int) -> str:
        """The name of an operand, which is not constant."""
        name = str(node.inputs[index].name)
        if name in self.constants:
            raise PconvError(f"{_called(node)} takes a constant where NIR wants a signal")
        return name

    def constant(self, node: gs.Node, index: int, default: Array | None = None) -> Array:
        """The value of an operand, which must be constant."""
        if index >= len(node.inputs) or not node.inputs[index].name:
            if default is not None:
                return default
            raise PconvError(f"{_called(node)} lacks its operand {index}")
        name = node.inputs[index].name
        if name not in self.constants:
            raise PconvError(f"{_called(node)} has weights that are computed from the input; NIR has none such")
        return self.constants[name]

    def add(self, name: str, node: Any) -> str:
        """A node under that name, in characters that HDF5 and PyTorch let names have."""
        name = unused(re.sub(r"\W+", "_", name).strip("_") or "node", self.names)
        self.nodes[name] = node
        return name

    def connect(self, terms: Sequence[_Term], target: str) -> None:
        self.edges += [(term.node, target) for term in terms]

    def affine(self, name: str, layer: _Affine, terms: Sequence[_Term]) -> str:
        """A layer of its own that reads terms of one scale, which goes into its weights."""
        layer.weight = layer.weight * terms[0].scale.reshape(1, -1, *[1] * (layer.weight.ndim - 2))
        added = self.add(name, layer)
        self.connect(terms, added)
        return added

    def pointwise(self, shape: Shape, matrix: Array, strides: Sequence[int] = ()) -> _Affine:
        """The layer that multiplies channels `[C]` of each position by a matrix `[M, C]`."""
        axes = len(shape) - 1
        if axes > 2:
            raise PconvError(f"a signal has {axes} spatial axes; NIR has convolutions of one or two")
        weight, none = matrix.reshape(*matrix.shape, *[1] * axes), [0] * axes
        return _Affine(weight, np.zeros(len(matrix)), shape, list(strides) or [1] * axes, none, [1] * axes)

    def mapped(
        self, name: str, source: str, terms: Sequence[_Term], matrix: Array, strides: Sequence[int]
    ) -> list[_Term]:
        """Channels multiplied by a matrix `[M, C]`, at positions so far apart: in the layer before where it is open."""
        shape, found = self.shape(source), []
        for term in terms:
            layer = self.nodes[term.node]
            if term.alone and isinstance(layer, _Affine):
                layer.followed_by(term.scale, [1] * len(strides))
                layer.followed_by(matrix, strides)
                found.append(_Term(term.node))
            else:
                found.append(_Term(self.affine(name, self.pointwise(shape, matrix, strides), [term])))
        return found

    def shifted(self, name: str, source: str, terms: Sequence[_Term], shift: Array) -> list[_Term]:
        """Constants `[C]` or `[1]` added, as a bias of one of the terms."""
        if not shift.any():
            return list(terms)
        is_open = [term.alone and isinstance(self.nodes[term.node], _Affine) for term in terms]
        chosen = is_open.index(True) if True in is_open else 0
        shape = self.shape(source)
        (term,) = self.mapped(name, source, [terms[chosen]], np.eye(shape[0]), [1] * (len(shape) - 1))
        self.nodes[term.node].bias = self.nodes[term.node].bias + shift
        return [*terms[:chosen], term, *terms[chosen + 1 :]]

    def plain(self, source: str, terms: Sequence[_Term]) -> list[_Term]:
        """The terms without scales."""
        shape, found = self.shape(source), []
        for term in terms:
            if (term.scale == 1).all():
                found.append(term)
            else:
                matrix, strides = np.eye(shape[0]), [1] * (len(shape) - 1)
                found += self.mapped(f"{term.node}_scaled", source, [term], matrix, strides)
        return found

    def alike(self, source: str, terms: Sequence[_Term]) -> list[_Term]:
        """The terms with one scale."""
        same = all(np.array_equal(term.scale, terms[0].scale) for term in terms)
        return list(terms) if same else self.plain(source, terms)


def _constants(network: Network) -> dict[str, Array]:
    """The tensors that do not depend on the inputs."""
    graph = network.proto.graph
    found = {tensor.name: values(tensor, network.folder) for tensor in graph.initializer}
    found |= {tensor.values.name: values(tensor, network.folder) for tensor in graph.sparse_initializer}
    nodes = [node for node in graph.node if network.computed_from_inputs.isdisjoint(node.output)]
    names = [name for node in nodes for name in node.output if name]
    if names:
        read = set().union(*(captured(node).union(node.input) for node in nodes)).intersection(found)
        inputs, outputs = ([onnx.ValueInfoProto(name=name) for name in some] for some in (sorted(read), names))
        part = helper.make_graph(nodes, "constants", inputs, outputs)
        opsets, functions = list(network.proto.opset_import), list(network.proto.functions)
        model = helper.make_model(part, opset_imports=opsets, functions=functions)
        feeds = {name: found[name] for name in read}
        found |= dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True))
    return {name: np.asarray(value) for name, value in found.items()}


def _name(node: gs.Node) -> str:
    return str(node.name or node.outputs[0].name)


def _called(node: gs.Node) -> str:
    return f"{node.op} '{_name(node)}'"


def _is_neuron(node: gs.Node) -> bool:
    return node.domain == DOMAIN and node.op == SERIAL_OP_TYPE


# Operators whose other inputs say nothing that their shapes do not.
_LAYOUT = ("Reshape", "Squeeze", "Unsqueeze")


def _operands(node: gs.Node) -> list[gs.Tensor]:
    """The inputs of a node whose values matter here; the potential of a neuron is the reader's."""
    if node.op in _LAYOUT:
        return list(node.inputs[:1])
    return [tensor for index, tensor in enumerate(node.inputs) if tensor.name and not (_is_neuron(node) and index == 1)]


def _neuron(walk: _Walk, node: gs.Node) -> list[_Term]:
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    bias, threshold, reset, levels = (walk.constant(node, index) for index in range(2, 6))
    if levels.dtype != np.float32:
        raise PconvError(f"the network is in {levels.dtype}; NIR files are written in float32", "rewrite it in float32")
    if levels[:, 0].any():
        raise PconvError(
            f"the neurons '{_name(node)}' have a value where they are silent; a spike of NIR is 0 or 1",
            "values below zero (--signed) have no counterpart there",
        )
    if len(levels) > 1 and node.attrs["channel_axis"] not in (1, 1 - len(shape) - 1):
        raise PconvError(
            f"the neurons '{_name(node)}' differ along another axis than the channels; NIR's readers want axis 1"
        )

    def everywhere(table: Array) -> Array:
        return np.broadcast_to(table.reshape(-1, *[1] * (len(shape) - 1)), shape).astype(np.float32)

    terms = walk.plain(
        source, walk.shifted(f"{_name(node)}_bias", source, walk.tensors[source], bias.astype(np.float64))
    )
    neurons = walk.nir.IF(
        r=np.ones(shape, np.float32),
        v_threshold=everywhere(reset),
        v_reset=np.zeros(shape, np.float32),
        metadata={"v_initial": everywhere(reset - threshold), "reset": "subtract"},
    )
    name = walk.add(_name(node), neurons)
    walk.connect(terms, name)
    return [_Term(name, levels[:, 1].astype(np.float64))]


def _conv(walk: _Walk, node: gs.Node) -> list[_Term]:
    source, weight = walk.variable(node, 0), walk.constant(node, 1).astype(np.float64)
    shape, axes = walk.shape(source), weight.ndim - 2
    kernel = weight.shape[2:]
    if axes not in (1, 2):
        raise PconvError(f"{_called(node)} has {axes} spatial axes; NIR has convolutions of one or two")
    if len(set(kernel)) > 1:
        raise PconvError(f"{_called(node)} has a kernel of {list(kernel)}; the package nir takes kernels for square")
    strides = [entry(node, "strides", axis, 1) for axis in range(axes)]
    dilations = [entry(node, "dilations", axis, 1) for axis in range(axes)]
    extents = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilations, strict=True)]
    layer = _Affine(
        _of_all_groups(weight, node.attrs.get("group", 1)),
        walk.constant(node, 2, np.zeros(len(weight))).astype(np.float64),
        shape,
        strides,
        _same_pads(node, shape[1:], extents, strides),
        dilations,
    )
    return [_Term(walk.affine(_name(node), layer, walk.alike(source, walk.tensors[source])))]


def _of_all_groups(weight: Array, groups: int) -> Array:
    """Weights `[M, C/groups, …]` as `[M, C, …]`, since the package nir takes the second size for all channels."""
    if groups == 1:
        return weight
    whole = np.zeros((len(weight), groups * weight.shape[1], *weight.shape[2:]))
    for rows, columns in zip(
        np.split(np.arange(len(weight)), groups), np.split(np.arange(whole.shape[1]), groups), strict=True
    ):
        whole[np.ix_(rows, columns)] = weight[rows]
    return whole


def _same_pads(node: gs.Node, sizes: Shape, extents: Sequence[int], strides: Sequence[int]) -> list[int]:
    found = []
    for axis, (size, extent, stride) in enumerate(zip(sizes, extents, strides, strict=True)):
        start, end = pads(node, axis, len(sizes), (-(-size // stride) - 1) * stride + extent - size)
        # What no window reaches may be left away.
        if (size + start + end - extent) // stride == (size + 2 * start - extent) // stride:
            end = start
        if start != end:
            raise PconvError(f"{_called(node)} pads {start} before and {end} behind; NIR pads both ends alike")
        found.append(int(start))
    return found


def _gemm(walk: _Walk, node: gs.Node) -> list[_Term]:
    weight = walk.constant(node, 1).astype(np.float64)
    if node.attrs.get("transA", 0) or weight.ndim != 2 or len(walk.shape(walk.variable(node, 0))) != 1:
        raise PconvError(f"{_called(node)} is no matrix times a vector of each sample, as NIR has it")
    # MatMul has none of these attributes, and two operands.
    weight = node.attrs.get("alpha", 1.0) * (weight if node.attrs.get("transB", 0) else weight.T)
    bias = node.attrs.get("beta", 1.0) * walk.constant(node, 2, np.zeros(1)).astype(np.float64)
    source = walk.variable(node, 0)
    layer = _Affine(weight, np.broadcast_to(bias.reshape(-1), len(weight)), walk.shape(source), [], [], [])
    return [_Term(walk.affine(_name(node), layer, walk.alike(source, walk.tensors[source])))]


def _pool(walk: _Walk, node: gs.Node) -> list[_Term]:
    """Average pooling as sums, which more readers have; the mean goes into the scale."""
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    if len(shape) != 3:
        raise PconvError(f"{_called(node)} pools {len(shape) - 1} axes; NIR has pools of two")
    if node.op == "AveragePool":
        kernel = [int(size) for size in node.attrs["kernel_shape"]]
        strides = [entry(node, "strides", axis, 1) for axis in range(2)]
        if max(entry(node, "dilations", axis, 1) for axis in range(2)) > 1:
            raise PconvError(f"{_called(node)} has dilations; NIR's pools have none")
        padding = _same_pads(node, shape[1:], kernel, strides)
        windows = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, strides, strict=True)]
        if tuple(windows) != walk.shape(node.outputs[0].name)[1:]:
            raise PconvError(f"{_called(node)} rounds its size up (ceil_mode); NIR's pools round down")
        if any(padding) and not node.attrs.get("count_include_pad", 0):
            raise PconvError(f"{_called(node)} takes means without its padding; NIR's pools have no such")
    else:
        kernel, padding = list(shape[1:]), [0, 0]
        strides = kernel
    terms = walk.alike(source, walk.tensors[source])
    sizes = (np.array(values) for values in (kernel, strides, padding))
    name = walk.add(_name(node), walk.nir.SumPool2d(*sizes))
    walk.connect(terms, name)
    return [_Term(name, terms[0].scale / prod(kernel))]


def _reduce_mean(walk: _Walk, node: gs.Node) -> list[_Term]:
    source = walk.variable(node, 0)
    rank = len(walk.shape(source)) + 1
    axes = node.attrs.get("axes") or walk.constant(node, 1, np.arange(rank)).tolist()
    if sorted(axis % rank for axis in axes) != [2, 3]:
        raise PconvError(f"{_called(node)} is over axes {list(axes)}; NIR has pools over height and width")
    terms = _pool(walk, node)
    if not node.attrs.get("keepdims", 1):
        return _flat(walk, node, (walk.shape(source)[0], 1, 1), terms)
    return terms


def _layout(walk: _Walk, node: gs.Node) -> list[_Term]:
    source = walk.variable(node, 0)
    before, after = walk.shape(source), walk.shape(node.outputs[0].name)
    if before == after:
        return walk.tensors[source]
    if after != (prod(before),):
        raise PconvError(f"{_called(node)} makes {list(after)} of {list(before)}; NIR has Flatten only")
    return _flat(walk, node, before, walk.alike(source, walk.tensors[source]))


def _flat(walk: _Walk, node: gs.Node, before: Shape, terms: Sequence[_Term]) -> list[_Term]:
    # Axes counted from the end are the same with a batch, which some readers count, and without.
    name = walk.add(node.outputs[0].name, walk.nir.Flatten({"input": np.array(before)}, -len(before), -1))
    walk.connect(terms, name)
    scale = terms[0].scale
    return [_Term(name, scale if len(scale) == 1 else np.repeat(scale, prod(before[1:])))]


def _batch_normalization(walk: _Walk, node: gs.Node) -> list[_Term]:
    if node.attrs.get("training_mode", 0):
        raise PconvError(f"{_called(node)} is in training mode", "export the ANN in evaluation mode")
    gamma, beta, mean, variance = (walk.constant(node, index).astype(np.float64) for index in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    return _affine_of_channels(walk, node, walk.variable(node, 0), scale, beta - scale * mean)


def _affine_of_channels(walk: _Walk, node: gs.Node, source: str, scale: Array, shift: Array) -> list[_Term]:
    terms = [replace(term, scale=term.scale * scale) for term in walk.tensors[source]]
    return walk.shifted(_name(node), source, terms, shift)


def _arithmetic(walk: _Walk, node: gs.Node) -> list[_Term]:
    constant = [tensor.name in walk.constants for tensor in node.inputs]
    if True in constant:
        index = constant.index(False)
        source = node.inputs[index].name
        value = _by_channel(walk, node, 1 - index, len(walk.shape(source)) + 1)
        if node.op == "Mul" or (node.op == "Div" and index == 0):
            scale, shift = value if node.op == "Mul" else 1 / value, np.zeros(1)
        elif node.op in ("Add", "Sub"):
            sign = -1.0 if node.op == "Sub" else 1.0
            scale, shift = (_ONE, sign * value) if index == 0 else (sign * _ONE, value)
        else:
            raise PconvError(f"{_called(node)} divides by a signal; NIR has no such node")
        return _affine_of_channels(walk, node, source, scale, shift)
    left, right = (tensor.name for tensor in node.inputs)
    if node.op in ("Mul", "Div") or walk.shape(left) != walk.shape(right):
        raise PconvError(f"{_called(node)} of two signals is no sum of equal shapes; NIR has only those")
    sign = -1.0 if node.op == "Sub" else 1.0
    terms: dict[str, _Term] = {}
    for term in (*walk.tensors[left], *(replace(term, scale=sign * term.scale) for term in walk.tensors[right])):
        # NIR has one edge from node to node.
        again = terms.get(term.node)
        terms[term.node] = replace(again, scale=again.scale + term.scale) if again else term
    return list(terms.values())


def _by_channel(walk: _Walk, node: gs.Node, index: int, rank: int) -> Array:
    """A constant operand that varies along the channels at most, `[C]` or `[1]`."""
    value = walk.constant(node, index).astype(np.float64)
    wide = value.reshape([1] * max(rank - value.ndim, 0) + list(value.shape))
    if wide.ndim != rank or wide.size != wide.shape[1]:
        raise PconvError(f"{_called(node)} has a constant that differs within a channel; NIR has no such node")
    return wide.reshape(-1)


def _slice(walk: _Walk, node: gs.Node) -> list[_Term]:
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    starts, ends = (walk.constant(node, index).tolist() for index in (1, 2))
    axes = walk.constant(node, 3, np.arange(len(starts))).tolist()
    steps = walk.constant(node, 4, np.ones(len(starts), np.int64)).tolist()
    matrix, strides = np.eye(shape[0]), [1] * (len(shape) - 1)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape) + 1
        taken = range(*slice(start, end, step).indices(shape[axis - 1])) if axis else None
        if axis == 1:
            matrix = matrix[list(taken or ())]
        elif taken and taken.start == 0 and step > 0 and taken[-1] + step >= shape[axis - 1]:
            strides[axis - 2] = step
        else:
            raise PconvError(f"{_called(node)} cuts off a border; NIR has no such node")
    return walk.mapped(_name(node), source, walk.tensors[source], matrix, strides)


def _pad(walk: _Walk, node: gs.Node) -> list[_Term]:
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    rank = len(shape) + 1
    axes = [int(axis) % rank for axis in walk.constant(node, 3, np.arange(rank))]
    sizes = walk.constant(node, 1).reshape(2, -1)
    before, after = (dict(zip(axes, row.tolist(), strict=True)) for row in sizes)
    channels = (before.get(1, 0), after.get(1, 0))
    others = [size for sides in (before, after) for axis, size in sides.items() if axis != 1]
    filled = node.attrs.get("mode", "constant") != "constant" or walk.constant(node, 2, np.zeros(1)).any()
    if any(others) or filled or min(channels) < 0:
        raise PconvError(f"{_called(node)} does more than add channels of zeros; NIR has no such node")
    matrix = np.pad(np.eye(shape[0]), (channels, (0, 0)))
    return walk.mapped(_name(node), source, walk.tensors[source], matrix, [1] * (len(shape) - 1))


_RULES: dict[str, Callable[[_Walk, gs.Node], list[_Term]]] = {
    "Add": _arithmetic,
    "AveragePool": _pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "Div": _arithmetic,
    "Dropout": lambda walk, node: walk.input(node),
    "Flatten": _layout,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "Identity": lambda walk, node: walk.input(node),
    "MatMul": _gemm,
    "Mul": _arithmetic,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Reshape": _layout,
    SERIAL_OP_TYPE: _neuron,
    "Slice": _slice,
    "Squeeze": _layout,
    "Sub": _arithmetic,
    "Unsqueeze": _layout,
}
