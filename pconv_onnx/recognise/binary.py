"""Activations with one level: a comparison with constants, as in binary networks and step functions.

`Cast(x > c)`, a 1 where it holds, and `Where(x > c, high, low)`; with ≥, with the operands the other way round, and
with a Not where that keeps the larger value above c. Constants are scalars or per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.view import Node, Tensor, node_name
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Activation, Refusal
from pconv_onnx.recognise.operands import ConstantReader, some

# Comparisons, each with whether it holds for large data in front, and whether where they are equal.
_COMPARISONS = {"Greater": (True, False), "GreaterOrEqual": (True, True), "Less": (False, False),
                "LessOrEqual": (False, True)}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Step:
    """A comparison of data with a constant, and the node that turns it into a value.

    Attributes:
        comparison: the comparison.
        between: a Not, if there is one.
        valued: the Cast or Where.
        data: the compared tensor.
        bound: the constant.
        above: whether the condition holds above the bound.
        at: whether data equal to the bound count as above.
    """

    comparison: Node
    between: tuple[Node, ...]
    valued: Node
    data: Tensor
    bound: Tensor
    above: bool
    at: bool


class Binary:
    """A comparison with a constant, as the module describes."""

    encoding = "binary"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Step | None:
        """A Cast to floats, or a Where between constants, of a comparison with a constant."""
        if not is_standard(node) or not _gives_values(node) or len(node.inputs[0].inputs) != 1:
            return None
        comparison = node.inputs[0].inputs[0]
        between: tuple[Node, ...] = ()
        if comparison.op == "Not" and is_standard(comparison) and len(comparison.inputs[0].inputs) == 1:
            comparison, between = comparison.inputs[0].inputs[0], (comparison,)
        if comparison.op not in _COMPARISONS or not all(
            is_standard(n) and free(n) for n in (comparison, *between, node)
        ):
            return None
        left, right = comparison.inputs
        if (constant(left) is None) == (constant(right) is None):
            return None
        in_front = constant(right) is not None
        data, bound = (left, right) if in_front else (right, left)
        greater, equal = _COMPARISONS[comparison.op]
        above = greater == in_front
        # Equal values belong to the side on which the comparison holds.
        return _Step(comparison, between, node, data, bound, above != bool(between), equal == above)

    def check(self, network: Network, match: _Step) -> Activation | None:
        """Constants along one axis, and the larger value above; None of integers, which are compared with counters."""
        dtype = network.dtype(match.data)
        if dtype is not None and dtype.kind in "iub":
            return None
        name = network.module(match.comparison) or network.name_of(match.comparison)
        nodes = _own(network, match)
        start, end = match.data, match.valued.outputs[0]
        try:
            spec = _read(network, match)
        except (Refusal, ValueError) as reason:
            return Activation(name, self.encoding, nodes, start, end, "refused", str(reason))
        return Activation(name, self.encoding, nodes, start, end, "converted", "", spec)


def _gives_values(node: Node) -> bool:
    if node.op == "Cast":
        return element_type(node.attrs["to"]) in SUM_TYPES
    return node.op == "Where" and all(constant(tensor) is not None for tensor in node.inputs[1:])


def _own(network: Network, match: _Step) -> tuple[Node, ...]:
    """The nodes that go with it: a condition that is read elsewhere as well stays."""
    nodes: tuple[Node, ...] = (match.valued,)
    for node in (*match.between[::-1], match.comparison):
        if network.is_output(node.outputs[0]) or len(node.outputs[0].outputs) != 1:
            break
        nodes = (node, *nodes)
    return nodes


def _read(network: Network, match: _Step) -> QuantizerSpec:
    """The spec.

    Raises:
        Refusal: which operand is wrong.
        ValueError: no neuron has these values.
    """
    shape = network.shape(match.data)
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    reader = ConstantReader(shape)
    bound = reader.vector(match.comparison, match.bound)
    dtype = network.dtype(match.data) or bound.dtype
    if dtype not in SUM_TYPES:
        raise Refusal(f"it computes in {dtype}; {', '.join(map(str, SUM_TYPES))} are supported")
    tail = _values(match, reader, dtype)
    threshold = bound if match.at else np.nextafter(bound, np.asarray(np.inf, bound.dtype))
    count = FloatOperation("MultiThreshold", (threshold.reshape(-1, 1),))
    spec = QuantizerSpec(dtype, (), count, tail, 1, None, np.zeros(1), np.zeros(1), reader.channel_axis)
    spec.neuron()
    return spec


def _values(match: _Step, reader: ConstantReader, dtype: np.dtype[Any]) -> tuple[FloatOperation, ...]:
    """What makes a value of a count of 0 or 1."""
    falls = f"'{node_name(match.valued)}' gives less above than below; neurons give more: compare the other way round"
    if match.valued.op == "Cast":
        given = element_type(match.valued.attrs["to"])
        if not match.above:
            raise Refusal(f"{falls}, and take what it gives from 1")
        if given != dtype:
            raise Refusal(f"'{node_name(match.valued)}' gives {given} and its data are {dtype}; export one type")
        return ()
    holds, fails = (reader.vector(match.valued, tensor) for tensor in match.valued.inputs[1:])
    low, high = (fails, holds) if match.above else (holds, fails)
    if holds.dtype != dtype:
        raise Refusal(f"'{node_name(match.valued)}' gives {holds.dtype} and its data are {dtype}; export one type")
    if not (low < high).all():
        raise Refusal(f"{falls} ({some(low)} below, {some(high)} above)")
    return (FloatOperation("Where", (low, high)),)
