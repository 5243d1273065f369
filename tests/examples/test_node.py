"""Stock onnxruntime under Node.js runs spiking networks, without the native library, as Python does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from networks import MODES

from pconv_onnx import rewrite

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js"),
    pytest.mark.skipif(
        not (EXAMPLE / "node_modules" / "onnxruntime-node").is_dir(), reason="no onnxruntime-node: make node"
    ),
]


def run(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", EXAMPLE / "run.js", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("mode", MODES)
def test_the_example_network_has_the_classes_that_it_has_in_python(mode, qcfs_resnet, resnet_samples, tmp_path):
    rewrite(qcfs_resnet, tmp_path / "snn.onnx", mode=mode)
    np.save(tmp_path / "images.npy", resnet_samples["image"])
    done = run(tmp_path / "snn.onnx", tmp_path / "images.npy", tmp_path / "logits.npy")
    assert done.returncode == 0, done.stderr
    runner = onnxruntime.InferenceSession(tmp_path / "snn.onnx")
    (expected,) = runner.run(None, {"image": resnet_samples["image"]})
    found = np.load(tmp_path / "logits.npy")
    # Two versions of onnxruntime may round a Conv differently, and a spike then flips.
    print(f"mode {mode}: largest difference {np.abs(found - expected).max():.3g}")
    assert found.shape == expected.shape
    assert list(map(int, done.stdout.split())) == expected.argmax(1).tolist() == found.argmax(1).tolist()


def test_what_cannot_be_read_is_told(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros(3))
    done = run(tmp_path / "snn.onnx", tmp_path / "images.npy")
    assert done.returncode == 1
    assert done.stderr.startswith("run.js: ")
