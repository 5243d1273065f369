"""Small networks of Brevitas' layers, in every encoding and by every exporter that writes them.

What Brevitas or torch cannot export is left out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
    from brevitas import quant
    from brevitas.export import export_onnx_qcdq, export_qonnx

Make = Callable[[], nn.Module]
EXPORTERS = {"QONNX": export_qonnx, "QCDQ": export_onnx_qcdq}
PER_CHANNEL = {
    "scaling_per_output_channel": True,
    "per_channel_broadcastable_shape": (1, 8, 1, 1),
    "scaling_stats_permute_dims": (1, 0, 2, 3),
}

# Activations, each put behind a convolution.
ACTIVATIONS: dict[str, Make] = {
    **{f"QuantReLU {bits} bits": lambda bits=bits: qnn.QuantReLU(bit_width=bits) for bits in range(1, 9)},
    **{f"QuantIdentity {bits} bits": lambda bits=bits: qnn.QuantIdentity(bit_width=bits) for bits in range(2, 9)},
    **{
        f"QuantReLU {bits} bits per channel": lambda bits=bits: qnn.QuantReLU(bit_width=bits, **PER_CHANNEL)
        for bits in (2, 4, 8)
    },
    **{
        f"{layer.__name__} {bits} bits": lambda layer=layer, bits=bits: layer(bit_width=bits)
        for layer in (qnn.QuantSigmoid, qnn.QuantTanh)
        for bits in (3, 8)
    },
    **{
        f"QuantHardTanh {bits} bits": lambda bits=bits: qnn.QuantHardTanh(bit_width=bits, min_val=-1.0, max_val=1.0)
        for bits in (2, 4, 8)
    },
    **{
        f"QuantReLU {name}": lambda name=name: qnn.QuantReLU(act_quant=getattr(quant, name), bit_width=4)
        for name in (
            "ShiftedUint8ActPerTensorFloat", "Uint8ActPerTensorFixedPoint", "Uint8ActPerTensorFixedPointMSE",
            "Uint8ActPerTensorFloat", "Uint8ActPerTensorFloatMSE",
        )
    },
    **{
        f"QuantIdentity {name}": lambda name=name: qnn.QuantIdentity(act_quant=getattr(quant, name))
        for name in (
            "SignedBinaryActPerTensorConst", "SignedTernaryActPerTensorConst", "Int8ActPerTensorFixedPoint",
            "ShiftedUint8ActPerTensorFixedPoint", "Uint8ActPerTensorFloat", "Fp8e4m3OCPActPerTensorFloat",
        )
    },
    "QuantIdentity narrow": lambda: qnn.QuantIdentity(bit_width=4, narrow_range=True),
    "QuantReLU with a fixed maximum": lambda: qnn.QuantReLU(bit_width=4, max_val=6.0, scaling_impl_type="const"),
    "QuantReLU MaxInit": lambda: qnn.QuantReLU(
        act_quant=quant.Uint8ActPerTensorFixedPointMaxInit, bit_width=4, max_val=6.0
    ),
    "QuantIdentity MinMaxInit": lambda: qnn.QuantIdentity(
        act_quant=quant.Int8ActPerTensorFloatMinMaxInit, bit_width=4, min_val=-1.0, max_val=1.0
    ),
    "QuantReLU behind ReLU": lambda: nn.Sequential(nn.ReLU(), qnn.QuantReLU(bit_width=4)),
    "QuantIdentity behind ReLU": lambda: nn.Sequential(
        nn.ReLU(), qnn.QuantIdentity(act_quant=quant.Uint8ActPerTensorFloat, bit_width=4)
    ),
    "QuantIdentity before ReLU": lambda: nn.Sequential(qnn.QuantIdentity(bit_width=4), nn.ReLU()),
    "ReLU": nn.ReLU,
}  # fmt: skip
# Layers, each in front of an activation of four bits.
LAYERS: dict[str, Make] = {
    **{
        f"QuantConv2d {bits} bits": lambda bits=bits: qnn.QuantConv2d(8, 8, 3, weight_bit_width=bits) for bits in (2, 8)
    },
    **{
        f"QuantConv2d {name}": lambda name=name: qnn.QuantConv2d(8, 8, 3, weight_quant=getattr(quant, name))
        for name in (
            "Int8WeightPerChannelFloat", "Int8WeightPerTensorFixedPoint", "ShiftedUint8WeightPerTensorFloat",
            "SignedBinaryWeightPerTensorConst", "SignedTernaryWeightPerTensorConst", "Int8WeightPerChannelFloatMSE",
        )
    },
    "QuantConv2d with a quantised bias": lambda: qnn.QuantConv2d(
        8, 8, 3, weight_bit_width=4, bias=True, input_quant=quant.Int8ActPerTensorFloat, bias_quant=quant.Int32Bias
    ),
    "QuantConv2d with quantised ends": lambda: qnn.QuantConv2d(
        8, 8, 3, input_quant=quant.Int8ActPerTensorFloat, output_quant=quant.Int8ActPerTensorFloat
    ),
    "QuantConvTranspose2d": lambda: qnn.QuantConvTranspose2d(8, 8, 3, weight_bit_width=4),
    "QuantUpsample": lambda: qnn.QuantUpsample(scale_factor=2),
    "QuantScaleBias": lambda: qnn.QuantScaleBias(8, bias=True, runtime_shape=(1, -1, 1, 1)),
    "BatchNorm2dToQuantScaleBias": lambda: qnn.BatchNorm2dToQuantScaleBias(8),
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "TruncAvgPool2d": lambda: qnn.TruncAvgPool2d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(2),
    "residual": lambda: Residual(),
    "concatenated": lambda: Concatenated(),
}  # fmt: skip


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = qnn.QuantConv2d(8, 8, 3, padding=1, weight_bit_width=4)
        self.add = qnn.QuantEltwiseAdd()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.add(self.body(x), x)


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (qnn.QuantConv2d(8, 4, 3, weight_bit_width=4) for _ in range(2))
        self.act = qnn.QuantReLU(bit_width=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.act(self.one(x)), self.act(self.other(x))], dim=1)


def networks() -> dict[str, Make]:
    """What makes each."""
    made: dict[str, Make] = {}
    for name, activation in ACTIVATIONS.items():
        made[name] = lambda activation=activation: _between(nn.Identity(), activation(), activation())
    for name, layer in LAYERS.items():
        made[name] = lambda layer=layer: _between(
            layer(), qnn.QuantReLU(bit_width=4, return_quant_tensor=True), qnn.QuantReLU(bit_width=3)
        )
    return made


def _between(layer: nn.Module, *activations: nn.Module) -> nn.Module:
    before, behind = activations
    return nn.Sequential(
        qnn.QuantConv2d(3, 8, 3, weight_bit_width=4),
        before,
        layer,
        behind,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        qnn.QuantLinear(8, 5, bias=True, weight_bit_width=4),
    )


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each."""
    logging.disable(logging.WARNING)
    for network, make in networks().items():
        for encoding in EXPORTERS:
            for dynamo in (False, True):
                name = f"{network}, {encoding}, {'dynamo' if dynamo else 'TorchScript'}"
                path = folder / f"{name}.onnx"
                try:
                    export(make, path, encoding, dynamo=dynamo)
                except Exception:  # torch and Brevitas raise what their passes do
                    path.unlink(missing_ok=True)
                    continue
                yield name, path
    logging.disable(logging.NOTSET)


def export(make: Make, path: Path, encoding: str, *, dynamo: bool) -> None:
    """Write a network whose scales were learnt from random data, for any batch."""
    torch.manual_seed(0)
    model = make()
    x = torch.randn(16, 3, 12, 12)
    batch = {"dynamic_shapes": ({0: torch.export.Dim("N")},)} if dynamo else {"dynamic_axes": {"x": {0: "N"}}}
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        model.train()
        model(x)
        model.eval()
        EXPORTERS[encoding](
            model, x[:2], export_path=path, input_names=["x"], output_names=["y"], dynamo=dynamo, **batch
        )
