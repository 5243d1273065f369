"""Uniform quantisers in standard operators: a rounding to integers, scalings and offsets around it, and a Clip.

Anchored at Floor, Ceil, Round (half to even) or Sign,
`y = step·clip(round((x + bias)·gain + shift), low, high) + intercept` is read off whatever spells it:

1. a scaling is a Mul or Div, an offset an Add or Sub, by constants; each may be split in two, on either side;
2. the Clip may be one, or Max or Relu below and Min above, together or apart, before or after the rounding; a Where
   that compares with the constant that it gives is one of these as well.

So do LSQ (Esser et al., ICLR 2020), PACT (Choi et al., 2018), DoReFa (Zhou et al., 2016), LSQ+ (Bhalgat et al., 2020),
affine quantisers with a zero-point, and QCFS. Constants are scalars or per channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.view import Node
from pconv_onnx.neuron.parallel import MAX_LEVELS
from pconv_onnx.neuron.quantiser import FloatOperation, QuantizerSpec
from pconv_onnx.neuron.theory import SUM_TYPES
from pconv_onnx.recognise.base import Activation, Refusal, Signs, Status
from pconv_onnx.recognise.chain import Chain, Foreign, Link, broken_off, chain_around, name_of, refuse_shared
from pconv_onnx.recognise.operands import ConstantReader, factor, some
from pconv_onnx.recognise.qcfs import is_qcfs

# Roundings, with how far their thresholds lie below the integers; those of Sign are two neighbouring floats.
_ROUNDINGS = {"Floor": 0.0, "Round": 0.5, "Ceil": 1.0, "Sign": None}

# How far a product of constants may be from the number that is meant, in units in the last place of their type.
_TOLERANCE = 16


# In which type onnxruntime computes what is cast there from each, bit by bit. Casts to a narrower type and back it may
# leave out, and of float64 it rounds half types twice.
_WIDER = {np.dtype(narrow): np.dtype(wide) for narrow, wide in (
    (np.float16, np.float32), (ml_dtypes.bfloat16, np.float32), (np.float32, np.float64),
)}  # fmt: skip


class Uniform:
    """A rounding with the operators around it."""

    encoding = "uniform"

    def __init__(self, signs: Signs) -> None:
        """Whether trains are to have signs: a cut with values below zero is then as good as one without."""
        self.signs = signs

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> Chain | None:
        """The longest chain around a rounding."""
        return chain_around(node, free) if node.op in _ROUNDINGS and is_standard(node) else None

    def check(self, network: Network, match: Chain) -> Activation:
        """Read the cuts of the chain, and take the best. If none can be read, the longest gives the reason.

        A shorter cut is right if an operator at one end is not part of the activation. It must not drop operators at
        both ends to avoid a fault in both, such as a θ that is not positive: that would hide the fault.
        """
        refused: tuple[Chain, Refusal] | None = None
        longest: Chain | None = None
        best: tuple[tuple[bool, ...], Chain, QuantizerSpec] | None = None
        for chain in match.cuts():
            if longest is not None and chain.is_within(longest):
                continue
            if refused is not None and not isinstance(refused[1], Foreign) and chain.is_within(refused[0]):
                continue
            try:
                spec = _read(network, chain)
            except Refusal as refusal:
                refused = refused or (chain, refusal)
                continue
            longest = longest or chain
            drawbacks = _drawbacks(chain, spec, self.signs)
            if best is None or drawbacks < best[0]:
                best = drawbacks, chain, spec
            if not any(drawbacks):
                break
        if best is None:
            assert refused is not None  # the whole chain is a cut, or contains one
            if isinstance(refused[1], _Endless):
                endless = self._activation(network, refused[0], reason=str(refused[1]))
                return replace(endless, status="needs-calibration", unit=refused[1].unit)
            return self._activation(network, refused[0], reason=f"{refused[1]}{broken_off(match)}")
        _, chain, spec = best
        try:
            spec.neuron()
        except ValueError as error:
            return self._activation(network, chain, reason=str(error))
        return self._activation(network, chain, spec)

    def _activation(
        self, network: Network, chain: Chain, spec: QuantizerSpec | None = None, reason: str = ""
    ) -> Activation:
        status: Status = "converted" if spec is not None else "refused"
        encoding = "qcfs" if spec is not None and is_qcfs(spec) else self.encoding
        return Activation(name_of(network, chain), encoding, chain.nodes, chain.start, chain.end, status, reason, spec)


def _drawbacks(chain: Chain, spec: QuantizerSpec, signs: Signs) -> tuple[bool, ...]:
    """The drawbacks of a cut, the worst first; among cuts with equal drawbacks the longest is best.

    1. None of its trains is silent at zero, since no level is zero, or the lowest is not and trains have no signs: then
       the last addition belongs to the next layer.
    2. Its scalings do not undo each other, so that a is not θ: if leaving one to a neighbour makes them equal, it
       belongs there.
    3. ψ is per channel and all else is scalar: one table for all channels is faster than saving an addition.
    """
    tolerance = _TOLERANCE * float(ml_dtypes.finfo(spec.dtype).eps)
    scales_both = all(any(link.letter == "S" for link in links) for links in (chain.head, chain.tail))
    never_silent = bool(spec.silent.any()) and not signs(spec)
    if spec.threshold is None:
        return never_silent, False, False
    undone = scales_both and np.allclose(spec.amplitude, spec.threshold, rtol=tolerance, atol=0)
    only_bias_varies = spec.bias.size > 1 and spec.threshold.size == spec.amplitude.size == 1
    return never_silent, not undone, only_bias_varies


def _read(network: Network, chain: Chain) -> QuantizerSpec:
    """The spec of a chain.

    Raises:
        Refusal: which constant of which node is wrong.
    """
    refuse_shared(network, chain.nodes)
    shape = network.shape(chain.start)
    if shape == ():
        raise Refusal("its input is a scalar, without rows for time-steps")
    reader = ConstantReader(shape)
    head, tail = (
        [_Step(link, reader.operation(link.node)) for link in links if link.letter]
        for links in (chain.head, chain.tail)
    )
    dtype = network.dtype(chain.start) or reader.dtype
    if dtype not in SUM_TYPES:
        supported = ", ".join(str(supported) for supported in SUM_TYPES)
        raise Refusal(f"it computes in {dtype}; {supported} are supported")
    rounding = FloatOperation(chain.rounding.op)
    given = [step.operation.dtype for step in (*head, *tail) if step.operation.dtype is not None]
    if given and given[-1] != dtype:
        raise Refusal(f"it is given {dtype} and gives {given[-1]}; neurons have one type")
    for between in given:
        if between not in (dtype, _WIDER[dtype]):
            raise Refusal(
                f"it is given {dtype} and computes in {between}, which onnxruntime does not always round to; export it "
                f"in one type, or with casts to {_WIDER[dtype]} alone"
            )
    gain, bias, shift = _into_codes(head)
    lowest, levels = _codes(head, rounding, tail, dtype)
    spec = QuantizerSpec(
        dtype,
        tuple(step.operation for step in head),
        rounding,
        tuple(step.operation for step in tail),
        levels,
        None,
        np.zeros(1),
        np.zeros(1),
        reader.channel_axis,
        lowest,
    )
    below = _ROUNDINGS[rounding.op_type]
    if below is None:
        return spec
    threshold = levels / gain
    # Whole codes below the lowest go into the bias; the rest is a shift between 0 and θ.
    whole = np.floor(shift - lowest)
    charge = threshold * (below + shift - lowest - whole)
    return replace(spec, threshold=threshold, shift=charge, bias=bias + whole / gain)


@dataclass(frozen=True, eq=False)
class _Step:
    """An operator of the chain with its constants."""

    link: Link
    operation: FloatOperation

    @property
    def factor(self) -> Array:
        return factor(self.link.node, self.operation)

    @property
    def summand(self) -> Array:
        value = self.operation.constants[0].astype(np.float64)
        return -value if self.operation.op_type == "Sub" else value


def _into_codes(head: list[_Step]) -> tuple[Array, Array, Array]:
    """Gain, bias and shift of `(x + bias)·gain + shift`, in float64."""
    gain, bias, shift = np.ones(1), np.zeros(1), np.zeros(1)
    scaled = False
    for step in head:
        if step.link.letter == "S":
            gain, shift, scaled = gain * step.factor, shift * step.factor, True
        elif step.link.letter == "A" and scaled:
            shift = shift + step.summand
        elif step.link.letter == "A":
            bias = bias + step.summand
    return gain, bias, shift


def _codes(
    head: list[_Step], rounding: FloatOperation, tail: list[_Step], dtype: np.dtype[np.generic]
) -> tuple[Array, int]:
    """The lowest code, and the number of codes above it.

    Raises:
        Refusal: the number differs between channels, or there is no highest code.
    """
    # The range that the head passes is computed in the source's arithmetic.
    codes = np.array([[-np.inf, np.inf]], dtype=dtype)
    for operation in (*(step.operation for step in head), rounding):
        codes = operation(codes)
    low, high = codes.astype(np.float64).T
    step, intercept = np.ones(1), np.zeros(1)
    tolerance = _TOLERANCE * float(ml_dtypes.finfo(dtype).eps)
    for end in tail:
        if end.link.letter == "S":
            step, intercept = step * end.factor, intercept * end.factor
        elif end.link.letter == "A":
            intercept = intercept + end.summand
        elif end.link.letter == "C":
            bounds = [(value.astype(np.float64) - intercept) / step for value in end.operation.constants]
            low, high = np.maximum(low, bounds[0]), np.minimum(high, bounds[1])
    _require_bounds(low, high, rounding, step)
    for side, bound in (("starts", low), ("ends", high)):
        if not np.allclose(bound, np.round(bound), rtol=tolerance, atol=tolerance):
            raise Refusal(f"its Clip {side} at {some(bound)} levels, which is not one whole number of them")
    lowest = np.round(low)
    levels = np.unique(np.round(high) - lowest)
    if len(levels) > 1:
        raise Refusal(f"its channels have from {levels[0]:g} to {levels[-1]:g} levels; one number for all is needed")
    if not 1 <= levels[0] <= MAX_LEVELS:
        raise Refusal(f"it has {levels[0]:g} levels; 1 to {MAX_LEVELS} are possible")
    return lowest[:1] if (lowest == lowest[0]).all() else lowest, int(levels[0])


class _Endless(Refusal):
    """It has no highest level.

    Attributes:
        unit: the difference between two levels, `[1]` or `[C]`.
    """

    def __init__(self, unit: Array) -> None:
        super().__init__(
            "it has no highest level; pass `calibration='data.npz', steps=T` to find one, or bound it before the "
            "export by a Clip with both ends, or Relu and Min"
        )
        self.unit = unit


def _require_bounds(low: Array, high: Array, rounding: FloatOperation, unit: Array) -> None:
    if (np.isinf(low) & np.isinf(high)).any():
        raise Refusal(f"it is not bounded: there is no Clip before or after {rounding.op_type}")
    if np.isinf(low).any():
        raise Refusal("it is not bounded below; expected a Clip with both ends, or Relu and Min")
    if np.isinf(high).any():
        raise _Endless(unit)
