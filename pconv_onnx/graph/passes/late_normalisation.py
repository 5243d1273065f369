"""Moves the normalisation of attention weights behind the product that reads them.

Softmax is `e/Σe` with `e = exp(z − max z)`. Its normaliser is one number for each row, so it commutes with the product:
`(e/Σe)·v = (e·v)/Σe`, in real numbers. Levels of e end at 1, and the sum is that of the same levels; levels of `e/Σe`
would have to serve rows with few large weights and rows with many small ones alike.

e is written as Softmax's own output divided by the largest value in its row. So masked scores, by −∞ or by a large
number, do not influence what is subtracted, and rows without any weight keep what Softmax, or a guard behind it, gives.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.nesting import unused
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.view import Node, Tensor, key_of

# Operators that pass weights on, row by row.
_MOVES = ("Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# From this opset on the axes of ReduceMax are an input.
_AXES_ARE_INPUTS = 18
# The most nodes between Softmax and a product; exports have fewer.
_FARTHEST = 8


def normalised_late(network: Network, products: Collection[str]) -> Network:
    """The network in which each MatMul among `products` that reads a Softmax's weights is normalised behind it.

    Other readers of the weights still read them; names of the products' outputs stay.

    Args:
        network: the source.
        products: that would read spikes, by `key_of`.
    """
    found = {key for node in network.nodes if (key := key_of(node)) in products and _is_weighted(network, node)}
    if not found:
        return network
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    writer = _Writer(network)
    nodes = [made for node in model.graph.node for made in (writer.weighted(node) if key_of(node) in found else [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(writer.constants)
    return replace(network, proto=model)


def normaliser_of(product: Node) -> Node | None:
    """The ReduceSum of a product's first operand by which its output is divided; None if there is none."""
    weights, (output, *_) = product.inputs[0], product.outputs
    sums = [node for node in weights.outputs if node.op == "ReduceSum" and is_standard(node)]
    for node in sums:
        divisors = {id(node.outputs[0])}
        divisors |= {id(reader.outputs[0]) for reader in node.outputs[0].outputs if reader.op == "Max"}
        if any(reader.op == "Div" and id(reader.inputs[1]) in divisors for reader in output.outputs):
            return node
    return None


def is_normalised(network: Network, tensor: Tensor) -> bool:
    """Whether a tensor holds the weights that a Softmax gives, with rows unchanged."""
    for _ in range(_FARTHEST):
        if len(tensor.inputs) != 1:
            return False
        (node,) = tensor.inputs
        if _is_of_rows(network, node):
            return True
        moved = _moved(network, node)
        if moved is None:
            return False
        tensor = moved
    return False


def _is_weighted(network: Network, node: Node) -> bool:
    """Whether a node multiplies such weights with vectors that have an axis of their own."""
    is_product = node.op == "MatMul" and is_standard(node) and len(network.shape(node.inputs[1]) or ()) > 1
    return is_product and is_normalised(network, node.inputs[0])


def _is_of_rows(network: Network, node: Node) -> bool:
    """Whether a node is a Softmax along the last axis, in float32, as calibration needs it."""
    if node.op != "Softmax" or not is_standard(node) or network.dtype(node.outputs[0]) != np.float32:
        return False
    rank = len(network.shape(node.inputs[0]) or ())
    return rank > 1 and node.attrs.get("axis", -1) in (-1, rank - 1)


def _moved(network: Network, node: Node) -> Tensor | None:
    """The tensor that a node passes on with the same last axis; None if the node does more."""
    if not is_standard(node) or network.dtype(node.outputs[0]) != np.float32:
        return None
    given = _guarded(node) if node.op == "Where" else node.inputs[0] if node.op in _MOVES else None
    if given is None or network.dtype(given) != np.float32:
        return None
    if node.op == "Dropout" and (any(mask.outputs for mask in node.outputs[1:]) or len(node.inputs) > 2):
        return None
    before, after = network.shape(given), network.shape(node.outputs[0])
    if not before or not after:
        return None
    if node.op == "Transpose":
        order = node.attrs.get("perm", range(len(before))[::-1])
        return given if order[-1] == len(before) - 1 else None
    return given if before[-1] is not None and before[-1] == after[-1] else None


def _guarded(node: Node) -> Tensor | None:
    """X of `Where(IsNaN(x), 0, x)`."""
    condition, zero, value = node.inputs
    makers = condition.inputs
    is_nan = len(makers) == 1 and makers[0].op == "IsNaN" and makers[0].inputs[0] is value
    found = constant(zero)
    return value if is_nan and found is not None and not found.any() else None


class _Writer:
    """Writes the parts; constants are kept until the end."""

    def __init__(self, network: Network) -> None:
        self._opset, self._names, self._nodes = network.opset, set(network.names), {node.name for node in network.nodes}
        self.constants: list[onnx.TensorProto] = []
        # For weights: their quotient by the largest of the row, and its sum. Several products may read the same.
        self._scaled: dict[str, tuple[str, str]] = {}

    def weighted(self, product: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Write the product of weights divided by the largest of their row, and the division by their sum behind it."""
        weights, output, name = product.input[0], product.output[0], product.name or product.output[0]
        if weights not in self._scaled:
            scaled = self._tensor(weights, "exp")
            largest = yield from self._reduced("ReduceMax", weights)
            yield self._node("Div", [weights, largest], scaled, f"{weights}/exp")
            total = yield from self._reduced("ReduceSum", scaled)
            self._scaled[weights] = scaled, total
        scaled, total = self._scaled[weights]
        given = self._tensor(output, "weighted")
        copied = onnx.NodeProto()
        copied.CopyFrom(product)
        copied.name, copied.input[0], copied.output[0] = name, scaled, given
        yield copied
        yield self._node("Div", [given, total], output, f"{name}/normalised")

    def _reduced(self, reduction: str, weights: str) -> Generator[onnx.NodeProto, None, str]:
        """A reduction of the rows of weights; a tiny number for rows without any, so that it can be divided by."""
        found, divisor = (self._tensor(weights, what) for what in (reduction, f"{reduction}/divisor"))
        least = self._constant(f"{divisor}/least", np.array(np.finfo(np.float32).tiny))
        if reduction == "ReduceSum" or self._opset >= _AXES_ARE_INPUTS:
            inputs, options = [weights, self._constant(f"{found}/axes", np.array([-1]))], {}
        else:
            inputs, options = [weights], {"axes": [-1]}
        yield self._node(reduction, inputs, found, weights, keepdims=1, **options)
        yield self._node("Max", [found, least], divisor, weights)
        return divisor

    def _tensor(self, output: str, what: str) -> str:
        return unused(f"{output}/{what}", self._names)

    def _constant(self, name: str, value: np.ndarray) -> str:
        name = unused(name, self._names)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, op_type: str, inputs: Sequence[str], output: str, name: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], unused(f"{name}/{op_type}", self._nodes), **attributes)
