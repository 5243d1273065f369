"""Rows of normal equations: so many, evenly from all samples, whoever looks at them."""

from __future__ import annotations

import numpy as np

from pconv_onnx.calibration.terms import FOLDS, Terms
from pconv_onnx.data.samples import Samples

X = np.random.default_rng(0).normal(0, 1, (100, 3)).astype(np.float32)


def rows_of(x: np.ndarray, rows: int, unknowns: int, size: int) -> set[tuple[bytes, int, int]]:
    """What is chosen in batches of a size: sample, fold, and number of the row within the sample."""
    terms = Terms(Samples({"x": x}, None, None), len(x))
    found = set()
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        count = len(x[part])
        for fold, chosen in enumerate(terms.of(part, count * rows, unknowns)):
            found |= {(x[start + row // rows].tobytes(), fold, int(row % rows)) for row in chosen}
    return found


def test_neither_order_nor_batches_matter():
    assert rows_of(X, 900, 10, 25) == rows_of(X[::-1], 900, 10, 7)


def test_rows_are_distinct_and_as_many_of_each_sample():
    for rows, unknowns, each in ((900, 10, 164), (900, 100, 256), (900, 4000, 900), (1, 4000, 1)):
        found = rows_of(X, rows, unknowns, 25)
        assert len(found) == 100 * each
        for sample in X:
            assert len({fold for name, fold, _ in found if name == sample.tobytes()}) == 1
    assert {fold for _, fold, _ in found} == set(range(FOLDS))


def test_rows_lie_evenly_and_everywhere():
    found = rows_of(X, 900, 10, 25)
    own = np.sort([row for name, _, row in found if name == X[0].tobytes()])
    assert np.diff(own).max() <= 6
    assert len({row for *_, row in found}) == 900


def test_samples_without_rows_have_none():
    terms = Terms(Samples({"x": X}, None, None), len(X))
    assert [len(chosen) for chosen in terms.of(slice(0, 25), 0, 10)] == [0] * FOLDS
    assert sum(len(chosen) for chosen in terms.of(slice(0, 25), 3, 10)) == 3
