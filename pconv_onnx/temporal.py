"""Kinds in time, and for each ONNX operator what it does to them.

A tensor in time has rows `[T·B, …]`, time-major. An operator may run on it unchanged where it treats rows
independently and its temporal mean is then the operator of the mean (it *commutes with time*). Where no rule says so,
the tensor is decoded first: exact always, at the price of a time axis that ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.network import Dimension, constant, is_standard
from pconv_onnx.neuron import Array


@dataclass(frozen=True)
class Static:
    """`[B, …]`: no time axis; the value is the same at each step, or time was decoded."""

    steps: int = 1


@dataclass(frozen=True, eq=False)
class Spikes:
    """`[T·B, …]`: sorted spike trains, `levels[:, T]` where a neuron fires and `levels[:, 0]` where it is silent.

    Attributes:
        steps: T.
        levels: `[R, T+1]`, the value that each spike count stands for.
        channel_axis: the axis along which the rows of `levels` run; None where R = 1.
    """

    steps: int
    levels: Array
    channel_axis: int | None

    @property
    def uniform(self) -> bool:
        """Whether every neuron has the same levels."""
        return self.channel_axis is None


@dataclass(frozen=True)
class Current:
    """`[T·B, …]`: a linear image of spikes; only its temporal mean has meaning."""

    steps: int


Kind = Static | Spikes | Current
STATIC = Static()


class Site:
    """A node with the kinds of its inputs: what a rule looks at."""

    def __init__(self, network: Network, node: gs.Node, kinds: Sequence[Kind]) -> None:
        """Bind them; `kinds` has one entry an input."""
        self.network, self.node, self.kinds = network, node, kinds

    def varies(self, index: int) -> bool:
        """Whether that input is there and has a time axis."""
        return index < len(self.kinds) and not isinstance(self.kinds[index], Static)

    @property
    def varying(self) -> list[int]:
        """The inputs that have a time axis."""
        return [index for index in range(len(self.kinds)) if self.varies(index)]

    @property
    def only_first_varies(self) -> bool:
        """Whether the first input has a time axis and no other has."""
        return self.varying == [0]

    def shape(self, index: int) -> tuple[Dimension, ...] | None:
        """Shape of an input in the source network."""
        return self.network.shape(self.node.inputs[index])

    def rank(self, index: int) -> int | None:
        """Rank of an input."""
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def given(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def constant(self, index: int) -> Array | None:
        """Value of a constant input; None where it is absent or computed."""
        return constant(self.node.inputs[index]) if self.given(index) else None

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute."""
        return self.node.attrs.get(name, default)

    def axes(self, values: Iterable[int], rank: int) -> set[int]:
        """Axes counted from the front."""
        return {int(axis) % rank for axis in values}


Rule = Callable[[Site], Kind | None]


def transfer(site: Site) -> Kind:
    """Kind of a node's outputs; Static where its inputs have to be decoded first."""
    if not site.varying or not is_standard(site.node):
        return STATIC
    rule = TRANSFER_RULES.get(site.node.op)
    return (rule(site) if rule is not None else None) or STATIC


def _current(kind: Kind) -> Current:
    return Current(kind.steps)


def _same_where_uniform(kind: Kind) -> Kind:
    """After a change of layout that may mix channels: spikes stay spikes where all have the same levels."""
    return kind if isinstance(kind, Spikes) and kind.uniform else _current(kind)


def _linear(site: Site) -> Kind | None:
    """Conv, BatchNormalization, average pooling: linear or affine in the first input, row by row."""
    # Static weights are constants or are computed without a time axis; either way they are the same at each step.
    single_output = all(not output.name for output in site.node.outputs[1:])
    return _current(site.kinds[0]) if site.only_first_varies and single_output else None


def _gemm(site: Site) -> Kind | None:
    """Gemm with rows as rows: `A` not transposed, no `C` that has rows of its own."""
    if site.attribute("transA", 0):
        return None
    if site.given(2):
        shape = site.shape(2)
        if shape is None or (len(shape) == 2 and shape[0] != 1):
            return None
    return _linear(site)


def _matmul(site: Site) -> Kind | None:
    """MatMul by a matrix: the first axis of the left operand is a row or a batch, never summed over."""
    rank, weight_rank = site.rank(0), site.rank(1)
    if rank is None or weight_rank is None or rank < 2 or weight_rank > 2:
        return None
    return _linear(site)


def _add(site: Site) -> Kind | None:
    """Add, Sub, Sum: of tensors in time with the same T, and of constants that are the same for each row."""
    varying = site.varying
    steps = {site.kinds[index].steps for index in varying}
    shapes = {site.shape(index) for index in varying}
    if len(steps) != 1 or None in shapes or len({(len(shape), shape[0]) for shape in shapes if shape}) != 1:
        return None
    first = site.shape(varying[0])
    if not first or first[0] is None or not _same_for_each_row(site, varying, len(first)):
        return None
    return Current(steps.pop())


def _scale(site: Site) -> Kind | None:
    """Mul, Div by a constant that is the same for each row and leaves values finite."""
    varying = site.varying
    rank = site.rank(varying[0])
    if len(varying) != 1 or (site.node.op == "Div" and varying != [0]) or rank is None:
        return None
    if not _same_for_each_row(site, varying, rank):
        return None
    factor = site.constant(1 - varying[0])
    if factor is None or not np.isfinite(factor).all() or (site.node.op == "Div" and (factor == 0).any()):
        return None
    return _current(site.kinds[varying[0]])


def _same_for_each_row(site: Site, varying: Sequence[int], rank: int) -> bool:
    for index in range(len(site.kinds)):
        if index in varying:
            continue
        value = site.constant(index)
        if value is None or value.ndim > rank or (value.ndim == rank and value.shape[0] != 1):
            return False
    return True


def _max_pool(site: Site) -> Kind | None:
    """Sorted trains of one amplitude: the maximum of trains is the train of the maximum.

    A window of nothing but padding, which only dilation makes, has a value that no train has.
    """
    kind = site.kinds[0]
    dilated = any(step != 1 for step in site.attribute("dilations", ()))
    if len(site.node.outputs) > 1 or not isinstance(kind, Spikes) or dilated:
        return None
    return kind if kind.channel_axis in (None, 1) else None


def _relu(site: Site) -> Kind | None:
    """The identity on spikes that are not negative."""
    kind = site.kinds[0]
    return kind if isinstance(kind, Spikes) and (kind.levels[:, 0] >= 0).all() else None


def _identity(site: Site) -> Kind | None:
    return site.kinds[0]


def _dropout(site: Site) -> Kind | None:
    """The identity at inference."""
    training = site.constant(2)
    inference = not site.given(2) or (training is not None and not training.any())
    return site.kinds[0] if inference and len(site.node.outputs) == 1 else None


def _flatten(site: Site) -> Kind | None:
    return _same_where_uniform(site.kinds[0]) if site.attribute("axis", 1) == 1 else None


def _reshape(site: Site) -> Kind | None:
    """To a constant shape whose first dimension is left open: rows of one time-step stay together."""
    shape = site.constant(1)
    if shape is None or not shape.size or site.varies(1):
        return None
    keeps_zero = not site.attribute("allowzero", 0)
    open_first = shape[0] == -1 or (shape[0] == 0 and keeps_zero)
    others_fixed = (shape[1:] > 0).all() or (shape[0] == 0 and (shape[1:] != 0).all())
    return _same_where_uniform(site.kinds[0]) if open_first and others_fixed else None


def _transpose(site: Site) -> Kind | None:
    kind, permutation = site.kinds[0], site.attribute("perm", None)
    if permutation is None or permutation[0] != 0:
        return None
    if isinstance(kind, Spikes) and kind.channel_axis is not None:
        return Spikes(kind.steps, kind.levels, list(permutation).index(kind.channel_axis))
    return kind


def _concat(site: Site) -> Kind | None:
    """Along another axis than the first, of tensors in time with the same T."""
    rank = site.rank(0)
    axis = site.attribute("axis", 0)
    if rank is None or axis % rank == 0 or len(site.varying) < len(site.kinds):
        return None
    steps = {kind.steps for kind in site.kinds}
    if len(steps) != 1:
        return None
    trains = [kind for kind in site.kinds if isinstance(kind, Spikes)]
    if len(trains) < len(site.kinds):
        return Current(steps.pop())
    first = trains[0]
    if all(train.uniform and np.array_equal(train.levels, first.levels) for train in trains):
        return first
    return _joined(site, trains, axis % rank) or Current(steps.pop())


def _joined(site: Site, trains: Sequence[Spikes], axis: int) -> Spikes | None:
    """Trains side by side along the channel axis, each channel with levels of its own."""
    tables = []
    for index, train in enumerate(trains):
        shape = site.shape(index)
        channels = shape[axis] if shape else None
        if not isinstance(channels, int) or train.channel_axis not in (None, axis):
            return None
        tables.append(np.broadcast_to(train.levels, (channels, train.steps + 1)))
    return Spikes(trains[0].steps, np.concatenate(tables), axis)


def _pad(site: Site) -> Kind | None:
    """Not along the first axis. A pad with the value of a silent neuron keeps trains sorted."""
    kind, pads, rank = site.kinds[0], site.constant(1), site.rank(0)
    if pads is None or rank is None or not site.only_first_varies:
        return None
    if site.given(3):
        axes = site.constant(3)
        if axes is None:
            return None
    else:
        axes = np.arange(rank)
    if any(pads[i] or pads[i + len(axes)] for i, axis in enumerate(axes) if axis % rank == 0):
        return None
    if not isinstance(kind, Spikes) or not kind.uniform:
        return _current(kind)
    mode = site.attribute("mode", "constant")
    fill = site.constant(2) if site.given(2) else np.zeros(1)
    silent = mode == "constant" and fill is not None and (fill == kind.levels[0, 0]).all()
    return kind if silent or mode != "constant" else _current(kind)


def _slice(site: Site) -> Kind | None:
    """Not along the first axis."""
    kind, rank = site.kinds[0], site.rank(0)
    starts, axes = site.constant(1), site.constant(3)
    if rank is None or starts is None or not site.only_first_varies:
        return None
    sliced = site.axes(axes if axes is not None else range(len(starts)), rank)
    if 0 in sliced or (site.given(3) and axes is None):
        return None
    return kind if isinstance(kind, Spikes) and kind.channel_axis not in sliced else _same_where_uniform(kind)


def _reduce(site: Site) -> Kind | None:
    """ReduceMean, ReduceSum over constant axes other than the first."""
    rank = site.rank(0)
    axes = site.constant(1) if site.given(1) else site.attribute("axes", None)
    if rank is None or axes is None or not len(axes) or 0 in site.axes(axes, rank):
        return None
    return _current(site.kinds[0])


# One row an operator. An operator that is not here is decoded first.
TRANSFER_RULES: dict[str, Rule] = {
    "Add": _add,
    "AveragePool": _linear,
    "BatchNormalization": _linear,
    "Concat": _concat,
    "Conv": _linear,
    "Div": _scale,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _linear,
    "GlobalMaxPool": _max_pool,
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _scale,
    "Pad": _pad,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Relu": _relu,
    "Reshape": _reshape,
    "Slice": _slice,
    "Sub": _add,
    "Sum": _add,
    "Transpose": _transpose,
}
