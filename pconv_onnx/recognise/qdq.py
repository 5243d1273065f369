"""QDQ: `QuantizeLinear → DequantizeLinear`, the form of onnxruntime's quantiser and of PyTorch's quantised exports.

The value is `s · (clip(round(x/s) + z, q_min, q_max) − z)`, rounded half to even. It is a spike count where it does not
fall below zero:

1. a Relu in front; the zero-point z is then any, the codes run from z to q_max;
2. no Relu, and z = q_min (0 of uint8, −128 of int8): the quantiser left the Relu out, since the clip is one.

Scale and zero-point are scalars or per channel. Source: the ONNX operators' specification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, element_type, is_standard
from pconv_onnx.neuron import Array, FloatOperation, QuantizerSpec
from pconv_onnx.recognise.base import Activation, Refusal, called

# Codes of the element types that QuantizeLinear writes; the others are floats of 8 and 4 bits.
_RANGES = {f"{sign}int{bits}": ((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if not sign else (0, 2**bits - 1))
           for sign in ("", "u") for bits in (2, 4, 8, 16)}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Pair:
    """A quantiser and what reads its codes, with the Relu in front if there is one."""

    relu: gs.Node | None
    quantise: gs.Node
    readers: tuple[gs.Node, ...]


class Qdq:
    """See the module."""

    encoding = "qdq"

    def pattern(self, node: gs.Node, free: Callable[[gs.Node], bool]) -> _Pair | None:
        """A QuantizeLinear of something computed that a DequantizeLinear reads."""
        if node.op != "QuantizeLinear" or not is_standard(node) or constant(node.inputs[0]) is not None:
            return None
        readers = tuple(node.outputs[0].outputs)
        if not any(reader.op == "DequantizeLinear" for reader in readers):
            return None
        before = node.inputs[0].inputs
        relu = before[0] if len(before) == 1 and before[0].op == "Relu" and is_standard(before[0]) else None
        if relu is not None and (not free(relu) or len(node.inputs[0].outputs) > 1):
            relu = None
        return _Pair(relu, node, readers)

    def check(self, network: Network, match: _Pair) -> Activation:
        """One DequantizeLinear with the same constants, and codes that start at zero."""
        relu, quantise = match.relu, match.quantise
        try:
            if relu is not None and network.is_output(quantise.inputs[0]):
                relu = None
            dequantise = _only_reader(network, match)
            start = (relu or quantise).inputs[0]
            spec = _read(network, relu is not None, quantise, dequantise)
        except Refusal as refusal:
            nodes = (quantise, *match.readers[:1])
            return Activation(
                called(quantise),
                self.encoding,
                nodes,
                quantise.inputs[0],
                nodes[-1].outputs[0],
                "refused",
                str(refusal),
            )
        nodes = (*([relu] if relu is not None else []), quantise, dequantise)
        return Activation(called(nodes[0]), self.encoding, nodes, start, dequantise.outputs[0], "converted", "", spec)


def _only_reader(network: Network, match: _Pair) -> gs.Node:
    codes = match.quantise.outputs[0]
    if network.is_output(codes):
        raise Refusal(f"its codes '{codes.name}' are also an output of the model")
    others = [node for node in match.readers if node.op != "DequantizeLinear" or not is_standard(node)]
    if others:
        told = ", ".join(f"{node.op} '{called(node)}'" for node in others)
        raise Refusal(f"its codes are also read by {told}; export with QuantizeLinear and DequantizeLinear in pairs")
    if len(match.readers) > 1:
        raise Refusal(f"its codes are read by {len(match.readers)} DequantizeLinear; export one for each quantiser")
    return match.readers[0]


def _read(network: Network, has_relu: bool, quantise: gs.Node, dequantise: gs.Node) -> QuantizerSpec:
    """The spec of a pair.

    Raises:
        Refusal: which constant of which node is wrong.
    """
    pre_activation = quantise.inputs[0]
    shape = network.shape(pre_activation)
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    dtype = network.dtype(pre_activation)
    if dtype is not None and dtype != np.float32:
        raise Refusal(f"it quantises {dtype}; float32 is supported")
    for node, attribute in ((quantise, "precision"), (dequantise, "output_dtype")):
        other = node.attrs.get(attribute, 0)
        if other and element_type(other) != np.float32:
            raise Refusal(f"'{called(node)}' has {attribute} {element_type(other)}; float32 is supported")
    scale, zero, axis = _constants(network, quantise)
    other_scale, other_zero, other_axis = _constants(network, dequantise)
    if axis != other_axis or not (np.array_equal(scale, other_scale) and np.array_equal(zero, other_zero)):
        raise Refusal("QuantizeLinear and DequantizeLinear have unequal scales, zero-points or axes")
    element = zero.dtype.name
    if element not in _RANGES:
        raise Refusal(f"its codes are {element}; integers are supported")
    low, high = (_RANGES[element][end] - zero.astype(np.int64) for end in (0, 1))
    lowest = np.maximum(low, 0) if has_relu else low
    number = high - lowest
    if (number != number[0]).any() or number[0] < 1:
        raise Refusal(f"its channels have from {number.min()} to {number.max()} levels; one number for all is needed")
    levels = int(number[0])
    relu = (FloatOperation("Clip", (np.zeros(1), np.full(1, np.inf))),) if has_relu else ()
    bounds = (low.astype(np.float32), high.astype(np.float32))
    step = scale.astype(np.float64)
    spec = QuantizerSpec(
        np.dtype(np.float32),
        (*relu, FloatOperation("Div", (scale,))),
        FloatOperation("Round"),
        (FloatOperation("Clip", bounds), FloatOperation("Mul", (scale,))),
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
        raise Refusal(str(error)) from error
    return spec


def _constants(network: Network, node: gs.Node) -> tuple[Array, Array, int | None]:
    """Scale `[1]` or `[C]`, zero-point of as many entries, and the channel axis where they are per channel."""
    name = called(node)
    if node.attrs.get("block_size", 0):
        raise Refusal(f"'{name}' has a scale for each block; export one scale per tensor or per channel")
    values = []
    for tensor in node.inputs[1:3]:
        value = constant(tensor) if tensor.name else None
        if tensor.name and value is None:
            raise Refusal(f"'{tensor.name}', an operand of '{name}', is computed; quantise statically")
        values.append(value)
    scale, zero = (*values, None)[:2]
    if scale is None or scale.dtype != np.float32:
        raise Refusal(f"'{name}' has no scale of float32")
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise Refusal(f"'{node.inputs[1].name}', the scale of '{name}', is not positive and finite")
    if zero is None:
        # Of DequantizeLinear the attribute is the type of the values, and that of the codes does not matter.
        codes = node.attrs.get("output_dtype", 0) if node.op == "QuantizeLinear" else 0
        zero = np.zeros(scale.shape, dtype=element_type(codes) if codes else np.uint8)
    if zero.shape != scale.shape:
        raise Refusal(f"'{name}' has a scale of shape {list(scale.shape)} and a zero-point of {list(zero.shape)}")
    if scale.size == 1:
        return scale.reshape(1), zero.reshape(1), None
    shape = network.shape(node.inputs[0])
    axis = node.attrs.get("axis", 1)
    if scale.ndim != 1 or shape is None or shape[axis] != scale.size or axis % len(shape) == 0:
        raise Refusal(f"'{node.inputs[1].name}' holds {scale.size} scales, which do not run along a channel axis")
    return scale, zero, axis % len(shape)
