"""QCFS: `a/L · clip(⌊(x + ψ)·L/θ + 1/2⌋, 0, L)` as exporters spell it in standard operators.

Anchored at Floor. Forms, where a scaling is Mul or Div by constants and may be split in two:

1. floor, then clip: `Clip(Floor(x/θ·L + 1/2)/L, 0, 1)·a`; the Clip may stand before or after the scalings.
2. clip, then floor: `Floor(Clip(x/θ, 0, 1)·L + 1/2)/L·a`; likewise.
3. either after an Add of a constant ψ, as calibration leaves it; a may then differ from θ.

The Clip may be one, or Max or Relu below and Min above, together or apart. The floor may be spelled for
straight-through gradients: `z + (⌊z⌋ − z)`, which is ⌊z⌋ in floats as well where z ≥ 0, and is clipped where it is not.
Only where z overflows it is a NaN (∞ − ∞); the neuron then saturates, as the floor does.

θ, ψ and a are scalars or per channel. Source: Bu et al., "Optimal ANN-SNN conversion for high-accuracy and
ultra-low-latency spiking neural networks" (ICLR 2022), and the activation of Hao et al. (ICML 2025).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Dimension
from pconv_onnx.neuron import MAX_LEVELS, SUM_TYPES, Array, FloatOperation, QuantizerSpec
from pconv_onnx.recognise.base import Activation, Refusal, Status, called

# How far a product of constants may be from the number that it stands for, in units of their type's last place.
_TOLERANCE = 16

# One letter a node: scaling, clipping, Add; Identity is passed over. Read in the direction of the data.
_LETTERS = {"Mul": "S", "Div": "S", "Clip": "C", "Max": "C", "Min": "C", "Relu": "C", "Add": "A", "Identity": ""}
_HEAD = re.compile(r"A?(S{1,2}|S{0,2}C{1,2}S{1,2}|S{1,2}C{1,2})A")
_TAIL = re.compile(r"S{1,2}|S{0,2}C{1,2}S{1,2}|S{1,2}C{1,2}")
_LONGEST = 12

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
    """Floor, alone or with the nodes of a straight-through gradient, and a possible head and tail around it."""

    head: tuple[_Link, ...]
    floor: tuple[gs.Node, ...]
    tail: tuple[_Link, ...]

    @property
    def nodes(self) -> tuple[gs.Node, ...]:
        return (*(link.node for link in self.head), *self.floor, *(link.node for link in self.tail))


class _Shared(Refusal):
    """A value within the chain is used elsewhere too: what is on its other side belongs to the neighbours."""


class Qcfs:
    """See the module."""

    encoding = "qcfs"

    def pattern(self, node: gs.Node, free: Callable[[gs.Node], bool]) -> _Chain | None:
        """The longest chain of scalings, Add and Clip with constants around a Floor."""
        if node.op != "Floor" or not is_standard(node):
            return None

        def belongs(other: gs.Node) -> bool:
            return other.op in _LETTERS and is_standard(other) and free(other)

        floor = _straight_through(node, free) or (node,)
        head = tuple(_walk(node.inputs[0], partial(_upstream, belongs)))[::-1]
        tail = tuple(_walk(floor[-1].outputs[0], partial(_downstream, belongs)))
        return _Chain(head, floor, tail) if head and tail else None

    def check(self, network: Network, match: _Chain) -> Activation:
        """Read every cut of the chain; the reason of the longest is the one to tell where none can be read.

        A shorter cut serves where something at one end is not part of the activation. It is no way around a fault that
        both ends have, such as a θ that is not positive: dropping it from both would hide the fault.
        """
        read: list[tuple[_Chain, QuantizerSpec]] = []
        refused: tuple[_Chain, Refusal] | None = None
        for chain in _cuts(match):
            if refused is not None and not isinstance(refused[1], _Shared) and _shorter_at_both_ends(chain, refused[0]):
                continue
            try:
                spec = _read(network, chain)
            except Refusal as refusal:
                refused = refused or (chain, refusal)
            else:
                read.append((chain, spec))
        if read:
            longest = read[0][0]
            chain, spec = min((cut for cut in read if not _shorter_at_both_ends(cut[0], longest)), key=_preference)
            try:
                spec.neuron()
            except ValueError as error:
                return self._activation(network, chain, reason=str(error))
            return self._activation(network, chain, spec=spec)
        if refused is not None:
            return self._activation(network, refused[0], reason=f"{refused[1]}{_broken_off(match)}")
        operators = " → ".join(node.op for node in match.nodes)
        expected = "expected a scaling by θ, + 1/2, Floor, a Clip and the scaling back"
        return self._activation(network, match, reason=f"{operators} is not QCFS: {expected}{_broken_off(match)}")

    def _activation(
        self, network: Network, chain: _Chain, spec: QuantizerSpec | None = None, reason: str = ""
    ) -> Activation:
        start = chain.head[0].tensor
        end = chain.tail[-1].tensor
        status: Status = "converted" if spec is not None else "refused"
        return Activation(_name(network, chain), self.encoding, chain.nodes, start, end, status, reason, spec)


def _straight_through(floor: gs.Node, free: Callable[[gs.Node], bool]) -> tuple[gs.Node, ...] | None:
    """The nodes of `z + (⌊z⌋ − z)`, in that order, where this Floor is part of it."""
    z, code = floor.inputs[0], floor.outputs[0]
    for difference in code.outputs:
        if difference.op != "Sub" or difference.inputs[0] is not code or difference.inputs[1] is not z:
            continue
        nodes = [floor, difference]
        # Where a gradient was stopped.
        while len(nodes[-1].outputs[0].outputs) == 1 and nodes[-1].outputs[0].outputs[0].op == "Identity":
            nodes.append(nodes[-1].outputs[0].outputs[0])
        for total in nodes[-1].outputs[0].outputs:
            if total.op == "Add" and any(tensor is z for tensor in total.inputs):
                nodes.append(total)
                return tuple(nodes) if all(is_standard(node) and free(node) for node in nodes) else None
    return None


def _broken_off(chain: _Chain) -> str:
    """What else to tell of a chain that is refused: a Cast at its ends, which may have cut it in two."""
    for node in (*chain.head[0].tensor.inputs, *chain.tail[-1].tensor.outputs):
        if node.op == "Cast" and is_standard(node):
            return f"; Cast '{called(node)}' ends the chain: export it in one type throughout"
    return ""


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
    if node.op in ("Clip", "Div", "Identity", "Relu"):
        data, *others = node.inputs
        return data if constant(data) is None and all(other is not data for other in others) else None
    varying = [tensor for tensor in node.inputs if constant(tensor) is None]
    return varying[0] if len(varying) == 1 and len(node.inputs) == 2 else None


def _cuts(chain: _Chain) -> Iterator[_Chain]:
    """Parts of the chain that are spelled like QCFS, longest first: what is left over belongs to the neighbours."""
    heads = [chain.head[start:] for start, link in enumerate(chain.head) if link.letter]
    tails = [chain.tail[: end + 1] for end, link in enumerate(chain.tail) if link.letter]
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


def _preference(cut: tuple[_Chain, QuantizerSpec]) -> tuple[bool, bool, int]:
    """Order of cuts that can be read, the best one first.

    Where leaving a scaling to the neighbours makes a equal to θ, they own it. So they do a ψ for each channel where all
    else is scalar: one table for all channels is faster than an addition saved. Apart from that, the longest is best.
    """
    chain, spec = cut
    assert spec.threshold is not None
    tolerance = _TOLERANCE * float(ml_dtypes.finfo(spec.dtype).eps)
    rescales = not np.allclose(spec.amplitude, spec.threshold, rtol=tolerance, atol=0)
    only_bias_varies = spec.bias.size > 1 and spec.threshold.size == spec.amplitude.size == 1
    return rescales, only_bias_varies, -len(chain.nodes)


def _read(network: Network, chain: _Chain) -> QuantizerSpec:
    """The spec of a chain.

    Raises:
        Refusal: which constant of which node is wrong.
    """
    _refuse_shared(network, chain)
    pre_activation = chain.head[0].tensor
    shape = network.shape(pre_activation)
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    reader = _ConstantReader(shape)
    head = [(link, reader.operation(link.node)) for link in chain.head if link.letter]
    tail = [(link, reader.operation(link.node)) for link in chain.tail if link.letter]

    dtype = network.dtype(pre_activation) or head[-1][1].constants[0].dtype
    if dtype not in SUM_TYPES:
        supported = ", ".join(str(supported) for supported in SUM_TYPES)
        raise Refusal(f"it computes in {dtype}; {supported} are supported")
    tolerance = _TOLERANCE * float(ml_dtypes.finfo(dtype).eps)

    # Both ends in float64: code = floor((x + bias)·gain + 1/2), value = code·step.
    gain, bias, low, high = np.ones(1), np.zeros(1), np.full(1, -np.inf), np.full(1, np.inf)
    for link, operation in head:
        constants = [value.astype(np.float64) for value in operation.constants]
        if link.letter == "S":
            factor = _factor(link.node, operation)
            gain, low, high = gain * factor, low * factor, high * factor
        elif link.letter == "C":
            low, high = np.maximum(low, constants[0]), np.minimum(high, constants[1])
        elif link is not head[-1][0]:
            bias = constants[0]
        elif not np.all(constants[0] == 0.5):
            raise Refusal(f"'{called(link.node)}' adds {_some(constants[0])} before Floor; QCFS adds 0.5")
    step = np.ones(1)
    for link, operation in tail:
        if link.letter == "S":
            step = step * _factor(link.node, operation)
        else:
            bounds = [value.astype(np.float64) / step for value in operation.constants]
            low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
    levels = _levels(low, high, tolerance)
    threshold = levels / gain
    return QuantizerSpec(
        dtype,
        tuple(operation for _, operation in head),
        FloatOperation("Floor"),
        tuple(operation for _, operation in tail),
        levels,
        threshold,
        threshold / 2,
        bias,
        reader.channel_axis,
    )


def _refuse_shared(network: Network, chain: _Chain) -> None:
    own = set(map(id, chain.nodes))
    inner = [node.outputs[0] for node in chain.nodes[:-1]]
    for tensor in inner:
        if network.is_output(tensor):
            raise _Shared(f"its intermediate value '{tensor.name}' is also an output of the model")
        others = [node for node in tensor.outputs if id(node) not in own]
        if others:
            told = ", ".join(f"{node.op} '{called(node)}'" for node in others)
            raise _Shared(f"its intermediate value '{tensor.name}' is also used by {told}")


def _levels(low: Array, high: Array, tolerance: float) -> int:
    """L, from the bounds of the code; each may be per channel."""
    if (np.isinf(low) & np.isinf(high)).any():
        raise Refusal("it is not bounded: there is no Clip before or after Floor")
    if (np.isinf(low) | np.isinf(high)).any():
        raise Refusal(
            f"it is not bounded {'below' if np.isinf(low).any() else 'above'}; QCFS ends at 0 and at L levels"
        )
    if (low != 0).any():
        raise Refusal(f"its Clip starts at {_some(low)} levels; QCFS starts at 0")
    levels = int(np.round(high[0]))
    if levels < 1 or not np.allclose(high, levels, rtol=tolerance, atol=0):
        raise Refusal(f"its Clip ends at {_some(high)} levels, which is not one whole number of them")
    if levels > MAX_LEVELS:
        raise Refusal(f"it has {levels} levels; up to {MAX_LEVELS} are possible")
    return levels


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
            return FloatOperation(node.op, tuple(self.vector(node, tensor) for tensor in operands))
        if node.op == "Relu":
            return FloatOperation("Clip", (np.zeros(1), _ABOVE))
        low, high = (*([None] if node.op == "Min" else []), *operands, None, None)[:2]
        return FloatOperation("Clip", (self._bound(node, low, _BELOW), self._bound(node, high, _ABOVE)))

    def _bound(self, node: gs.Node, tensor: gs.Tensor | None, otherwise: Array) -> Array:
        return otherwise if tensor is None or not tensor.name else self.vector(node, tensor)

    def vector(self, node: gs.Node, tensor: gs.Tensor) -> Array:
        """A constant as `[1]` or `[C]`."""
        value = constant(tensor)
        if value is None:
            raise Refusal(f"'{tensor.name}', an operand of '{called(node)}', is computed; a constant is needed")
        if not np.isfinite(value.astype(np.float64)).all():
            raise Refusal(f"'{tensor.name}', an operand of '{called(node)}', is not finite")
        rank = None if self.shape is None else len(self.shape)
        if value.ndim > (1 if rank is None else rank):
            raise Refusal(f"'{tensor.name}', an operand of '{called(node)}', has more dimensions than the activation")
        if value.size == 1:
            return value.reshape(1)
        long = [axis for axis, size in enumerate(value.shape) if size > 1]
        if len(long) != 1 or self.shape is None:
            raise Refusal(f"'{tensor.name}' of shape {list(value.shape)} does not run along one axis of the activation")
        axis = len(self.shape) - value.ndim + long[0]
        if axis == 0 or self.channel_axis not in (None, axis):
            raise Refusal(f"'{tensor.name}' runs along axis {axis}, which is not the activation's channel axis")
        if self.shape[axis] != value.size:
            size = self.shape[axis] if isinstance(self.shape[axis], int) else "a size that is open"
            raise Refusal(
                f"'{tensor.name}' holds {value.size} values along axis {axis}, where the activation has {size}"
            )
        self.channel_axis = axis
        return value.reshape(-1)


def _factor(node: gs.Node, operation: FloatOperation) -> Array:
    """The factor that a Mul or Div scales by, in float64."""
    value = operation.constants[0].astype(np.float64)
    if (value <= 0).any():
        raise Refusal(f"'{called(node)}' scales by {_some(value[value <= 0])}; θ and L must be positive")
    return np.asarray(1 / value if operation.op_type == "Div" else value)


def _some(values: Array) -> str:
    """A constant for a message."""
    numbers = np.unique(values.astype(np.float64))
    return f"{numbers[0]:.6g}" + (f" … {numbers[-1]:.6g}" if numbers.size > 1 else "")


def _name(network: Network, chain: _Chain) -> str:
    """The module that it comes from, or that owns θ (`layer1.0.act1` for `layer1.0.act1.up`), else the Floor node."""
    module = network.module(chain.floor[0])
    if module:
        return module
    for link in (*chain.tail[::-1], *chain.head):
        if link.letter == "S":
            for tensor in link.node.inputs:
                owner, _, parameter = tensor.name.rpartition(".")
                # Names with a slash or a colon are the exporter's own.
                if constant(tensor) is not None and owner and parameter and not re.search("[/:]", tensor.name):
                    return owner
    return called(chain.floor[0])
