"""Which rows of a layer's outputs its normal equations are of: as many as its unknowns need, from every sample alike.

A picture gives thousands of rows, which say much the same. Which of them are taken, and which part of the data a sample
belongs to, follows from what it holds: neither its place nor its neighbours matter.
"""

from __future__ import annotations

import zlib

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.data.samples import Samples

# Parts of the data, each to be served by what the others say.
FOLDS = 2
# Rows of all samples: so many for each unknown of an output, and no fewer than that.
_PER_UNKNOWN, _LEAST = 256, 16384


class Terms:
    """Rows of some samples."""

    def __init__(self, samples: Samples, total: int) -> None:
        """Look at these samples, of so many in all."""
        digests = np.zeros(len(samples), np.uint32)
        for index in range(len(samples)):
            for name in sorted(samples.arrays):
                digests[index] = zlib.crc32(np.ascontiguousarray(samples.arrays[name][index]).data, digests[index])
        self._folds, self._starts, self._total = digests % FOLDS, digests // FOLDS, total

    def of(self, part: slice, rows: int, unknowns: int) -> list[Array]:
        """Numbers of the rows of each fold.

        Args:
            part: samples, one after another.
            rows: how many all these have; each has as many as any other.
            unknowns: of an output.
        """
        folds, starts = self._folds[part], self._starts[part]
        most = -(-max(_PER_UNKNOWN * unknowns, _LEAST) // self._total)
        ends = np.arange(len(folds) + 1) * rows // len(folds)
        own = [
            first + _evenly(end - first, most, int(start))
            for first, end, start in zip(ends[:-1], ends[1:], starts, strict=True)
        ]
        nothing = np.zeros(0, np.int64)
        return [
            np.concatenate([nothing, *(taken for taken, of in zip(own, folds, strict=True) if of == fold)])
            for fold in range(FOLDS)
        ]


def _evenly(rows: int, most: int, start: int) -> Array:
    """Up to so many of 0 … rows − 1, evenly far apart, from one of them on and around the end."""
    count = min(rows, most)
    return (start + np.arange(count) * rows // max(count, 1)) % max(rows, 1)
