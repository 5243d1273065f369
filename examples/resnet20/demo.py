"""From a pretrained quantised network to a verified spiking one: the README's commands, run on CIFAR-10."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PREPARE = [
    sys.executable, str(HERE.parent / "prepare_images.py"), str(HERE / "cifar10-test-1000.npz"), "-o", "images.npz",
    "--first", "100", "--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225",
]  # fmt: skip
PCONV = [sys.executable, "-m", "pconv_onnx"]


def run(title: str, shown: str, command: list[str], folder: Path) -> None:
    """Print a command as a user would type it, and run it in that folder."""
    print(f"\n# {title}\n$ {shown}", flush=True)
    subprocess.run(command, check=True, cwd=folder)


def main() -> None:
    """Run every step; files stay in build/demo."""
    folder = HERE.parent.parent / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "resnet20-qcfs8.onnx"
    model.write_bytes((HERE / model.name).read_bytes())
    run("100 test images, normalised", "python examples/prepare_images.py … -o images.npz", PREPARE, folder)
    for title, arguments in (
        ("What is in the network?", "inspect resnet20-qcfs8.onnx"),
        ("T = L = 8 time-steps, real spikes", "rewrite resnet20-qcfs8.onnx -o snn.onnx"),
        ("Does it compute what the ANN computes?", "verify resnet20-qcfs8.onnx snn.onnx --data images.npz"),
        ("The same network with its time axis folded away", "rewrite resnet20-qcfs8.onnx -o fast.onnx --mode folded"),
        ("And that?", "verify resnet20-qcfs8.onnx fast.onnx --data images.npz"),
    ):
        run(title, f"pconv-onnx {arguments}", PCONV + arguments.split(), folder)
    print(f"\nThe files are in {folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder}.")


if __name__ == "__main__":
    main()
