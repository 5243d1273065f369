"""Codings on ResNet-20: an 8-bit QDQ network in binary digits, a calibrated one of 15 levels, and where the time goes.

onnxruntime's quantiser makes the QDQ networks, uint8 and symmetric int8; the calibrated ones are made of the same ReLU
network. What is compared in a table takes turns, and its ratios are those of the same round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from calibration import EXAMPLES, read
from measure import arguments, interleaved, machine, report, rows, write
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import pconv_onnx
from pconv_onnx.basics.choices import CodingName, ModeName
from pconv_onnx.measure import timing

RELU = EXAMPLES / "resnet20" / "resnet20-relu.onnx"
# The same two sides of zero in signed codes, so that zero is a code and weights have no offsets.
SIGNED = {"ActivationSymmetric": True, "WeightSymmetric": True}
QUANTISED = {"uint8": (QuantType.QUInt8, {}), "int8": (QuantType.QInt8, SIGNED)}
CALIBRATED: dict[str, tuple[CodingName, int]] = {"15 levels": ("radix", 4), "16 levels": ("rate", 16)}
MODES: tuple[ModeName, ...] = ("parallel", "folded")
BASELINE = "ReLU ANN"
# Images to verify and to count operations on; time-steps of 255 take too long for more rounds.
FEW, FEW_ROUNDS = 100, 3

Array = np.ndarray[Any, np.dtype[Any]]


def quantised(name: str, images: Array, folder: Path) -> Path:
    """The QDQ network with activations of that type, in a file of that folder."""
    path, (activations, extra) = folder / f"qdq-{name}.onnx", QUANTISED[name]
    if not path.exists():
        quantize_static(
            RELU, path, Batches(images), QuantFormat.QDQ, activation_type=activations, weight_type=QuantType.QInt8,
            extra_options=extra,
        )  # fmt: skip
    return path


class Benchmark:
    """What all parts share: images, options, and the networks, which are made once."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.images, self.labels = read(options.images)
        self.few = {"image": self.images[:FEW]}
        self._to_calibrate: Array | None = None

    def quantised(self, name: str) -> Path:
        """The QDQ network with activations of that type."""
        return quantised(name, self._calibration(256), self.folder)

    def calibrated(self, name: str) -> Path:
        """The network with so many levels."""
        path, (coding, steps) = self.folder / f"calibrated-{name}.onnx", CALIBRATED[name]
        if not path.exists():
            pconv_onnx.calibrate(RELU, {"image": self._calibration(2000)}, path, steps=steps, coding=coding)
        return path

    def _calibration(self, count: int) -> Array:
        if self._to_calibrate is None:
            self._to_calibrate = read(self.options.calibration)[0]
        return self._to_calibrate[:count]

    def session(self, model: Path | onnx.ModelProto, profile: str = "") -> Any:
        """A session as users get it, on the threads that were asked for."""
        settings = timing.session_options()
        settings.intra_op_num_threads = self.options.threads
        if profile:
            settings.enable_profiling, settings.profile_file_prefix = True, profile
        return pconv_onnx.session(model, options=settings)

    def answers(self, model: Path | onnx.ModelProto) -> Array:
        """The class that it gives each image."""
        session = self.session(model)
        starts = range(0, len(self.images), 100)
        return np.concatenate([session.run(None, {"image": self.images[i : i + 100]})[0].argmax(1) for i in starts])

    def accuracy(self, model: Path | onnx.ModelProto) -> float:
        """Share of the images that it knows."""
        return float((self.answers(model) == self.labels).mean())

    def timed(
        self, title: str, models: dict[str, Path | onnx.ModelProto], baseline: str, batch: int, repeats: int
    ) -> dict[str, Any]:
        """A table of models in turns."""
        feed = {"image": self.images[:batch]}
        sessions = {name: self.session(model) for name, model in models.items()}
        runs = {name: lambda runner=runner: runner.run(None, feed) for name, runner in sessions.items()}
        other = timing.OtherWork()
        seconds = interleaved(runs, repeats, warm_up=1)
        table = {
            "title": f"{title}, batch {batch}",
            "batch": batch,
            "rows": rows(seconds, baseline),
            "seconds": seconds,
        }
        table |= {"load_average": machine(self.options.threads)["load_average"], **other.summary()}
        report(table["title"], table, None)
        return table

    def shares(self, model: Path | onnx.ModelProto, batch: int, runs: int = 5) -> dict[str, dict[str, float]]:
        """By operator its nodes, and the share of the time of all nodes that they take in a run."""
        with tempfile.TemporaryDirectory() as folder:
            session = self.session(model, f"{folder}/profile")
            for _ in range(runs + 1):
                session.run(None, {"image": self.images[:batch]})
            entries = json.loads(Path(session.end_profiling()).read_text())
        nodes = [entry for entry in entries if entry["name"].endswith("_kernel_time")]
        nodes = nodes[len(nodes) // (runs + 1) :]  # the first run finds its memory
        taken, counted = Counter[str](), Counter[str]()
        for node in nodes:
            taken[node["args"]["op_name"]] += node["dur"]
            counted[node["args"]["op_name"]] += 1
        total = sum(taken.values())
        return {name: {"nodes": counted[name] // runs, "share": time / total} for name, time in taken.most_common()}


class Batches(CalibrationDataReader):
    """Images as onnxruntime's quantiser takes them."""

    def __init__(self, images: Array) -> None:
        self._batches: Iterator[Array] = iter(np.array_split(images, max(1, len(images) // 64)))

    def get_next(self) -> dict[str, Array] | None:
        """The next batch; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def lossless(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """What `rewrite` makes of a QDQ network by default, and whether it is that network."""
    source = benchmark.quantised(name)
    answers = benchmark.answers(source)
    found: dict[str, Any] = {"accuracy": {"source": float((answers == benchmark.labels).mean())}}
    for mode in MODES:
        rewriting = pconv_onnx.rewrite(source, mode=mode)
        verified = pconv_onnx.verify(source, rewriting.model, benchmark.few).summary()
        given = benchmark.answers(rewriting.model)
        found["accuracy"][mode] = float((given == benchmark.labels).mean())
        found[mode] = {
            "verdict": verified["verdict"],
            "layers": len(verified["layers"]),
            "layers_equal": sum(layer["count_mismatch_rate"] == 0 for layer in verified["layers"]),
            "same_answer": float((given == answers).mean()),
        }
    kept = rewriting.summary()["activations"]
    layers = Counter(f"{row['coding']}, T = {row['steps']}{', signed' * row['signed']}" for row in kept)
    found |= {"layers": dict(layers), **operations(benchmark, pconv_onnx.rewrite(source).model)}
    print(f"\nQDQ {name}", json.dumps(found, indent=1))
    return found


def operations(benchmark: Benchmark, model: onnx.ModelProto) -> dict[str, Any]:
    """Of one image: operations, energy, and how many linear operators read spikes."""
    counted = pconv_onnx.stats(model, benchmark.few).summary()
    read = Counter(entry["input"] for entry in counted["operators"])
    return {
        "totals": counted["totals"],
        "energy_ratio": counted["energy"]["ratio"],
        "linear_operators_read": dict(read),
    }


def in_few_steps(benchmark: Benchmark) -> tuple[dict[str, onnx.ModelProto], dict[str, Any]]:
    """Calibrated levels in each coding: the networks by name, their accuracies and operations."""
    fifteen, sixteen = map(benchmark.calibrated, CALIBRATED)
    models = {
        "radix, T = 4": pconv_onnx.rewrite(fifteen, coding="radix").model,
        "rate, T = 15": pconv_onnx.rewrite(fifteen, coding="rate").model,
        "rate, T = 16": pconv_onnx.rewrite(sixteen, coding="rate").model,
    }
    found: dict[str, Any] = {"accuracy": {BASELINE: benchmark.accuracy(RELU)}, "operations": {}}
    for name, model in models.items():
        found["accuracy"][name] = benchmark.accuracy(model)
        found["operations"][name] = operations(benchmark, model)
    radix, rate = (found["operations"][name] for name in ("radix, T = 4", "rate, T = 15"))
    synaptic = [entry["totals"]["synaptic_operations"] for entry in (radix, rate)]
    found["radix_to_rate_at_15_levels"] = {
        "synaptic_operations": synaptic[0] / synaptic[1],
        "energy": radix["energy_ratio"] / rate["energy_ratio"],
    }
    print("\ncalibrated", json.dumps(found, indent=1))
    return models, found


def tables(benchmark: Benchmark, few_steps: dict[str, onnx.ModelProto]) -> Iterator[dict[str, Any]]:
    """Times, at a batch of 1 and of 32."""
    sources = {name: benchmark.quantised(name) for name in QUANTISED}
    eight_bit = {f"QDQ {name}, parallel": pconv_onnx.rewrite(source).model for name, source in sources.items()}
    rate = pconv_onnx.rewrite(sources["uint8"], coding="rate").model
    folded = pconv_onnx.rewrite(sources["uint8"], mode="folded").model
    others = {BASELINE: RELU, "QDQ uint8 ANN": sources["uint8"], "QDQ uint8, folded": folded}
    for batch in (1, 32):
        yield benchmark.timed("8 bits", {**others, **eight_bit}, BASELINE, batch, benchmark.options.repeats)
        yield benchmark.timed(
            "calibrated", {BASELINE: RELU, **few_steps}, "rate, T = 16", batch, benchmark.options.repeats
        )
        both = {"radix": eight_bit["QDQ uint8, parallel"], "rate, T to 255": rate}
        yield benchmark.timed("8 bits in each coding", both, "rate, T to 255", batch, FEW_ROUNDS)


def main() -> None:
    """Make the networks, compare, count, time, write."""
    parser = arguments(__doc__, repeats=15)
    parser.add_argument("--calibration", type=Path, required=True, metavar="FILE")
    parser.add_argument("--images", type=Path, default=EXAMPLES / "resnet20" / "cifar10-test-1000.npz", metavar="FILE")
    parser.add_argument("--folder", type=Path, help="where networks that are made are kept (default: nowhere)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        benchmark = Benchmark(options, options.folder or Path(temporary))
        eight_bit = {name: lossless(benchmark, name) for name in QUANTISED}
        few_steps, calibrated = in_few_steps(benchmark)
        document = {
            "benchmark": "codings",
            "images": len(benchmark.images),
            "verified_images": FEW,
            "qdq": eight_bit,
            "calibrated": calibrated,
            "shares": {
                name: benchmark.shares(pconv_onnx.rewrite(benchmark.quantised(name)).model, 32) for name in QUANTISED
            },
            "tables": list(tables(benchmark, few_steps)),
            "machine": machine(options.threads),
        }
    write(document, options.output)


if __name__ == "__main__":
    main()
