"""Kinds in time, and for each ONNX operator what it does to them.

A tensor in time has rows `[T·B, …]`, time-major. An operator may run on it unchanged where it treats rows
independently and its temporal mean is then the operator of the mean (it *commutes with time*). Where no rule says so,
the tensor is decoded first: exact always, at the price of a time axis that ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Dimension


@dataclass(frozen=True)
class Static:
    """`[B, …]`: no time axis; the value is the same at each step, or time was decoded."""

    steps: int = 1


@dataclass(frozen=True, eq=False)
class Spikes:
    """`[T·B, …]`: sorted spike trains, `levels[:, T]` where a neuron fires and `levels[:, 0]` where it is silent.

    Attributes:
        steps: T.
        levels: `[R, T+1]`, the value that each spike count stands for; of serial neurons `[R, 2]`, silent and spike.
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


@dataclass(frozen=True, eq=False)
class Passage:
    """How a node runs on tensors in time.

    Attributes:
        kinds: kind of each output.
        lifted: inputs without a time axis that are repeated for each time-step, since their rows go with rows in time.
        constants: inputs that become constants, where the source's own value counts its rows; None leaves an input out.
    """

    kinds: tuple[Kind, ...]
    lifted: tuple[int, ...] = ()
    constants: Mapping[int, Array | None] = field(default_factory=dict)


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

    def output_shape(self, index: int) -> tuple[Dimension, ...] | None:
        """Shape of an output in the source network."""
        return self.network.shape(self.node.outputs[index])

    def given(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def constant(self, index: int) -> Array | None:
        """Value of a constant input; None where it is absent or computed."""
        return constant(self.node.inputs[index]) if self.given(index) else None

    def first_size(self, index: int) -> Dimension:
        """The first entry of an input that holds sizes: a number or the name of a dimension; None where unknown."""
        value = self.constant(index)
        if value is not None:
            return int(value.reshape(-1)[0]) if value.size else None
        sizes = self.network.sizes.get(self.node.inputs[index].name)
        return None if sizes is None or not sizes.size else sizes.reshape(-1)[0]

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute."""
        return self.node.attrs.get(name, default)

    def axes(self, values: Iterable[int], rank: int) -> set[int]:
        """Axes counted from the front."""
        return {int(axis) % rank for axis in values}


# None: the inputs have to be decoded first. One kind stands for all outputs.
Rule = Callable[[Site], Kind | Passage | None]


def transfer(site: Site) -> Passage:
    """How a node runs; on Static tensors where its inputs have to be decoded first."""
    rule = TRANSFER_RULES.get(site.node.op) if site.varying and is_standard(site.node) else None
    try:
        found = (rule(site) if rule is not None else None) or STATIC
    except (ArithmeticError, LookupError, TypeError, ValueError):  # operands that a runtime refuses as well
        found = STATIC
    return found if isinstance(found, Passage) else Passage((found,) * len(site.node.outputs))


def _current(kind: Kind) -> Current:
    return Current(kind.steps)


def _same_where_uniform(kind: Kind) -> Kind:
    """After a change of layout that may mix channels: spikes stay spikes where all have the same levels."""
    return kind if isinstance(kind, Spikes) and kind.uniform else _current(kind)


def _channels_moved(kind: Kind, axes: Sequence[int | None]) -> Kind:
    """After a change of axes: `axes[i]` of the input is axis i now."""
    if not isinstance(kind, Spikes) or kind.channel_axis is None:
        return kind
    if kind.channel_axis not in axes:
        return _current(kind)
    return Spikes(kind.steps, kind.levels, axes.index(kind.channel_axis))


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
    """MatMul by a matrix, from the right or from the left of a stack of them: no sum over the first axis."""
    if len(site.varying) != 1:
        return None
    (varying,) = site.varying
    rank, matrix_rank = site.rank(varying), site.rank(1 - varying)
    if rank is None or matrix_rank is None or rank < (2, 3)[varying] or matrix_rank > 2:
        return None
    return _current(site.kinds[varying])


def _add(site: Site) -> Passage | None:
    """Add, Sub, Sum, Mean: of tensors in time with the same T, and of others at each step."""
    varying = site.varying
    steps = {site.kinds[index].steps for index in varying}
    shapes = {site.shape(index) for index in varying}
    if len(steps) != 1 or None in shapes or len({(len(shape), shape[0]) for shape in shapes if shape}) != 1:
        return None
    lifted = _lifted(site)
    return None if lifted is None else Passage((Current(steps.pop()),), lifted)


def _multiply(site: Site) -> Passage | None:
    """Mul of one tensor in time by others, the same at each step. What is not finite does not commute with zero."""
    if len(site.varying) != 1:
        return None
    lifted, factor = _lifted(site), site.constant(1 - site.varying[0])
    if lifted is None or (factor is not None and not np.isfinite(factor).all()):
        return None
    return Passage((_current(site.kinds[site.varying[0]]),), lifted)


def _divide(site: Site) -> Passage | None:
    """Div by a constant without zeros."""
    divisor = site.constant(1)
    return _multiply(site) if divisor is not None and (divisor != 0).all() else None


def _where(site: Site) -> Passage | None:
    """Where takes each element from the same tensor at each step: conditions, being no floats, have no time axis."""
    constants = [site.constant(index) for index in (1, 2)]
    if any(value is not None and not np.isfinite(value).all() for value in constants):
        return None
    return _add(site)


def _einsum(site: Site) -> Kind | None:
    """Linear in one tensor in time, whose first axis is the first of the result and no axis of another tensor."""
    terms, arrow, result = site.attribute("equation", "").replace(" ", "").partition("->")
    operands = terms.split(",")
    if len(site.varying) != 1 or not arrow or "." in terms:
        return None
    (varying,) = site.varying
    row = operands[varying][:1]
    if not row or not result.startswith(row) or terms.count(row) > 1:
        return None
    return _current(site.kinds[varying])


def _negate(site: Site) -> Kind | None:
    return _current(site.kinds[0])


def _lifted(site: Site) -> tuple[int, ...] | None:
    """The inputs without time of an elementwise operator whose rows go with rows in time.

    Returns:
        None where that is not known, or where they would add rows of their own.
    """
    in_time = site.shape(site.varying[0])
    if not in_time or in_time[0] is None:
        return None
    lifted = []
    for index in range(len(site.kinds)):
        shape = site.shape(index)
        if shape is None or len(shape) > len(in_time):
            return None
        if index in site.varying or len(shape) < len(in_time) or shape[0] == 1:
            continue
        if shape[0] != in_time[0]:
            return None
        lifted.append(index)
    return tuple(lifted)


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
    return _within(site, np.zeros(1), None)


def _clip(site: Site) -> Kind | None:
    """The identity on spikes within its bounds."""
    if any(site.given(index) and site.constant(index) is None for index in (1, 2)):
        return None
    return _within(site, site.constant(1), site.constant(2))


def _within(site: Site, low: Array | None, high: Array | None) -> Kind | None:
    kind = site.kinds[0]
    if not isinstance(kind, Spikes):
        return None
    above = low is None or (kind.levels[:, 0] >= low).all()
    return kind if above and (high is None or (kind.levels[:, -1] <= high).all()) else None


def _extremum(site: Site) -> Kind | None:
    """As max pooling, over constant axes other than the first; the minimum of sorted trains is that of the minimum."""
    kind, axes, rank = site.kinds[0], _reduced(site), site.rank(0)
    if not isinstance(kind, Spikes) or axes is None or rank is None or kind.channel_axis in axes:
        return None
    keeps = site.attribute("keepdims", 1)
    return _channels_moved(kind, [axis for axis in range(rank) if keeps or axis not in axes])


def _extremes(site: Site) -> Kind | None:
    """Max, Min of trains that have the same levels everywhere."""
    first, *others = site.kinds
    if not isinstance(first, Spikes) or not first.uniform or len({site.rank(i) for i in range(len(site.kinds))}) > 1:
        return None
    same = all(isinstance(kind, Spikes) and np.array_equal(kind.levels, first.levels) for kind in others)
    return first if same and _add(site) is not None else None


def _cast(site: Site) -> Kind | None:
    """To the type that the tensor has; neurons of one model have one type, so in another it has no form in time."""
    same = site.network.dtype(site.node.inputs[0]) == site.network.dtype(site.node.outputs[0])
    return site.kinds[0] if same else None


def _normalise(site: Site) -> Kind | None:
    """BatchNormalization with the statistics of the training set, not of the batch."""
    return None if site.attribute("training_mode", 0) else _linear(site)


def _identity(site: Site) -> Kind | None:
    return site.kinds[0]


def _dropout(site: Site) -> Kind | None:
    """The identity at inference, with a mask that nothing reads."""
    training = site.constant(2)
    inference = not site.given(2) or (training is not None and not training.any())
    read = any(mask.outputs or site.network.is_output(mask) for mask in site.node.outputs[1:])
    return site.kinds[0] if inference and not read else None


def _flatten(site: Site) -> Kind | None:
    return _same_where_uniform(site.kinds[0]) if site.attribute("axis", 1) == 1 else None


def _reshape(site: Site) -> Kind | Passage | None:
    """Where the rows of one time-step stay together.

    They do where the first dimension is left open and the others are not, or keeps its size whatever that is called; a
    shape that spells out the number of rows, or computes it, becomes a constant that does not.
    """
    kind, target = _same_where_uniform(site.kinds[0]), site.constant(1)
    keeps_zero = not site.attribute("allowzero", 0)
    if target is not None and target.size:
        open_first = target[0] == -1 or (target[0] == 0 and keeps_zero)
        others_fixed = (target[1:] > 0).all() or (target[0] == 0 and (target[1:] != 0).all())
        if open_first and others_fixed:
            return kind
    before, after = site.shape(0), site.output_shape(0)
    if not before or not after or before[0] is None or before[0] != after[0]:
        return None
    rows = site.first_size(1)
    if rows != before[0] and not (rows == 0 and keeps_zero):
        return None
    old, new = ([size for size in shape[1:] if isinstance(size, int) and size > 0] for shape in (before, after))
    open_sizes = [axis for axis, size in enumerate(after[1:]) if not isinstance(size, int)]
    if len(open_sizes) == 1 and len(old) == len(before) - 1 and math.prod(old) % math.prod(new) == 0:
        # What is left open besides the rows is what the others leave of a row.
        new.insert(open_sizes[0], math.prod(old) // math.prod(new))
    return Passage((kind,), constants={1: np.array([-1, *new])}) if len(new) == len(after) - 1 else None


def _expand(site: Site) -> Kind | Passage | None:
    """Of axes other than the first; a size that counts the rows becomes one, which broadcasts."""
    before, after, kind = site.shape(0), site.output_shape(0), site.kinds[0]
    if not before or not after or len(before) != len(after) or before[0] is None or before[0] != after[0]:
        return None
    grown = {axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    kind = _current(kind) if isinstance(kind, Spikes) and kind.channel_axis in grown else kind
    if site.first_size(1) == 1:
        return kind
    sizes = [size for size in after[1:] if isinstance(size, int)]
    return Passage((kind,), constants={1: np.array([1, *sizes])}) if len(sizes) == len(after) - 1 else None


def _tile(site: Site) -> Kind | None:
    """Along other axes than the first."""
    repeats, kind = site.constant(1), site.kinds[0]
    if repeats is None or repeats[0] != 1:
        return None
    return _current(kind) if isinstance(kind, Spikes) and not kind.uniform and repeats[kind.channel_axis] != 1 else kind


def _transpose(site: Site) -> Kind | None:
    permutation = site.attribute("perm", None)
    return None if permutation is None or permutation[0] != 0 else _channels_moved(site.kinds[0], list(permutation))


def _unsqueeze(site: Site) -> Kind | None:
    """New axes behind the first."""
    axes, rank = site.constant(1), site.rank(0)
    if axes is None or rank is None:
        return None
    new = site.axes(axes, rank + axes.size)
    if 0 in new:
        return None
    old = iter(range(rank))
    return _channels_moved(site.kinds[0], [None if axis in new else next(old) for axis in range(rank + len(new))])


def _squeeze(site: Site) -> Kind | None:
    """Constant axes other than the first."""
    axes, rank = site.constant(1) if site.given(1) else None, site.rank(0)
    if axes is None or rank is None or 0 in site.axes(axes, rank):
        return None
    gone = site.axes(axes, rank)
    return _channels_moved(site.kinds[0], [axis for axis in range(rank) if axis not in gone])


def _gather(site: Site) -> Kind | None:
    """Indices without a time axis, along another axis than the first: each row has the same."""
    rank, index_rank, kind = site.rank(0), site.rank(1), site.kinds[0]
    if rank is None or index_rank is None or not site.only_first_varies:
        return None
    axis = site.attribute("axis", 0) % rank
    if axis == 0:
        return None
    if isinstance(kind, Spikes) and kind.channel_axis == axis:
        return _current(kind)
    return _channels_moved(kind, [*range(axis), *([None] * index_rank), *range(axis + 1, rank)])


def _split(site: Site) -> Passage | None:
    """Along another axis than the first; parts of channels keep their own levels."""
    kind, rank = site.kinds[0], site.rank(0)
    if rank is None or not site.only_first_varies:
        return None
    axis = site.attribute("axis", 0) % rank
    if axis == 0:
        return None
    if not isinstance(kind, Spikes) or kind.channel_axis != axis:
        return Passage((kind,) * len(site.node.outputs))
    parts: list[Kind] = []
    start = 0
    for index in range(len(site.node.outputs)):
        shape = site.output_shape(index)
        size = shape[axis] if shape else None
        if not isinstance(size, int):
            return Passage((_current(kind),) * len(site.node.outputs))
        parts.append(Spikes(kind.steps, kind.levels[start : start + size], axis))
        start += size
    return Passage(tuple(parts))


def _depth_to_space(site: Site) -> Kind | None:
    return _same_where_uniform(site.kinds[0])


def _resize(site: Site) -> Kind | Passage | None:
    """Of axes other than the first, by a factor; a size that counts the rows becomes a factor."""
    before, after = site.shape(0), site.output_shape(0)
    extrapolates = site.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    stretches = site.attribute("keep_aspect_ratio_policy", "stretch") == "stretch"
    if not before or extrapolates or not site.only_first_varies:
        return None
    nearest = site.attribute("mode", "nearest") == "nearest"
    axes = site.attribute("axes", None)
    resized = site.axes(axes, len(before)) if axes is not None else set(range(len(before)))
    scales = site.constant(2)
    if scales is not None and scales.size:
        resized = {axis for axis, scale in zip(sorted(resized), scales, strict=False) if axes or scale != 1}
        constants: dict[int, Array | None] = {}
    elif axes is None:
        if not site.given(3) or not stretches or site.first_size(3) != before[0]:
            return None
        factors = _factors(before, after)
        if factors is None:
            return None
        resized = {axis for axis, factor in enumerate(factors) if factor != 1}
        constants = {2: factors, 3: None}
    else:
        constants = {}
    if 0 in resized:
        return None
    kind = site.kinds[0]
    moves_channels = isinstance(kind, Spikes) and kind.channel_axis in resized
    return Passage((kind if nearest and not moves_channels else _current(kind),), constants=constants)


def _factors(before: Sequence[Dimension], after: Sequence[Dimension] | None) -> Array | None:
    """Factors by which Resize turns one shape into the other, but for the rows; None where no float32 does."""
    sizes = [*before[1:], *(after or ())[1:]]
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    if not after or len(known) < len(sizes):
        return None
    old, new = np.array(known).reshape(2, -1)
    factors = (new / old).astype(np.float32)
    exact = (np.floor(old.astype(np.float32) * factors) == new).all()
    return np.concatenate([np.ones(1, np.float32), factors]) if exact else None


def _concat(site: Site) -> Kind | Passage | None:
    """Along another axis than the first: tensors in time with the same T, and others at each step."""
    rank = site.rank(site.varying[0])
    axis = site.attribute("axis", 0)
    steps = {site.kinds[index].steps for index in site.varying}
    if rank is None or axis % rank == 0 or len(steps) != 1:
        return None
    trains = [kind for kind in site.kinds if isinstance(kind, Spikes)]
    if len(trains) < len(site.kinds):
        if any(site.shape(index) is None for index in range(len(site.kinds))):
            return None
        lifted = tuple(index for index in range(len(site.kinds)) if not site.varies(index))
        return Passage((Current(steps.pop()),), lifted)
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
        tables.append(np.broadcast_to(train.levels, (channels, train.levels.shape[1])))
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
    return None if _reduced(site) is None else _current(site.kinds[0])


def _reduced(site: Site) -> set[int] | None:
    """The constant axes, other than the first, that an operator reduces; None where they are not that."""
    rank = site.rank(0)
    axes = site.constant(1) if site.given(1) else site.attribute("axes", None)
    if rank is None or axes is None or not len(axes) or 0 in site.axes(axes, rank):
        return None
    return site.axes(axes, rank)


# One row an operator. An operator that is not here is decoded first.
TRANSFER_RULES: dict[str, Rule] = {
    "Add": _add,
    "AveragePool": _linear,
    "BatchNormalization": _normalise,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _linear,
    "ConvTranspose": _linear,
    "DepthToSpace": _depth_to_space,
    "Div": _divide,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _linear,
    "GlobalMaxPool": _max_pool,
    "Identity": _identity,
    "MatMul": _matmul,
    "Max": _extremes,
    "MaxPool": _max_pool,
    "Mean": _add,
    "Min": _extremes,
    "Mul": _multiply,
    "Neg": _negate,
    "Pad": _pad,
    "ReduceMax": _extremum,
    "ReduceMean": _reduce,
    "ReduceMin": _extremum,
    "ReduceSum": _reduce,
    "Relu": _relu,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _depth_to_space,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _add,
    "Sum": _add,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
