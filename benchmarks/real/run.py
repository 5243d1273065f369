"""Pretrained networks as spiking networks: each calibrated without training, and what it answers beside its ANN.

Networks, what they are measured by and what is to be installed for each are in `catalogue.py` and docs/real.md. Answers
are those of mode folded, which gives what parallel gives at the price of one step; where a network cannot be calibrated
or rewritten, its entry says why. An entry of the file is replaced when it is measured again, and the others stay.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

# In the place of this folder, whose modules are those of `real`.
if not __package__:
    sys.path[0] = str(Path(__file__).parents[1])

from answers import told  # noqa: E402  # scripts beside this folder, not modules
from measure import machine, read, write  # noqa: E402
from products import Measured, folder_of, parsed, with_entry  # noqa: E402
from real.catalogue import NETWORKS  # noqa: E402

from pconv_onnx import PconvError  # noqa: E402


class Answered(Measured):
    """A network of which answers alone are measured."""

    def entry(self, steps: int) -> dict[str, Any]:
        """What was asked for and what came of it: figures, or the reason why there are none."""
        start = time.perf_counter()
        try:
            found = self._found(steps)
        except PconvError as error:
            found = {"refused": str(error)}
        seconds = time.perf_counter() - start
        return {**self._key(steps), **found, "seconds": seconds, "machine": machine(self.options.threads)}

    def _found(self, steps: int) -> dict[str, Any]:
        source, cost = self.calibrated(steps)
        model = self.rewritten(source, steps, "folded")
        if self._ann is None:
            self._ann = self.answers(self.subject.model)
        figures = self.subject.task.figures(self._ann, self.answers(model))
        return {"calibration": cost, "answers": figures, **self.counted(model)}


def line(entry: dict[str, Any]) -> str:
    """An entry in a row of a table."""
    what = f"refused: {entry['refused']}" if "refused" in entry else told(entry["answers"])
    return f"{entry['network']:<19} {entry['coding']:<6} T = {entry['steps']:<3} {what}"


def main() -> None:
    """Make the networks, measure, write after each, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="intra-op threads (default: 2)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    options = parsed(parser, [*NETWORKS], "activations", "rate")
    document = read(options.output, {"benchmark": "real", "entries": []})
    with folder_of(options):
        for name in options.networks:
            network = Answered(name, options)
            for steps in options.steps or network.recipe.steps:
                entry = network.entry(steps)
                document["entries"] = with_entry(document["entries"], entry)
                write(document, options.output)
                print(line(entry), flush=True)


if __name__ == "__main__":
    main()
