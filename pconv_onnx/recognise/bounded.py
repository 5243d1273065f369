"""A Clip written in several operators, listed as one activation.

`min(relu(x), c)`, `x > 0 ? x : 0` and `c − relu(c − relu(x))` are clips in real arithmetic, and so is whatever adds
constants, takes its negative and bounds it: each step keeps `clip(±x + b, low, high)`. The last is how a trainable
clipping layer is written (TCL; Ho and Chang, DAC 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.recognise.base import CALIBRATE, Activation, bounds_of, number
from pconv_onnx.recognise.chain import selection

_OPERATORS = ("Add", "Clip", "Identity", "Max", "Min", "Neg", "Relu", "Sub", "Where")
_LONGEST = 8


class Bounded:
    """Operators that are a Clip together."""

    encoding = "analog"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Match | None:
        """The longest chain of such operators that ends here and is a clip."""
        nodes: tuple[Node, ...] = ()
        found = None
        while len(nodes) < _LONGEST and _is_part(node) and free(node):
            chosen = selection(node) if node.op == "Where" else None
            nodes = (node, *nodes) if chosen is None else (chosen.comparison, node, *nodes)
            data = _data_of(node) if chosen is None else chosen.data
            if data is None:
                break
            form = _form_of(nodes)
            if sum(node.op != "Identity" for node in nodes) > 1 and form is not None and form.is_clip:
                found = _Match(nodes, data, form)
            if len(data.inputs) != 1 or len(data.outputs) != 1:
                break
            node = data.inputs[0]
        return found

    def check(self, network: Network, match: _Match) -> Activation | None:
        """Refused, since it has no levels; None for integers, or if a value in it is an output or has another shape."""
        dtype = network.dtype(match.input)
        shape = network.shape(match.input)
        if (dtype is not None and dtype.kind in "iub") or network.shape(match.nodes[-1].outputs[0]) != shape:
            return None
        inner = [node.outputs[0] for node in match.nodes[:-1]]
        if any(network.is_output(tensor) or len(tensor.outputs) != 1 for tensor in inner):
            return None
        bounds = match.form.low, match.form.high
        reason = CALIBRATE.format(clip_name(bounds))
        output = match.nodes[-1].outputs[0]
        name = network.module(match.nodes[0]) or network.name_of(match.nodes[0])
        return Activation(
            name, self.encoding, match.nodes, match.input, output, "needs-calibration", reason, bounds=bounds
        )


@dataclass(frozen=True)
class _Form:
    """`clip(sign·x + offset, low, high)`."""

    sign: int = 1
    offset: float = 0.0
    low: float = -np.inf
    high: float = np.inf

    @property
    def is_clip(self) -> bool:
        """Whether it is a clip of x itself, from zero on."""
        return self.sign == 1 and self.offset == self.low == 0 < self.high

    def plus(self, value: float) -> _Form:
        return _Form(self.sign, self.offset + value, self.low + value, self.high + value)

    def negated(self) -> _Form:
        return _Form(-self.sign, -self.offset, -self.high, -self.low)

    def within(self, low: float, high: float) -> _Form:
        return replace(self, low=min(max(self.low, low), high), high=min(max(self.high, low), high))


@dataclass(frozen=True, eq=False)
class _Match:
    """The nodes in topological order, their input, and the function that they compute."""

    nodes: tuple[Node, ...]
    input: Tensor
    form: _Form


def clip_name(bounds: tuple[float, float]) -> str:
    """The name of a clip, for reports."""
    low, high = bounds
    return f"Clip to [{low + 0.0:g}, {'∞)' if np.isinf(high) else f'{high:g}]'}"


def activates(bounds: tuple[float, float]) -> bool:
    """Whether a clip is an activation: one with its lower bound above zero guards a division."""
    low, high = bounds
    return -np.inf < low <= 0 < high


def _is_part(node: Node) -> bool:
    return node.op in _OPERATORS and is_standard(node)


def _data_of(node: Node) -> Tensor | None:
    """The one computed input; None if there are several, or it is in a constant's place."""
    varying = [tensor for tensor in node.inputs if tensor.name and constant(tensor) is None]
    return varying[0] if len(varying) == 1 else None


def _form_of(nodes: tuple[Node, ...]) -> _Form | None:
    form: _Form | None = _Form()
    for node in nodes:
        # A comparison is part of its Where.
        form = form if form is None or node.op not in _OPERATORS else _after(form, node)
    return form


def _after(form: _Form, node: Node) -> _Form | None:
    """The function behind an operator; None if it is not such a function any more."""
    if node.op == "Identity":
        return form
    if node.op == "Neg":
        return form.negated()
    if node.op == "Where":
        chosen = selection(node)
        bound = None if chosen is None else number(chosen.chosen)
        if chosen is None or bound is None or bound != number(chosen.compared):
            return None
        return form.within(bound, np.inf) if chosen.op_type == "Max" else form.within(-np.inf, bound)
    first = constant(node.inputs[0]) is None
    if node.op in ("Clip", "Relu"):
        bounds = bounds_of(node) if first else None
        return None if bounds is None else form.within(*bounds)
    value = number(node.inputs[1 if first else 0]) if len(node.inputs) == 2 else None
    if value is None:
        return None
    if node.op == "Add":
        return form.plus(value)
    if node.op == "Sub":
        return form.plus(-value) if first else form.negated().plus(value)
    return form.within(value, np.inf) if node.op == "Max" else form.within(-np.inf, value)
