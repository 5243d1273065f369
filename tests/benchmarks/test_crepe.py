"""CREPE as ONNX."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from real import tones

torch = pytest.importorskip("torch")
from real.crepe import Crepe, export  # noqa: E402  # needs torch


@pytest.mark.slow
def test_what_is_exported_gives_what_the_network_of_these_weights_gives(tmp_path):
    torch.manual_seed(0)
    network = Crepe().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    export(tmp_path / "crepe.onnx", tmp_path / "weights.pth")
    frames, _ = tones.frames(3, seed=0)
    (found,) = onnxruntime.InferenceSession(tmp_path / "crepe.onnx").run(None, {"frame": frames})
    with torch.no_grad():
        expected = network(torch.from_numpy(frames)).numpy()
    assert found.shape == (3, 360)
    np.testing.assert_allclose(found, expected, atol=1e-5)
