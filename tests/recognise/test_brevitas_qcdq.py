"""Brevitas' QCDQ exports: QuantizeLinear → Clip → DequantizeLinear, from both exporters of torch."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from harness import assert_converted, onnxruntime_of
from networks import MODES

from pconv_onnx import inspect, rewrite, verify

pytest.importorskip("brevitas")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
    import brevitas.quant
    from brevitas.export import export_onnx_qcdq

PER_CHANNEL = {
    "scaling_per_output_channel": True,
    "per_channel_broadcastable_shape": (1, 3, 1, 1),
    "scaling_stats_permute_dims": (1, 0, 2, 3),
}


def exported(model: torch.nn.Module, shape: tuple[int, ...], *, dynamo: bool, path=None) -> onnx.ModelProto:
    """The QCDQ export of a model whose scales have been learnt from random data."""
    torch.manual_seed(0)
    model.train()
    model(torch.randn(64, *shape))
    model.eval()
    batch = {"dynamic_shapes": ({0: torch.export.Dim("N")},)} if dynamo else {"dynamic_axes": {"x": {0: "N"}}}
    target = path or io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx_qcdq(model, torch.randn(2, *shape), export_path=target, input_names=["x"], output_names=["y"],
                         dynamo=dynamo, **batch)  # fmt: skip
    return onnx.load(path) if path else onnx.load_from_string(target.getvalue())


ACTIVATIONS = {
    "2 bits": (lambda: qnn.QuantReLU(bit_width=2), 3),
    "3 bits": (lambda: qnn.QuantReLU(bit_width=3), 7),
    "4 bits": (lambda: qnn.QuantReLU(bit_width=4), 15),
    "8 bits": (lambda: qnn.QuantReLU(bit_width=8), 255),
    "2 bits per channel": (lambda: qnn.QuantReLU(bit_width=2, **PER_CHANNEL), 3),
    "8 bits per channel": (lambda: qnn.QuantReLU(bit_width=8, **PER_CHANNEL), 255),
    "shifted": (lambda: qnn.QuantReLU(act_quant=brevitas.quant.ShiftedUint8ActPerTensorFloat, bit_width=4), 15),
    "fixed point": (lambda: qnn.QuantReLU(act_quant=brevitas.quant.Uint8ActPerTensorFixedPoint, bit_width=4), 15),
    "unsigned identity": (lambda: qnn.QuantIdentity(act_quant=brevitas.quant.Uint8ActPerTensorFloat, bit_width=4), 15),
}
SIGNED = {
    "4 bits": (lambda: qnn.QuantIdentity(bit_width=4), 15),
    "4 bits, narrow": (lambda: qnn.QuantIdentity(bit_width=4, narrow_range=True), 14),
    "8 bits": (lambda: qnn.QuantIdentity(bit_width=8), 255),
    "shifted": (lambda: qnn.QuantIdentity(act_quant=brevitas.quant.ShiftedUint8ActPerTensorFloat, bit_width=4), 15),
    "hard tanh": (lambda: qnn.QuantHardTanh(bit_width=4, min_val=-1.0, max_val=1.0), 15),
}


@pytest.mark.parametrize("dynamo", [True, False], ids=["torch.export", "TorchScript"])
@pytest.mark.parametrize("case", ACTIVATIONS)
def test_activations_are_converted_bit_by_bit(case, dynamo, tmp_path):
    make, levels = ACTIVATIONS[case]
    source = exported(torch.nn.Sequential(make()), (3, 1, 1), dynamo=dynamo, path=tmp_path / "qcdq.onnx")
    for mode in MODES:
        assert_converted(source, onnxruntime_of(source), mode, levels=levels)


@pytest.mark.parametrize("dynamo", [True, False], ids=["torch.export", "TorchScript"])
@pytest.mark.parametrize("case", SIGNED)
def test_signed_values_are_converted_bit_by_bit(case, dynamo, tmp_path):
    make, levels = SIGNED[case]
    source = exported(torch.nn.Sequential(make()), (3, 1, 1), dynamo=dynamo, path=tmp_path / "qcdq.onnx")
    for mode in MODES:
        assert assert_converted(source, onnxruntime_of(source), mode, levels=levels).coding.signed


@pytest.mark.parametrize("dynamo", [True, False], ids=["torch.export", "TorchScript"])
def test_a_network_with_quantised_weights_is_converted(dynamo, tmp_path):
    model = torch.nn.Sequential(
        qnn.QuantConv2d(3, 8, 3, weight_bit_width=4),
        torch.nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=4),
        torch.nn.MaxPool2d(2),
        qnn.QuantConv2d(8, 8, 3, weight_bit_width=4, weight_quant=brevitas.quant.Int8WeightPerChannelFloat),
        qnn.QuantReLU(bit_width=3),
        torch.nn.Flatten(),
        qnn.QuantLinear(8, 5, bias=True, weight_bit_width=4),
    )
    source = exported(model, (3, 8, 8), dynamo=dynamo, path=tmp_path / "qcdq.onnx")
    rows = inspect(source)["activations"]
    assert [(row["encoding"], row["status"], row["levels"]) for row in rows] == [
        ("qdq", "converted", 15),
        ("qdq", "converted", 7),
    ]
    x = np.random.default_rng(1).normal(0, 1, (50, 3, 8, 8)).astype(np.float32)
    for mode in MODES:
        result = rewrite(source, mode=mode)
        # The weights stay as they were quantised.
        kinds = [node.op_type for node in result.model.graph.node]
        assert kinds.count("DequantizeLinear") == 3
        verification = verify(source, result.model, {"x": x})
        assert verification.passed
