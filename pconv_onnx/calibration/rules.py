"""How far staircases of many levels reach: chosen by what reaches the outputs, on samples that were held out.

A staircase that fits its own inputs best (`fit`) serves few levels best. Of many it reaches little farther than the
largest value that a channel has on these samples, and cuts off what others have: of few samples most channels have not
shown much. So another rule is tried (`tensor`): one scale for all channels, which reaches their largest value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.choosing import FITTED
from pconv_onnx.calibration.faults import axes_of
from pconv_onnx.calibration.settings import Settings
from pconv_onnx.data.samples import Data, Samples, Selection, to_first
from pconv_onnx.graph import Network
from pconv_onnx.runtime.side_by_side import open_session, run_session

# Levels up to which staircases are fitted, whatever reaches the outputs.
_FEW = 32
# Each so many-th sample is held out. Rules are tried on, and judged by, so many of the others and of these at most,
# with so many values among their inputs.
_HELD = 4
_MOST, _MOST_VALUES = 300, 1 << 24
# Share of the samples held out whose outputs say most: in an empty picture there is nothing to find.
_ACTIVE = 0.25
_LEAST_ACTIVE = 8


def shares(settings: Settings, samples: Data) -> tuple[Selection, Selection] | None:
    """Samples to try rules on, and others that tell which is best; None where there is one rule, or too few samples."""
    if settings.method not in FITTED or settings.levels <= _FEW:
        return None
    block = samples.fixed_batch or 1
    values = sum(array.size for array in samples.part(slice(0, block)).arrays.values())
    most = max(min(_MOST // block, _MOST_VALUES // max(values, 1)), 1)
    blocks = np.arange(len(samples) // block)
    held, tried = blocks[_HELD - 1 :: _HELD], blocks[blocks % _HELD != _HELD - 1]
    if not len(held):
        return None
    # Evenly chosen: data may be in some order.
    few = (some[np.linspace(0, len(some) - 1, min(most, len(some))).astype(int)] for some in (tried, held))
    rows = ((chosen[:, np.newaxis] * block + np.arange(block)).reshape(-1) for chosen in few)
    return Selection(samples, next(rows)), Selection(samples, next(rows))


def output_errors(
    network: Network, models: Mapping[str, onnx.ModelProto], held: Samples, size: int
) -> dict[str, float]:
    """What quantised networks do to the outputs: squared errors as a share of a channel's variance, in the mean.

    Args:
        network: the source.
        models: what was made of it.
        held: samples.
        size: of a batch.

    Returns:
        The mean over channels and over those samples whose outputs are farthest from the mean; infinite where one is
        not finite.
    """
    outputs = [info.name for info in network.proto.graph.output]
    axes = {name: axis for name, axis in axes_of_floats(network, outputs, held).items() if axis is not None}
    if not axes:
        return dict.fromkeys(models, 0.0)
    names = list(axes)
    runners = [open_session(model, network.name) for model in (network.proto, *models.values())]

    def runs(chosen: Sequence[int]) -> Iterator[list[list[Array]]]:
        """Batch by batch of each network each output as `[N, C, …]`."""
        for part, feed in held.batches(size):
            count = part.stop - part.start
            found = [run_session(runners[index], feed, names) for index in chosen]
            yield [[_by_channel(value, axes[name], count) for name, value in zip(names, values, strict=True)]
                   for values in found]  # fmt: skip

    number, totals, squares = 0, [0.0] * len(names), [0.0] * len(names)
    for (values,) in runs([0]):
        number += len(values[0])
        totals = [total + value.sum(axis=(0, 2)) / value.shape[2] for total, value in zip(totals, values, strict=True)]
        squares = [
            total + np.square(value).sum(axis=(0, 2)) / value.shape[2]
            for total, value in zip(squares, values, strict=True)
        ]
    means = [np.asarray(total) / max(number, 1) for total in totals]
    spread = [np.maximum(np.asarray(s) / max(number, 1) - m * m, 0) for s, m in zip(squares, means, strict=True)]
    weights = [np.where(v > 1e-12 * v.max(initial=0), 1 / np.maximum(v, 1e-300), 0) for v in spread]
    activity: list[Array] = []
    errors: list[list[Array]] = [[] for _ in models]
    for reference, *others in runs(range(len(runners))):
        centred = [value - mean.reshape(1, -1, 1) for value, mean in zip(reference, means, strict=True)]
        activity.append(_weighed(centred, weights))
        for found, values in zip(errors, others, strict=True):
            found.append(_weighed([a - b for a, b in zip(values, reference, strict=True)], weights))
    active = np.concatenate(activity).argsort()[::-1]
    active = active[: max(round(_ACTIVE * len(active)), _LEAST_ACTIVE)]
    told = (float(np.concatenate(found)[active].mean()) for found in errors)
    return {name: error if np.isfinite(error) else np.inf for name, error in zip(models, told, strict=True)}


def axes_of_floats(network: Network, names: Sequence[str], samples: Samples) -> dict[str, int | None]:
    """Along which axis of float32 tensors samples lie."""
    return axes_of(network, [name for name in names if network.dtypes.get(name) == np.float32], samples)


def _by_channel(values: Array, axis: int, count: int) -> Array:
    """An output as `[N, C, n]` in float64; channels are behind the samples."""
    values = to_first(values, axis).astype(np.float64)
    channels = values.shape[1] if values.ndim > 2 else values.size // max(count, 1)
    return values.reshape(count, channels, -1)


def _weighed(values: Sequence[Array], weights: Sequence[Array]) -> Array:
    """`[N]`: the mean of weighed squares over channels and outputs."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.mean([(np.square(v).mean(axis=2) * w).mean(axis=1) for v, w in zip(values, weights, strict=True)], 0)
