"""Scales of weights: for each output channel the scale with the least rounding error at this number of bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array

# Scales that are tried, the finest first: the largest weight is so many 128ths of the highest integer. Weights that are
# integers already are among them; above 128 the largest are clipped.
_TRIED = np.arange(160, 63, -1)
# Into how many parts the finest scale of several layers is divided so that the others are whole numbers of them. The
# first that leaves no more than so many times what layers by themselves do is taken.
_PARTS, _ENOUGH = (1, 2, 4, 8, 16), 1.1
# The least multiplier of what is added, as far as parts allow, so that rounding it moves little beside what rounding
# weights does, and the largest, beside which a layer is next to nothing.
_LEAST_MULTIPLIER, _MOST_MULTIPLIER = 16, 1 << 13
# Of what is added without a layer: into how many parts a unit is divided at most; and where numbers of no unit are
# added, how many parts all levels together have, and how many one has at least and at most.
_MOST_PARTS, _PARTS_OF_ALL, _LEAST_OF_ONE, _MOST_OF_ONE = 256, 2048, 8, 64
# Of a bias the largest multiple of the unit, and of the weights of the layer the least share that a channel may have.
_MOST_BIAS, _LEAST_SHARE = 1 << 18, 1e-6
# Of a unit that channels share: into how many parts, as a power of two, what is added is divided at most, the largest
# factor of a layer, and for how many times the estimate of its sums there has to be room, on codes and in time, as
# weighted spikes take more. The first that leaves no more than so many times what layers by themselves do is taken, or
# else the last, as far as it leaves no more than so many times that.
_MOST_POWER, _MOST_FACTOR, _SPARE, _SPARE_IN_TIME, _NEXT_TO_NOTHING, _LITTLE = 16, 128, 2, 4, 1.005, 1.25
# How many units a sum may have by an estimate from its weights, and how many times coarser than the best a scale may
# become for that; whether float32 holds it is proved in the end.
_ROOM, _COARSEST = 0.9 * (1 << 24), 4
# Weights of a channel by which scales are chosen; and those of all channels that are looked at at a time.
_MANY, _AT_ONCE = 1024, 1 << 22


@dataclass(frozen=True, eq=False)
class Scales:
    """The scales of one accumulator.

    Attributes:
        unit: `[C]`, the worth of 1 in the sum.
        factors: for each layer `[C]`, how many units a rounded weight of 1 is worth: whole numbers.
    """

    unit: Array
    factors: Sequence[Array] = ()

    def scale(self, layer: int) -> Array:
        """`[C]`, the worth of a rounded weight of 1."""
        return self.unit * self.factors[layer]


def rounded(weights: Array, scale: Array, bits: int) -> Array:
    """Weights `[C, n]` as integers of so many bits, each worth `scale` `[C]`."""
    highest = 1 << (bits - 1)
    return np.clip(np.rint(weights / scale.reshape(-1, 1)), -highest, highest - 1)


def of_weights(
    layers: Sequence[Array],
    added: Sequence[Array],
    offsets: Sequence[Array],
    bits: int,
    *,
    uniform: bool,
    alike: bool = False,
    step: Array | None = None,
    in_time: bool = True,
    largest: Array | None = None,
) -> Scales:
    """The scales of layers that are summed: each is a whole number of the common unit.

    If a term with a unit is added, the finest such unit is a whole number of the common one, u = n·s. Otherwise the
    distance between the neurons' thresholds is, so that these are evenly spaced integers. With `alike`, channels share
    n, a power of two, or have the same u if nothing is added.

    Args:
        layers: weights `[C, n]` for integer inputs.
        added: units `[1]` or `[C]`.
        offsets: numbers of no unit that are added as well, `[1]` or `[C]` in values: biases.
        bits: of a weight.
        uniform: whether there is one unit for all channels.
        step: between thresholds of neurons that the sum is given to, `[1]` or `[C]`; None where there is no such.
        alike: whether an error is as bad in any channel, counted in what is added where something is.
        in_time: whether layers read what spikes may carry.
        largest: `[C]`, how large sums may be, in values: no unit is so fine that float32 would not hold them.
    """
    channels = len(layers[0])
    room = np.zeros(channels) if largest is None else largest / _ROOM
    room = np.full(channels, room.max()) if uniform else room
    finest = coarsest = None
    if added:
        units = _common(added, channels, uniform=uniform)
        finest, coarsest = units.min(axis=0), units.max(axis=0)
    # Below that a layer is next to nothing beside what is added.
    floor = np.zeros(channels) if coarsest is None else coarsest * (2 ** (bits - 1) / _MOST_MULTIPLIER)
    for offset in offsets:
        floor = np.maximum(floor, abs(offset) * (2 ** (bits - 1) / _MOST_BIAS))
    found = [_best(weights, floor, bits, uniform=uniform) for weights in layers]
    scales, errors = [scale for scale, _ in found], np.sum([error for _, error in found], axis=0)
    least = np.min(scales, axis=0)
    # What the unit is to divide, as far as layers lose no more by that.
    wanted = None if step is None or added or uniform else np.broadcast_to(step, (channels,))
    if alike and not uniform:
        spare = _SPARE_IN_TIME if in_time else _SPARE
        for whole in (finest, wanted, np.full(channels, least.max())):
            shared = None if whole is None else _shared(layers, floor, errors, whole, spare * room, bits)
            if shared is not None or added:
                break
        if shared is not None:
            return shared
    room = np.minimum(room, _COARSEST * least)
    tried = [np.max(scales, axis=0), *(least / parts for parts in _PARTS)]
    wholes = [finest] if wanted is None else [wanted, None]
    units = np.stack(
        [
            _snapped(np.maximum(unit, room), whole, np.maximum(least / _PARTS[-1], room))
            for whole in wholes
            for unit in tried
        ]
    )
    choices = [[np.maximum(np.rint(scale / unit), 1) for scale in scales] for unit in units]
    left = np.stack(
        [
            np.sum(
                [
                    _errors(weights, (unit * factor)[np.newaxis], bits)[0]
                    for weights, factor in zip(layers, factors, strict=True)
                ],
                axis=0,
            )
            for unit, factors in zip(units, choices, strict=True)
        ]
    )
    if uniform:
        left, errors = (np.broadcast_to(table.sum(axis=-1, keepdims=True), table.shape) for table in (left, errors))
    enough = left <= _ENOUGH * errors
    best = np.where(enough.any(axis=0), enough.argmax(axis=0), left.argmin(axis=0))
    every = np.arange(channels)
    factors = [np.stack([choice[layer] for choice in choices])[best, every] for layer in range(len(layers))]
    return Scales(units[best, every], factors)


def of_added(added: Sequence[Array], offsets: Sequence[Array], channels: int, reach: int, *, uniform: bool) -> Scales:
    """The unit of a sum without layers: the largest of which all terms are whole numbers, or nearly so.

    Terms that are negligible beside an offset are ignored.

    Args:
        added: units `[1]` or `[C]`.
        offsets: numbers of no unit that are added as well, `[1]` or `[C]` in values: it is a part of a unit then.
        channels: C.
        reach: how many integers what is added has: the more levels, the less does a part of one matter.
        uniform: whether there is one for all channels.
    """
    units = _common(added, channels, uniform=uniform)
    first = np.maximum(units.min(axis=0), units.max(axis=0) / _MOST_MULTIPLIER)
    least = int(np.clip(_PARTS_OF_ALL // reach, _LEAST_OF_ONE, _MOST_OF_ONE))
    for offset in offsets:
        first = np.maximum(first, abs(offset) * (least / _MOST_BIAS))
    if uniform:
        first = np.full(channels, first.min())
    parts = np.arange(least if any(offset.any() for offset in offsets) else 1, _MOST_PARTS + 1)
    exact = parts.reshape(-1, 1, 1) * (units / first)
    errors = (abs(exact - np.rint(exact)) / np.maximum(exact, 1)).max(axis=1)
    # The fewest parts that leave less than a weight's own rounding would, or else those that leave least.
    enough = errors <= 2.0**-10
    best = np.where(enough.any(axis=0), enough.argmax(axis=0), errors.argmin(axis=0))
    return Scales(first / parts[best])


def _common(added: Sequence[Array], channels: int, *, uniform: bool) -> Array:
    """Units `[A, C]`; where there is one for all channels, the finest of each."""
    units = np.stack([np.broadcast_to(unit, (channels,)) for unit in added])
    return np.broadcast_to(units.min(axis=1, keepdims=True), units.shape) if uniform else units


def _shared(
    layers: Sequence[Array], floor: Array, errors: Array, whole: Array, room: Array, bits: int
) -> Scales | None:
    """The coarsest unit, `whole` `[C]` divided by a power of two, with which layers lose no more than `errors` `[C]`.

    Channels lose together, each counted in its `whole`. Where factors or sums become too large before, the finest unit;
    None where that loses too much.
    """
    weight, last = np.square(whole.min() / whole), None
    alone = (errors * weight).sum()
    for power in range(_MOST_POWER + 1):
        unit = whole / 2.0**power
        found = [_best(weights, floor, bits, unit=unit) for weights in layers]
        factors = [np.rint(scale / unit) for scale, _ in found]
        if max(factor.max() for factor in factors) > _MOST_FACTOR or (unit < room).any():
            break
        together = sum((error * weight).sum() for _, error in found)
        last = Scales(unit, factors) if together <= _LITTLE * alone else None
        if together <= _NEXT_TO_NOTHING * alone:
            break
    return last


def _snapped(unit: Array, finest: Array | None, least: Array) -> Array:
    """A unit of which the finest that is added is a whole number, and not too few, as far as it is no finer than that.

    What would take a finer one is less than what rounding weights moves.
    """
    if finest is None:
        return unit
    multiplier = np.maximum(np.rint(finest / unit), _LEAST_MULTIPLIER)
    multiplier = np.where(finest / multiplier < least, np.rint(finest / least), multiplier)
    return np.where(multiplier > 0, finest / np.maximum(multiplier, 1), least)


def _best(
    weights: Array, floor: Array, bits: int, *, uniform: bool = False, unit: Array | None = None
) -> tuple[Array, Array]:
    """The scale `[C]` that a layer by itself loses least with, and the squared error that this leaves, `[C]`.

    As if the largest weight of a channel was no smaller than `floor` `[C]`; whole numbers of a `unit` where one is
    given.
    """
    highest = 1 << (bits - 1)
    largest = abs(weights).max(axis=1, initial=0)
    largest = np.maximum(np.maximum(largest, largest.max(initial=0) * _LEAST_SHARE), floor)
    largest = np.where(largest > 0, largest, 1.0)
    if uniform:
        largest = np.full_like(largest, largest.max())
    tried = largest / (highest * _TRIED[:, np.newaxis] / 128)
    if unit is not None:
        tried = np.maximum(np.rint(tried / unit), 1) * unit
    # Squares of the smallest numbers would be zero.
    errors = _errors(_some(weights / largest.reshape(-1, 1)), tried / largest, bits)
    if uniform:
        errors = np.repeat(errors.sum(axis=1, keepdims=True) / errors.shape[1], errors.shape[1], axis=1)
    best = errors.argmin(axis=0)
    every = np.arange(len(largest))
    left = _errors(weights, tried[best, every][np.newaxis], bits)[0]
    return tried[best, every], np.full_like(left, left.mean()) if uniform else left


def _some(weights: Array) -> Array:
    """Of many weights of a channel some, evenly, and the largest: enough to tell scales apart."""
    step = -(-weights.shape[1] // _MANY)
    if step <= 1:
        return weights
    largest = np.take_along_axis(weights, abs(weights).argmax(axis=1)[:, np.newaxis], axis=1)
    return np.concatenate([weights[:, ::step], largest], axis=1)


def _errors(weights: Array, tried: Array, bits: int) -> Array:
    """The squared error of each scale `[K, C]`, `[K, C]`."""
    errors = np.empty_like(tried)
    rows = max(1, _AT_ONCE // max(1, weights.shape[1]))
    for first in range(0, len(weights), rows):
        part = slice(first, first + rows)
        own = weights[part]
        for index, scale in enumerate(tried[:, part]):
            errors[index, part] = np.square(own - rounded(own, scale, bits) * scale.reshape(-1, 1)).sum(axis=1)
    return errors
