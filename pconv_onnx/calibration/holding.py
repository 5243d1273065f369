"""Samples that are set apart from others: evenly chosen, in whole batches where the model insists on a size."""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.data.samples import Data, Selection

# Values among the inputs of samples that are set apart, at most: they are in memory at once.
_MOST_VALUES = 1 << 24
# Samples that tell what reaches the outputs: one of so many, but neither fewer nor more than these. A sweep keeps
# three quarters of the data, or nothing is held out.
_EVERY, _LEAST, _MOST = 10, 8, 100
_LARGEST_SHARE = 4


def blocks_of(samples: Data) -> int:
    """How many batches of the model's own size there are; where it has none, samples."""
    return len(samples) // (samples.fixed_batch or 1)


def blocks_within(samples: Data, most: int) -> int:
    """How many of them have at most so many samples, and fit in memory; at least one."""
    block = samples.fixed_batch or 1
    values = sum(array.size for array in samples.part(slice(0, block)).arrays.values())
    return max(min(most // block, _MOST_VALUES // max(values, 1)), 1)


def chosen(samples: Data, blocks: Array) -> Selection:
    """The samples in blocks of these numbers, which ascend."""
    block = samples.fixed_batch or 1
    return Selection(samples, (blocks[:, np.newaxis] * block + np.arange(block)).reshape(-1))


def evenly(blocks: Array, most: int) -> Array:
    """At most so many of them, from all of the data, which may be in some order."""
    return blocks[np.linspace(0, len(blocks) - 1, min(most, len(blocks))).astype(int)]


def few(samples: Data, most: int) -> Selection:
    """At most so many samples."""
    return chosen(samples, evenly(np.arange(blocks_of(samples)), blocks_within(samples, most)))


def held_out(samples: Data) -> tuple[Selection, Selection] | None:
    """Samples to calibrate on, and others that tell what that did; None where there are too few for both."""
    total = blocks_of(samples)
    wanted = min(max(len(samples) // _EVERY, _LEAST), _MOST)
    count = min(-(-wanted // (samples.fixed_batch or 1)), blocks_within(samples, _MOST))
    if count * _LARGEST_SHARE > total:
        return None
    # The middles of as many equal parts.
    held = (2 * np.arange(count) + 1) * total // (2 * count)
    return chosen(samples, np.delete(np.arange(total), held)), chosen(samples, held)
