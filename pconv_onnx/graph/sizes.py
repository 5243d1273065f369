"""Sizes that a graph computes from shapes which are known: TorchScript's exporter leaves that to run time."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Network
from pconv_onnx.neuron import Array


def folded(network: Network) -> Network:
    """The network with such sizes as constants, and what can be inferred from them in turn."""
    while True:
        known = _known(network)
        if not known:
            return network
        model = onnx.ModelProto()
        model.CopyFrom(network.proto)
        for node in model.graph.node:
            if node.output and node.output[0] in known:
                name = node.output[0]
                value = numpy_helper.from_array(known[name], name)
                node.CopyFrom(helper.make_node("Constant", [], [name], node.name, value=value))
        network = replace(network, proto=model)


def _known(network: Network) -> dict[str, Array]:
    """Value of every computed size that has one, by the name of its tensor."""
    sizes: dict[str, Array] = {}
    known: dict[str, Array] = {}
    for node in network.nodes:
        value = _evaluate(network, node, sizes)
        if value is None:
            continue
        name = node.outputs[0].name
        sizes[name] = value
        dtype = network.dtypes.get(name)
        if dtype is not None and all(isinstance(entry, int) for entry in value.flat):
            known[name] = value.astype(dtype)
    return known


def _evaluate(network: Network, node: gs.Node, sizes: dict[str, Array]) -> Array | None:
    """The sizes that a node gives, as objects: numbers, names of dimensions, None for what is not known.

    Returns:
        None where this is not a computation of sizes.
    """
    if not is_standard(node) or not node.inputs or len(node.outputs) != 1:
        return None
    if node.op == "Shape":
        shape = network.shape(node.inputs[0])
        if shape is None:
            return None
        return _objects(shape)[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))]
    rule = _RULES.get(node.op)
    if rule is None or not any(tensor.name in sizes for tensor in node.inputs):
        return None
    operands = [_operand(tensor, sizes) for tensor in node.inputs]
    return None if any(operand is None for operand in operands) else rule(node, *operands)


def _operand(tensor: gs.Tensor, sizes: dict[str, Array]) -> Array | None:
    if tensor.name in sizes:
        return sizes[tensor.name]
    value = constant(tensor)
    if value is None or value.ndim > 1 or value.dtype.kind != "i":
        return None
    return _objects(value.tolist())


def _objects(entries: object) -> Array:
    return np.array(entries, dtype=object)


def _arithmetic(operation: Callable[[int, int], int]) -> Callable[..., Array]:
    def entry(left: object, right: object) -> int | None:
        both = isinstance(left, int) and isinstance(right, int)
        return operation(left, right) if both else None  # type: ignore[arg-type]

    return lambda _, left, right: np.asarray(np.frompyfunc(entry, 2, 1)(left, right), dtype=object)


def _gather(node: gs.Node, sizes: Array, indices: Array) -> Array | None:
    if not _are_numbers(indices):
        return None
    return np.asarray(sizes[indices.astype(np.int64)], dtype=object)


def _slice(node: gs.Node, sizes: Array, *bounds: Array) -> Array | None:
    if not all(map(_are_numbers, bounds)) or sizes.ndim != 1:
        return None
    start, end = (int(bound[0]) for bound in bounds[:2])
    return sizes[start : end : int(bounds[3][0]) if len(bounds) > 3 else 1]


def _are_numbers(sizes: Array) -> bool:
    return all(isinstance(entry, int) for entry in sizes.flat)


_RULES: dict[str, Callable[..., Array | None]] = {
    "Add": _arithmetic(operator.add),
    "Cast": lambda _, sizes: sizes,
    "Concat": lambda _, *parts: np.concatenate(parts),
    # Integer division of sizes, none of which is negative.
    "Div": _arithmetic(lambda left, right: left // right if left >= 0 and right > 0 else None),  # type: ignore[arg-type,return-value]
    "Gather": _gather,
    "Identity": lambda _, sizes: sizes,
    "Mul": _arithmetic(operator.mul),
    "Slice": _slice,
    "Squeeze": lambda _, sizes, *axes: sizes.reshape(()) if sizes.size == 1 else None,
    "Sub": _arithmetic(operator.sub),
    "Unsqueeze": lambda _, sizes, *axes: sizes.reshape(1) if sizes.ndim == 0 else None,
}
