"""The walk over a serial network that makes a graph of the Neuromorphic Intermediate Representation of it.

In NIR a spike is 1, a node takes the sum of what its edges bring, and tensors have no batch axis. So each tensor of the
network is kept as a sum of outputs of NIR nodes, each with a factor per channel that is still to be multiplied into the
weights of whoever reads it: there the amplitudes of spikes, means of pools and constants of the network end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.version import own_version
from pconv_onnx.deployment.nir.constants import constants
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import unused
from pconv_onnx.graph.view import Node, Tensor, called
from pconv_onnx.operators.domain import SERIAL_OP_TYPE

Shape = tuple[int, ...]
ONE = np.ones(1)


@dataclass(frozen=True, eq=False)
class Term:
    """An output of a NIR node, as a part of a sum.

    Attributes:
        node: its name.
        scale: what it is to be multiplied by, `[C]` or `[1]`.
        alone: whether nothing else reads the node.
    """

    node: str
    scale: Array = field(default_factory=lambda: ONE)
    alone: bool = True


@dataclass(eq=False)
class Affine:
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


class Walk:
    """State of one translation: the nodes and edges so far, and what each tensor is in terms of them."""

    def __init__(self, network: Network, potentials: Mapping[str, str], nir: Any, rules: Mapping[str, Rule]) -> None:
        self.network, self.potentials, self.nir, self.rules = network, potentials, nir, rules
        self.constants = constants(network)
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.names: set[str] = set()
        self.tensors: dict[str, list[Term]] = {}

    def graph(self, steps: int | None) -> Any:
        """The graph, for so many time-steps."""
        source = self.network.proto.graph
        inputs = [i.name for i in source.input if i.name not in self.constants and i.name not in self.potentials]
        outputs = [o.name for o in source.output if o.name not in self.potentials.values()]
        if len(inputs) != 1 or len(outputs) != 1:
            raise PconvError(
                f"the network has {len(inputs)} inputs and {len(outputs)} outputs; readers of NIR take one of each",
                "export the part of the ANN between one input and one output",
            )
        if outputs[0] in self.constants:
            raise PconvError(f"the output '{outputs[0]}' does not depend on the input; NIR wants a path between them")
        nodes = self._computing(outputs[0])
        self.uses = Counter([*outputs, *(tensor.name for node in nodes for tensor in _operands(node))])
        shape = self.shape(inputs[0])
        self.tensors[inputs[0]] = [Term(self.add(inputs[0], self.nir.Input({"input": np.array(shape)})))]
        # What is no finite number is refused where it is written.
        with np.errstate(all="ignore"):
            for node in nodes:
                self._follow(node)
            self._output(outputs[0])
            for name, layer in self.nodes.items():
                if isinstance(layer, Affine):
                    self.nodes[name] = self._written(name, layer)
        metadata = {"pconv_onnx": own_version()} | ({} if steps is None else {"steps": steps})
        try:
            return self.nir.NIRGraph(self.nodes, self.edges, metadata)
        except ValueError as error:  # of its check of shapes
            raise PconvError(f"the shapes of the network do not fit together: {error}", _SHAPES) from error

    def _follow(self, node: Node) -> None:
        """Find what the output of a node is in terms of NIR nodes."""
        name = node.outputs[0].name
        self.shape(name)
        terms = self.rules[node.op](self, node)
        self.tensors[name] = [replace(term, alone=term.alone and self.uses[name] == 1) for term in terms]

    def _computing(self, output: str) -> list[Node]:
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
        further = [(tensor.name, node) for node in found for tensor in node.outputs[1:] if tensor.name in wanted]
        if further:
            name, node = further[0]
            raise PconvError(f"'{name}', which is not the first output of {called(node)}, has no counterpart in NIR")
        foreign = [node for node in found if not (is_standard(node) or _is_neuron(node)) or node.op not in self.rules]
        if foreign:
            others = len(foreign) - 1
            more = f", nor ha{'s 1 further node' if others == 1 else f've {others} further nodes'}" if others else ""
            is_quantiser = foreign[0].op in ("QuantizeLinear", "DequantizeLinear")
            raise PconvError(
                f"{called(foreign[0])} has no counterpart in NIR{more}",
                "leave this quantiser out of the ANN, and rewrite it again" if is_quantiser else _FOR,
            )
        return found

    def _output(self, name: str) -> None:
        """Readers return the output of one node."""
        terms = self.plain(name, self.tensors[name])
        if len(terms) > 1 or not isinstance(self.nodes[terms[0].node], Affine):
            channels = np.eye(self.shape(name)[0])
            terms = [Term(self.affine(name, self.pointwise(self.shape(name), channels), terms))]
        self.connect(terms, self.add("output", self.nir.Output({"output": np.array(self.shape(name))})))

    def _written(self, name: str, layer: Affine) -> Any:
        # A channel that calibration found silent is kept so by a bias of −∞.
        silent = np.isneginf(layer.bias)
        weight, bias = self.single(name, layer.weight), self.single(name, np.where(silent, 0, layer.bias))
        bias[silent] = -np.inf
        if weight.ndim == 2:
            return self.nir.Affine(weight, bias)
        if weight.ndim == 3:
            size, stride, padding, dilation = layer.shape[1], layer.strides[0], layer.pads[0], layer.dilations[0]
            return self.nir.Conv1d(size, weight, stride, padding, dilation, 1, bias)
        settings = (tuple(values) for values in (layer.strides, layer.pads, layer.dilations))
        return self.nir.Conv2d(layer.shape[1:], weight, *settings, 1, bias)

    def single(self, name: str, table: Array) -> Array:
        """Values of a node, as files have them."""
        written = table.astype(np.float32)
        if not np.isfinite(written).all():
            raise PconvError(
                f"'{name}' has weights or thresholds that are no finite float32 (NaN, infinity or too large)",
                "correct the weights of the ANN, and rewrite it again",
            )
        return written

    def shape(self, name: str) -> Shape:
        """Shape of a tensor without the batch."""
        shape = self.network.shapes.get(name, ())
        if any(isinstance(size, int) and size < 1 for size in shape):
            raise PconvError(f"the shape of '{name}', {list(shape)}, has a size below 1", _SHAPES)
        if len(shape) == 1:
            raise PconvError(f"'{name}' has no axis but that of the batch; NIR wants channels", _SHAPES)
        if not shape or not all(isinstance(size, int) for size in shape[1:]):
            raise PconvError(
                f"the shape of '{name}', {list(shape) or 'unknown'}, is open beyond the batch; NIR wants sizes",
                "give the inputs of the ANN fixed sizes, and rewrite it again",
            )
        return tuple(int(size) for size in shape[1:] if size is not None)

    def input(self, node: Node) -> list[Term]:
        """What a node of one input reads."""
        return self.tensors[self.variable(node, 0)]

    def variable(self, node: Node, index: int) -> str:
        """The name of an operand, which is not constant."""
        name = str(node.inputs[index].name)
        if name in self.constants:
            raise PconvError(f"{called(node)} takes a constant where NIR wants a signal")
        return name

    def constant(self, node: Node, index: int, default: Array | None = None) -> Array:
        """The value of an operand, which must be constant."""
        if index >= len(node.inputs) or not node.inputs[index].name:
            if default is not None:
                return default
            raise PconvError(f"{called(node)} lacks its operand {index}")
        name = node.inputs[index].name
        if name not in self.constants:
            raise PconvError(f"{called(node)} has weights that are computed from the input; NIR has none such")
        return self.constants[name]

    def add(self, name: str, node: Any) -> str:
        """A node under that name, in characters that HDF5 and PyTorch let names have."""
        name = unused(re.sub(r"\W+", "_", name).strip("_") or "node", self.names)
        self.nodes[name] = node
        return name

    def connect(self, terms: Sequence[Term], target: str) -> None:
        """Edges from what is summed to a node."""
        self.edges += [(term.node, target) for term in terms]

    def affine(self, name: str, layer: Affine, terms: Sequence[Term]) -> str:
        """A layer of its own that reads terms of one scale, which goes into its weights."""
        layer.weight = layer.weight * terms[0].scale.reshape(1, -1, *[1] * (layer.weight.ndim - 2))
        added = self.add(name, layer)
        self.connect(terms, added)
        return added

    def pointwise(self, shape: Shape, matrix: Array, strides: Sequence[int] = ()) -> Affine:
        """The layer that multiplies channels `[C]` of each position by a matrix `[M, C]`."""
        axes = len(shape) - 1
        if axes > 2:
            raise PconvError(f"a signal has {axes} spatial axes; NIR has convolutions of one or two")
        weight, none = matrix.reshape(*matrix.shape, *[1] * axes), [0] * axes
        return Affine(weight, np.zeros(len(matrix)), shape, list(strides) or [1] * axes, none, [1] * axes)

    def mapped(
        self, name: str, source: str, terms: Sequence[Term], matrix: Array, strides: Sequence[int]
    ) -> list[Term]:
        """Channels multiplied by a matrix `[M, C]`, at positions so far apart: in the layer before where it is open."""
        shape, found = self.shape(source), []
        for term in terms:
            layer = self.nodes[term.node]
            if term.alone and isinstance(layer, Affine):
                layer.followed_by(term.scale, [1] * len(strides))
                layer.followed_by(matrix, strides)
                found.append(Term(term.node))
            else:
                found.append(Term(self.affine(name, self.pointwise(shape, matrix, strides), [term])))
        return found

    def shifted(self, name: str, source: str, terms: Sequence[Term], shift: Array) -> list[Term]:
        """Constants `[C]` or `[1]` added, as a bias of one of the terms."""
        if not shift.any():
            return list(terms)
        is_open = [term.alone and isinstance(self.nodes[term.node], Affine) for term in terms]
        chosen = is_open.index(True) if True in is_open else 0
        shape = self.shape(source)
        (term,) = self.mapped(name, source, [terms[chosen]], np.eye(shape[0]), [1] * (len(shape) - 1))
        self.nodes[term.node].bias = self.nodes[term.node].bias + shift
        return [*terms[:chosen], term, *terms[chosen + 1 :]]

    def plain(self, source: str, terms: Sequence[Term]) -> list[Term]:
        """The terms without scales."""
        shape, found = self.shape(source), []
        for term in terms:
            if (term.scale == 1).all():
                found.append(term)
            else:
                matrix, strides = np.eye(shape[0]), [1] * (len(shape) - 1)
                found += self.mapped(f"{term.node}_scaled", source, [term], matrix, strides)
        return found

    def alike(self, source: str, terms: Sequence[Term]) -> list[Term]:
        """The terms with one scale."""
        same = all(np.array_equal(term.scale, terms[0].scale) for term in terms)
        return list(terms) if same else self.plain(source, terms)


def _is_neuron(node: Node) -> bool:
    return node.domain == DOMAIN and node.op == SERIAL_OP_TYPE


_FOR = "NIR is for CNNs and MLPs"
_SHAPES = "correct the shapes of the ANN, and rewrite it again"
# Operators whose other inputs say nothing that their shapes do not.
_LAYOUT = ("Reshape", "Squeeze", "Unsqueeze")


def _operands(node: Node) -> list[Tensor]:
    """The inputs of a node whose values matter here; the potential of a neuron is the reader's."""
    if node.op in _LAYOUT:
        return list(node.inputs[:1])
    return [tensor for index, tensor in enumerate(node.inputs) if tensor.name and not (_is_neuron(node) and index == 1)]


# From a node to what its output is a sum of.
Rule = Callable[[Walk, Node], list[Term]]
