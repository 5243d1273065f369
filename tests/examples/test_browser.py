"""onnxruntime-web runs spiking networks, in headless Chromium and in Node.js, with the classes of Python."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import onnxruntime
import pytest

from pconv_onnx import rewrite

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples" / "browser"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PAGE / "node_modules" / "onnxruntime-web").is_dir(), reason="no onnxruntime-web: make browser"
    ),
]


@pytest.fixture(scope="module")
def benchmark():
    """The script that measures the page knows how to run it."""
    sys.path.append(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("browser", ROOT / "benchmarks" / "browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("place", ["chromium", "node"])
@pytest.mark.parametrize("mode", ["parallel", "integer"])
def test_the_example_network_has_the_classes_of_python(place, mode, benchmark, qcfs_resnet, resnet_samples, tmp_path):
    if shutil.which(place) is None:
        pytest.skip(f"no {place}")
    folder, images = tmp_path / "page", resnet_samples["image"][:10]
    shutil.copytree(PAGE, folder)
    rewrite(qcfs_resnet, folder / "snn.onnx", mode=mode, **benchmark.MODES[mode])
    images.tofile(folder / "images.raw")
    answer = {"chromium": benchmark.in_chromium, "node": benchmark.in_node}[place](folder)
    expected = onnxruntime.InferenceSession(folder / "snn.onnx").run(None, {"image": images})[0].argmax(axis=1)
    assert answer["top1"] == list(expected)
