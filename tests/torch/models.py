"""Small PyTorch models for the tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A residual block as torchvision writes it: one in-place ReLU, called twice."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    """ReLUs in all guises: a module, a module called twice, a function; and a dropout that depends on the mode."""

    names = ("act", "layer1.0.relu", "layer1.0.relu_1", "layer1.1.relu", "layer1.1.relu_1", "relu")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU()
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 16, stride=2))
        self.hidden = nn.Linear(16, 12)
        self.head = nn.Linear(12, 10)
        self.unused = nn.Linear(2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.act(self.stem(image)), 2)
        x = self.layer1(x).mean((2, 3))
        x = F.relu(self.hidden(x))
        return self.head(F.dropout(x, 0.5, self.training))
