"""How far staircases of many levels reach: chosen by what reaches the outputs, on samples that were held out.

A staircase that fits its own inputs best (`fit`) serves few levels best. Of many it reaches little farther than the
largest value that a channel has on these samples, and cuts off what others have: of few samples most channels have not
shown much. So others are tried that reach the largest value: of each channel (`channel`), where channels differ enough
to be worth it, and of all (`tensor`), with levels of one size for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.choosing import FITTED
from pconv_onnx.calibration.faults import axes_of
from pconv_onnx.calibration.holding import blocks_of, blocks_within, chosen, evenly
from pconv_onnx.calibration.settings import Settings
from pconv_onnx.calibration.streams import MIXED, Axis
from pconv_onnx.data.samples import Data, Samples, Selection, to_first
from pconv_onnx.graph import Network
from pconv_onnx.runtime.side_by_side import open_session, run_session

# Levels up to which staircases are fitted, whatever reaches the outputs.
_FEW = 32
# Each so many-th sample is held out. Rules are tried on, and judged by, so many of the others and of these at most.
_HELD, _MOST = 4, 300
# Share of the samples held out whose outputs say most: in an empty picture there is nothing to find.
_ACTIVE = 0.25
_LEAST_ACTIVE = 8


def shares(settings: Settings, samples: Data) -> tuple[Selection, Selection] | None:
    """Samples to try rules on, and others that tell which is best; None where there is one rule, or too few samples."""
    if settings.method not in FITTED or settings.levels <= _FEW:
        return None
    blocks = np.arange(blocks_of(samples))
    held, tried = blocks[_HELD - 1 :: _HELD], blocks[blocks % _HELD != _HELD - 1]
    if not len(held):
        return None
    most = blocks_within(samples, _MOST)
    return chosen(samples, evenly(tried, most)), chosen(samples, evenly(held, most))


def output_errors(
    network: Network, models: Mapping[str, onnx.ModelProto], held: Samples, size: int, active: float = _ACTIVE
) -> dict[str, float]:
    """What quantised networks do to the outputs: squared errors as a share of a channel's variance, in the mean.

    Args:
        network: the source.
        models: what was made of it.
        held: samples.
        size: of a batch.
        active: share of the samples that count: those whose outputs are farthest from the mean.

    Returns:
        The mean over channels and over those samples; infinite where one is not finite. Nothing where no output of the
        source can be compared: where samples do not lie along one axis, or values are not finite or all the same.
    """
    axes = comparable(network, held)
    runners = [open_session(model, network.name) for model in (network.proto, *models.values())]

    def runs(names: Sequence[str], chosen: Sequence[Any]) -> Iterator[list[list[Array | None]]]:
        """Batch by batch of each network each output as `[N, C, …]`; None of one that has not so many samples."""
        for part, feed in held.batches(size) if names else ():
            count = part.stop - part.start
            found = [run_session(runner, feed, list(names)) for runner in chosen]
            yield [list(map(_by_channel, values, map(axes.get, names), [count] * len(names))) for values in found]

    spreads = [_Spread() for _ in axes]
    for (values,) in runs(list(axes), runners[:1]):
        for spread, value in zip(spreads, values, strict=True):
            spread.add(value)
    names = [name for name, spread in zip(axes, spreads, strict=True) if spread.usable]
    spreads = [spread for spread in spreads if spread.usable]
    if not names:
        return {}
    activity, errors = [np.zeros(0)], [[np.zeros(0)] for _ in models]
    for reference, *others in runs(names, runners):
        activity.append(np.mean([s.weighed(r, s.mean) for s, r in zip(spreads, reference, strict=True)], axis=0))
        for found, values in zip(errors, others, strict=True):
            off = [s.weighed(v, r) for s, v, r in zip(spreads, values, reference, strict=True) if r is not None]
            found.append(np.mean(off, axis=0))
    order = np.concatenate(activity).argsort()[::-1]
    order = order[: max(round(active * len(order)), _LEAST_ACTIVE)]
    told = (float(np.concatenate(found)[order].mean()) for found in errors)
    return {name: error if np.isfinite(error) else np.inf for name, error in zip(models, told, strict=True)}


class _Spread:
    """Mean and variance of each channel of an output `[N, C, n]`."""

    def __init__(self) -> None:
        self._number, self._total, self._squares = 0, np.zeros(1), np.zeros(1)
        self._finite = True

    def add(self, values: Array | None) -> None:
        """Take in a batch; it has to have as many samples and channels as the others, and finite values."""
        fits = values is not None and (not self._number or values.shape[1] == len(self._total))
        if values is None or not fits or not np.isfinite(values).all():
            self._finite = False
            return
        self._number += len(values)
        self._total = self._total + values.mean(axis=2).sum(axis=0)
        self._squares = self._squares + np.square(values).mean(axis=2).sum(axis=0)

    @property
    def usable(self) -> bool:
        """Whether all values were finite, and some differ."""
        return self._finite and bool(self._number and self._variance.any())

    @property
    def mean(self) -> Array:
        """`[1, C, 1]`."""
        return (self._total / self._number).reshape(1, -1, 1)

    @property
    def _variance(self) -> Array:
        """`[C]`; zero where rounding alone would make one."""
        square = self._squares / self._number
        variance = square - np.square(self.mean.reshape(-1))
        return np.where(variance > 1e-12 * square, variance, 0)

    def weighed(self, values: Array | None, expected: Array) -> Array:
        """`[N]`: squares of the differences as a share of the variance, in the mean over channels that have one.

        Infinite where there is nothing to compare.
        """
        if values is None or (len(expected) > 1 and values.shape != expected.shape):
            return np.full(len(expected), np.inf)
        variance = self._variance
        weights = np.where(variance > 1e-12 * variance.max(), 1 / np.maximum(variance, 1e-300), 0)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((np.square(values - expected).mean(axis=2) * weights).mean(axis=1))


def comparable(network: Network, samples: Samples) -> dict[str, Axis]:
    """Along which axis samples lie in the outputs of float32 that have one of them."""
    outputs = [info.name for info in network.proto.graph.output]
    axes = axes_of(network, [name for name in outputs if network.dtypes.get(name) == np.float32], samples)
    return {name: axis for name, axis in axes.items() if axis not in (None, MIXED)}


def _by_channel(values: Array, axis: int | None, count: int) -> Array | None:
    """An output as `[N, C, n]` in float64; channels are behind the samples."""
    if axis is None or values.ndim <= axis or values.shape[axis] != count or not values.size:
        return None
    values = to_first(values, axis).astype(np.float64)
    return values.reshape(count, values.shape[1] if values.ndim > 2 else values.size // count, -1)
