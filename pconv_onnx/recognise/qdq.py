"""QDQ: `QuantizeLinear → DequantizeLinear`, the form of onnxruntime's quantiser, of Brevitas and of PyTorch's exports.

The value is `s · (clip(round(x/s) + z, q_min, q_max) − z)`, rounded half to even. It is a spike count where it does not
fall below zero:

1. a Relu in front, or a Clip from zero on; the zero-point z is then any, the codes run from z to q_max;
2. no Relu, and z = q_min (0 of uint8, −128 of int8): the quantiser left the Relu out, since the clip is one.

q_min and q_max are those of the type of codes, or nearer where codes are clipped in between (QCDQ): by a Clip, or by
Max and Min. A Cast to the type that the codes have already, or an Identity, changes nothing.

Scale and zero-point are scalars or per channel. All is computed in one type. Of float16 and bfloat16 the operators of
opset 23 say that x/s is rounded to that type; before, onnx does so and onnxruntime does not. Source: the ONNX
operators' specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.view import Node, node_name
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec, apply
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Activation, ClipBefore, Refusal
from pconv_onnx.recognise.fused import is_fused

# Codes of the element types that QuantizeLinear writes; the others are floats of 8 and 4 bits.
_RANGES = {f"{sign}int{bits}": ((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if not sign else (0, 2**bits - 1))
           for sign in ("", "u") for bits in (2, 4, 8, 16)}  # fmt: skip

# What may stand between the two operators.
_ON_CODES = ("Cast", "Clip", "Identity", "Max", "Min")

# The first opset that says in which type float16 is divided.
_PRECISE_OPSET = 23


@dataclass(frozen=True, eq=False)
class _Pair:
    """A quantiser and what reads its codes.

    Attributes:
        clip: the Relu or Clip in front, if there is one.
        quantise: the QuantizeLinear.
        between: the nodes that the codes go through, one after another.
        readers: the nodes that read them then.
    """

    clip: ClipBefore
    quantise: Node
    between: tuple[Node, ...]
    readers: tuple[Node, ...]


class Qdq:
    """See the module."""

    encoding = "qdq"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Pair | None:
        """A quantiser, with what its codes go through."""
        if node.op != "QuantizeLinear" or not (is_standard(node) or node.domain == "com.microsoft"):
            return None
        between: list[Node] = []
        codes = node.outputs[0]
        while len(codes.outputs) == 1 and _is_on_codes(codes.outputs[0]) and free(codes.outputs[0]):
            between.append(codes.outputs[0])
            codes = between[-1].outputs[0]
        # Operators that compute with codes are listed themselves.
        if codes.outputs and all(is_fused(reader) for reader in codes.outputs):
            return None
        return _Pair(ClipBefore.find(node, free), node, tuple(between), tuple(codes.outputs))

    def check(self, network: Network, match: _Pair) -> Activation:
        """One DequantizeLinear with the same constants, and codes that it may be a staircase of."""
        quantise = match.quantise
        try:
            dequantise = _only_reader(network, match)
            spec = _read(network, match, dequantise)
        except Refusal as refusal:
            nodes = (quantise, *match.between, *match.readers[:1])
            start, end = quantise.inputs[0], nodes[-1].outputs[0]
            return Activation(node_name(quantise), self.encoding, nodes, start, end, "refused", str(refusal))
        nodes = (*match.clip.part(network), quantise, *match.between, dequantise)
        start, end = nodes[0].inputs[0], dequantise.outputs[0]
        return Activation(node_name(nodes[0]), self.encoding, nodes, start, end, "converted", "", spec)


def _is_on_codes(node: Node) -> bool:
    return node.op in _ON_CODES and is_standard(node)


def _only_reader(network: Network, match: _Pair) -> Node:
    if not is_standard(match.quantise):
        raise Refusal("it is onnxruntime's own QuantizeLinear; quantise at opset 21 or later to have that of ONNX")
    steps = (match.quantise, *match.between)
    for codes in (node.outputs[0] for node in steps):
        if network.is_output(codes):
            raise Refusal(f"its codes '{codes.name}' are also an output of the model")
    graph = network.graph_of(match.quantise)
    others = [
        node
        for node in match.readers
        if node.op != "DequantizeLinear" or not is_standard(node) or network.graph_of(node) is not graph
    ]
    if others:
        told = ", ".join(f"{node.op} '{node_name(node)}'" for node in others)
        raise Refusal(f"its codes are also read by {told}; export with QuantizeLinear and DequantizeLinear in pairs")
    if not match.readers:
        raise Refusal("nothing reads its codes")
    if len(match.readers) > 1:
        raise Refusal(f"its codes are read by {len(match.readers)} unequal DequantizeLinear; export one for each")
    return match.readers[0]


def _read(network: Network, match: _Pair, dequantise: Node) -> QuantizerSpec:
    """The spec of a pair.

    Raises:
        Refusal: which constant of which node is wrong.
    """
    quantise = match.quantise
    pre_activation = quantise.inputs[0]
    if network.shape(pre_activation) == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    scale, zero, axis = _constants(network, quantise)
    other_scale, other_zero, other_axis = _constants(network, dequantise)
    if axis != other_axis or not (np.array_equal(scale, other_scale) and np.array_equal(zero, other_zero)):
        raise Refusal(
            f"'{node_name(quantise)}' and '{node_name(dequantise)}' have unequal scales, zero-points or axes; "
            "export them in pairs"
        )
    dtype = _dtype(network, quantise, dequantise, scale, other_scale)
    low, high = (bound - zero.astype(np.int64) for bound in _range(match, zero.dtype))
    head = (*match.clip.operations, FloatOperation("Div", (scale,)))
    clip = FloatOperation("Clip", (low.astype(dtype), high.astype(dtype)))
    # What the quantiser's own clip and that in front of it leave.
    ends = apply((*head, FloatOperation("Round"), clip), np.array([[-np.inf, np.inf]], dtype=dtype))
    lowest, highest = ends.astype(np.int64).T
    number = highest - lowest
    if number.min() < 1:
        raise Refusal(f"the codes of '{node_name(quantise)}' have no range; calibrate and export it again")
    if number.min() != number.max():
        raise Refusal(f"its channels have from {number.min()} to {number.max()} levels; one number for all is needed")
    if max(abs(low).max(), abs(high).max()) > 2 ** (ml_dtypes.finfo(dtype).nmant + 1):
        raise Refusal(f"{dtype} cannot tell the codes of '{node_name(quantise)}' apart; quantise float32")
    levels = int(number[0])
    step = scale.astype(np.float64)
    spec = QuantizerSpec(
        dtype,
        head,
        FloatOperation("Round"),
        (clip, FloatOperation("Mul", (scale,))),
        levels,
        levels * step,
        levels * step / 2,
        -lowest * step,
        axis,
        lowest,
    )
    try:
        spec.neuron()
    except ValueError as error:
        raise Refusal(
            f"{error} in {dtype}, with a scale of '{node_name(quantise)}' of up to {step.max():.6g}; calibrate again, "
            "or quantise float32 to fewer levels"
        ) from error
    return spec


def _dtype(network: Network, quantise: Node, dequantise: Node, *scales: Array) -> np.dtype[Any]:
    """The one type that a pair computes in."""
    name = node_name(quantise)
    dtype = np.dtype(network.dtype(quantise.inputs[0]) or scales[0].dtype)
    if dtype not in SUM_TYPES:
        raise Refusal(f"'{name}' quantises {dtype}; {', '.join(map(str, SUM_TYPES))} are supported")
    types: set[np.dtype[Any] | None] = {scale.dtype for scale in scales}
    for node, attribute in ((quantise, "precision"), (dequantise, "output_dtype")):
        types |= {element_type(node.attrs[attribute])} if node.attrs.get(attribute, 0) else set()
    if types != {dtype}:
        others = ", ".join(sorted(str(other or "an unknown type") for other in types - {dtype}))
        raise Refusal(f"'{name}' quantises {dtype} with scales, precision or values of {others}; export one type")
    if dtype != np.float32 and network.opset < _PRECISE_OPSET:
        raise Refusal(
            f"'{name}' quantises {dtype}, which runtimes divide in different types before opset {_PRECISE_OPSET}; "
            "export with that, or quantise float32"
        )
    return dtype


def _range(match: _Pair, codes: np.dtype[Any]) -> tuple[int, int]:
    """The lowest and the highest code that the DequantizeLinear may read."""
    name = node_name(match.quantise)
    if codes.name not in _RANGES:
        raise Refusal(f"'{name}' writes codes of {codes}; quantise to integers, such as uint8")
    low, high = _RANGES[codes.name]
    for node in match.between:
        if node.op == "Cast" and element_type(node.attrs.get("to")) != codes:
            raise Refusal(
                f"'{node_name(node)}' casts the codes of '{name}' to another type; export in one type of codes"
            )
        # Each is monotone, so that the ends of the range stay its ends.
        for operation, bound in _bounds(node):
            low, high = operation(low, bound), operation(high, bound)
    return low, high


def _bounds(node: Node) -> list[tuple[Callable[[int, int], int], int]]:
    """`max` and `min` with a bound each, in the order in which a node that clips codes takes them."""
    if node.op == "Clip":
        operands = list(zip((max, min), node.inputs[1:], strict=False))
    else:
        operation = {"Max": max, "Min": min}.get(node.op)
        operands = [(operation, tensor) for tensor in node.inputs if constant(tensor) is not None] if operation else []
        if operation and len(operands) != len(node.inputs) - 1:
            raise Refusal(f"'{node_name(node)}' clips codes by something computed; export constant bounds")
    bounds: list[tuple[Callable[[int, int], int], int]] = []
    for operation, tensor in operands:
        if not tensor.name:
            continue
        value = constant(tensor)
        if value is None:
            raise Refusal(f"'{tensor.name}', a bound of '{node_name(node)}', is computed; export constant bounds")
        if value.size != 1:
            raise Refusal(
                f"'{tensor.name}', a bound of '{node_name(node)}', has {value.size} values; export one for all"
            )
        bounds.append((operation, int(value.reshape(-1)[0])))
    return bounds


def _constants(network: Network, node: Node) -> tuple[Array, Array, int | None]:
    """Scale `[1]` or `[C]`, zero-point of as many entries, and the channel axis where they are per channel."""
    name = node_name(node)
    if node.attrs.get("block_size", 0):
        raise Refusal(f"'{name}' has a scale for each block; export one scale per tensor or per channel")
    values = []
    for tensor in node.inputs[1:3]:
        value = constant(tensor) if tensor.name else None
        if tensor.name and value is None:
            raise Refusal(f"'{tensor.name}', an operand of '{name}', is not a constant; quantise statically")
        values.append(value)
    scale, zero = (*values, None)[:2]
    if scale is None:
        raise Refusal(f"'{name}' has no scale; export it again")
    if not np.isfinite(scale.astype(np.float64)).all() or (scale <= 0).any():
        raise Refusal(f"'{node.inputs[1].name}', the scale of '{name}', is not positive and finite; calibrate again")
    if zero is None:
        # Of DequantizeLinear the attribute is the type of the values, and that of the codes does not matter.
        codes = node.attrs.get("output_dtype", 0) if node.op == "QuantizeLinear" else 0
        dtype = element_type(codes or onnx.TensorProto.UINT8)
        if dtype is None:
            raise Refusal(f"'{name}' writes codes of an unknown type; export it again")
        zero = np.zeros(scale.shape, dtype=dtype)
    if zero.shape != scale.shape:
        raise Refusal(f"'{name}' has a scale of shape {list(scale.shape)} and a zero-point of {list(zero.shape)}")
    if scale.size == 1:
        return scale.reshape(1), zero.reshape(1), None
    shape = network.shape(node.inputs[0])
    axis = node.attrs.get("axis", 1)
    rank = len(shape or ())
    if scale.ndim != 1 or shape is None or axis in (0, -rank) or not -rank <= axis < rank or shape[axis] != scale.size:
        raise Refusal(f"'{node.inputs[1].name}' holds {scale.size} scales, which do not run along a channel axis")
    return scale, zero, axis % rank
