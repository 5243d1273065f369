"""The digits example, from training to spikes: the accuracies that docs/pytorch.md gives, by seed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from measure import machine, write

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from train_digits import report, run  # noqa: E402  # a script beside the networks, not a module

SEEDS = (0, 1, 2)


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args()
    results = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(Path(folder), seed))
        report(results[-1])
    where = machine(torch.get_num_threads()) | {"torch": torch.__version__}
    write({"benchmark": "digits", "machine": where, "results": results}, options.output)


if __name__ == "__main__":
    main()
