"""The CIFAR-10 example, fine-tuned: the accuracies that docs/pytorch.md gives.

    python benchmarks/finetune.py --data cifar10-calibration.npz --test cifar10-test.npz -o figures.json

The repository holds no training images; the example's help says which layouts it reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from measure import machine, write

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from finetune_cifar10 import RELU, finetune  # noqa: E402  # a script beside the networks, not a module

LEVELS, EPOCHS, RATE = 8, 2, 0.01


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training images")
    parser.add_argument("--test", type=Path, required=True, help="test images")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = finetune(options.data, options.test, RELU, LEVELS, EPOCHS, RATE, Path(folder))
    where = machine(torch.get_num_threads()) | {"torch": torch.__version__}
    write({"benchmark": "finetune", "machine": where, "results": found}, options.output)


if __name__ == "__main__":
    main()
