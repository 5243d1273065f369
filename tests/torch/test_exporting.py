"""PyTorch to ONNX by both exporters, and on to spikes."""

from __future__ import annotations

import os
import warnings

import numpy as np
import onnx
import pytest
import torch
from models import Residual
from refusals import refusal_of
from torch import nn

import pconv_onnx
from pconv_onnx.torch import QCFS, export, replace_relu

EXPORTERS = ("dynamo", "torchscript")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A residual network whose QCFS have their thresholds, some of them equal: exporters merge equal constants."""
    torch.manual_seed(0)
    model, _ = replace_relu(Residual(), 4)
    model(torch.randn(64, 3, 8, 8))
    model.layer1[0].relu.threshold.data.fill_(1.25)
    model.layer1[1].relu.threshold.data.fill_(1.25)
    model.act.threshold.data.fill_(4.0)  # as many as it has levels
    return model.eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((50, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module", params=EXPORTERS)
def exported(request, model, tmp_path_factory):
    """The file of an exporter from an example of one image, and what export said."""
    path = tmp_path_factory.mktemp(request.param) / "ann.onnx"
    return path, export(model, torch.zeros(1, 3, 8, 8), path, exporter=request.param, output_names=["logits"])


def small(**options) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), QCFS(4, 1.5, **options), nn.Linear(4, 2)).eval()


def test_every_qcfs_is_recognised_under_its_path(exported):
    path, summary = exported
    assert summary == pconv_onnx.inspect(path)
    assert [row["name"] for row in summary["activations"]] == list(Residual.names)
    assert {(row["status"], row["levels"]) for row in summary["activations"]} == {("converted", 4)}


def test_names_and_the_open_batch_are_those_of_the_model(exported):
    graph = onnx.load(exported[0]).graph
    (image,), (logits,) = graph.input, graph.output
    assert (image.name, logits.name) == ("image", "logits")
    for value in (image, logits):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
def test_onnx_computes_what_pytorch_computes_at_any_batch(exported, model, images, batch):
    found = pconv_onnx.session(exported[0]).run(None, {"image": images[:batch]})[0]
    expected = model(torch.from_numpy(images[:batch])).detach().numpy()
    # A value on the edge of a step may fall to either side.
    close = np.isclose(found, expected, atol=1e-5).all(axis=1)
    assert close.mean() >= 0.95


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_rewriting_verifies(exported, images, mode, tmp_path):
    path, _ = exported
    result = pconv_onnx.rewrite(path, tmp_path / "snn.onnx", mode=mode, strict=True)
    assert len(result.plan.neurons) == len(Residual.names)
    verification = pconv_onnx.verify(path, tmp_path / "snn.onnx", {"image": images})
    assert verification.passed
    assert verification.unoptimised.max_abs_diff < 1e-4


# Of the last one that PyTorch writes, as far as the installed onnx reads it.
LAST = min(25, onnx.defs.onnx_opset_version())


@pytest.mark.parametrize(
    "exporter, opset", [("dynamo", 18), ("dynamo", LAST), ("torchscript", 11), ("torchscript", 20)]
)
def test_the_first_and_the_last_opset_of_each_exporter_are_written(exporter, opset, tmp_path):
    summary = export(small(), torch.zeros(2, 3), tmp_path / "m.onnx", exporter=exporter, opset=opset)
    assert summary["counts"]["converted"] == 1
    assert [entry.version for entry in onnx.load(tmp_path / "m.onnx").opset_import if not entry.domain] == [opset]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_threshold_for_each_channel_is_recognised(exporter, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), QCFS(4, torch.rand(4, 1, 1) + 1, shape=(4, 1, 1))).eval()
    summary = export(model, torch.zeros(2, 3, 8, 8), tmp_path / "m.onnx", exporter=exporter)
    assert [(row["name"], row["status"]) for row in summary["activations"]] == [("1", "converted")]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_several_inputs_and_outputs_share_one_open_batch(exporter, tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = QCFS(4, 1.5)

        def forward(self, left, right):
            y = self.act(left + right)
            return y, y * 2

    export(Two(), (torch.rand(1, 3), torch.rand(1, 3)), tmp_path / "m.onnx", exporter=exporter)
    values = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    session = pconv_onnx.session(tmp_path / "m.onnx")
    first, second = session.run(["output_0", "output_1"], {"left": values, "right": values})
    np.testing.assert_allclose(first, Two().act(torch.from_numpy(2 * values)).detach(), rtol=1e-6)
    np.testing.assert_array_equal(second, 2 * first)


def test_training_modes_and_what_other_code_prints_to_are_left_alone(tmp_path, capsys):
    class Printing(nn.Linear):
        def forward(self, x):
            print("tracing")
            return super().forward(x)

    model = nn.Sequential(Printing(3, 4), QCFS(4, 1.5), nn.Dropout())
    model[0].eval()
    export(model, torch.zeros(2, 3), tmp_path / "m.onnx", exporter="torchscript")
    assert [module.training for module in model] == [False, True, True]
    assert model.training
    assert "Dropout" not in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "tracing" not in capsys.readouterr().out


def test_half_precision_is_written(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whether it is recognised as well is the recogniser's matter
        export(small().half(), torch.zeros(2, 3).half(), tmp_path / "m.onnx", exporter="torchscript")
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_a_qcfs_that_is_not_recognised_is_warned_of(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), QCFS(4, 1.5))
    model[1].levels = 70000
    with pytest.warns(UserWarning, match="rewrite would not convert QCFS '1' of .*m.onnx': it has 70000 levels"):
        export(model, torch.zeros(2, 3), tmp_path / "m.onnx", exporter="torchscript")


def test_a_qcfs_that_is_never_called_needs_no_threshold(tmp_path):
    model = small()
    model[0].spare = QCFS(4)
    assert export(model, torch.zeros(2, 3), tmp_path / "m.onnx", exporter="torchscript")["counts"]["converted"] == 1


class Fixed(nn.Module):
    def forward(self, x):
        return x.reshape(2, 3) * 2


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": nn.Sequential(QCFS(4))}, "QCFS '0' has no positive threshold; run the model on data"),
        ({"exporter": "onnx"}, "'onnx' is not an exporter of torch; choose one of: dynamo, torchscript"),
        ({"opset": 17}, "torch's dynamo exporter does not write opset 17; choose 18 to 25"),
        ({"opset": 26}, "does not write opset 26; choose 18 to 25"),
        ({"opset": 10, "exporter": "torchscript"}, "does not write opset 10; choose 11 to 20"),
        ({"opset": 21, "exporter": "torchscript"}, "does not write opset 21; choose 11 to 20"),
        ({"example": torch.tensor(1.0)}, "first axis is one and the same batch; pass [B, …] for each"),
        ({"example": torch.zeros(0, 3)}, "first axis is one and the same batch"),
        ({"example": (torch.zeros(2, 3), torch.zeros(3, 3))}, "first axis is one and the same batch"),
        ({"example": ()}, "first axis is one and the same batch"),
        ({"input_names": ["a", "b"]}, "2 input and 1 output names are given for a model with 1 and 1; give one name"),
        ({"path": "nowhere/m.onnx"}, "cannot write 'nowhere/m.onnx': No such file or directory"),
        ({"model": Fixed()}, "the model fixes the batch of 'output' at the example's 2; take sizes from the input"),
        ({"model": Fixed(), "exporter": "torchscript"}, "the model fixes the batch of 'output' at the example's 2"),
        ({"model": Branching()}, "torch's dynamo exporter cannot export the model: "),
    ],
)
def test_faults_are_told_in_one_line_and_no_file_is_left(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {"model": small(), "example": torch.zeros(2, 3), "path": "m.onnx", "exporter": "dynamo"} | change
    assert message in refusal_of(export, **arguments)
    assert not os.listdir(tmp_path)
