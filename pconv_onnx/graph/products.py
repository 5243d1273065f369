"""Products: the operators that multiply and accumulate, and the tensors that they multiply.

A product multiplies with weights, or multiplies two computed tensors: attention, gates. An operator whose operands both
come from one tensor, element by element or by its own statistics, is no product: x·σ(x) is an activation, and
x·rsqrt(mean(x²)) a normalisation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import captured, every_node, subgraphs
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.graph.view import Node, key_of

# Operators with weights as second input.
_WEIGHTED = ("Conv", "ConvTranspose")
# Operators of which either input may be weights.
_MATRICES = ("Gemm", "MatMul")
_GATE = "Mul"
# Further products, whose multiply-accumulates are not counted.
_UNCOUNTED = ("Attention", "ConvInteger", "DeformConv", "Einsum", "GRU", "LSTM", "MatMulInteger", "QLinearConv",
              "QLinearMatMul", "RNN")  # fmt: skip
# Operators of onnxruntime that are known not to multiply and accumulate.
_OF_ONNXRUNTIME = ("BiasGelu", "DequantizeLinear", "FastGelu", "Gelu", "LayerNormalization", "QuantizeLinear",
                   "QuickGelu", "RotaryEmbedding", "SimplifiedLayerNormalization", "SkipLayerNormalization",
                   "SkipSimplifiedLayerNormalization")  # fmt: skip
# Operators that give a tensor's size, not its values.
OF_SHAPES = ("Shape", "Size")
# Operators whose outputs, parts of one tensor, count as tensors of their own.
_PARTS = ("Slice", "Split")
# Operators that pass values on, or change them element by element: on the network's inputs they are preprocessing.
_PREPARES = ("Add", "BatchNormalization", "Cast", "Clip", "Concat", "DepthToSpace", "DequantizeLinear", "Div", "Expand",
             "Flatten", "Gather", "Identity", "Max", "Min", "Mul", "Neg", "Pad", "Pow", "QuantizeLinear", "Reshape",
             "Round", "Slice", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "Transpose",
             "Unsqueeze", "Where")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Product:
    """An operator of the main graph that multiplies and accumulates, or whose bodies do.

    Attributes:
        node: the operator.
        operands: indices of the inputs that it multiplies and that are computed from the network's inputs; empty if
            only a convolution's kernel is, which is no tensor in time.
    """

    node: Node
    operands: tuple[int, ...]

    @property
    def reads(self) -> list[str]:
        """Names of these operands."""
        return [self.node.inputs[index].name for index in self.operands]


def products(network: Network) -> list[Product]:
    """The products that depend on the network's inputs, in topological order."""
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
    """Operators that multiply and accumulate but are not in `products`: a few, and those with products in their bodies.

    Operators of other domains count too, unless they are known not to multiply and accumulate.
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


def leading_to_products(network: Network, others: Collection[str] = ()) -> set[str]:
    """Names of the main graph's tensors that products read or `others` are, or that these are computed from."""
    reading = {key_of(product.node) for product in (*products(network), *uncounted(network))}
    found = set(others)
    for node, proto in reversed(list(network.graph.pairs())):
        if key_of(node) in reading or not found.isdisjoint(proto.output):
            found.update(proto.input, captured(proto))
    return found


def prepared_inputs(network: Network) -> set[str]:
    """Names of the network's inputs and of tensors made from them by moving or element-wise changes only."""
    found = {info.name for info in network.proto.graph.input} - initializer_names(network.proto.graph)
    for node in network.nodes:
        read = [tensor.name for tensor in node.inputs if tensor.name in network.computed_from_inputs]
        if read and is_standard(node) and node.op in _PREPARES and found.issuperset(read):
            found.update(tensor.name for tensor in node.outputs)
    return found


class _Origins:
    """For each tensor the products, parts and inputs that it is made of, as bits of an integer."""

    def __init__(self, network: Network) -> None:
        names = sorted(info.name for info in network.proto.graph.input)
        self._made_of = {name: 1 << index for index, name in enumerate(names)}
        self._bits = len(names)

    def take_in(self, node: Node) -> None:
        """Add an operator; those that make its inputs must have been added."""
        begins = is_standard(node) and node.op in (*_WEIGHTED, *_MATRICES, *_PARTS)
        made_of = 0
        for tensor in node.inputs if node.op not in OF_SHAPES else ():
            made_of |= self._made_of.get(tensor.name, 0)
        for tensor in node.outputs:
            if begins and made_of:
                made_of = 1 << self._bits
                self._bits += 1
            self._made_of[tensor.name] = made_of

    def differ(self, node: Node) -> bool:
        """Whether both operands have origins, and these differ."""
        left, right = (self._made_of.get(tensor.name, 0) for tensor in node.inputs)
        return bool(left and right) and left != right
