"""Exports of PyTorch and onnxscript with branches, loops and functions, and on to spikes."""

import io

import numpy as np
import onnx
import pytest
import torch
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset
from torch import nn

import pconv_onnx
from pconv_onnx.torch import QCFS, export

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype(np.float32)


@script(Opset("mine", 1), default_opset=op)
def act(x, theta: float):
    """QCFS of 4 levels, as a function of its own."""
    limit = op.CastLike(op.Constant(value_float=theta), x)
    share = op.Floor(x / limit * 4.0 + 0.5) / 4.0
    return op.Clip(share, 0.0, 1.0) * limit


@script(default_opset=op)
def called_twice(x: FLOAT["N", 3]) -> FLOAT["N", 3]:  # noqa: F821  # a dimension
    """Two calls of it."""
    return act(act(x, theta=2.0) - 0.5, theta=1.0)


class Branching(nn.Module):
    """Two ways on from one activation, by `torch.cond`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = QCFS(4, 1.5), QCFS(4, 2.0), QCFS(8, 1.0)
        self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.first(self.conv(x))
        return torch.cond(x.sum() > 20, lambda x: self.left(self.other(x)), lambda x: self.right(x) + x, (x,))


class Scripted(nn.Module):
    """An `if` and a `for` that TorchScript keeps."""

    def act(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(torch.floor(x / 2.0 * 4.0 + 0.5) / 4.0, 0.0, 1.0) * 2.0

    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        x = self.act(x) if bool(x.sum() > 0) else self.act(x + 1.0)
        for _ in range(n):
            x = self.act(x + 0.5)
        return x


def test_branches_of_torch_cond_are_converted_under_their_paths(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "ann.onnx"
    summary = export(Branching(), torch.zeros(1, 3, 4, 4), path)
    assert [(row["name"], row["status"]) for row in summary["activations"]] == [
        (name, "converted") for name in ("first", "left", "right")
    ]
    result = pconv_onnx.rewrite(path, strict=True)
    checked = set()
    for scale in (-3, 0.1, 3):
        verification = pconv_onnx.verify(path, result.model, {"x": np.float32(scale) * IMAGES})
        assert verification.differences == []
        assert verification.unoptimised.max_abs_diff < 1e-5
        checked |= {layer.name for layer in verification.layers if layer.elements}
    assert {"first", "right"} <= checked


@pytest.mark.filterwarnings("ignore")
def test_an_if_of_torchscript_is_converted_and_a_loop_is_not():
    file = io.BytesIO()
    example = (torch.from_numpy(IMAGES), torch.tensor(3))
    torch.onnx.export(torch.jit.script(Scripted().eval()), example, file, dynamo=False, input_names=["x", "n"])
    source = onnx.load_model_from_string(file.getvalue())
    result = pconv_onnx.rewrite(source)
    statuses = [row["status"] for row in result.summary()["activations"]]
    assert statuses == ["converted", "converted", "refused"]
    for x in (IMAGES, -np.abs(IMAGES)):
        feed = {"x": x, "n": np.array(2, np.int64)}
        expected, found = (pconv_onnx.session(model).run(None, feed)[0] for model in (source, result.model))
        np.testing.assert_array_equal(found, expected)


def test_functions_of_onnxscript_are_converted():
    source = called_twice.to_model_proto()
    assert [entry.domain for entry in source.functions] == ["mine"]
    result = pconv_onnx.rewrite(source, strict=True)
    assert len(result.plan.neurons) == 2
    assert pconv_onnx.verify(source, result.model, atol=0).passed
