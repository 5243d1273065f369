"""Runs in fixed memory: what needs no GPU is tested on the CPU's memory, the refusals as users meet them."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import onnxruntime
import pytest
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import SerialSession, rewrite, session
from pconv_onnx.operators import library as native
from pconv_onnx.runtime import cuda_graph, opening
from pconv_onnx.runtime.cuda_graph import GraphSession, capturing
from pconv_onnx.runtime.device_memory import CUDA

BATCH = 3

refusal = partial(refusal_of, partial(session, cuda_graph=True))


@pytest.fixture
def fixed() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("N", BATCH)
    return options


@pytest.fixture
def graph(snn, fixed) -> GraphSession:
    return GraphSession(session(snn, options=fixed))


def sample(seed: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(BATCH, 3, 8, 8)).astype(np.float32)}


def test_runs_give_what_those_of_a_session_give(graph, snn):
    plain = session(snn)
    kept = graph.run(None, sample(0))
    for seed in (1, 2):
        np.testing.assert_array_equal(graph.run(["y"], sample(seed)), plain.run(["y"], sample(seed)))
    # What was given out is no view of the memory that later runs write.
    np.testing.assert_array_equal(kept, plain.run(None, sample(0)))


def test_a_replay_reads_the_inputs_and_writes_the_outputs_where_they_lie(graph, snn):
    graph.inputs["x"].update_inplace(sample(3)["x"])
    graph.replay()
    np.testing.assert_array_equal(graph.outputs["y"].numpy(), session(snn).run(None, sample(3))[0])


@pytest.mark.parametrize(
    "feed, told",
    [
        ({}, "input 'x' is missing; the CUDA graph takes float32[3, 3, 8, 8]"),
        ({"x": np.zeros((2, 3, 8, 8), np.float32)}, "input 'x' is float32[2, 3, 8, 8]; the CUDA graph takes"),
        ({"x": np.zeros((3, 3, 8, 8))}, "input 'x' is float64[3, 3, 8, 8]; the CUDA graph takes"),
    ],
)
def test_another_input_than_the_graph_has_is_told(graph, feed, told):
    assert refusal_of(partial(graph.run, None), feed).startswith(told)


def test_an_output_that_is_not_there_is_told(graph):
    assert refusal_of(graph.run, ["y", "z"], sample(0)) == "there is no output 'z'; the network has y"


def test_an_open_shape_is_told(snn):
    told = refusal_of(GraphSession, session(snn))
    assert told.startswith("input 'x' has an open dimension, which a CUDA graph cannot have; ")
    assert "add_free_dimension_override_by_name('N', 1)" in told


def test_the_provider_of_another_device_is_told(snn):
    told = refusal(snn, providers=["CPUExecutionProvider"])
    assert told == "a CUDA graph needs the CUDA provider; providers=['CUDAExecutionProvider']"


def test_the_users_options_of_the_provider_stay():
    given = [(CUDA, {"device_id": 1}), "CPUExecutionProvider"]
    assert capturing(given) == [(CUDA, {"device_id": 1, "enable_cuda_graph": "1"}), ("CPUExecutionProvider", {})]


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has the provider")
def test_an_onnxruntime_without_the_provider_is_told(snn):
    assert refusal(snn).startswith(f"this onnxruntime has no provider '{CUDA}'; it has ")


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("cuda_graph, providers", [(True, [CUDA, "CPUExecutionProvider"]), (False, [CUDA])])
def test_a_provider_that_does_not_start_is_told(snn, monkeypatch, cuda_graph, providers):
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *positional, providers: make(*positional))
    told = refusal_of(partial(session, cuda_graph=cuda_graph), snn, providers=providers)
    assert told == f"onnxruntime's '{CUDA}' does not start on this machine; onnxruntime has logged why"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_cpu_stands_in_where_it_is_named(snn, monkeypatch):
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *positional, providers: make(*positional))
    runner = session(snn, providers=[CUDA, "CPUExecutionProvider"])
    assert "CPUExecutionProvider" in runner.get_providers()


@pytest.mark.usefixtures("library")
@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("built_in", [True, False])
def test_a_library_without_cuda_kernels_is_left_out_of_cuda_sessions(snn, monkeypatch, built_in):
    make = onnxruntime.InferenceSession
    registered = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *positional, providers: make(*positional))
    monkeypatch.setattr(opening, "has_cuda_kernels", lambda: built_in)
    monkeypatch.setattr(opening, "register", registered.append)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session(snn, providers=[CUDA, "CPUExecutionProvider"])
    told = any("the native library has no CUDA kernels" in str(warning.message) for warning in caught)
    assert (bool(registered), told) == (built_in, not built_in)


@pytest.mark.usefixtures("library")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_library_that_may_have_no_cuda_kernels_is_left_out_of_cuda_sessions_alone(snn, monkeypatch, tmp_path):
    (tmp_path / native.LIBRARY_NAME).symlink_to(native.library_path())
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session(snn)
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *positional, providers: make(*positional))
    monkeypatch.setattr(opening, "register", lambda options: pytest.fail("registered"))
    with pytest.warns(UserWarning, match="pconv_ops.json' is missing or damaged: .* run through their function body"):
        session(snn, providers=[CUDA, "CPUExecutionProvider"])


def test_a_replay_of_a_serial_network_is_a_time_step(fixed):
    nodes = "c = Conv <pads = [1, 1, 1, 1]> (x, w)" + qcfs("c", "y")
    model = rewrite(network(nodes, weights={"w": weight(3, 3, 3, 3)}), mode="serial").model
    graph = GraphSession(session(model, options=fixed))
    expected = SerialSession(model).run_per_step(None, sample(4), steps=5)[0]
    graph.inputs["x"].update_inplace(sample(4)["x"])
    for name in graph.inputs.keys() - {"x"}:
        graph.inputs[name].update_inplace(np.zeros((BATCH, 3, 8, 8), np.float32))
    for output in expected:
        graph.replay()
        np.testing.assert_array_equal(graph.outputs["y"].numpy(), output)


def test_potentials_are_those_of_the_record_or_none():
    metadata = {
        entry.key: entry.value for entry in rewrite(network(qcfs("x", "y")), mode="serial").model.metadata_props
    }
    assert list(cuda_graph._potentials(metadata).items()) == [("y_code/potential", "y_code/new_potential")]
    assert cuda_graph._potentials({"author": "somebody"}) == {}
    told = refusal_of(cuda_graph._potentials, metadata | {"pconv_onnx.potentials": "[]"})
    assert told == "the record of the model is not as rewrite wrote it; rewrite the model again"
