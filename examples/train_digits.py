"""From PyTorch to a spiking network in a minute: scikit-learn's digits.

    python train_digits.py -o build/digits

A small CNN is trained with ReLU, given QCFS activations, fine-tuned, exported, and rewritten for several numbers of
time-steps T. T = L is lossless; for other T the network is another one, and its accuracy is what it is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import pconv_onnx
from pconv_onnx.torch import export, replace_relu

LEVELS = 4
STEPS = (1, 2, 4, 8, 16)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images, float32 `[N, 1, 8, 8]` from 0 to 1, and their labels: three quarters and one."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    return train, train_labels, test, test_labels


def fit(model: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int = 30) -> None:
    """Train with Adam, the rate falling to 0 along a cosine."""
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[part]), targets[part]).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(1) == labels).mean())


def predict(model: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy()


def run(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Everything; the figures by name. Files go to the folder."""
    start = time.perf_counter()
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # so small a network is no faster on more, and much slower beside other programs
    train, train_labels, test, test_labels = load()
    relu = Net()
    fit(relu, train, train_labels)
    found = {"levels": LEVELS, "seed": seed, "test_images": len(test)}
    found["relu_accuracy"] = accuracy(predict(relu, test), test_labels)

    qcfs, findings = replace_relu(relu, LEVELS)
    print(*findings, sep="\n")
    # The first batch in training mode sets the thresholds.
    fit(qcfs, train, train_labels)
    found["qcfs_accuracy"] = accuracy(predict(qcfs, test), test_labels)

    folder.mkdir(parents=True, exist_ok=True)
    ann = folder / "digits-qcfs4.onnx"
    export(qcfs, torch.from_numpy(test[:1]), ann)
    found["spiking_accuracy"] = {}
    for steps in STEPS:
        snn = folder / f"digits-snn{steps}.onnx"
        pconv_onnx.rewrite(ann, snn, steps=steps)
        logits = pconv_onnx.session(snn).run(None, {"image": test})[0]
        found["spiking_accuracy"][str(steps)] = accuracy(logits, test_labels)
        if steps == LEVELS:
            data = {"image": test, "labels": test_labels}
            found["verify"] = pconv_onnx.verify(ann, snn, data).summary()
    found["seconds"] = time.perf_counter() - start
    return found


def report(found: dict[str, Any]) -> None:
    """Print the figures of a run."""
    print(f"\naccuracy on {found['test_images']} test images, seed {found['seed']}")
    print(f"  ReLU                 {found['relu_accuracy']:.2%}")
    print(f"  QCFS, L = {LEVELS}          {found['qcfs_accuracy']:.2%}")
    for steps, value in found["spiking_accuracy"].items():
        told = "T = L, lossless" if steps == str(LEVELS) else "T ≠ L, not lossless"
        print(f"  spiking, T = {steps:<7} {value:.2%}  ({told})")
    print(f"verify at T = {LEVELS}: {found['verify']['verdict']}; {found['seconds']:.0f} s in all")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/digits"), metavar="FOLDER")
    report(run(parser.parse_args().output))


if __name__ == "__main__":
    main()
