"""Every function that takes data refuses what is none in one line, before it is used."""

from __future__ import annotations

import os

import numpy as np
import pytest
from networks import network, weight
from refusals import refusal_of

from pconv_onnx import bench, calibrate, evaluate, rewrite, stats, verify

ANN = network(
    "a = Conv (x, w) r = Relu (a) y = Conv (r, v)",
    inputs="float[N, 3, H, W] x",
    outputs="float[N, 2, H, W] y",
    weights={"w": weight(4, 3, 1, 1), "v": weight(2, 4, 1, 1, seed=1)},
)
X = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
DATA = {"x": X}


@pytest.fixture(scope="module")
def quantised():
    return calibrate(ANN, DATA, steps=4).model


@pytest.fixture(scope="module")
def calls(quantised):
    spiking = rewrite(quantised).model
    return {
        "calibrate": lambda data: calibrate(ANN, data, steps=4),
        "rewrite": lambda data: rewrite(ANN, steps=4, calibration=data),
        "verify": lambda data: verify(quantised, spiking, data),
        "stats": lambda data: stats(spiking, data),
        "evaluate": lambda data: evaluate(quantised, data),
        "evaluate, calibrated": lambda data: evaluate(ANN, DATA, steps=4, calibration=data),
        "bench": lambda data: bench(quantised, steps=4, batches=1, repeats=1, data=data),
        "bench, calibrated": lambda data: bench(ANN, steps=4, batches=1, repeats=1, data=DATA, calibration=data),
    }


FUNCTIONS = [
    "calibrate",
    "rewrite",
    "verify",
    "stats",
    "evaluate",
    "evaluate, calibrated",
    "bench",
    "bench, calibrated",
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "data",
    [
        5,
        [5],
        (X, X, X),
        "a\0b",
        "x" * 5000,
        {"x": 1.5},
        {"x": [[1], [1, 2]]},
        {"x": None},
        {"x": X.astype(complex)},
        {"x": X.astype("M8[s]")},
        {"x": np.zeros(4, "f4, i4")},
        {"x": X[:0]},
        {"x": X[..., :0]},
        {"x": X[:, 0, 0, 0]},
        {1: X},
    ],
    ids=lambda data: repr(data)[:20],
)
def test_what_is_no_data_is_refused(function, data, calls):
    refusal_of(calls[function], data)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_pipe_is_refused_and_not_waited_for(function, calls, tmp_path):
    os.mkfifo(tmp_path / "d.npz")
    assert "it is not a file" in refusal_of(calls[function], tmp_path / "d.npz")
