"""Scales of weights: per output channel the one that rounding to so many bits loses least with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array

# Scales that are tried: the largest weight is so many 128ths of the highest integer. Weights that are integers already
# are among them; above 128 the largest are clipped.
_TRIED = np.arange(64, 161)
# The least multiplier of what is added, so that rounding it moves nothing by more than a weight's own rounding does,
# and the largest, of channels whose weights are next to nothing.
_LEAST_MULTIPLIER, _MOST_MULTIPLIER = 16, 1024
# Into how many parts a unit is divided at most, so that others are whole numbers of them.
_MOST_PARTS = 256
# Of a bias the largest multiple of the unit, and of the weights of the layer the least share that a channel may have.
_MOST_BIAS, _LEAST_SHARE = 1 << 20, 1e-6
# Weights that are looked at at a time.
_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Scales:
    """Of one accumulator, `[C]` each.

    Attributes:
        scale: what a weight of 1 is worth.
        factor: the whole number by which weights are multiplied once they are rounded, so that `unit` is fine enough
            for what is added.
    """

    scale: Array
    factor: Array

    @property
    def unit(self) -> Array:
        """What an integer of the sum is worth."""
        return self.scale / self.factor


def rounded(weights: Array, scale: Array, bits: int) -> Array:
    """Weights `[C, n]` as integers of so many bits, each worth `scale` `[C]`."""
    highest = 1 << (bits - 1)
    return np.clip(np.rint(weights / scale.reshape(-1, 1)), -highest, highest - 1)


def of_weights(
    layers: Sequence[tuple[Array, Array]], added: Sequence[Array], channels: int, bits: int, *, uniform: bool
) -> Scales:
    """The scales of layers that are summed.

    Where something is added that has a unit, the scale is such that the first of these is a whole number of the common
    unit: u = n·s.

    Args:
        layers: weights `[C, n]` for integer inputs, and biases `[C]`.
        added: units `[1]` or `[C]`.
        channels: C.
        bits: of a weight.
        uniform: whether there is one scale for all channels.
    """
    added = [np.broadcast_to(unit, (channels,)) for unit in added]
    highest = 1 << (bits - 1)
    largest = np.max([abs(weights).max(axis=1, initial=0) for weights, _ in layers], axis=0)
    largest = np.maximum(largest, np.max([abs(bias) for _, bias in layers], axis=0) * (highest / _MOST_BIAS))
    finest = np.min(added, axis=0) if added else None
    if finest is not None:
        largest = np.maximum(largest, finest * (highest / _MOST_MULTIPLIER))
    largest = np.maximum(largest, largest.max(initial=0) * _LEAST_SHARE)
    largest = np.where(largest > 0, largest, 1.0)
    if uniform:
        largest = np.full(channels, largest.max())
    tried = largest / (highest * _TRIED[:, np.newaxis] / 128)
    factor = np.ones(channels)
    if finest is not None:
        fine = _LEAST_MULTIPLIER * largest / ((highest - 1) * finest)
        factor = 2.0 ** np.ceil(np.log2(np.maximum(fine, 1)))
        if uniform:
            factor = np.full(channels, factor.max())
            finest = np.full(channels, finest.min())
        tried = factor * finest / np.maximum(np.rint(factor * finest / tried), 1)
    errors = sum(_errors(weights, tried, bits) for weights, _ in layers)
    assert isinstance(errors, np.ndarray)
    if uniform:
        errors = np.repeat(errors.sum(axis=1, keepdims=True), channels, axis=1)
    best = errors.argmin(axis=0)
    return Scales(tried[best, np.arange(channels)], factor)


def of_added(added: Sequence[Array], channels: int, *, uniform: bool, offset: bool) -> Scales:
    """Of a sum without layers: the largest unit of which all that is added are whole numbers, or nearly so.

    Args:
        added: units `[1]` or `[C]`.
        channels: C.
        uniform: whether there is one for all channels.
        offset: whether numbers of no unit are added as well: it is a 64th of a unit then, or less.
    """
    units = np.stack([np.broadcast_to(unit, (channels,)) for unit in added])
    first = np.full(channels, units.min()) if uniform else units.min(axis=0)
    parts = np.arange(64 if offset else 1, _MOST_PARTS + 1)
    exact = parts.reshape(-1, 1, 1) * (units / first)
    errors = (abs(exact - np.rint(exact)) / exact).max(axis=1)
    if uniform:
        errors = np.repeat(errors.max(axis=1, keepdims=True), channels, axis=1)
    # The fewest parts that leave less than a weight's own rounding would, or else those that leave least.
    enough = errors <= 2.0**-10
    best = np.where(enough.any(axis=0), enough.argmax(axis=0), errors.argmin(axis=0))
    return Scales(first, parts[best].astype(np.float64))


def _errors(weights: Array, tried: Array, bits: int) -> Array:
    """Of each scale `[K, C]` the squared error that it leaves, `[K, C]`."""
    errors = np.empty_like(tried)
    rows = max(1, _AT_ONCE // max(1, weights.shape[1]))
    for first in range(0, len(weights), rows):
        part = slice(first, first + rows)
        own = weights[part]
        for index, scale in enumerate(tried[:, part]):
            errors[index, part] = np.square(own - rounded(own, scale, bits) * scale.reshape(-1, 1)).sum(axis=1)
    return errors
