"""Thresholds in standard operators: `a · #{t : τ_t ≤ x}`, perhaps with an offset that makes a level zero.

Anchored at the ReduceSum of `Unsqueeze(x, −1) → GreaterOrEqual(τ) → Cast → ReduceSum(−1)`, with the Mul behind it and,
behind that, an Add by which a level in the middle is zero; any other is the next layer's.
Thresholds `[L]` or `[C, 1, …, L]` are of any spacing. So does `calibrate` write what has no uniform staircase, and so
are the quantisers of QONNX written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.view import Node, node_name
from pconv_onnx.neuron.parallel import MAX_LEVELS
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Activation, Refusal, Signs
from pconv_onnx.recognise.chain import data_input, owner_of_constants, refuse_shared
from pconv_onnx.recognise.operands import ConstantReader, factor, spacing

_OPERATORS = ("Unsqueeze", "GreaterOrEqual", "Cast", "ReduceSum")


class Thresholds:
    """A sum of comparisons with thresholds, as the module describes."""

    encoding = "thresholds"

    def __init__(self, signs: Signs) -> None:
        """Whether trains are to have signs: a cut with values below zero is then as good as one without."""
        self.signs = signs

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> tuple[Node, ...] | None:
        """The four operators, a Mul by a constant, and an Add of one."""
        nodes = [node]
        while len(nodes) < len(_OPERATORS):
            first = nodes[0]
            if not first.inputs or len(first.inputs[0].inputs) != 1:
                return None
            nodes.insert(0, first.inputs[0].inputs[0])
        chosen = tuple(nodes)
        if [node.op for node in chosen] != list(_OPERATORS) or not all(is_standard(n) and free(n) for n in chosen):
            return None
        if constant(chosen[0].inputs[0]) is not None or chosen[3].attrs.get("keepdims", 1):
            return None
        for op in ("Mul", "Add"):
            value = chosen[-1].outputs[0]
            users = value.outputs
            if len(users) != 1 or users[0].op != op or not is_standard(users[0]) or not free(users[0]):
                break
            if data_input(users[0]) is not value:
                break
            chosen = (*chosen, users[0])
        return chosen

    def check(self, network: Network, match: tuple[Node, ...]) -> Activation | None:
        """Constant thresholds along one axis; None where it is not the last axis, a new one, that is summed over."""
        if match[-1].op == "Add":
            whole = self._activation(network, match)
            if whole is not None and whole.spec is not None and self.signs(whole.spec):
                return whole
        return self._activation(network, match[: len(_OPERATORS) + 1])

    def _activation(self, network: Network, match: tuple[Node, ...]) -> Activation | None:
        start, end = match[0].inputs[0], match[-1].outputs[0]
        shape = network.shape(start)
        last = ([-1], [-1 if shape is None else len(shape)])
        if any(_axes(match[index]) not in last for index in (0, 3)):
            return None
        name = network.module(match[3]) or owner_of_constants(match[-1]) or network.name_of(match[3])
        try:
            spec = _read(network, match)
        except (Refusal, ValueError) as reason:
            return Activation(name, self.encoding, match, start, end, "refused", str(reason))
        return Activation(name, self.encoding, match, start, end, "converted", "", spec)


def _axes(node: Node) -> list[int] | None:
    value = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if value is None else value.reshape(-1).tolist()


def _read(network: Network, nodes: Sequence[Node]) -> QuantizerSpec:
    """The spec.

    Raises:
        Refusal: which operand is wrong.
        ValueError: no neuron has these levels.
    """
    refuse_shared(network, nodes)
    _, compare, cast, _, *scaling = nodes
    shape, dtype = network.shape(nodes[0].inputs[0]), network.dtype(nodes[0].inputs[0])
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    reader = ConstantReader(shape)
    thresholds = _table(compare, reader)
    dtype = dtype or thresholds.dtype
    if dtype not in SUM_TYPES:
        raise Refusal(f"it computes in {dtype}; {', '.join(map(str, SUM_TYPES))} are supported")
    if element_type(cast.attrs["to"]) != dtype:
        raise Refusal(f"'{node_name(cast)}' counts in {element_type(cast.attrs['to'])}, and its data are {dtype}")
    tail = tuple(reader.operation(node) for node in scaling)
    if scaling:
        factor(scaling[0], tail[0])
    even = spacing(thresholds)
    threshold, shift, bias = even if even is not None else (None, np.zeros(1), np.zeros(1))
    count = FloatOperation("MultiThreshold", (thresholds,))
    spec = QuantizerSpec(
        dtype, (), count, tail, thresholds.shape[1], threshold, shift, bias, reader.channel_axis, np.zeros(1)
    )
    spec.neuron()
    return spec


def _table(compare: Node, reader: ConstantReader) -> Array:
    """Thresholds `[R, L]`, ascending.

    Raises:
        Refusal: they are computed, NaN, too many, or do not run along the channels.
    """
    tensor = compare.inputs[1]
    value = constant(tensor)
    name = f"'{tensor.name}', the thresholds of '{node_name(compare)}',"
    if value is None:
        raise Refusal(f"{name} are computed; constants are needed")
    if np.isnan(value).any():
        raise Refusal(f"{name} have a NaN")
    if not value.ndim or not 1 <= value.shape[-1] <= MAX_LEVELS:
        raise Refusal(f"{name} have shape {list(value.shape)}; a last axis of 1 to {MAX_LEVELS} of them is needed")
    reader.settle(tensor, value.shape[:-1])
    return np.sort(value.reshape(-1, value.shape[-1]), axis=1)
