"""Accuracy of calibrated networks of several kinds: activations other than ReLU, depthwise layers, matrix products.

Each is small, and trained here on the images that it is calibrated on; how its accuracy compares with its own
unquantised one is the point. Images as in calibration.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration import accuracy, read
from measure import machine, write
from torch import nn

from pconv_onnx import calibrate
from pconv_onnx.basics.progress import showing, track

CLASSES, BATCH, METHODS = 10, 64, ("refit", "mse", "da-qcfs")
Activation = Callable[[], nn.Module]


def convolutional(activation: Activation) -> nn.Module:
    """Convolutions with batch normalisation and max pooling, and two fully connected layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        for first in (inputs, outputs):
            layers += [nn.Conv2d(first, outputs, 3, padding=1), nn.BatchNorm2d(outputs), activation()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 64), activation(), nn.Linear(64, CLASSES))


class Inverted(nn.Module):
    """A block of MobileNetV2: wide, depthwise, narrow again, with a shortcut where sizes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide, self.residual = 4 * inputs, inputs == outputs and stride == 1
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def mobile() -> nn.Module:
    """Inverted residuals, ReLU6."""
    blocks = [Inverted(*sizes) for sizes in ((16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))]
    stem = (nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def perceptron() -> nn.Module:
    """Fully connected layers alone, ReLU."""
    sizes = (3072, 256, 256, 128)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, CLASSES))


class Mixer(nn.Module):
    """Patches mixed by matrix products along places and along channels, with LayerNorm; exported as MatMul and Add."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 4, 4)
        self.places = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), activation(), nn.Linear(64, 64)) for _ in range(3))
        self.channels = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 128), activation(), nn.Linear(128, 64)) for _ in range(3)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(6))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for index, (places, channels) in enumerate(zip(self.places, self.channels, strict=True)):
            x = x + places(self.norms[2 * index](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * index + 1](x))
        return self.head(x.mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CNN, ReLU": lambda: convolutional(nn.ReLU),
    "CNN, LeakyReLU": lambda: convolutional(lambda: nn.LeakyReLU(0.1)),
    "CNN, PReLU": lambda: convolutional(nn.PReLU),
    "CNN, ELU": lambda: convolutional(nn.ELU),
    "CNN, Tanh": lambda: convolutional(nn.Tanh),
    "CNN, HardSigmoid": lambda: convolutional(nn.Hardsigmoid),
    "CNN, Sigmoid": lambda: convolutional(nn.Sigmoid),
    "CNN, HardSwish": lambda: convolutional(nn.Hardswish),
    "CNN, SiLU": lambda: convolutional(nn.SiLU),
    "CNN, GELU": lambda: convolutional(nn.GELU),
    "depthwise, ReLU6": mobile,
    "fully connected, ReLU": perceptron,
    "mixer, GELU": lambda: Mixer(nn.GELU),
    "mixer, ReLU": lambda: Mixer(nn.ReLU),
}


def train(model: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int, name: str) -> None:
    """Adam with a one-cycle rate; images are mirrored at random."""
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    rounds = epochs * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=rounds)
    model.train()
    for _ in track(range(rounds), f"training {name}", rounds):
        chosen = torch.randint(len(x), (BATCH,))
        batch = x[chosen]
        mirrored = torch.rand(BATCH) < 0.5
        batch[mirrored] = batch[mirrored].flip(3)
        loss = nn.functional.cross_entropy(model(batch), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval()


def main() -> None:
    """Train, calibrate, test, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, required=True, metavar="FILE")
    parser.add_argument("--images", type=Path, required=True, metavar="FILE", help="test images")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="images to calibrate on")
    parser.add_argument("--epochs", type=int, default=8, metavar="N")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8], metavar="T")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # of the exporter that is used, that there is a newer one
    images, labels = read(options.calibration)
    test = read(options.images)
    results: list[dict[str, Any]] = []
    for name in options.networks:
        torch.manual_seed(0)
        model = NETWORKS[name]()
        train(model, images, labels, options.epochs, name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ann.onnx"
            torch.onnx.export(
                model, (torch.from_numpy(images[:1]),), path, dynamo=False, opset_version=17, input_names=["image"],
                dynamic_axes={"image": {0: "N"}},
            )  # fmt: skip
            row: dict[str, Any] = {"network": name, "ann": accuracy(path.read_bytes(), *test), "calibrated": []}
            for method in METHODS:
                for steps in options.steps:
                    start = time.perf_counter()
                    result = calibrate(path, {"image": images[: options.count]}, steps=steps, method=method)
                    found = {"method": method, "steps": steps, "seconds": time.perf_counter() - start}
                    row["calibrated"].append(found | {"top1": accuracy(result.model.SerializeToString(), *test)})
        results.append(row)
        told = ", ".join(f"{r['method']} {r['steps']}: {r['top1']:.4f}" for r in row["calibrated"])
        print(f"{name}: {row['ann']:.4f}; {told}", file=sys.stderr, flush=True)
    document = {
        "benchmark": "architectures",
        "machine": machine(torch.get_num_threads()) | {"torch": torch.__version__},
        "calibration_images": options.count,
        "training_images": len(images),
        "epochs": options.epochs,
        "test_images": len(test[0]),
        "results": results,
    }
    write(document, options.output)


if __name__ == "__main__":
    with showing(True):
        main()
