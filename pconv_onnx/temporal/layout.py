"""Rules for operators that move values and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.network import Dimension
from pconv_onnx.temporal.kinds import Current, Kind, Passage, Spikes
from pconv_onnx.temporal.meeting import meeting
from pconv_onnx.temporal.site import Site, channels_moved, current, same_where_uniform


def flatten(site: Site) -> Kind | None:
    """Flatten each row."""
    return same_where_uniform(site.kinds[0]) if site.attribute("axis", 1) == 1 else None


def reshape(site: Site) -> Kind | Passage | None:
    """Reshape, if rows stay whole.

    They do if the first dimension is copied, is the only open one, or keeps its size under any name. A shape that
    states or computes the number of rows is replaced by a constant that leaves it open.
    """
    kind, target = same_where_uniform(site.kinds[0]), site.constant(1)
    keeps_zero = not site.attribute("allowzero", 0)
    if target is not None and target.size:
        if (target[0] == 0 and keeps_zero) or (target[0] == -1 and (target[1:] > 0).all()):
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
        # Another open size is what the others leave of a row.
        new.insert(open_sizes[0], math.prod(old) // math.prod(new))
    return Passage((kind,), constants={1: np.array([-1, *new])}) if len(new) == len(after) - 1 else None


def expand(site: Site) -> Kind | Passage | None:
    """Expand along axes other than the first; a size that counts rows becomes 1, which broadcasts."""
    before, after, kind = site.shape(0), site.output_shape(0), site.kinds[0]
    if not before or not after or len(before) != len(after) or before[0] is None or before[0] != after[0]:
        return None
    grown = {axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    kind = current(kind) if isinstance(kind, Spikes) and kind.channel_axis in grown else kind
    if site.first_size(1) == 1:
        return kind
    sizes = [size for size in after[1:] if isinstance(size, int)]
    return Passage((kind,), constants={1: np.array([1, *sizes])}) if len(sizes) == len(after) - 1 else None


def tile(site: Site) -> Kind | None:
    """Tile along axes other than the first."""
    repeats, kind = site.constant(1), site.kinds[0]
    if repeats is None or repeats[0] != 1:
        return None
    return current(kind) if isinstance(kind, Spikes) and not kind.uniform and repeats[kind.channel_axis] != 1 else kind


def transpose(site: Site) -> Kind | None:
    """Transpose, if the first axis stays in its place."""
    permutation = site.attribute("perm", None)
    return None if permutation is None or permutation[0] != 0 else channels_moved(site.kinds[0], list(permutation))


def unsqueeze(site: Site) -> Kind | None:
    """Unsqueeze with new axes behind the first."""
    axes, rank = site.constant(1), site.rank(0)
    if axes is None or rank is None:
        return None
    new = site.axes(axes, rank + axes.size)
    if 0 in new:
        return None
    old = iter(range(rank))
    return channels_moved(site.kinds[0], [None if axis in new else next(old) for axis in range(rank + len(new))])


def squeeze(site: Site) -> Kind | None:
    """Squeeze of constant axes other than the first."""
    axes, rank = site.constant(1) if site.given(1) else None, site.rank(0)
    if axes is None or rank is None or 0 in site.axes(axes, rank):
        return None
    gone = site.axes(axes, rank)
    return channels_moved(site.kinds[0], [axis for axis in range(rank) if axis not in gone])


def gather(site: Site) -> Kind | None:
    """Gather along an axis other than the first, with indices that are the same at each step."""
    rank, index_rank, kind = site.rank(0), site.rank(1), site.kinds[0]
    if rank is None or index_rank is None or not site.only_first_varies:
        return None
    axis = site.attribute("axis", 0) % rank
    if axis == 0:
        return None
    if isinstance(kind, Spikes) and kind.channel_axis == axis:
        return current(kind)
    return channels_moved(kind, [*range(axis), *([None] * index_rank), *range(axis + 1, rank)])


def split(site: Site) -> Passage | None:
    """Split along an axis other than the first; parts of the channels keep their levels."""
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
            return Passage((current(kind),) * len(site.node.outputs))
        parts.append(replace(kind, levels=kind.levels[start : start + size]))
        start += size
    return Passage(tuple(parts))


def depth_to_space(site: Site) -> Kind | None:
    """DepthToSpace and SpaceToDepth: channels become positions, or the other way round, within a row."""
    return same_where_uniform(site.kinds[0])


def resize(site: Site) -> Kind | Passage | None:
    """Resize of axes other than the first, by factors; sizes that count rows are replaced by factors."""
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
    return Passage((kind if nearest and not moves_channels else current(kind),), constants=constants)


def _factors(before: Sequence[Dimension], after: Sequence[Dimension] | None) -> Array | None:
    """Factors by which Resize turns one shape into the other, rows apart; None if no float32 does."""
    sizes = [*before[1:], *(after or ())[1:]]
    known = [size for size in sizes if isinstance(size, int) and size > 0]
    if not after or len(known) < len(sizes):
        return None
    old, new = np.array(known).reshape(2, -1)
    factors = (new / old).astype(np.float32)
    exact = (np.floor(old.astype(np.float32) * factors) == new).all()
    return np.concatenate([np.ones(1, np.float32), factors]) if exact else None


def concat(site: Site) -> Kind | Passage | None:
    """Concat along an axis other than the first: tensors in time get the same T, others are repeated at each step."""
    rank = site.rank(site.varying[0])
    axis = site.attribute("axis", 0)
    met = meeting(site)
    if rank is None or axis % rank == 0 or met is None:
        return None
    steps, recoded = met
    trains = [
        replace(kind, coding=recoded.get(index, kind.coding))
        for index, kind in enumerate(site.kinds)
        if isinstance(kind, Spikes)
    ]
    if len(trains) < len(site.kinds):
        if any(site.shape(index) is None for index in range(len(site.kinds))):
            return None
        lifted = tuple(index for index in range(len(site.kinds)) if not site.varies(index))
        return Passage((Current(steps),), lifted, recoded=recoded)
    first = trains[0]
    if all(
        train.uniform and train.coding == first.coding and np.array_equal(train.levels, first.levels)
        for train in trains
    ):
        return Passage((first,), recoded=recoded)
    return Passage((_joined(site, trains, axis % rank) or Current(steps),), recoded=recoded)


def _joined(site: Site, trains: Sequence[Spikes], axis: int) -> Spikes | None:
    """Trains side by side along the channel axis, with levels for each channel."""
    tables = []
    of_one_width = _of_one_width(trains)
    if of_one_width is None:
        return None
    for index, train in enumerate(of_one_width):
        shape = site.shape(index)
        channels = shape[axis] if shape else None
        if not isinstance(channels, int) or train.channel_axis not in (None, axis):
            return None
        tables.append(np.broadcast_to(train.levels, (channels, train.levels.shape[1])))
    return Spikes(of_one_width[0].coding, np.concatenate(tables), axis)


def _of_one_width(trains: Sequence[Spikes]) -> Sequence[Spikes] | None:
    """The trains widened to the same number of levels, and silent at the same count."""
    codings = {train.coding for train in trains}
    if len({(type(coding), coding.steps) for coding in codings}) > 1:
        return None
    if len(codings) == len({train.levels.shape[1] for train in trains}) == 1:
        return trains
    zero = max(coding.zero for coding in codings)
    above = max(train.levels.shape[1] - 1 - train.coding.zero for train in trains)
    found = [train.widened(zero, zero + above) for train in trains]
    return None if None in found else [train for train in found if train is not None]


def pad(site: Site) -> Kind | None:
    """Pad along axes other than the first. Padding with the value of a silent neuron keeps trains."""
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
    padded = {axis % rank for i, axis in enumerate(axes) if pads[i] or pads[i + len(axes)]}
    if not isinstance(kind, Spikes) or kind.channel_axis in padded:
        return current(kind)
    mode = site.attribute("mode", "constant")
    fill = site.constant(2) if site.given(2) else np.zeros(1)
    silent = mode == "constant" and fill is not None and (fill == kind.silent).all()
    return kind if silent or mode != "constant" else current(kind)


def slice(site: Site) -> Kind | None:
    """Slice along axes other than the first."""
    kind, rank = site.kinds[0], site.rank(0)
    starts, axes = site.constant(1), site.constant(3)
    if rank is None or starts is None or not site.only_first_varies:
        return None
    sliced = site.axes(axes if axes is not None else range(len(starts)), rank)
    if 0 in sliced or (site.given(3) and axes is None):
        return None
    return kind if isinstance(kind, Spikes) and kind.channel_axis not in sliced else same_where_uniform(kind)
