"""Integer weights: what they cost in accuracy and time, and whether outputs have the same bits however they are run.

Each network is calibrated once for each number of time-steps, unless it has levels, and rewritten with float weights
and with integer ones, rounded to the nearest and fitted to data; inputs have 8 bits. Answers are those of mode folded.
Parallel and folded networks take turns against the same with float weights. Bits are compared between modes, codings,
batch sizes, threads, with onnxruntime's optimisations and without, with the library and without.

Networks, and where they are from, are those of `products_networks.py`. An entry of the file is replaced when it is
measured again, and the others stay.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from measure import arguments, interleaved, machine, report, rows, write
from products_networks import RECIPES
from subjects import Folders

import pconv_onnx
from pconv_onnx.basics.choices import WEIGHTS, CodingName, ModeName, NeuronsName, WeightsName
from pconv_onnx.measure import timing

# Images run at once; images whose bits are compared; images verified.
BATCH, COMPARED, FEW = 50, 70, 8


@dataclass(frozen=True)
class Setting:
    """How a network is rewritten, and which batches are timed."""

    steps: tuple[int, ...]
    coding: CodingName
    neurons: NeuronsName
    samples: int
    batches: tuple[int, ...]
    weights: tuple[WeightsName, ...] = WEIGHTS


SETTINGS = {
    "resnet20-qcfs8": Setting((8,), "rate", "activations", 2000, (1, 32)),
    "resnet20-relu": Setting((4, 8, 16), "rate", "activations", 2000, (1, 32), ("int8",)),
    "efficientnet-lite0": Setting((8,), "radix", "products", 100, (1,), ("int8",)),
}


class Measured:
    """A network at a number of time-steps."""

    def __init__(self, name: str, steps: int, options: argparse.Namespace) -> None:
        self.name, self.steps, self.options, self.setting = name, steps, options, SETTINGS[name]
        folders = Folders(options.models, options.data, options.folder)
        self.subject = RECIPES[name].make(folders, self.setting.samples)
        self.calibration = self.subject.calibration[:]
        (self.input,) = self.calibration
        self.tests = min(options.images or len(self.subject.tests), len(self.subject.tests))

    @functools.cached_property
    def source(self) -> Path:
        """The network with levels."""
        if self.name == "resnet20-qcfs8":
            return self.subject.model
        path: Path = self.options.folder / f"{self.name}-{self.steps}-quantised.onnx"
        if not path.exists():
            pconv_onnx.calibrate(
                self.subject.model, self.calibration, path, steps=self.steps, coding=self.setting.coding,
                neurons=self.setting.neurons, readouts="spiking",
            )  # fmt: skip
        return path

    def rewritten(
        self,
        mode: ModeName,
        weights: WeightsName | None = None,
        coding: CodingName | None = None,
        *,
        fitted: bool = False,
    ) -> pconv_onnx.Rewriting:
        """A spiking network; without data inputs have the range of all samples as well."""
        integers: dict[str, Any] = {}
        if weights is not None:
            values = self.calibration[self.input]
            given = {"calibration": self.calibration} if fitted else {}
            span = float(values.min()), float(values.max())
            integers = {"weights": weights, "input_bits": 8, "input_range": span, **given}
        # In another coding as many steps as the levels need.
        steps = self.steps if coding is None else None
        return pconv_onnx.rewrite(self.source, steps=steps, coding=coding or self.setting.coding, mode=mode, **integers)

    def answers(self, model: onnx.ModelProto | Path) -> list[Any]:
        """To each test image."""
        session, found = self.session(model), []
        for start in range(0, self.tests, BATCH):
            feed = self.subject.tests[start : min(start + BATCH, self.tests)]
            found += self.subject.task.answers(session.run(None, feed)[0])
        return found

    def session(self, model: onnx.ModelProto | Path) -> Any:
        settings = timing.session_options()
        settings.intra_op_num_threads = self.options.threads
        return pconv_onnx.session(model, options=settings)

    def entries(self) -> Iterator[dict[str, Any]]:
        """One for each kind of weights."""
        ann = self.answers(self.subject.model)
        floats = {mode: self.rewritten(mode).model for mode in ("parallel", "folded")}
        before = self.answers(floats["folded"])
        in_floats = self.subject.task.figures(ann, before)
        for weights, fitted in itertools.product(self.setting.weights, (False, True)):
            # Fitting takes its time; modes give the same bits.
            folded = self.rewritten("folded", weights, fitted=fitted)
            after = self.answers(folded.model)
            told = folded.summary()["integer"]
            models = {"folded": folded.model}
            if not fitted:
                models["parallel"] = self.rewritten("parallel", weights).model
            verified = pconv_onnx.verify(self.source, list(models.values())[-1], self.subject.tests[:FEW]).summary()
            entry = {
                "network": self.name,
                "steps": self.steps,
                "coding": self.setting.coding,
                "weights": weights,
                "samples": told["samples"],
                "float_weights": in_floats,
                "integer_weights": self.subject.task.figures(ann, after),
                "against_float_weights": self.subject.task.figures(before, after),
                "islands": told["islands"],
                "verified": {"mode": list(models)[-1], "verdict": verified["verdict"], **verified["integer"]},
                "machine": machine(self.options.threads),
            }
            if weights == WEIGHTS[0] and not fitted and not self.options.answers_only:
                entry["tables"] = list(self.tables(floats, models))
                entry["bits"] = self.bits(weights)
            yield entry

    def tables(self, floats: dict[str, Any], integers: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Times of both modes, each against the same mode with float weights."""
        for mode, batch in itertools.product(floats, self.setting.batches):
            feed = self.subject.tests[:batch]
            sessions = {"float weights": self.session(floats[mode]), "integer weights": self.session(integers[mode])}
            runs = {name: functools.partial(session.run, None, feed) for name, session in sessions.items()}
            other = timing.OtherWork()
            seconds = interleaved(runs, self.options.repeats, warm_up=2)
            table = {"mode": mode, "batch": batch, "rows": rows(seconds, "float weights"), "seconds": seconds}
            table |= other.summary()
            report(f"{self.name}, T = {self.steps}, {mode}, batch {batch}", table, None)
            yield table

    def bits(self, weights: WeightsName) -> dict[str, Any]:
        """How many different outputs there are, of all ways to run the network."""
        images = self.subject.tests[: min(COMPARED, self.tests)][self.input]
        found: dict[str, list[str]] = {}
        for coding, mode in itertools.product(("rate", "radix"), _MODES):
            if coding == "rate" and self.setting.coding == "radix":
                continue  # of 255 steps
            model = self.rewritten(mode, weights, coding).model  # type: ignore[arg-type]
            for library, batch, threads, optimised in WAYS:
                if mode in ("parallel", "integer-parallel") and not library and batch == 1:
                    continue
                digest = _digest(model, self.input, images, library, batch, threads, optimised)
                told = f"{coding} {mode}, {'library' if library else 'function body'}, batch {batch}, {threads} threads"
                found.setdefault(digest, []).append(f"{told}{', optimised' if optimised else ''}")
        print(f"{self.name}, T = {self.steps}: {len(found)} different outputs of {sum(map(len, found.values()))}")
        return {"images": len(images), "onnxruntime": onnxruntime.__version__, "outputs": found}


_MODES: tuple[ModeName, ...] = ("parallel", "folded", "integer", "integer-parallel")
# With the library, batch, threads, with onnxruntime's optimisations.
WAYS = [
    (True, 1, 1, True), (True, 7, 2, True), (True, 64, 1, False), (True, 64, 2, True),
    (False, 7, 1, True), (False, 64, 2, False),
]  # fmt: skip


def _digest(model: Any, name: str, images: np.ndarray, library: bool, batch: int, threads: int, optimised: bool) -> str:
    settings = timing.session_options()
    settings.intra_op_num_threads = threads
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    if library:
        session = pconv_onnx.session(model, options=settings)
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
    total = hashlib.sha256()
    for start in range(0, len(images), batch):
        total.update(session.run(None, {name: images[start : start + batch]})[0].tobytes())
    return total.hexdigest()


def line(entry: dict[str, Any]) -> str:
    """An entry as a row of a table."""
    floats, integers = entry["float_weights"], entry["integer_weights"]
    change = entry["against_float_weights"]
    how = "nearest" if entry["samples"] is None else f"fitted to {entry['samples']}"
    return (
        f"{entry['network']:<19} T = {entry['steps']:<3} {entry['coding']:<6} {entry['weights']} {how:<15} ANN "
        f"{floats['ann_top1']:.2%}, float weights {floats['top1']:.2%}, integers {integers['top1']:.2%} "
        f"({100 * change['top1_change']:+.2f} ± {100 * change['top1_change_error']:.2f}), agreement "
        f"{change['agreement']:.1%}; largest sum {entry['verified']['largest_sum']:.1%}"
    )


def main() -> None:
    """Measure, print, write after each."""
    parser = arguments(__doc__, repeats=15)
    parser.add_argument("networks", nargs="+", choices=[*SETTINGS], metavar="NETWORK", help=", ".join(SETTINGS))
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="networks that PyPI does not have")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="CIFAR-10, and pictures of ImageNet")
    parser.add_argument("--images", type=int, metavar="N", help="images to test on (default: all)")
    parser.add_argument("--answers-only", action="store_true", help="neither times nor bits")
    parser.add_argument("--steps", type=int, nargs="+", metavar="T", help="time-steps (default: those of the setting)")
    parser.add_argument("--folder", type=Path, help="where networks are kept, and taken from (default: nowhere)")
    options = parser.parse_args()
    document: dict[str, Any] = {"benchmark": "integers", "entries": []}
    if options.output is not None and options.output.exists():
        document = json.loads(options.output.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        options.folder.mkdir(parents=True, exist_ok=True)
        for name in options.networks:
            for steps in options.steps or SETTINGS[name].steps:
                for entry in Measured(name, steps, options).entries():
                    keys = ("network", "steps", "weights", "samples")
                    others = [one for one in document["entries"] if any(one[key] != entry[key] for key in keys)]
                    document["entries"] = [*others, entry]
                    write(document, options.output)
                    print(line(entry), flush=True)


if __name__ == "__main__":
    main()
