"""QCFS: `θ/L · clip(⌊x·L/θ + 1/2⌋, 0, L)` as exporters spell it in standard operators.

Anchored at Floor. Forms, where a scaling is Mul or Div by constants and may be split in two:

1. floor, then clip: `Clip(Floor(x/θ·L + 1/2)/L, 0, 1)·θ`; the Clip may stand before or after the scalings.
2. clip, then floor: `Floor(Clip(x/θ, 0, 1)·L + 1/2)/L·θ`; likewise.

The Clip may be one, or Max or Relu below and Min above, together or apart.

θ is a scalar or per channel. Source: Bu et al., "Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency
spiking neural networks" (ICLR 2022), and the activation of Hao et al. (ICML 2025).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.network import Dimension, constant, is_standard
from pconv_onnx.neuron import MAX_STEPS, Array, FloatOperation, QuantizerSpec
from pconv_onnx.recognise.base import Activation, Status

# How far a product of float32 constants may be from the number that it stands for.
_TOLERANCE = 1e-5

# One letter a node: scaling, clipping, Add. Read in the direction of the data.
_LETTERS = {"Mul": "S", "Div": "S", "Clip": "C", "Max": "C", "Min": "C", "Relu": "C", "Add": "A"}
_HEAD = re.compile(r"S{1,2}A|S{0,2}C{1,2}S{1,2}A|S{1,2}C{1,2}A")
_TAIL = re.compile(r"S{1,2}|S{0,2}C{1,2}S{1,2}|S{1,2}C{1,2}")
_LONGEST = 7

# Bounds of what does not clip on that side.
_BELOW, _ABOVE = np.full(1, -np.inf), np.full(1, np.inf)


@dataclass(frozen=True, eq=False)
class _Link:
    """A node of the chain around Floor: `tensor` is its other end, away from Floor."""

    node: gs.Node
    tensor: gs.Tensor

    @property
    def letter(self) -> str:
        return _LETTERS[self.node.op]


@dataclass(frozen=True, eq=False)
class _Chain:
    """Floor with a possible head and tail, in the direction of the data."""

    head: tuple[_Link, ...]
    floor: gs.Node
    tail: tuple[_Link, ...]

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (*(link.node for link in self.head), self.floor, *(link.node for link in self.tail))


class _Refusal(Exception):
    """Why a chain is not QCFS."""


class _UnequalScales(_Refusal):
    """Head and tail do not have one θ: a scaling at one end or at both belongs to the neighbours."""


class Qcfs:
    """See the module."""

    encoding = "qcfs"

    def pattern(self, node: gs.Node, free: Callable[[gs.Node], bool]) -> _Chain | None:
        """The longest chain of scalings, Add and Clip with constants around a Floor."""
        if node.op != "Floor" or not is_standard(node):
            return None

        def belongs(other: gs.Node) -> bool:
            return other.op in _LETTERS and is_standard(other) and free(other)

        head = tuple(_walk(node.inputs[0], partial(_upstream, belongs)))[::-1]
        tail = tuple(_walk(node.outputs[0], partial(_downstream, belongs)))
        return _Chain(head, node, tail) if head and tail else None

    def check(self, network: Network, match: _Chain) -> Activation:
        """Try every cut of the chain, longest first; the reason of the first is the one to tell.

        A shorter cut serves where something at one end is not part of the activation. It is no way around a fault that
        both ends have, such as a θ that is not positive: dropping it from both would hide the fault.
        """
        refused: tuple[_Chain, _Refusal] | None = None
        for chain in _cuts(match):
            if (
                refused is not None
                and not isinstance(refused[1], _UnequalScales)
                and _shorter_at_both_ends(chain, refused[0])
            ):
                continue
            try:
                spec = _read(network, chain)
            except _Refusal as refusal:
                refused = refused or (chain, refusal)
                continue
            return self._activation(chain, spec=spec)
        if refused is not None:
            return self._activation(refused[0], reason=str(refused[1]))
        operators = " → ".join(node.op for node in match.nodes)
        expected = "expected a scaling by θ, + 1/2, Floor, a Clip and the scaling back"
        return self._activation(match, reason=f"{operators} is not QCFS: {expected}")

    def _activation(self, chain: _Chain, spec: QuantizerSpec | None = None, reason: str = "") -> Activation:
        start = chain.head[0].tensor
        end = chain.tail[-1].tensor
        status: Status = "converted" if spec is not None else "refused"
        return Activation(_name(chain), self.encoding, chain.nodes, start, end, status, reason, spec)


def _walk(tensor: gs.Tensor, follow: Callable[[gs.Tensor], _Link | None]) -> Iterator[_Link]:
    for _ in range(_LONGEST):
        link = follow(tensor)
        if link is None:
            return
        yield link
        tensor = link.tensor


def _upstream(belongs: Callable[[gs.Node], bool], tensor: gs.Tensor) -> _Link | None:
    if len(tensor.inputs) != 1 or not belongs(tensor.inputs[0]):
        return None
    node = tensor.inputs[0]
    data = _data_input(node)
    return None if data is None else _Link(node, data)


def _downstream(belongs: Callable[[gs.Node], bool], tensor: gs.Tensor) -> _Link | None:
    for node in tensor.outputs:
        if belongs(node) and node.op != "Add" and _data_input(node) is tensor:
            return _Link(node, node.outputs[0])
    return None


def _data_input(node: gs.Node) -> gs.Tensor | None:
    """The one input that is not a constant; None where there is no such, or where it divides or bounds."""
    if node.op in ("Clip", "Div", "Relu"):
        data, *others = node.inputs
        return data if constant(data) is None and all(other is not data for other in others) else None
    varying = [tensor for tensor in node.inputs if constant(tensor) is None]
    return varying[0] if len(varying) == 1 and len(node.inputs) == 2 else None


def _cuts(chain: _Chain) -> Iterator[_Chain]:
    """Parts of the chain that are spelled like QCFS, longest first: what is left over belongs to the neighbours."""
    heads = [chain.head[start:] for start in range(len(chain.head))]
    tails = [chain.tail[:end] for end in range(len(chain.tail), 0, -1)]
    spelled = [
        _Chain(head, chain.floor, tail)
        for head in heads
        if _HEAD.fullmatch("".join(link.letter for link in head))
        for tail in tails
        if _TAIL.fullmatch("".join(link.letter for link in tail))
    ]
    return iter(sorted(spelled, key=lambda cut: -len(cut.nodes)))


def _shorter_at_both_ends(chain: _Chain, other: _Chain) -> bool:
    return len(chain.head) < len(other.head) and len(chain.tail) < len(other.tail)


def _read(network: Network, chain: _Chain) -> QuantizerSpec:
    """The spec of a chain.

    Raises:
        _Refusal: which constant of which node is wrong.
    """
    pre_activation = chain.head[0].tensor
    inner = [link.tensor for link in chain.head[1:]] + [chain.floor.inputs[0], chain.floor.outputs[0]]
    for tensor in inner + [link.tensor for link in chain.tail[:-1]]:
        if network.is_output(tensor):
            raise _Refusal(f"its intermediate value '{tensor.name}' is also an output of the model")
        if len(tensor.outputs) > 1:
            own = set(map(id, chain.nodes))
            others = ", ".join(f"{node.op} '{node.name}'" for node in tensor.outputs if id(node) not in own)
            raise _Refusal(f"its intermediate value '{tensor.name}' is also used by {others or 'it a second time'}")

    shape = network.shape(pre_activation)
    if shape == ():
        raise _Refusal("its input is a scalar, without rows for time-steps")
    reader = _ConstantReader(shape)
    head = [reader.operation(link.node) for link in chain.head]
    tail = [reader.operation(link.node) for link in chain.tail]

    dtype = network.dtype(pre_activation) or head[-1].constants[0].dtype
    if dtype != np.float32:
        raise _Refusal(f"it computes in {dtype}; float32 is supported")

    # Both ends in float64: code = floor(x·gain + offset), value = code·step.
    gain, low, high = np.ones(1), np.full(1, -np.inf), np.full(1, np.inf)
    for link, operation in zip(chain.head, head, strict=True):
        if link.letter == "S":
            factor = _factor(operation)
            gain, low, high = gain * factor, low * factor, high * factor
        elif link.letter == "C":
            low, high = np.maximum(low, operation.constants[0]), np.minimum(high, operation.constants[1])
        elif not np.all(operation.constants[0] == 0.5):
            raise _Refusal(f"'{link.node.name}' adds {_some(operation.constants[0])} before Floor; QCFS adds 0.5")
    step = np.ones(1)
    for link, operation in zip(chain.tail, tail, strict=True):
        if link.letter == "S":
            step = step * _factor(operation)
        else:
            low = np.maximum(low, operation.constants[0] / step)
            high = np.minimum(high, operation.constants[1] / step)
    if (np.isinf(low) & np.isinf(high)).any():
        raise _Refusal("it is not bounded: there is no Clip before or after Floor")
    if (np.isinf(low) | np.isinf(high)).any():
        raise _Refusal(
            f"it is not bounded {'below' if np.isinf(low).any() else 'above'}; QCFS ends at 0 and at L levels"
        )
    if (low != 0).any():
        raise _Refusal(f"its Clip starts at {_some(low)} levels; QCFS starts at 0")
    levels = int(np.round(high[0]))
    if levels < 1 or not np.allclose(high, levels, rtol=_TOLERANCE, atol=0):
        raise _Refusal(f"its Clip ends at {_some(high)} levels, which is not one whole number of them")
    if levels > MAX_STEPS:
        raise _Refusal(f"it has {levels} levels; up to {MAX_STEPS} are possible")
    if not np.allclose(gain * step, 1, rtol=_TOLERANCE, atol=0):
        raise _UnequalScales(
            f"it scales by {_some(gain)} before Floor and by {_some(step)} after it; QCFS has one θ for both"
        )

    threshold = levels / gain
    spec = QuantizerSpec(
        dtype, tuple(head), FloatOperation("Floor"), tuple(tail), levels, threshold, threshold / 2, reader.channel_axis
    )
    try:
        spec.neuron()
    except ValueError as error:
        raise _Refusal(str(error)) from error
    return spec


class _ConstantReader:
    """Reads the constants of one activation and settles on the channel axis that they share."""

    def __init__(self, shape: tuple[Dimension, ...] | None) -> None:
        self.shape = shape
        self.channel_axis: int | None = None

    def operation(self, node: gs.Node) -> FloatOperation:
        """The operation of a node; whatever clips is a Clip, up to an infinity on a side that it leaves open."""
        data = _data_input(node)
        operands = [tensor for tensor in node.inputs if tensor is not data]
        if _LETTERS[node.op] != "C":
            return FloatOperation(node.op, tuple(self._vector(node, tensor) for tensor in operands))
        if node.op == "Relu":
            return FloatOperation("Clip", (np.zeros(1), _ABOVE))
        low, high = (*([None] if node.op == "Min" else []), *operands, None, None)[:2]
        return FloatOperation("Clip", (self._bound(node, low, _BELOW), self._bound(node, high, _ABOVE)))

    def _bound(self, node: gs.Node, tensor: gs.Tensor | None, otherwise: Array) -> Array:
        return otherwise if tensor is None or not tensor.name else self._vector(node, tensor)

    def _vector(self, node: gs.Node, tensor: gs.Tensor) -> Array:
        """A constant as `[1]` or `[C]`."""
        value = constant(tensor)
        if value is None:
            raise _Refusal(f"'{tensor.name}', an operand of '{node.name}', is computed; a constant is needed")
        if not np.isfinite(value).all():
            raise _Refusal(f"'{tensor.name}', an operand of '{node.name}', is not finite")
        rank = None if self.shape is None else len(self.shape)
        if value.ndim > (1 if rank is None else rank):
            raise _Refusal(f"'{tensor.name}', an operand of '{node.name}', has more dimensions than the activation")
        if value.size == 1:
            return value.reshape(1)
        long = [axis for axis, size in enumerate(value.shape) if size > 1]
        if len(long) != 1 or self.shape is None:
            raise _Refusal(
                f"'{tensor.name}' of shape {list(value.shape)} does not run along one axis of the activation"
            )
        axis = len(self.shape) - value.ndim + long[0]
        if axis == 0 or self.channel_axis not in (None, axis):
            raise _Refusal(f"'{tensor.name}' runs along axis {axis}, which is not the activation's channel axis")
        if self.shape[axis] != value.size:
            size = self.shape[axis] if isinstance(self.shape[axis], int) else "a size that is open"
            raise _Refusal(
                f"'{tensor.name}' holds {value.size} values along axis {axis}, where the activation has {size}"
            )
        self.channel_axis = axis
        return value.reshape(-1)


def _factor(operation: FloatOperation) -> Array:
    """The factor that a Mul or Div scales by, in float64."""
    value = operation.constants[0].astype(np.float64)
    if (value <= 0).any():
        raise _Refusal(f"it scales by {_some(value[value <= 0])}; θ and L must be positive")
    return np.asarray(1 / value if operation.op_type == "Div" else value)


def _some(values: Array) -> str:
    """A constant for a message."""
    numbers = np.unique(values)
    return f"{numbers[0]:.6g}" + (f" … {numbers[-1]:.6g}" if numbers.size > 1 else "")


def _name(chain: _Chain) -> str:
    """The module that owns θ (`layer1.0.act1` for `layer1.0.act1.up`), else the Floor node or its output."""
    for link in (*chain.tail[::-1], *chain.head):
        if link.letter == "S":
            for tensor in link.node.inputs:
                owner, _, parameter = tensor.name.rpartition(".")
                if isinstance(tensor, gs.Constant) and owner and parameter:
                    return owner
    return chain.floor.name or chain.floor.outputs[0].name
