"""QDQ: `QuantizeLinear → DequantizeLinear`, the form of onnxruntime's quantiser, of Brevitas and of PyTorch's exports.

The value is `s · (clip(round(x/s) + z, q_min, q_max) − z)`, rounded half to even. It is a spike count where it does not
fall below zero:

1. a Relu in front, or a Clip from zero on; the zero-point z is then any, the codes run from z to q_max;
2. no Relu, and z = q_min (0 of uint8, −128 of int8): the quantiser left the Relu out, since the clip is one.

q_min and q_max are those of the type of codes, or nearer where codes are clipped in between (QCDQ): by a Clip, or by
Max and Min. A Cast to the type that the codes have already, or an Identity, changes nothing.

A Relu or Clip may itself stand behind a signed pair, as quantisers write that quantise every tensor: a staircase of a
staircase is one, so that the two pairs are one neuron. The operators of that name in onnxruntime's own domain, which it
has for 16 bits before opset 21, are the same.

Scale and zero-point are scalars or per channel. Of float16 and bfloat16 the operators of opset 23 say in which type
x/s is divided, by default in that of the scale; before, onnx does so and onnxruntime divides float16 in float32, which
is what is taken. Source: the ONNX operators' specification, and onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import listed
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.graph.passes.codes import is_one, moves
from pconv_onnx.graph.view import Node, called, node_name
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec, apply
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Activation, ClipBefore, Refusal
from pconv_onnx.recognise.chain import refuse_shared
from pconv_onnx.recognise.fused import is_fused
from pconv_onnx.recognise.operands import spacing

# Codes of the element types that QuantizeLinear writes; the others are floats of 8 and 4 bits.
_RANGES = {f"{sign}int{bits}": ((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if not sign else (0, 2**bits - 1))
           for sign in ("", "u") for bits in (2, 4, 8, 16)}  # fmt: skip

# Operators that may stand between the two.
_ON_CODES = ("Cast", "Clip", "Identity", "Max", "Min")

# The first opset that says in which type is divided, and in which onnxruntime does so before.
_PRECISE_OPSET = 23
_DIVIDED_BY_ONNXRUNTIME = {np.dtype(dtype): np.dtype(np.float32) for dtype in (np.float16, np.float32)}


@dataclass(frozen=True, eq=False)
class _Pair:
    """A quantiser and the nodes that read its codes.

    Attributes:
        clip: the Relu or Clip in front, if there is one.
        quantise: the QuantizeLinear.
        between: the nodes that the codes pass through, one after another.
        readers: the nodes that read them at the end.
        before: another such pair, in front of the clip.
    """

    clip: ClipBefore
    quantise: Node
    between: tuple[Node, ...]
    readers: tuple[Node, ...]
    before: _Pair | None = None


class Qdq:
    """A quantiser and a dequantiser, as the module describes."""

    encoding = "qdq"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Pair | None:
        """A quantiser, with the nodes that its codes pass through."""
        if not is_one(node, "QuantizeLinear"):
            return None
        between: list[Node] = []
        codes = node.outputs[0]
        while len(codes.outputs) == 1 and _is_on_codes(codes.outputs[0]) and free(codes.outputs[0]):
            between.append(codes.outputs[0])
            codes = between[-1].outputs[0]
        # Operators that compute with codes are listed themselves.
        if codes.outputs and all(map(_computes_with_codes, codes.outputs)):
            return None
        return _Pair(ClipBefore.find(node, free), node, tuple(between), tuple(codes.outputs))

    def check(self, network: Network, match: _Pair) -> Activation | None:
        """Converted if one DequantizeLinear with the same constants reads the codes, and they form a staircase."""
        quantise = match.quantise
        try:
            return self._converted(network, match)
        except Refusal as refusal:
            nodes = (quantise, *match.between, *match.readers[:1])
            start, end = quantise.inputs[0], nodes[-1].outputs[0]
            return Activation(network.name_of(quantise), self.encoding, nodes, start, end, "refused", str(refusal))

    def _converted(self, network: Network, match: _Pair) -> Activation:
        """The activation of a pair.

        Raises:
            Refusal: it is none.
        """
        spec = _read(network, match)
        nodes = _nodes(network, match)
        named = nodes[0]
        if match.before is not None and match.clip.node is not None:
            refuse_shared(network, nodes)
            named = match.clip.node
        start, end = nodes[0].inputs[0], nodes[-1].outputs[0]
        return Activation(network.name_of(named), self.encoding, nodes, start, end, "converted", "", spec)


class Requantised(Qdq):
    """Two pairs with a Relu or Clip between them, if they are one neuron together; else each stands for itself."""

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> _Pair | None:
        """A quantiser behind a clip that is the only reader of another pair."""
        match = super().pattern(node, free)
        if match is None or match.clip.node is None or not match.clip.alone:
            return None
        dequantised = match.clip.node.inputs[0]
        waiting = dequantised.inputs[0] if len(dequantised.inputs) == len(dequantised.outputs) == 1 else None
        while waiting is not None and not is_one(waiting, "QuantizeLinear"):
            codes = waiting.inputs[0] if is_one(waiting, "DequantizeLinear") or _is_on_codes(waiting) else None
            waiting = codes.inputs[0] if codes is not None and len(codes.inputs) == 1 and free(waiting) else None
        before = super().pattern(waiting, free) if waiting is not None and free(waiting) else None
        return None if before is None else replace(match, before=replace(before, clip=ClipBefore()))

    def check(self, network: Network, match: _Pair) -> Activation | None:
        """Both pairs as one; None where they are not."""
        try:
            return self._converted(network, match)
        except Refusal:
            return None


def _nodes(network: Network, match: _Pair) -> tuple[Node, ...]:
    """The nodes of a pair's activation, in topological order."""
    first = () if match.before is None else _nodes(network, match.before)
    return (*first, *match.clip.part(network), match.quantise, *match.between, _only_reader(network, match))


def _computes_with_codes(node: Node) -> bool:
    """Whether a reader of codes computes with them, or passes them on only to nodes that do."""
    readers = node.outputs[0].outputs if moves(node) else ()
    return is_fused(node) or bool(readers and all(map(_computes_with_codes, readers)))


def _is_on_codes(node: Node) -> bool:
    return node.op in _ON_CODES and is_standard(node)


def _only_reader(network: Network, match: _Pair) -> Node:
    steps = (match.quantise, *match.between)
    for codes in (node.outputs[0] for node in steps):
        if network.is_output(codes):
            raise Refusal(f"its codes '{codes.name}' are also an output of the model")
    graph = network.graph_of(match.quantise)
    others = [
        node for node in match.readers if not is_one(node, "DequantizeLinear") or network.graph_of(node) is not graph
    ]
    if others:
        told = listed([called(node) for node in others])
        raise Refusal(f"its codes are also read by {told}; export with QuantizeLinear and DequantizeLinear in pairs")
    if not match.readers:
        raise Refusal("nothing reads its codes")
    if len(match.readers) > 1:
        raise Refusal(f"its codes are read by {len(match.readers)} unequal DequantizeLinear; export one for each")
    return match.readers[0]


def _read(network: Network, match: _Pair) -> QuantizerSpec:
    """The spec of a pair.

    Raises:
        Refusal: which constant of which node is wrong.
    """
    quantise, dequantise = match.quantise, _only_reader(network, match)
    before = None if match.before is None else _read(network, match.before)
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
    divided = _divided_in(network, quantise, dtype)
    cast, cast_back = ((FloatOperation("Cast", dtype=to),) if divided != dtype else () for to in (divided, dtype))
    low, high = (bound - zero.astype(np.int64) for bound in _range(match, zero.dtype))
    if before is not None:
        if dtype != np.float32 or (axis is not None and before.channel_axis not in (None, axis)):
            raise Refusal("two quantisers are one in float32, with scales along one axis")
        axis = before.channel_axis if axis is None else axis
    first = () if before is None else (*before.head, before.rounding, *before.tail)
    head = (*first, *match.clip.operations, *cast, FloatOperation("Div", (scale,)))
    clip = FloatOperation("Clip", (low.astype(divided), high.astype(divided)))
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
        (clip, FloatOperation("Mul", (scale,)), *cast_back),
        levels,
        levels * step,
        levels * step / 2,
        -lowest * step,
        axis,
        lowest,
    )
    try:
        neuron = spec.neuron()
    except ValueError as error:
        raise Refusal(
            f"{error} in {dtype}, with a scale of '{node_name(quantise)}' of up to {step.max():.6g}; calibrate again, "
            "or quantise float32 to fewer levels"
        ) from error
    if before is not None and spacing(neuron.thresholds) is None:
        return replace(spec, threshold=None, shift=np.zeros(1), bias=np.zeros(1))
    return spec


def _dtype(network: Network, quantise: Node, dequantise: Node, *scales: Array) -> np.dtype[Any]:
    """The one type of what a pair is given and gives."""
    name = node_name(quantise)
    dtype = np.dtype(network.dtype(quantise.inputs[0]) or scales[0].dtype)
    if dtype not in SUM_TYPES:
        raise Refusal(f"'{name}' quantises {dtype}; {', '.join(map(str, SUM_TYPES))} are supported")
    types: set[np.dtype[Any] | None] = {scale.dtype for scale in scales}
    types |= {element_type(dequantise.attrs["output_dtype"])} if dequantise.attrs.get("output_dtype", 0) else set()
    if types != {dtype}:
        others = ", ".join(sorted(str(other or "an unknown type") for other in types - {dtype}))
        raise Refusal(f"'{name}' quantises {dtype} with scales or values of {others}; export one type")
    return dtype


def _divided_in(network: Network, quantise: Node, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which a QuantizeLinear divides data of a type."""
    name = node_name(quantise)
    if network.opset < _PRECISE_OPSET or not is_standard(quantise):
        if dtype not in _DIVIDED_BY_ONNXRUNTIME:
            raise Refusal(f"'{name}' quantises {dtype} before opset {_PRECISE_OPSET}; export with that")
        return _DIVIDED_BY_ONNXRUNTIME[dtype]
    precision = quantise.attrs.get("precision", 0)
    divided = element_type(precision) if precision else dtype
    if divided not in (dtype, np.float32):
        raise Refusal(f"'{name}' divides {dtype} in {divided or 'an unknown type'}; export without a precision")
    return np.dtype(divided)


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
