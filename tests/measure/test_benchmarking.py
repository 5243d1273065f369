"""`bench`: every mode is timed on the same feeds, and what cannot be is told in its row, not lost."""

from __future__ import annotations

import json
import os
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight
from refusals import refusal_of

import pconv_onnx.measure.benchmarking
from pconv_onnx import PconvError, bench
from pconv_onnx.cli.main import main
from pconv_onnx.measure import candidate
from pconv_onnx.measure.candidate import ANN, BODY, QUANTISED, Candidate
from pconv_onnx.plan import modes

quick = partial(bench, steps=[2, 4], batches=[3], repeats=2)
PARALLEL, FOLDED, SERIAL = modes.PARALLEL.name, modes.FOLDED.name, modes.SERIAL.name
SPIKING = [BODY, SERIAL, PARALLEL, FOLDED]
KEYS = {
    "model", "mode", "steps", "coding", "batch", "provider", "median_ms", "p10_ms", "p90_ms", "images_per_s",
    "ratio_to_ann", "repetitions", "peak_memory_mib", "error",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_processes(request, monkeypatch):
    """Processes for the memory are started only where that is what is tested."""
    if "memory" not in request.node.name:
        monkeypatch.setattr(Candidate, "peak_memory", lambda *_: None)


def relu() -> onnx.ModelProto:
    return network("c = Conv (x, w) y = Relu (c)", weights={"w": weight(3, 3, 1, 1)})


def measured(summary) -> dict[tuple, dict]:
    """Its rows that were measured."""
    rows = {(row["mode"], row["steps"], row["batch"]): row for row in summary["rows"]}
    return {key: row for key, row in rows.items() if row["repetitions"]}


def test_every_mode_is_measured_at_each_number_of_steps_and_batch_size():
    ann = network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(3, 3, 1, 1)})
    result = bench(ann, steps=[2, 4, 2], batches=[1, 3], repeats=2)
    summary = result.summary()
    assert [(row["batch"], row["mode"], row["steps"]) for row in summary["rows"]] == [
        cell
        for batch in (1, 3)
        for cell in [(batch, ANN, None), *((batch, mode, steps) for steps in (2, 4) for mode in SPIKING)]
    ]
    for row in summary["rows"]:
        assert row.keys() == KEYS
        assert (row["model"], row["provider"]) == ("the model", "cpu")
        # The ANN is in the group of each T.
        assert row["repetitions"] == (4 if row["mode"] == ANN else 2)
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_ms"] * 1e3)
        assert row["ratio_to_ann"] > 0 and row["error"] is None
        assert row["mode"] != ANN or row["ratio_to_ann"] == 1
        assert row["coding"] == (None if row["mode"] == ANN else "rate")
    assert (summary["complete"], summary["stopped"], summary["random_inputs"]) == (True, None, True)
    assert {"quiet", "other_work", "cpu", "onnxruntime", "load_average"} <= summary["machine"].keys()
    json.dumps(summary, allow_nan=False)
    assert "× ANN" in str(result) and "<th>× ANN</th>" in result._repr_html_()


def test_sessions_get_the_samples_that_were_given_and_random_ones_are_not_zeros(small_network, monkeypatch):
    feeds = []
    run = pconv_onnx.measure.benchmarking.run_session
    monkeypatch.setattr(
        pconv_onnx.measure.benchmarking,
        "run_session",
        lambda runner, feed: feeds.append(feed["x"]) or run(runner, feed),
    )
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    quick(small_network, data={"x": x})
    assert all(np.array_equal(feed, x[[0, 1, 0]]) for feed in feeds)
    feeds.clear()
    quick(small_network, batches=[40])
    assert all(feed.shape == (40, 3, 8, 8) and (feed != 0).all() for feed in feeds)


def test_a_ratio_is_of_the_rounds_of_its_own_group(small_network, monkeypatch):
    def rounds(candidates, count):
        groups.append(list(candidates))
        for index in range(count):
            yield {name: (10 if name == PARALLEL else 1) * (index + len(groups)) for name in candidates}

    groups: list[list[str]] = []
    monkeypatch.setattr(pconv_onnx.measure.benchmarking, "rounds", rounds)
    rows = measured(quick(small_network).summary())
    assert len(groups) == 2
    assert [rows[PARALLEL, steps, 3]["ratio_to_ann"] for steps in (2, 4)] == [10, 10]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc here")
def test_the_peak_memory_is_that_of_a_process_that_runs_the_network(small_network):
    peaks = [row["peak_memory_mib"] for row in measured(quick(small_network, steps=[4]).summary()).values()]
    assert len(peaks) >= 4 and all(20 < peak < 2000 for peak in peaks)


def test_a_process_that_fails_leaves_the_memory_unknown(tmp_path):
    assert Candidate(ANN, str(tmp_path / "missing.onnx"), "cpu").peak_memory(["x"], "missing.npz") is None


@pytest.mark.usefixtures("library")
def test_the_function_body_runs_without_the_library(small_network, tmp_path):
    path = tmp_path / "snn.onnx"
    pconv_onnx.rewrite(small_network, path)
    profiles = {}
    for mode in (BODY, PARALLEL):
        with pytest.MonkeyPatch.context() as patch:
            options = onnxruntime.SessionOptions()
            options.enable_profiling = True
            options.profile_file_prefix = str(tmp_path / mode)
            patch.setattr(candidate, "session_options", lambda options=options: options)
            runner = Candidate(mode, str(path), "cpu").open()
        runner.run(None, {"x": np.ones((1, 3, 8, 8), np.float32)})
        profiles[mode] = open(runner.end_profiling()).read()
    kernel = '"op_name" : "ParallelSpike"'
    assert kernel in profiles[PARALLEL] and kernel not in profiles[BODY]


def test_a_relu_network_is_measured_as_quantised_too(tmp_path):
    path = tmp_path / "relu.onnx"
    onnx.save(relu(), path)
    summary = quick(path, calibration="random").summary()
    assert summary["calibration"] == "refit"
    assert [(row["mode"], row["steps"]) for row in summary["rows"]][:2] == [(ANN, None), (QUANTISED, 2)]
    found = measured(summary)
    assert all(found[mode, steps, 3]["model"] == "relu.onnx" for mode in (QUANTISED, PARALLEL) for steps in (2, 4))


def test_without_calibration_a_relu_network_is_refused_as_rewrite_refuses_it():
    told = refusal_of(bench, relu())
    assert told.startswith("nothing to convert in the model: 'y': a ReLU has no levels of its own")
    assert told == refusal_of(pconv_onnx.rewrite, relu())


def test_calibration_data_that_can_be_read_once_serve_at_each_number_of_steps():
    class Reader:
        def __init__(self):
            self.left = [{"x": np.ones((2, 3, 8, 8), np.float32)}]

        def get_next(self):
            return self.left.pop() if self.left else None

    found = measured(quick(relu(), calibration=Reader(), method="max").summary())
    assert {(QUANTISED, 2, 3), (QUANTISED, 4, 3)} <= found.keys()


def test_an_interruption_keeps_what_was_measured(small_network, monkeypatch):
    rounds = pconv_onnx.measure.benchmarking.rounds

    def interrupted(candidates, count):
        for index, seconds in enumerate(rounds(candidates, count)):
            if groups and index == 5:
                raise KeyboardInterrupt
            yield seconds
        groups.append(candidates)

    groups = []
    monkeypatch.setattr(pconv_onnx.measure.benchmarking, "rounds", interrupted)
    result = bench(small_network, steps=[2, 4], batches=[3], repeats=4)
    assert result.interrupted
    summary = result.summary()
    assert (summary["complete"], summary["stopped"]) == (False, "interrupted")
    found = measured(summary)
    assert found[PARALLEL, 2, 3]["repetitions"] == 4 and found[PARALLEL, 4, 3]["repetitions"] == 2


def test_a_full_disk_keeps_what_was_measured(small_network, monkeypatch):
    savez = np.savez

    def full(file, *arrays):
        if len(arrays[0]) == 3:
            raise OSError(28, "No space left on device")
        savez(file, *arrays)

    monkeypatch.setattr(np, "savez", full)
    summary = bench(small_network, steps=4, batches=[1, 3], repeats=1).summary()
    assert (summary["complete"], summary["stopped"]) == (False, "[Errno 28] No space left on device")
    assert {batch for *_, batch in measured(summary)} == {1}


def test_a_mode_that_a_network_cannot_take_is_told_in_its_row(monkeypatch, small_network):
    rewrite = pconv_onnx.measure.request.rewrite

    def picky(source, *, mode, steps, **options):
        if mode == "parallel" and steps == 4:
            raise PconvError("no train carries these levels", "choose folded")
        return rewrite(source, mode=mode, steps=steps, **options)

    monkeypatch.setattr(pconv_onnx.measure.request, "rewrite", picky)
    summary = quick(small_network).summary()
    told = {(row["mode"], row["steps"]): row["error"] for row in summary["rows"] if row["error"]}
    assert told[PARALLEL, 4] == told[BODY, 4] == "no train carries these levels; choose folded"
    assert {(PARALLEL, 2, 3), (FOLDED, 4, 3)} <= measured(summary).keys()
    assert summary["complete"] is True


def test_a_network_that_cannot_be_stepped_is_measured_in_other_modes(small_network):
    summary = quick(small_network).summary()
    told = {row["mode"]: row["error"] for row in summary["rows"] if row["error"]}
    assert told.keys() == {SERIAL} and told[SERIAL] == refusal_of(pconv_onnx.rewrite, small_network, mode="serial")
    assert {(BODY, 2, 3), (PARALLEL, 4, 3), (FOLDED, 4, 3)} <= measured(summary).keys()


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it is there")
def test_a_provider_that_is_not_there_is_told_in_every_row(small_network):
    summary = quick(small_network, provider="cuda").summary()
    assert measured(summary) == {}
    reasons = {row["mode"]: row["error"] for row in summary["rows"]}
    assert reasons[ANN].startswith("this onnxruntime has no provider 'CUDAExecutionProvider'")
    assert reasons[BODY].startswith("onnxruntime's 'CUDAExecutionProvider' is not there")
    assert all(row["provider"] == "cuda" for row in summary["rows"])


def test_a_network_that_breaks_at_one_batch_size_is_measured_at_others():
    ann = network(
        f"{qcfs('x', 'a')} f = Reshape (a, shape) y = MatMul (f, u)",
        outputs="float[M, 5] y",
        weights={"shape": np.array([1, 192]), "u": weight(192, 5)},
    )
    summary = bench(ann, steps=[4], batches=[1, 2], repeats=1).summary()
    assert (ANN, None, 1) in measured(summary) and (ANN, None, 2) not in measured(summary)
    broken = next(row for row in summary["rows"] if (row["mode"], row["batch"]) == (ANN, 2))
    assert broken["error"].startswith("onnxruntime cannot run the model: ")


def test_a_fixed_batch_is_the_one_that_is_measured():
    ann = network(qcfs("x", "y"), inputs="float[4, 3, 8, 8] x", outputs="float[4, 3, 8, 8] y")
    assert {batch for *_, batch in measured(bench(ann, steps=[4], repeats=1).summary())} == {4}
    summary = bench(ann, steps=np.array([4]), batches=np.array([4, 8]), repeats=1).summary()
    json.dumps(summary)
    assert {batch for *_, batch in measured(summary)} == {4}
    assert {row["error"] for row in summary["rows"] if row["batch"] == 8} == {"the model takes batches of 4 only"}


def test_networks_of_several_inputs_and_outputs_and_of_integers_are_measured():
    ann = network(
        f"e = Gather (table, ids) s = Add (e, file) {qcfs('s', 'y')} z = ArgMax <axis = 1> (y)",
        inputs="int64[N, 6] ids, float[N, 6, 3] file",
        outputs="float[N, 6, 3] y, int64[N, 1, 3] z",
        weights={"table": weight(2, 3)},
    )
    assert {(ANN, None, 3), (PARALLEL, 2, 3), (FOLDED, 4, 3)} <= measured(quick(ann).summary()).keys()


def test_a_network_without_a_first_axis_is_told():
    ann = network(f"a = Add (x, k) {qcfs('a', 'y')}", inputs="float k, float[N, 3, 8, 8] x")
    assert "has no known first axis, which samples would run along" in refusal_of(bench, ann)


def test_wrong_arguments_are_told(small_network):
    for batches in (0, [0]):
        assert refusal_of(bench, small_network, batches=batches) == "0 is not a batch size; choose 1 or more"
    assert refusal_of(bench, small_network, repeats=0) == "0 is not a number of rounds; choose 1 or more"
    assert refusal_of(bench, small_network, method="max").startswith("there is no calibration for the method 'max'")
    assert refusal_of(bench, small_network, provider="tpu") == "there is no provider 'tpu'; choose cpu or cuda"
    assert "is not a number of time-steps" in refusal_of(bench, small_network, steps=[0])
    assert refusal_of(bench, small_network, steps=[]).startswith("there is no number of time-steps")
    snn = pconv_onnx.rewrite(small_network).model
    assert "is a spiking network already" in refusal_of(bench, snn)


def command(ann, *arguments) -> list[str]:
    return ["bench", str(ann), "--steps", "2", "--batch", "1", "--repeats", "1", *arguments]


def test_the_command_prints_the_document_or_a_table(ann, capfd):
    assert main(command(ann, "--json")) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert {"machine", "rows", "complete", "threads"} <= json.loads(out).keys()
    assert main(command(ann)) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("ann.onnx on ") and lines[0].endswith("seeded random inputs")
    assert lines[1].split() == "batch mode T median 10 % … 90 % images/s × ANN peak memory".split()
    assert any(line.startswith("1      parallel       2 rate  ") for line in lines)


def test_the_command_says_what_was_not_measured_and_that_the_machine_was_busy(ann, capfd, monkeypatch):
    monkeypatch.setattr(pconv_onnx.measure.timing, "cpu_seconds", iter([(0.0, 0.0, 0.0), (10.0, 9.0, 4.0)]).__next__)
    monkeypatch.setitem(pconv_onnx.measure.benchmarking._REWRITTEN, SERIAL, "no such mode")
    assert main(command(ann)) == 0
    out = capfd.readouterr().out
    assert "\nnot measured: serial at T = 2, batch 1: there is no mode 'no such mode'; choose one of " in out
    assert "\nthe machine was not quiet: other processes took 50.00 % of the CPU time\n" in out


def test_the_command_tells_an_interruption_in_its_status(ann, capfd, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(pconv_onnx.measure.benchmarking, "rounds", interrupted)
    assert main(command(ann)) == 130
    assert capfd.readouterr().out.endswith("\nincomplete: interrupted\n")
    assert main(command(ann, "--json")) == 130
    assert json.loads(capfd.readouterr().out)["complete"] is False


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="it is there")
def test_where_nothing_was_measured_the_status_says_so(ann, capfd):
    assert main(command(ann, "--provider", "cuda")) == 1
    assert "not measured: ANN, batch 1" in capfd.readouterr().out
