"""A calibration in a file: taken as `calibrate` wrote it, and refused in one line as anyone else may have."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from networks import network, weight
from refusals import refusal_of

from pconv_onnx import calibrate
from pconv_onnx.calibration import cache

WEIGHTS = {"w": weight(4, 3, 1, 1), "v": weight(2, 4, 1, 1, seed=1)}
MODEL = network(
    "a = Conv (x, w) r = Relu (a) y = Conv (r, v)",
    inputs="float[N, 3, 4, 4] x",
    outputs="float[N, 2, 4, 4] y",
    weights=WEIGHTS,
)
DATA = {"x": np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "kept.npz"
    calibrate(MODEL, DATA, steps=4, cache=path)
    with np.load(path) as arrays:
        return dict(arrays)


def told_of(arrays, meta, folder) -> str:
    """What is told of a file with a digest that is right."""
    arrays = {name: array for name, array in arrays.items() if name != "meta"}
    meta = {key: value for key, value in meta.items() if key != "sha256"}
    meta["sha256"] = cache._digest(meta, arrays)
    path = folder / "kept.npz"
    np.savez(path, meta=json.dumps(meta), **arrays)
    told = refusal_of(calibrate, MODEL, DATA, steps=4, cache=path)
    assert told.startswith(f"'{path}' is not a calibration: ")
    return told


@pytest.mark.parametrize(
    "changes",
    [
        {"activations": 5},
        {"activations": [[1]]},
        {"activations": [["r", 1, 4, 4, 0], ["r", 1, 4, 4, 0]]},
        {"activations": [["no such", 1, 4, 4, 0]]},
        {"activations": [["r", 1, 4, 10**9, 0]]},
        {"activations": [["r", 1, 10**9, 4, 0]]},
        {"activations": [["r", 4, 4, 4, 0]]},
        {"activations": [["r", "1", 4, 4, 0]]},
        {"activations": [["r", 1, 4, 4, 4]]},
        {"activations": [["r", 1, 4, 4, -1]]},
        {"activations": [["r", 1, 4, 4, None]]},
        {"activations": [[["r"], 1, 4, 4, 0]]},
        {"errors": []},
        {"errors": ["x"]},
        {"left": [["r"]]},
        {"left": {"r": 5}},
        {"uncorrected": [1]},
        {"layers": ["a", "b", "c"]},
        {"layers": [{}]},
        {"finished": 1},
    ],
)
def test_what_was_found_and_does_not_fit_is_refused(changes, written, tmp_path):
    meta = json.loads(str(written["meta"]))
    told_of(written, meta | {"sweeps": {"result": meta["sweeps"]["result"] | changes}}, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"sweeps": 5},
        {"sweeps": {"result": 5}},
        {"sweeps": {"result": {}}},
        {"sweeps": {"other": {}}},
        {"outcome": 5},
        {"outcome": {"samples": 8}},
        {"outcome": {"samples": 8, "held_out": 1, "agreement": None, "output_error": None, "cosine": None}},
        {"outcome": {"samples": 8, "held_out": True, "agreement": "x", "output_error": None, "cosine": None}},
    ],
)
def test_a_document_that_does_not_fit_is_refused(changes, written, tmp_path):
    told_of(written, json.loads(str(written["meta"])) | changes, tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("activation/0/threshold", np.float64(1)),
        ("activation/0/threshold", np.ones((4, 4))),
        ("activation/0/threshold", np.ones(0)),
        ("activation/0/shift", np.ones(3)),
        ("activation/0/amplitude", np.ones(4, "<U3")),
        ("activation/0/offset", np.ones((4, 1))),
        ("activation/0/thresholds", np.ones((4, 5))),
        ("layer/0/weights", np.float32(1)),
        ("layer/0/weights", np.ones((4, 3, 1, 1), "<M8[s]").view("<i8")),
        ("layer/0/bias", np.ones((4, 4), np.float32)),
    ],
)
def test_an_array_that_does_not_fit_is_refused(name, array, written, tmp_path):
    told_of(written | {f"result/{name}": np.asarray(array)}, json.loads(str(written["meta"])), tmp_path)


@pytest.mark.parametrize("name", ["activation/0/threshold", "layer/0/bias"])
def test_an_array_that_is_missing_is_told(name, written, tmp_path):
    arrays = {key: value for key, value in written.items() if key != f"result/{name}"}
    assert "calibrate has not written it" in told_of(arrays, json.loads(str(written["meta"])), tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "NaN", "{", '"x"'])
def test_a_document_that_is_none_is_refused(text, tmp_path):
    np.savez(tmp_path / "kept.npz", meta=text)
    assert "is not a calibration" in refusal_of(cache.restore, tmp_path / "kept.npz", "key", [])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "kept.npz")
    assert "it is not a file" in refusal_of(cache.restore, tmp_path / "kept.npz", "key", [])
