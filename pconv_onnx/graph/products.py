"""Products: the operators that multiply and accumulate, and what they read.

A product has weights, or two computed tensors: attention, gates. What makes a tensor of one tensor alone, element by
element or by statistics of its own, is none: x·σ(x) is an activation, and x·rsqrt(mean(x²)) a normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import captured, every_node, subgraphs
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.graph.view import Node

# With weights as second input.
_WEIGHTED = ("Conv", "ConvTranspose")
# Either input may be weights.
_MATRICES = ("Gemm", "MatMul")
_GATE = "Mul"
# Products as well, whose multiply-accumulates are not counted.
_UNCOUNTED = ("Attention", "ConvInteger", "DeformConv", "Einsum", "GRU", "LSTM", "MatMulInteger", "QLinearConv",
              "QLinearMatMul", "RNN")  # fmt: skip
# Operators of onnxruntime that do not; what others there may be is not known to.
_OF_ONNXRUNTIME = ("BiasGelu", "DequantizeLinear", "FastGelu", "Gelu", "LayerNormalization", "QuantizeLinear",
                   "QuickGelu", "RotaryEmbedding", "SimplifiedLayerNormalization", "SkipLayerNormalization",
                   "SkipSimplifiedLayerNormalization")  # fmt: skip
# What tells of a tensor's size and not of its values.
_OF_SHAPES = ("Shape", "Size")
# Parts of one tensor are tensors of their own.
_PARTS = ("Slice", "Split")
# What hands on values, or changes them element by element: on the network's inputs it prepares them.
_PREPARES = ("Add", "BatchNormalization", "Cast", "Clip", "Concat", "DepthToSpace", "DequantizeLinear", "Div", "Expand",
             "Flatten", "Gather", "Identity", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "QuantizeLinear", "Reshape",
             "Round", "Slice", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose",
             "Unsqueeze", "Where")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Product:
    """An operator of the main graph that multiplies and accumulates, or whose bodies do.

    Attributes:
        node: the operator.
        operands: which of its inputs, of those that it multiplies, are computed from the network's inputs; none where
            that is only the kernel of a convolution, which is no tensor in time.
    """

    node: Node
    operands: tuple[int, ...]

    @property
    def reads(self) -> list[str]:
        """Names of these operands."""
        return [self.node.inputs[index].name for index in self.operands]


def products(network: Network) -> list[Product]:
    """Those that depend on the network's inputs, in topological order."""
    computed, origins = network.computed_from_inputs, _Origins(network)
    found = []
    for node in network.nodes:
        origins.take_in(node)
        if not is_standard(node) or node.op not in (*_WEIGHTED, *_MATRICES, _GATE):
            continue
        read = [index for index in (0, 1) if node.inputs[index].name in computed]
        if read and (node.op != _GATE or (len(read) == 2 and origins.differ(node))):
            found.append(Product(node, tuple(index for index in read if index == 0 or node.op not in _WEIGHTED)))
    return found


def uncounted(network: Network) -> list[Product]:
    """Operators that multiply and accumulate and are no `products`: a few, and those with any in their bodies.

    So may all do that are neither ONNX's own nor known not to.
    """
    found = []
    for node, proto in network.graph.pairs():
        inner = [child for body in subgraphs(proto) for child in every_node(body)]
        inside = any(child.op_type in (*_WEIGHTED, *_MATRICES, *_UNCOUNTED) for child in inner)
        known = node.op not in _UNCOUNTED if is_standard(node) else node.op in _OF_ONNXRUNTIME or node.domain == DOMAIN
        if (not inside and known) or not node.outputs:
            continue
        computed = network.computed_from_inputs
        operands = tuple(index for index, tensor in enumerate(node.inputs) if tensor.name in computed)
        if operands or not computed.isdisjoint(captured(proto)):
            found.append(Product(node, operands))
    return found


def prepared_inputs(network: Network) -> set[str]:
    """Names of the tensors that are the network's inputs, moved or changed element by element at most."""
    found = {info.name for info in network.proto.graph.input} - initializer_names(network.proto.graph)
    for node in network.nodes:
        read = [tensor.name for tensor in node.inputs if tensor.name in network.computed_from_inputs]
        if read and is_standard(node) and node.op in _PREPARES and found.issuperset(read):
            found.update(tensor.name for tensor in node.outputs)
    return found


class _Origins:
    """Of each tensor the products, parts and inputs that it is made of, as bits of a number."""

    def __init__(self, network: Network) -> None:
        names = sorted(info.name for info in network.proto.graph.input)
        self._made_of = {name: 1 << index for index, name in enumerate(names)}
        self._bits = len(names)

    def take_in(self, node: Node) -> None:
        """Take in an operator whose inputs were."""
        begins = is_standard(node) and node.op in (*_WEIGHTED, *_MATRICES, *_PARTS)
        made_of = 0
        for tensor in node.inputs if node.op not in _OF_SHAPES else ():
            made_of |= self._made_of.get(tensor.name, 0)
        for tensor in node.outputs:
            if begins and made_of:
                made_of = 1 << self._bits
                self._bits += 1
            self._made_of[tensor.name] = made_of

    def differ(self, node: Node) -> bool:
        """Whether its two operands have values, and these are not made of the same."""
        left, right = (self._made_of.get(tensor.name, 0) for tensor in node.inputs)
        return bool(left and right) and left != right
