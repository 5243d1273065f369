"""Networks in which every product reads spikes: what they answer, what they cost, and what verifies them.

Each network is calibrated for each number of time-steps, in a process of its own, and rewritten in modes parallel and
folded. Answers and spikes are counted in folded, which has the same spike counts at a fraction of the price; parallel
is verified. What is compared in a table of times takes turns. An entry of the file is replaced when it is measured
again, and the others stay: networks can be measured by one command each.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import products_networks
import transformers_networks
from answers import told
from measure import arguments, interleaved, machine, read, report, rows, write
from real import networks as real_networks
from real.catalogue import installing
from subjects import Folders, Run, Subject

import pconv_onnx
from pconv_onnx.basics.choices import CODINGS, METHODS, NEURONS, ModeName
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.basics.progress import showing, track
from pconv_onnx.measure import timing

RECIPES = products_networks.RECIPES | transformers_networks.RECIPES | real_networks.RECIPES
MODES: tuple[ModeName, ...] = ("parallel", "folded")
BASELINE = "ANN"
BATCHES = (1, 8)
# Samples run at once, to verify, and to count operations on.
BATCH, FEW, COUNTED = 20, 8, 32
# Entries that agree in these are of the same networks; some are from before there was `mixed`. `images` is how many
# samples are tested on, whatever they are.
KEY = ("network", "neurons", "coding", "steps", "mixed", "method", "samples", "images")


class Measured:
    """A network, its ANN's answers, and for a number of time-steps what became of it."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name, self.options, self.recipe = name, options, RECIPES[name]
        self.samples = self.recipe.samples if options.samples is None else options.samples
        self.subject = subject(name, self.samples, options)
        self.count = min(options.images or len(self.subject.tests), len(self.subject.tests))
        self._ann: list[Any] | None = None

    def entry(self, steps: int) -> dict[str, Any]:
        """All that is measured."""
        source, cost = self.calibrated(steps)
        models = {mode: self.rewritten(source, steps, mode) for mode in MODES}
        if self._ann is None:
            self._ann = self.answers(self.subject.model)
        return {
            **self._key(steps),
            "calibration": cost,
            "answers": self.subject.task.figures(self._ann, self.answers(models["folded"])),
            **self.counted(models["folded"]),
            "verified": self.verified(source, models),
            "tables": list(self.tables(models, steps)),
            "machine": machine(self.options.threads),
        }

    def _key(self, steps: int) -> dict[str, Any]:
        given = self.options
        method = given.method if self.samples else None
        values = self.name, given.neurons, given.coding, steps, given.mixed, method, self.samples, self.count
        return dict(zip(KEY, values, strict=True))

    def _path(self, steps: int, what: str) -> Path:
        named = "-".join(str(value) for value in self._key(steps).values())
        return self.options.folder / f"{named}-{what}"

    def calibrated(self, steps: int) -> tuple[Path, dict[str, float] | None]:
        """The network with levels, and what calibrating took; the network itself where it has levels."""
        if not self.samples:
            return self.subject.model, None
        model, cost = self._path(steps, "calibrated.onnx"), self._path(steps, "calibration.json")
        if not cost.exists():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                arguments = (self.name, self.samples, steps, self.options, model)
                write(alone.submit(calibration_cost, *arguments).result(), cost)
        return model, json.loads(cost.read_text())

    def rewritten(self, source: Path, steps: int, mode: ModeName) -> Path:
        path = self._path(steps, f"{mode}.onnx")
        if not path.exists():
            options = self.options
            own = None if options.mixed else steps
            pconv_onnx.rewrite(source, path, steps=own, coding=options.coding, neurons=options.neurons, mode=mode)
        return path

    def session(self, model: Path) -> Any:
        """A session as users get it, on the threads that were asked for."""
        settings = timing.session_options()
        settings.intra_op_num_threads = self.options.threads
        return pconv_onnx.session(model, options=settings)

    def run(self, model: Path) -> Run:
        """The network, as tasks and tables run it."""
        return functools.partial(self.session(model).run, None)

    def answers(self, model: Path) -> list[Any]:
        """To each sample."""
        run, starts = self.run(model), range(0, self.count, BATCH)
        found: list[Any] = []
        for start in track(starts, f"{self.name}, {model.stem}", len(starts)):
            feed = self.subject.tests[start : min(start + BATCH, self.count)]
            found += self.subject.task.answers(self.subject.output(run, feed))
        return found

    def counted(self, model: Path) -> dict[str, Any]:
        """Energy against the ANN's, and the share of multiply-accumulates that spikes make accumulates."""
        found = pconv_onnx.stats(model, self.subject.runs[:COUNTED]).summary()
        return {"energy_ratio": found["energy"]["ratio"], "spike_driven": found["spike_driven"]}

    def verified(self, source: Path, models: dict[ModeName, Path]) -> dict[str, Any]:
        """Parallel against its source, layer by layer and segment by segment, and against folded."""
        few = self.subject.runs[:FEW]
        found = pconv_onnx.verify(source, models["parallel"], few).summary()
        parallel, folded = (self.run(models[mode])(few) for mode in MODES)
        return {
            "samples": found["samples"],
            "verdict": found["verdict"],
            "differences": found["differences"],
            "not_compared": found["not_compared"],
            "layers": len(found["layers"]),
            "layers_equal": sum(layer["count_mismatch_rate"] == 0 for layer in found["layers"]),
            "segments": len(found["segments"]),
            "segments_beyond_rounding": sum(segment["beyond"] > 0 for segment in found["segments"]),
            "folded_max_abs_diff": max(
                float(np.abs(one - other).max()) for one, other in zip(parallel, folded, strict=True)
            ),
            "largest_output": max(float(np.abs(output).max()) for output in parallel),
        }

    def tables(self, models: dict[ModeName, Path], steps: int) -> Iterator[dict[str, Any]]:
        """Times of a run, for each batch."""
        networks = {name: self.run(model) for name, model in {BASELINE: self.subject.model, **models}.items()}
        for batch in BATCHES:
            feed = self.subject.runs[:batch]
            runs = {name: functools.partial(run, feed) for name, run in networks.items()}
            other = timing.OtherWork()
            seconds = interleaved(runs, self.options.repeats, warm_up=1)
            table = {"batch": batch, "rows": rows(seconds, BASELINE), "seconds": seconds, **other.summary()}
            report(f"{self.name}, T = {steps}, batch {batch}", table, None)
            yield table


def subject(name: str, samples: int, options: argparse.Namespace) -> Subject:
    """The network of that name; what is missing for it is told in a line."""
    try:
        made = RECIPES[name].make(Folders(options.models, options.data, options.folder), samples)
        made.model.stat()
        return made
    except ModuleNotFoundError as error:
        raise SystemExit(f"error: {name}: {error}; {installing(name)}") from error
    except FileNotFoundError as error:
        raise SystemExit(
            f"error: {name}: no file '{error.filename}'; benchmarks/README.md has what --models and --data are to hold"
        ) from error


def calibration_cost(name: str, samples: int, steps: int, options: argparse.Namespace, output: Path) -> dict[str, Any]:
    """Calibrate a network in this process; seconds, and the most memory that the process had, samples with it."""
    made = subject(name, samples, options)
    data = made.calibration[:]
    start = time.perf_counter()
    pconv_onnx.calibrate(
        made.model,
        data,
        output,
        steps=steps,
        coding=options.coding,
        neurons=options.neurons,
        mixed=options.mixed,
        method=options.method,
    )
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_memory()}


def with_entry(entries: Sequence[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """With it in the place of one of the same networks, or behind all."""
    places = [all(entry.get(key, False) == new[key] for key in KEY) for entry in entries]
    replaced = [new if same else entry for entry, same in zip(entries, places, strict=True)]
    return replaced if any(places) else [*replaced, new]


def line(entry: dict[str, Any]) -> str:
    """An entry in a row of a table; of times, those at the first batch."""
    share = entry["spike_driven"]["share"]
    # Rounded down: 100 % is all.
    spikes = "  unknown" if share is None else f"{math.floor(share * 1000) / 1000:9.1%}"
    times = (f"{row['name']} {row['ratio']:.1f} ×" for row in entry["tables"][0]["rows"] if row["name"] != BASELINE)
    return (
        f"{entry['network']:<19} {entry['neurons']:<11} T = {entry['steps']} {spikes} {entry['energy_ratio']:6.2f} × "
        f"{entry['verified']['verdict']:<9} {', '.join(times):<34} {told(entry['answers'])}"
    )


def parsed(parser: argparse.ArgumentParser, networks: Sequence[str], neurons: str, coding: str) -> argparse.Namespace:
    """What was asked for, by the options of the parser and those that say which networks and how; with defaults."""
    parser.add_argument("networks", nargs="+", choices=networks, metavar="NETWORK", help=", ".join(networks))
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="networks that PyPI does not have")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="CIFAR-10, and pictures of ImageNet")
    parser.add_argument("--neurons", default=neurons, choices=NEURONS, help=f"(default: {neurons})")
    parser.add_argument("--coding", default=coding, choices=CODINGS, help=f"(default: {coding})")
    parser.add_argument("--method", default=METHODS[0], choices=METHODS, help=f"(default: {METHODS[0]})")
    parser.add_argument("--steps", type=int, nargs="+", metavar="T", help="time-steps (default: those of the recipe)")
    parser.add_argument("--mixed", action="store_true", help="T is the mean; each activation has its own")
    parser.add_argument("--samples", type=int, metavar="N", help="samples to calibrate on (default: as the recipe has)")
    parser.add_argument("--images", type=int, metavar="N", help="images, or other samples, to test on (default: all)")
    parser.add_argument("--folder", type=Path, help="where networks are kept, and taken from (default: nowhere)")
    options = parser.parse_args()
    for name in options.networks:
        for need in RECIPES[name].needs:
            if getattr(options, need) is None:
                parser.error(f"{name} needs --{need} FOLDER")
    return options


@contextlib.contextmanager
def folder_of(options: argparse.Namespace) -> Iterator[None]:
    """The folder that was asked for, or one for as long."""
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        options.folder.mkdir(parents=True, exist_ok=True)
        yield


def main() -> None:
    """Make the networks, measure, print, write after each."""
    options = parsed(arguments(__doc__, repeats=15), [*RECIPES], "products", "radix")
    document = read(options.output, {"benchmark": "products", "entries": []})
    with folder_of(options):
        for name in options.networks:
            measured = Measured(name, options)
            for steps in options.steps or measured.recipe.steps:
                document["entries"] = with_entry(document["entries"], measured.entry(steps))
                write(document, options.output)
    print("\nspike-driven, energy and times (batch 1) against the ANN")
    print(*map(line, document["entries"]), sep="\n")


if __name__ == "__main__":
    with showing(True):
        main()
