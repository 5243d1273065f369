"""What a report tells besides the timings is what the functions of those names find out."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from networks import network, qcfs, weight

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import pconv_onnx  # noqa: E402  # what reports need is an extra
from pconv_onnx import PconvError, bench, rewriting
from pconv_onnx.cli.main import main
from pconv_onnx.measure import benchmarking, gathering
from pconv_onnx.measure.candidate import Candidate  # noqa: E402
from pconv_onnx.report import page

PARTS = ("plan", "evaluation", "statistics", "verification")
X = np.random.default_rng(1).normal(size=(6, 3, 8, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch):
    monkeypatch.setattr(Candidate, "peak_memory", lambda *_: None)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def parts_of(result) -> tuple[dict, bool]:
    return gathering.gather(result.request, result.quantised, result.interrupted)


def gathered(source, **options) -> dict:
    return parts_of(bench(source, steps=[2, 4], batches=[1], repeats=1, **options))[0]


@pytest.mark.usefixtures("library")
def test_each_part_is_what_its_function_finds(small_network):
    labels = np.arange(6) % 5
    found = gathered(small_network, data={"x": X, "labels": labels})
    snn = pconv_onnx.rewrite(small_network)
    assert found["plan"] == snn.summary()
    samples = {"x": X, "labels": labels}
    assert found["evaluation"] == pconv_onnx.evaluate(small_network, samples, steps=[2, 4]).summary()
    folded = pconv_onnx.rewrite(small_network, mode="folded").model
    assert found["statistics"] == pconv_onnx.stats(folded, samples).summary()
    assert found["verification"] == pconv_onnx.verify(small_network, snn.model, samples).summary()


@pytest.mark.usefixtures("library")
def test_a_calibrated_network_is_verified_against_the_quantised_one():
    relu = network("c = Conv (x, w) y = Relu (c)", weights={"w": weight(3, 3, 1, 1)})
    found = gathered(relu, data={"x": X}, calibration={"x": X}, method="max")
    assert (found["plan"]["steps"], found["verification"]["passed"]) == (4, True)
    assert [layer["count_mismatch_rate"] for layer in found["verification"]["layers"]] == [0.0]
    assert [row["steps"] for row in found["evaluation"]["rows"]] == [2, 4]


@pytest.mark.usefixtures("library")
def test_a_network_is_calibrated_once_at_each_number_of_steps(monkeypatch):
    relu = network("c = Conv (x, w) y = Relu (c)", weights={"w": weight(3, 3, 1, 1)})
    samples, options = {"x": X}, {"calibration": {"x": X}, "method": "max"}
    expected = pconv_onnx.evaluate(relu, samples, steps=[2, 4], **options).summary()
    counts = []

    def counted(*arguments, **given):
        counts.append(given["steps"])
        return pconv_onnx.calibrate(*arguments, **given)

    for module in (benchmarking, rewriting):
        monkeypatch.setattr(module, "calibrate", counted)
    assert gathered(relu, data=samples, **options)["evaluation"] == expected
    assert counts == [2, 4]


@pytest.mark.parametrize(("batch", "count"), [("N", 200), (3, 198), (300, 300)])
def test_layers_are_looked_at_on_few_samples_in_whole_batches(batch, count, monkeypatch):
    ann = network(qcfs("x", "y"), inputs=f"float[{batch}, 3, 8, 8] x", outputs=f"float[{batch}, 3, 8, 8] y")
    given = []
    monkeypatch.setattr(gathering, "verify", lambda *arguments, **_: given.append(arguments) or interrupted())
    parts_of(bench(ann, steps=[2], repeats=1, data={"x": np.tile(X, (50, 1, 1, 1))}))
    assert [len(samples) for *_, samples in given] == [count]


@pytest.mark.usefixtures("library")
def test_a_part_that_cannot_be_had_says_why_and_others_are_there(small_network):
    found = gathered(small_network, data={"x": X, "labels": np.full(6, 5)})
    assert found["evaluation"] == {
        "error": "'labels' has 5 at sample 0; the model has 5 classes; number them from 0 to 4"
    }
    assert found["verification"]["passed"]


def test_an_interruption_leaves_out_the_rest(small_network, monkeypatch):
    monkeypatch.setattr(gathering, "evaluate", interrupted)
    result = bench(small_network, steps=[4], batches=[1], repeats=1)
    found, ended = parts_of(result)
    assert "activations" in found["plan"]
    assert [found[part] for part in PARTS[1:]] == [{"error": "interrupted"}] * 3
    assert (ended, result.interrupted) == (True, False)
    result.interrupt()
    assert [part["error"] for part in parts_of(result)[0].values()] == ["interrupted"] * 4


def test_a_report_of_what_was_interrupted_while_it_was_gathered_is_incomplete(small_network, monkeypatch, tmp_path):
    monkeypatch.setattr(gathering, "evaluate", interrupted)
    result = bench(small_network, steps=[4], batches=[1], repeats=1)
    result.write(tmp_path)
    assert (result.interrupted, result.summary()["complete"]) == (True, False)


@pytest.fixture
def command(ann, tmp_path) -> list[str]:
    return ["bench", str(ann), "--steps", "4", "--batch", "1", "--repeats", "1", "-o", str(tmp_path / "report")]


def test_the_command_writes_the_report_and_says_where(command, tmp_path, capfd):
    assert main(command) == 0
    assert capfd.readouterr().out.endswith(f"\n{tmp_path}/report/index.html: the report\n")
    assert {"index.html", "bench.json", "speed.png", "speed.svg"} <= set(os.listdir(tmp_path / "report"))
    assert main([*command, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.pop("output") == f"{tmp_path}/report/index.html"
    assert found == json.loads((tmp_path / "report" / "bench.json").read_text())
    assert set(PARTS) <= found.keys()


def test_what_was_measured_is_printed_where_the_report_cannot_be_written(command, capfd, monkeypatch):
    def full(*_):
        raise PconvError("cannot write 'report': No space left on device", "choose another place with `output=`")

    monkeypatch.setattr(page, "write", full)
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert "1      parallel" in out and "the report" not in out
    assert "pconv-onnx: warning: no report: cannot write 'report': No space left on device; choose another" in err


def test_an_interrupted_command_writes_the_report_too(command, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(gathering, "verify", interrupted)
    assert main(command) == 130
    assert "\nincomplete: interrupted\n" in capfd.readouterr().out
    assert "This report is incomplete: interrupted." in (tmp_path / "report" / "index.html").read_text()


def test_the_place_of_the_report_is_looked_at_before_anything_is_measured(command, tmp_path, capfd, monkeypatch):
    (tmp_path / "report").write_bytes(b"")
    monkeypatch.setattr("pconv_onnx.measure.benchmarking.bench", None)
    assert main(command) == 1
    assert f"'{tmp_path}/report' is no folder for a report" in capfd.readouterr().err
