"""Softmax whose weights a product reads: `exp(z − max)` takes its place, and the sum divides what the product gives.

Softmax is `e/Σe` with `e = exp(z − max z)`. Its normaliser is one number a row, and commutes with the sum over what the
weights are multiplied with: `(e/Σe)·v = (e·v)/Σe`, in real numbers. Of levels of e, which end at 1, the sum is that of
the same levels; those of `e/Σe` would have to serve rows of few large weights and rows of many small ones alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.nesting import drop_unread, unused
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.view import Node, Tensor, key_of, node_name

# What hands weights on, row by row.
_MOVES = ("Cast", "Dropout", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# From this opset on axes of ReduceMax are an input.
_AXES_ARE_INPUTS = 18
# Nodes between Softmax and a product, farther than any export has them.
_FARTHEST = 8


@dataclass(frozen=True, eq=False)
class _Weighted:
    """A product of a Softmax's weights.

    Attributes:
        product: a MatMul that reads them as its first operand.
        moves: between the two, in that order; each gives the next its first or, of a Where, its last input.
        softmax: along the last axis.
    """

    product: Node
    moves: tuple[Node, ...]
    softmax: Node


def normalised_late(network: Network) -> Network:
    """The network in which each MatMul of a Softmax's weights has the sum of these behind it.

    What else reads the Softmax still does; names of what products give stay. A row without any weight, of which Softmax
    makes NaN, stays zero where the network makes zeros of that.
    """
    found = list(_weighted(network))
    if not found:
        return network
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    writer = _Writer(network)
    products = {key_of(one.product): one for one in found}
    last = {key_of(one.softmax) for one in found}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        key = key_of(node)
        if key in products:
            nodes += writer.weighted(node, products[key])
        else:
            nodes.append(node)
        if key in last:
            nodes += writer.exponential(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(writer.constants)
    drop_unread(model.graph, network.proto.graph)
    return replace(network, proto=model)


def normaliser_of(product: Node) -> Node | None:
    """The ReduceSum of a product's first operand that what it gives is divided by; None where there is none."""
    weights, (output, *_) = product.inputs[0], product.outputs
    sums = [node for node in weights.outputs if node.op == "ReduceSum" and is_standard(node)]
    for node in sums:
        divisors = {id(node.outputs[0])}
        divisors |= {id(reader.outputs[0]) for reader in node.outputs[0].outputs if reader.op == "Max"}
        if any(reader.op == "Div" and id(reader.inputs[1]) in divisors for reader in output.outputs):
            return node
    return None


def is_normalised(tensor: Tensor) -> bool:
    """Whether a tensor has the weights that a Softmax gives, moved at most."""
    for _ in range(_FARTHEST):
        if len(tensor.inputs) != 1 or not is_standard(tensor.inputs[0]):
            return False
        (node,) = tensor.inputs
        if node.op == "Softmax":
            return True
        moved = _guarded(node) if node.op == "Where" else node.inputs[0] if node.op in _MOVES else None
        if moved is None:
            return False
        tensor = moved
    return False


def _weighted(network: Network) -> Iterator[_Weighted]:
    for node in network.nodes:
        if node.op != "MatMul" or not is_standard(node) or len(network.shape(node.inputs[1]) or ()) < 2:
            continue
        moves: list[Node] = []
        tensor = node.inputs[0]
        while len(moves) < _FARTHEST and len(tensor.inputs) == 1:
            (maker,) = tensor.inputs
            if _is_of_rows(network, maker):
                yield _Weighted(node, tuple(moves[::-1]), maker)
                break
            moved = _moved(network, maker)
            if moved is None:
                break
            moves.append(maker)
            tensor = moved


def _is_of_rows(network: Network, node: Node) -> bool:
    """Whether a node is a Softmax along the last axis, in float32 as all that is calibrated."""
    if node.op != "Softmax" or not is_standard(node) or network.dtype(node.outputs[0]) != np.float32:
        return False
    rank = len(network.shape(node.inputs[0]) or ())
    return rank > 1 and node.attrs.get("axis", -1) in (-1, rank - 1)


def _moved(network: Network, node: Node) -> Tensor | None:
    """The tensor that a node hands on with the same last axis; None where it does more than that."""
    if not is_standard(node) or network.dtype(node.outputs[0]) != np.float32:
        return None
    if node.op == "Where":
        return _guarded(node)
    if node.op not in _MOVES or network.dtype(node.inputs[0]) != np.float32:
        return None
    if node.op == "Dropout" and (any(mask.outputs for mask in node.outputs[1:]) or len(node.inputs) > 2):
        return None
    before, after = network.shape(node.inputs[0]), network.shape(node.outputs[0])
    if not before or not after:
        return None
    if node.op == "Transpose":
        order = node.attrs.get("perm", range(len(before))[::-1])
        return node.inputs[0] if order[-1] == len(before) - 1 else None
    return node.inputs[0] if before[-1] is not None and before[-1] == after[-1] else None


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
        self._given: dict[str, str] = {}

    def exponential(self, softmax: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """`exp(z − max z)` of what a Softmax reads."""
        (z,), (output,), name = softmax.input, softmax.output, softmax.name or softmax.output[0]
        largest, less, given = (unused(f"{output}/{what}", self._names) for what in ("max", "less", "exp"))
        self._given[output] = given
        yield self._reduce("ReduceMax", z, largest, f"{name}/max")
        yield self._node("Sub", [z, largest], less, f"{name}/less")
        yield self._node("Exp", [less], given, f"{name}/exp")

    def weighted(self, node: onnx.NodeProto, found: _Weighted) -> Iterator[onnx.NodeProto]:
        """A product of these, divided by their sum."""
        weights, name = self._given[found.softmax.outputs[0].name], node_name(found.product)
        guarded = False
        for move in found.moves:
            given = unused(f"{move.outputs[0].name}/exp", self._names)
            if move.op == "Where":
                condition, guarded = unused(f"{given}/is_nan", self._names), True
                yield self._node("IsNaN", [weights], condition, f"{name}/is_nan")
                yield self._node("Where", [condition, move.inputs[1].name, weights], given, f"{name}/exp")
            else:
                inputs = [weights, *(tensor.name for tensor in move.inputs[1:])]
                yield self._node(move.op, inputs, given, f"{node_name(move)}/exp", **_attributes(move))
            weights = given
        output = node.output[0]
        product, total = (unused(f"{output}/{what}", self._names) for what in ("weighted", "sum"))
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[0], copied.output[0] = weights, product
        yield copied
        yield self._reduce("ReduceSum", weights, total, f"{name}/sum")
        if guarded:
            # Of no weight at all the sum is zero, and so is what is to be divided.
            least = self._constant(f"{output}/least", np.array(np.finfo(np.float32).tiny))
            total, divided = unused(f"{output}/divisor", self._names), total
            yield self._node("Max", [divided, least], total, f"{name}/divisor")
        yield self._node("Div", [product, total], output, f"{name}/normalised")

    def _reduce(self, op_type: str, x: str, output: str, name: str) -> onnx.NodeProto:
        if op_type == "ReduceSum" or self._opset >= _AXES_ARE_INPUTS:
            return self._node(op_type, [x, self._constant(f"{output}/axes", np.array([-1]))], output, name, keepdims=1)
        return self._node(op_type, [x], output, name, axes=[-1], keepdims=1)

    def _constant(self, name: str, value: np.ndarray) -> str:
        name = unused(name, self._names)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, op_type: str, inputs: Sequence[str], output: str, name: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], unused(name, self._nodes), **attributes)


def _attributes(node: Node) -> dict[str, Any]:
    """Those of an operator that moves: what a Cast casts to is the type that it has."""
    return {"to": onnx.TensorProto.FLOAT} if node.op == "Cast" else dict(node.attrs)
