"""What `make gpu` measures, at toy size on the CPU provider: every candidate runs and is what its row says."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from gpu import Form, Provider, groups, network_rows, neuron_rows, resnet34

from pconv_onnx import inspect
from pconv_onnx.graph.record import Record

CPU = Provider("CPUExecutionProvider", "cpu")


@pytest.fixture(scope="module")
def small() -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return tuple(resnet34(activation, size=32, width=4, classes=5) for activation in ("Relu", "QCFS"))


def test_the_network_has_the_layers_of_resnet34(small):
    relu, quantised = small
    for model in small:
        onnx.checker.check_model(model, full_check=True)
        kernels = [node.op_type for node in model.graph.node]
        assert kernels.count("Conv") == 33 + 3  # 3 on the skips
    assert sum(node.op_type == "Relu" for node in relu.graph.node) == 33
    assert inspect(quantised)["counts"] == {"converted": 33, "needs_calibration": 0, "refused": 0}


def test_the_forms_are_what_they_are_called(small):
    whole, *by_steps = groups(*small, [4, 8])
    assert [form.mode for form in whole] == ["ReLU ANN", "QCFS ANN", "folded", "serial step"]
    assert whole[0].model is by_steps[0][0].model is small[0] and whole[1].model is small[1]
    for steps, forms in zip((4, 8), by_steps, strict=True):
        assert [(form.mode, form.precision, form.tf32, form.runs) for form in forms] == [
            ("ReLU ANN", "float32", "off", 1),
            ("serial", "float32", "off", steps), ("serial", "float32", "on", steps),
            ("serial", "float16", "off", steps),
            ("parallel", "float32", "off", 1), ("parallel", "float32", "on", 1), ("parallel", "float16", "off", 1),
        ]  # fmt: skip
        assert {form.steps for form in forms[1:]} == {steps}
    assert len(Record.read(whole[3].model).potentials) == 33
    for form in [whole[2], *by_steps[0][1:], *by_steps[1][1:]]:
        if form.mode == "serial":
            assert len(Record.read(form.model).potentials) == 33
            continue
        neurons = [node for node in form.model.graph.node if node.op_type == "ParallelSpike"]
        tables = {tensor.name: tensor for tensor in form.model.graph.initializer}
        spikes = {attribute.i for node in neurons for attribute in node.attribute if attribute.name == "spikes"}
        assert spikes >= {int(form.mode == "parallel")}
        assert tables[neurons[0].input[1]].dims[1] == (form.steps or 8)
        half = tables[neurons[0].input[1]].data_type == onnx.TensorProto.FLOAT16
        assert half == (form.precision == "float16")


@pytest.mark.usefixtures("library")
def test_the_kernel_is_compared_with_standard_operators_and_pytorch():
    found = list(neuron_rows(CPU, (2, 3, 8, 8), repeats=2))
    assert [row["name"] for row in found] == [
        "ParallelSpike", "standard operators (function body)", "PyTorch, as the paper's authors compute it",
    ]  # fmt: skip
    assert all(row["baseline"] == "ParallelSpike" and row["median_ms"] > 0 for row in found)


def measured(forms, batch=2) -> tuple[list[dict], list[dict]]:
    """Rows, and what was left out."""
    left_out = []
    return list(network_rows(CPU, "small", forms, batch, repeats=1, budget=1, left_out=left_out)), left_out


@pytest.mark.usefixtures("library")
def test_every_form_of_a_network_is_measured_against_the_ann_and_serial_stepping(small):
    whole, four = groups(*small, [4])
    for forms, has_serial in ((whole, False), (four, True)):
        found, left_out = measured(forms)
        assert left_out == []
        assert [{key: row[key] for key in form.description()} for row, form in zip(found, forms, strict=True)] == [
            form.description() for form in forms
        ]
        assert {row["baseline"] for row in found} == {found[0]["name"]} and found[0]["ratio"] == 1
        assert [row["speedup"] for row in found if row["mode"] == "serial"] == [1] * 3 * has_serial
        assert all((row["speedup"] is not None) == has_serial for row in found)
        assert all(row["rounds"] == 1 and row["images_per_s"] == 2 / row["median_ms"] * 1e3 for row in found)


@pytest.mark.usefixtures("library")
def test_a_measurement_is_as_many_runs_as_the_form_says(small, monkeypatch):
    runs = []
    whole, four = groups(*small, [4])
    with_iobinding = onnxruntime.InferenceSession.run_with_iobinding
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "run_with_iobinding",
        lambda self, *arguments: runs.append(self) or with_iobinding(self, *arguments),
    )  # fmt: skip
    measured(four[:2])
    ann, serial = (runs.count(session) for session in dict.fromkeys(runs))
    assert (ann - 5) * 4 == serial - 5  # five of each alone, before they take turns


@pytest.mark.usefixtures("library")
def test_what_does_not_run_is_left_out_with_the_reason(small, monkeypatch):
    whole, _ = groups(*small, [4])
    broken = Form("broken", onnx.ModelProto())
    found, left_out = measured([*whole, broken])
    assert [row["mode"] for row in found] == [form.mode for form in whole]
    assert [entry["mode"] for entry in left_out] == ["broken"] and left_out[0]["reason"]

    def fail(*_, **__):
        raise RuntimeError("out of memory\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    found, left_out = measured(whole)
    assert found == []
    assert len(left_out) == len(whole) and all("out of memory" in entry["reason"] for entry in left_out)
