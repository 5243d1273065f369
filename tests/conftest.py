"""Shared fixtures: the example networks and their data, and a small quantised network with its spiking form."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from pairwise import parametrization
from prepare_images import prepare, read_npz

from pconv_onnx import PconvError, library_path, rewrite
from pconv_onnx.basics import progress

# Tests run side by side: the threads of PyTorch in one process would spin for the cores of another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

EXAMPLE = Path(__file__).parents[1] / "examples" / "resnet20"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run tests marked every_pair with every combination instead")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for mark in metafunc.definition.iter_markers("every_pair"):
        metafunc.parametrize(*parametrization(*mark.args, full=metafunc.config.getoption("full")))


@pytest.fixture(scope="session", autouse=True)
def no_lines_of_progress() -> Iterator[None]:
    """On a busy machine a command may take half a minute, and would say that it works."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_EVERY", 3600.0)
        yield


@pytest.fixture(scope="session")
def library() -> Path:
    """The native library, for tests that mean nothing without it (models then run with a warning)."""
    try:
        return library_path()
    except PconvError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def qcfs_resnet() -> Path:
    return EXAMPLE / "resnet20-qcfs8.onnx"


@pytest.fixture(scope="session")
def relu_resnet() -> Path:
    return EXAMPLE / "resnet20-relu.onnx"


@pytest.fixture(scope="session")
def every_sample() -> dict[str, np.ndarray]:
    """The 1,000 test images as the example networks take them, with their labels."""
    images, labels = read_npz(EXAMPLE / "cifar10-test-1000.npz")
    return {"image": prepare(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW"), "labels": labels}


@pytest.fixture(scope="session")
def resnet_samples(every_sample) -> dict[str, np.ndarray]:
    """The first 100 of them."""
    return {name: values[:100] for name, values in every_sample.items()}


@pytest.fixture(scope="session")
def small_network() -> onnx.ModelProto:
    """Two activations, `a_code` and `b_code`, with max pooling between them, and five logits."""
    nodes = f"""
        c = Conv (x, w) {qcfs("c", "a")}
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        d = Conv (p, v) {qcfs("d", "b")}
        f = Flatten (b)
        y = MatMul (f, u)
    """
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(2, 4, 2, 2, seed=1), "u": weight(8, 5, seed=2)}
    return network(nodes, outputs="float[N, 5] y", weights=weights)


@pytest.fixture
def ann(small_network, tmp_path) -> Path:
    """The small network in a file of its own folder."""
    path = tmp_path / "ann.onnx"
    onnx.save(small_network, path)
    return path


@pytest.fixture
def snn(ann) -> Path:
    """What `rewrite` makes of it."""
    path = ann.with_name("snn.onnx")
    rewrite(ann, path)
    return path
