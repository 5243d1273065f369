"""What `make gpu` measures, at toy size on the CPU provider: every candidate runs and is what its row says."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from gpu import Provider, network_rows, neuron_rows, resnet34, spiking_forms

from pconv_onnx import inspect
from pconv_onnx.provenance import potentials, recorded

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
    forms = list(spiking_forms(small[1], [4, 8]))
    per_step = [("parallel", "float32"), ("parallel", "float16"), ("serial", "float32")]
    assert [(what["mode"], what["steps"], what["precision"]) for what, _ in forms] == [
        *((mode, steps, precision) for steps in (4, 8) for mode, precision in per_step),
        ("folded", 8, "float32"),
    ]
    for what, model in forms:
        if what["mode"] == "serial":
            assert len(potentials(recorded(model))) == 33
            continue
        neurons = [node for node in model.graph.node if node.op_type == "ParallelSpike"]
        tables = {tensor.name: tensor for tensor in model.graph.initializer}
        spikes = {attribute.i for node in neurons for attribute in node.attribute if attribute.name == "spikes"}
        assert spikes >= {int(what["mode"] == "parallel")}
        assert tables[neurons[0].input[1]].dims[1] == what["steps"]
        half = tables[neurons[0].input[1]].data_type == onnx.TensorProto.FLOAT16
        assert half == (what["precision"] == "float16")


@pytest.mark.usefixtures("library")
def test_the_kernel_is_compared_with_standard_operators_and_pytorch():
    found = list(neuron_rows(CPU, (2, 3, 8, 8), repeats=2))
    assert [row["name"] for row in found] == [
        "ParallelSpike", "standard operators (function body)", "PyTorch, T × N comparisons",
    ]  # fmt: skip
    assert all(row["baseline"] == "ParallelSpike" and row["median_ms"] > 0 for row in found)


@pytest.mark.usefixtures("library")
def test_every_form_of_a_network_is_measured_against_the_ann(small):
    left_out = []
    sizes = {"batches": (1, 2), "steps": (4,), "repeats": 1}
    found = list(network_rows(CPU, "small", *small, **sizes, left_out=left_out))
    assert left_out == []
    cells = [(row["batch"], row["mode"], row["steps"], row["precision"]) for row in found]
    forms = [("QCFS ANN", None, "float32"), ("parallel", 4, "float32"), ("parallel", 4, "float16"),
             ("serial", 4, "float32"), ("folded", 8, "float32")]  # fmt: skip
    assert cells == [(batch, *form) for batch in (1, 2) for form in forms]
    assert all(row["ratio"] > 0 and row["baseline"] == "ReLU ANN" for row in found)


@pytest.mark.usefixtures("library")
def test_what_does_not_run_is_left_out_with_the_reason(small, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    left_out = []
    sizes = {"batches": (1,), "steps": (4,), "repeats": 1}
    assert list(network_rows(CPU, "small", *small, **sizes, left_out=left_out)) == []
    assert len(left_out) == 5 and all("out of memory" in entry["reason"] for entry in left_out)
