"""Small tensors are computed for many samples at once, large ones for few."""

import numpy as np
import pytest
from networks import network

from pconv_onnx.calibration import passes
from pconv_onnx.calibration.passes import BATCH, Passes
from pconv_onnx.data.samples import Samples
from pconv_onnx.graph import load


@pytest.mark.parametrize(
    ("largest", "most"), [(0, 100), (1 << 14, 100), (1 << 16, 32), (1 << 21, BATCH), (1 << 30, BATCH)]
)
def test_a_batch_has_as_many_samples_as_their_values_allow(largest, most, monkeypatch):
    monkeypatch.setattr(passes, "sizes_of", lambda *_: {"x": 1, "y": largest})
    samples = Samples({"x": np.zeros((250, 3, 8, 8), np.float32)}, None, None)
    with Passes(load(network("y = Relu (x)")), samples, [slice(0, 250)]) as own:
        list(own.place({"x": 0, "y": 0}))
        (parts,) = map(list, own._batches())
    assert [part.stop - part.start for part in parts[:-1]] == [most] * (len(parts) - 1)
    assert [part.start for part in parts[1:]] == [part.stop for part in parts[:-1]]
    assert (parts[0].start, parts[-1].stop) == (0, 250)
