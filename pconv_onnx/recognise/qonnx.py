"""QONNX: `Quant`, `BipolarQuant` and `MultiThreshold`, the form of Brevitas and FINN.

1. Quant: `s · (round(clip(x/s + z, q_min, q_max)) − z)`. The zero-point is added before the rounding, so that an odd
   one moves the ties of half to even. A Relu or Clip in front is taken along.
2. MultiThreshold: `out_scale · #{τ_i ≤ x} + out_bias`, with thresholds of any spacing.
3. BipolarQuant: `s` where x ≥ 0, else `−s`; one level, signed.

Source: as of pconv_onnx.graph.qonnx, which holds the meaning of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.qonnx import BIT_WIDTH, DOMAINS, THRESHOLDS, Operation, Quantiser, quantiser
from pconv_onnx.graph.view import Node, node_name
from pconv_onnx.neuron.parallel import MAX_LEVELS
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec, apply
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Activation, ClipBefore, Refusal
from pconv_onnx.recognise.operands import ConstantReader, spacing

_OPERATORS = ("Quant", "IntQuant", "BipolarQuant", "MultiThreshold", "Trunc", "FloatQuant")

# The shift of a neuron for each rounding, in units of θ; the second table holds only if no code is below zero.
_SHIFTS = {"Floor": 0.0, "Ceil": 1.0, "Round": 0.5, "RoundHalfUp": 0.5, "RoundHalfDown": 0.5}
_SHIFTS_ABOVE_ZERO = {"RoundUp": 1.0, "RoundDown": 0.0}


@dataclass(frozen=True, eq=False)
class _Match:
    """A quantiser, with the Relu or Clip in front if there is one."""

    clip: ClipBefore
    quantise: Node


class Qonnx:
    """A quantiser of QONNX, as the module describes."""

    encoding = "qonnx"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Match | None:
        """A quantiser."""
        if node.domain not in DOMAINS or node.op not in _OPERATORS or not node.inputs or not node.outputs:
            return None
        return _Match(ClipBefore.find(node, free), node)

    def check(self, network: Network, match: _Match) -> Activation:
        """Constant parameters, and thresholds in order."""
        quantise = match.quantise
        nodes = (*match.clip.part(network), quantise)
        start, end = nodes[0].inputs[0], quantise.outputs[0]
        try:
            spec = _read(network, match)
        except Refusal as refusal:
            return Activation(network.name_of(quantise), self.encoding, nodes, start, end, "refused", str(refusal))
        return Activation(network.name_of(nodes[0]), self.encoding, nodes, start, end, "converted", "", spec)


def _read(network: Network, match: _Match) -> QuantizerSpec:
    """The spec of a quantiser.

    Raises:
        Refusal: which of its inputs or attributes is wrong.
    """
    node = match.quantise
    shape = network.shape(node.inputs[0])
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    bit_width = constant(node.inputs[BIT_WIDTH]) if len(node.inputs) > BIT_WIDTH else None
    try:
        meaning = quantiser(node.op, node.attrs, bit_width, None if shape is None else len(shape))
    except ValueError as error:
        raise Refusal(f"'{node_name(node)}': {error}") from error
    dtype = network.dtype(node.inputs[0]) or np.dtype(np.float32)
    if dtype not in SUM_TYPES:
        raise Refusal(f"it computes in {dtype}; {', '.join(map(str, SUM_TYPES))} are supported")
    reader = _Reader(network, node, meaning, dtype)
    head, rounding, tail = map(reader.operations, (meaning.head, (meaning.rounding,), meaning.tail))
    head = (*match.clip.operations, *head)
    ends = np.array([[-np.inf, np.inf]], dtype=dtype)
    lowest, highest = np.asarray(apply((*head, *rounding), ends), dtype=np.float64).T
    levels = highest - lowest
    if (levels != levels[0]).any():
        raise Refusal(f"its channels have from {levels.min():g} to {levels.max():g} levels; one number is needed")
    if not 1 <= levels[0] <= MAX_LEVELS:
        raise Refusal(f"it has {levels[0]:g} levels; 1 to {MAX_LEVELS} are possible")
    count = int(levels[0])
    threshold, shift, bias = _spacing(meaning, reader, lowest, count)
    spec = QuantizerSpec(dtype, head, rounding[0], tail, count, threshold, shift, bias, reader.channel_axis, lowest)
    try:
        spec.neuron()
    except ValueError as error:
        raise Refusal(str(error)) from error
    return spec


def _spacing(meaning: Quantiser, reader: _Reader, lowest: Array, levels: int) -> tuple[Array | None, Array, Array]:
    """θ, b and ψ; no θ where thresholds are not evenly spaced."""
    uneven = None, np.zeros(1), np.zeros(1)
    if reader.thresholds is not None:
        even = spacing(reader.thresholds) if reader.thresholds.shape[1] == levels else None
        return even or uneven
    shifts = _SHIFTS | (_SHIFTS_ABOVE_ZERO if (lowest >= 0).all() else {})
    share = shifts.get(meaning.rounding.op_type)
    if share is None:
        return uneven
    scale, zero_point = (reader.vector(index).astype(np.float64) for index in (1, 2))
    threshold = levels * scale
    return threshold, share * threshold, (zero_point - lowest) * scale


class _Reader:
    """The parameters of one node, as operands of its operations."""

    def __init__(self, network: Network, node: Node, meaning: Quantiser, dtype: np.dtype) -> None:
        self._node, self._dtype = node, dtype
        self._constants = ConstantReader(network.shape(node.inputs[0]))
        self._shape = network.shape(node.inputs[0])
        self.thresholds: Array | None = None
        self._threshold_axis = meaning.channel_axis

    @property
    def channel_axis(self) -> int | None:
        if self.thresholds is not None and len(self.thresholds) > 1:
            return self._threshold_axis
        return self._constants.channel_axis

    def operations(self, operations: tuple[Operation, ...]) -> tuple[FloatOperation, ...]:
        return tuple(
            FloatOperation(
                operation.op_type, tuple(self._operand(operation.op_type, value) for value in operation.operands)
            )
            for operation in operations
        )

    def _operand(self, op_type: str, value: int | float) -> Array:
        if isinstance(value, float):
            return np.full((1, 1) if op_type == "MultiThreshold" else 1, value)
        if op_type == "MultiThreshold":
            self.thresholds = self._threshold_table()
            return self.thresholds
        operand = self.vector(value)
        if op_type in ("Div", "Mul") and (operand <= 0).any():
            raise Refusal(f"'{self._node.inputs[value].name}', the scale of '{node_name(self._node)}', is not positive")
        return operand

    def vector(self, index: int) -> Array:
        """A constant input as `[1]` or `[C]`."""
        if index >= len(self._node.inputs):
            raise Refusal(f"'{node_name(self._node)}' has {len(self._node.inputs)} inputs")
        value = self._constants.vector(self._node, self._node.inputs[index])
        if value.dtype != self._dtype:
            name = f"'{self._node.inputs[index].name}', an operand of '{node_name(self._node)}',"
            raise Refusal(f"{name} is {value.dtype}; its data are {self._dtype}")
        return value

    def _threshold_table(self) -> Array:
        if THRESHOLDS >= len(self._node.inputs):
            raise Refusal(f"'{node_name(self._node)}' has {len(self._node.inputs)} inputs")
        name = f"'{self._node.inputs[THRESHOLDS].name}', the thresholds of '{node_name(self._node)}',"
        table = constant(self._node.inputs[THRESHOLDS])
        if table is None:
            raise Refusal(f"{name} are computed; constants are needed")
        if table.ndim != 2 or not table.size:
            raise Refusal(f"{name} have shape {list(table.shape)}; [channels or 1, levels] is needed")
        if table.dtype != self._dtype:
            raise Refusal(f"{name} are {table.dtype}, the data are {self._dtype}")
        if np.isnan(table).any() or (table[:, 1:] < table[:, :-1]).any():
            raise Refusal(f"{name} do not ascend")
        axis, shape = self._threshold_axis, self._shape
        if len(table) > 1 and (shape is None or not 0 < axis < len(shape) or shape[axis] != len(table)):
            told = "of unknown shape" if shape is None else f"of shape {list(shape)}"
            raise Refusal(f"{name} have {len(table)} rows, and the data {told} have no such channels on axis {axis}")
        return table
