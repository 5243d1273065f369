"""Rows of channels, and the shapes that they come from."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.calibration.channels import Channels


@pytest.mark.parametrize("axis", [None, 1, 2, 3])
def test_rows_are_channels_and_go_back(axis):
    values = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 5))
    channels = Channels(axis, 4)
    rows = channels.rows(values)
    assert rows.shape == ((1, 120) if axis is None else (values.shape[axis], 120 // values.shape[axis]))
    np.testing.assert_array_equal(channels.back(rows, values.shape), values)
    one_each = np.arange(len(rows), dtype=float)
    shifted = channels.rows(values + channels.along(one_each))
    np.testing.assert_array_equal(shifted, rows + one_each[:, np.newaxis])


@pytest.mark.parametrize("axis", [None, 1, 2])
def test_a_table_is_spread_as_samples(axis):
    table = np.arange(7.0).reshape(1, 7) if axis is None else np.arange(21.0).reshape(3, 7)
    spread = Channels(axis, 3).spread(table)
    assert len(spread) == 7
    np.testing.assert_array_equal(Channels(axis, 3).rows(spread), table)
