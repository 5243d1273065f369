"""`session`: with the library or without, with the user's options, and every refusal a sentence."""

from __future__ import annotations

import sys
import warnings
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network
from refusals import refusal_of

from pconv_onnx import register, rewrite, session
from pconv_onnx.operators import library as native
from pconv_onnx.operators.domain import OP_TYPE


@pytest.fixture
def sample() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def without_library(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path / "nowhere")


refusal = partial(refusal_of, session)


@pytest.mark.usefixtures("library")
def test_a_path_and_a_model_in_memory_give_the_same(snn, sample):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [session(model).run(None, {"x": sample})[0] for model in (snn, str(snn), onnx.load(snn))]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_without_the_library_the_function_body_gives_the_same(mode, small_network, sample, monkeypatch, tmp_path):
    model = rewrite(small_network, mode=mode).model
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with_kernel = session(model, options=options).run(None, {"x": sample})[0]
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with pytest.warns(UserWarning, match="no native library; models run through their function body") as caught:
        without = session(model, options=options).run(None, {"x": sample})[0]
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(with_kernel, without)


def test_a_library_that_does_not_load_is_told(snn, monkeypatch, tmp_path):
    broken = tmp_path / native.LIBRARY_NAME
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
    told = refusal(snn)
    assert told.startswith(f"onnxruntime cannot load {broken}: ")
    assert told.endswith("; reinstall pconv-onnx on this machine")


@pytest.mark.parametrize("provider", ["NoSuchExecutionProvider", ("NoSuchExecutionProvider", {"device_id": 0})])
def test_an_unknown_provider_is_told(provider, snn):
    told = refusal(snn, providers=["CPUExecutionProvider", provider])
    assert told.startswith("this onnxruntime has no provider 'NoSuchExecutionProvider'; it has ")
    assert "CPUExecutionProvider" in told


def test_providers_are_used(snn, sample):
    runner = session(snn, providers=[("CPUExecutionProvider", {})])
    assert runner.get_providers() == ["CPUExecutionProvider"]
    assert runner.run(None, {"x": sample})[0].shape == (3, 5)


def test_the_users_options_are_used(snn, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runner = session(snn, options=options)
    kept = runner.get_session_options()
    assert kept.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert (tmp_path / "optimised.onnx").exists()


@pytest.mark.usefixtures("library")
def test_options_serve_several_sessions_and_may_have_the_library_already(snn, sample):
    options = register(register(onnxruntime.SessionOptions()))
    first, second = (session(snn, options=options).run(None, {"x": sample})[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.usefixtures("library")
def test_a_failed_registration_is_not_taken_for_one(snn, monkeypatch, tmp_path, sample):
    options = onnxruntime.SessionOptions()
    (tmp_path / native.LIBRARY_NAME).write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
        refusal(snn, options=options)
    model = onnx.load(snn)
    model.functions.remove(next(function for function in model.functions if function.name == OP_TYPE))
    assert session(model, options=options).run(None, {"x": sample})[0].shape == (3, 5)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_file_that_is_no_model_is_told(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    assert refusal(tmp_path / "m.onnx").startswith(f"onnxruntime cannot load '{tmp_path}/m.onnx': ")


def test_a_missing_file_is_told(tmp_path):
    told = refusal(tmp_path / "none.onnx")
    assert told.startswith(f"onnxruntime cannot load '{tmp_path}/none.onnx': ")
    assert "exist" in told


def test_a_model_that_onnxruntime_refuses_is_told(without_library):
    nodes = "b = Cast <to = 16> (x) y = Floor (b)"
    model = network(nodes, inputs="float[N, 3] x", outputs="bfloat16[N, 3] y")
    with pytest.warns(UserWarning):
        assert refusal(model).startswith("onnxruntime cannot load the model: ")


def test_a_missing_onnxruntime_is_told(snn, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    told = refusal(snn)
    assert told.startswith("onnxruntime cannot be imported: ")
    assert told.endswith("pip install 'pconv-onnx[cpu]', or 'pconv-onnx[gpu]'")


@pytest.mark.parametrize("name", ["model.json", "model.onnxtxt", "model.textproto", "model"])
def test_a_model_is_read_as_onnxruntime_reads_it_whatever_its_name_ends_in(snn, sample, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(snn.read_bytes())
    np.testing.assert_array_equal(session(path).run(None, {"x": sample})[0], session(snn).run(None, {"x": sample})[0])
    path.write_bytes(b"{")
    assert refusal_of(session, path).startswith(f"onnxruntime cannot load '{path}'")
