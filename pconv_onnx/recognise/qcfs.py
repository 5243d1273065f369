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

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.neuron import MAX_LEVELS, SUM_TYPES, Array, FloatOperation, QuantizerSpec
from pconv_onnx.recognise.base import Activation, Refusal, Status, called
from pconv_onnx.recognise.chain import (
    Chain,
    Shared,
    broken_off,
    chain_around,
    name_of,
    refuse_shared,
    shorter_at_both_ends,
)
from pconv_onnx.recognise.operands import ConstantReader, factor, some

# How far a product of constants may be from the number that it stands for, in units of their type's last place.
_TOLERANCE = 16

_HEAD = re.compile(r"A?(S{1,2}|S{0,2}C{1,2}S{1,2}|S{1,2}C{1,2})A")
_TAIL = re.compile(r"S{1,2}|S{0,2}C{1,2}S{1,2}|S{1,2}C{1,2}")


class Qcfs:
    """See the module."""

    encoding = "qcfs"

    def pattern(self, node: gs.Node, free: Callable[[gs.Node], bool]) -> Chain | None:
        """The longest chain of scalings, Add and Clip with constants around a Floor."""
        return chain_around(node, free) if node.op == "Floor" and is_standard(node) else None

    def check(self, network: Network, match: Chain) -> Activation:
        """Read every cut of the chain; the reason of the longest is the one to tell where none can be read.

        A shorter cut serves where something at one end is not part of the activation. It is no way around a fault that
        both ends have, such as a θ that is not positive: dropping it from both would hide the fault.
        """
        read: list[tuple[Chain, QuantizerSpec]] = []
        refused: tuple[Chain, Refusal] | None = None
        for chain in _cuts(match):
            if refused is not None and not isinstance(refused[1], Shared) and shorter_at_both_ends(chain, refused[0]):
                continue
            try:
                spec = _read(network, chain)
            except Refusal as refusal:
                refused = refused or (chain, refusal)
            else:
                read.append((chain, spec))
        if read:
            longest = read[0][0]
            chain, spec = min((cut for cut in read if not shorter_at_both_ends(cut[0], longest)), key=_preference)
            try:
                spec.neuron()
            except ValueError as error:
                return self._activation(network, chain, reason=str(error))
            return self._activation(network, chain, spec=spec)
        if refused is not None:
            return self._activation(network, refused[0], reason=f"{refused[1]}{broken_off(match)}")
        operators = " → ".join(node.op for node in match.nodes)
        expected = "expected a scaling by θ, + 1/2, Floor, a Clip and the scaling back"
        return self._activation(network, match, reason=f"{operators} is not QCFS: {expected}{broken_off(match)}")

    def _activation(
        self, network: Network, chain: Chain, spec: QuantizerSpec | None = None, reason: str = ""
    ) -> Activation:
        start = chain.head[0].tensor
        end = chain.tail[-1].tensor
        status: Status = "converted" if spec is not None else "refused"
        return Activation(name_of(network, chain), self.encoding, chain.nodes, start, end, status, reason, spec)


def _cuts(chain: Chain) -> Iterator[Chain]:
    """Parts of the chain that are spelled like QCFS, longest first: what is left over belongs to the neighbours."""
    heads = [chain.head[start:] for start, link in enumerate(chain.head) if link.letter]
    tails = [chain.tail[: end + 1] for end, link in enumerate(chain.tail) if link.letter]
    spelled = [
        Chain(head, chain.rounding, tail)
        for head in heads
        if _HEAD.fullmatch("".join(link.letter for link in head))
        for tail in tails
        if _TAIL.fullmatch("".join(link.letter for link in tail))
    ]
    return iter(sorted(spelled, key=lambda cut: -len(cut.nodes)))


def _preference(cut: tuple[Chain, QuantizerSpec]) -> tuple[bool, bool, int]:
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


def _read(network: Network, chain: Chain) -> QuantizerSpec:
    """The spec of a chain.

    Raises:
        Refusal: which constant of which node is wrong.
    """
    refuse_shared(network, chain)
    pre_activation = chain.head[0].tensor
    shape = network.shape(pre_activation)
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    reader = ConstantReader(shape)
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
            scale = factor(link.node, operation)
            gain, low, high = gain * scale, low * scale, high * scale
        elif link.letter == "C":
            low, high = np.maximum(low, constants[0]), np.minimum(high, constants[1])
        elif link is not head[-1][0]:
            bias = constants[0]
        elif not np.all(constants[0] == 0.5):
            raise Refusal(f"'{called(link.node)}' adds {some(constants[0])} before Floor; QCFS adds 0.5")
    step = np.ones(1)
    for link, operation in tail:
        if link.letter == "S":
            step = step * factor(link.node, operation)
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


def _levels(low: Array, high: Array, tolerance: float) -> int:
    """L, from the bounds of the code; each may be per channel."""
    if (np.isinf(low) & np.isinf(high)).any():
        raise Refusal("it is not bounded: there is no Clip before or after Floor")
    if (np.isinf(low) | np.isinf(high)).any():
        raise Refusal(
            f"it is not bounded {'below' if np.isinf(low).any() else 'above'}; QCFS ends at 0 and at L levels"
        )
    if (low != 0).any():
        raise Refusal(f"its Clip starts at {some(low)} levels; QCFS starts at 0")
    levels = int(np.round(high[0]))
    if levels < 1 or not np.allclose(high, levels, rtol=tolerance, atol=0):
        raise Refusal(f"its Clip ends at {some(high)} levels, which is not one whole number of them")
    if levels > MAX_LEVELS:
        raise Refusal(f"it has {levels} levels; up to {MAX_LEVELS} are possible")
    return levels
