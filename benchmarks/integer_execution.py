"""Networks of integers in time: layers of integers, each instruction set, against the ANN and its stock int8 form.

All take turns of a few runs each, on the same images. The stock form is what onnxruntime's own static quantisation
makes of the ANN (QDQ, weights a channel, uint8 activations), calibrated on some of the images. ResNet-20 has levels;
SqueezeNet and EfficientNet-Lite0 are given 255 and 127 a channel (method `max`), radix. Answers are those of
`benchmarks/integers.py`; here the bits of the outputs are compared, with those of floats that hold the same integers.

Networks, and where they are from, are those of `products_networks.py`. An entry of the file is replaced when it is
measured again, and the others stay.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from measure import arguments, interleaved, machine, report, rows, write
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from products_networks import RECIPES
from subjects import Folders, Samples

import pconv_onnx
from pconv_onnx.basics.choices import CodingName, NeuronsName
from pconv_onnx.measure import timing

# Runs of a turn: caches then hold what they hold in use, and not what the others left.
BURST = 5
# Images that stock int8 is calibrated on; images whose bits are compared.
FEW, COMPARED = 50, 8
INSTRUCTIONS = ("avx512vnni", "avxvnni", "avx2", "portable")
ANN, STOCK, BODY = "ANN, fp32", "ANN, stock int8", "integer, function body"
# Real spikes: time-steps and coding of networks in mode integer-parallel.
TRAINS: tuple[tuple[int, CodingName], ...] = ((4, "radix"), (8, "rate"))


@dataclass(frozen=True)
class Setting:
    """Which ANN there is, how it gets levels (of none where `spiking` has them), and the batches."""

    ann: str
    spiking: str
    steps: int
    neurons: NeuronsName
    batches: tuple[int, ...]


SETTINGS = {
    "resnet20": Setting("resnet20-relu", "resnet20-qcfs8", 0, "activations", (1, 32)),
    "squeezenet": Setting("squeezenet", "", 8, "activations", (1,)),
    "efficientnet-lite0": Setting("efficientnet-lite0", "", 7, "products", (1,)),
}


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Samples) -> None:
        self._feeds = (samples[index : index + 1] for index in range(len(samples)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@contextmanager
def instructions(name: str) -> Iterator[None]:
    """Kernels of that name for the sessions that are opened meanwhile."""
    os.environ["PCONV_INSTRUCTIONS"] = name
    try:
        yield
    finally:
        del os.environ["PCONV_INSTRUCTIONS"]


def session(model: onnx.ModelProto | Path, threads: int, *, library: bool = True) -> Any:
    """A session on so many threads."""
    settings = timing.session_options()
    settings.intra_op_num_threads = threads
    if library:
        return pconv_onnx.session(model, options=settings)
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(content, settings, ["CPUExecutionProvider"])


def burst(runner: Any, feed: dict[str, np.ndarray]) -> None:
    """A turn."""
    for _ in range(BURST):
        runner.run(None, feed)


class Measured:
    """A network, its stock int8 form, and its integers."""

    def __init__(self, name: str, folders: Folders) -> None:
        self.setting = SETTINGS[name]
        subject = RECIPES[self.setting.ann].make(folders, FEW)
        self.ann, self.samples, self.images = subject.model, subject.calibration, subject.tests
        (self.input,) = self.samples.inputs
        levels: onnx.ModelProto | Path = RECIPES[self.setting.spiking or self.setting.ann].make(folders, FEW).model
        if not self.setting.spiking:
            levels = pconv_onnx.calibrate(
                self.ann, self.samples[:FEW], steps=self.setting.steps, coding="radix", neurons=self.setting.neurons,
                readouts="spiking", method="max",
            ).model  # fmt: skip
        values = self.samples[:FEW][self.input]
        options: dict[str, Any] = {"weights": "int8", "input_bits": 8}
        options["input_range"] = float(values.min()), float(values.max())
        self.integer, self.folded = (
            pconv_onnx.rewrite(levels, mode=mode, **options).model  # type: ignore[call-overload]
            for mode in ("integer", "folded")
        )
        self.trains = {
            steps: pconv_onnx.rewrite(levels, mode="integer-parallel", steps=steps, coding=coding, **options).model
            for steps, coding in (TRAINS if self.setting.spiking else ())
        }
        self.stock = folders.folder / f"{name}-stock-int8.onnx"
        quantize_static(
            str(self.ann), str(self.stock), _Feeds(self.samples), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip

    def sessions(self, threads: int) -> dict[str, Any]:
        """All that take turns."""
        found = {
            ANN: session(self.ann, threads, library=False),
            STOCK: session(self.stock, threads, library=False),
            BODY: session(self.integer, threads, library=False),
        }
        for name in INSTRUCTIONS:
            with instructions(name):
                try:
                    found[f"integer, {name}"] = session(self.integer, threads)
                except pconv_onnx.PconvError as error:
                    print(f"integer, {name}: {error}")
        found |= {f"integer-parallel, T = {steps}": session(model, threads) for steps, model in self.trains.items()}
        return found

    def bits(self, threads: int) -> dict[str, list[str]]:
        """By SHA-256 of the outputs who gives them."""
        runners = {name: one for name, one in self.sessions(threads).items() if name.startswith("integer")}
        runners["folded, fp32"] = session(self.folded, threads)
        found: dict[str, list[str]] = {}
        for name, runner in runners.items():
            total = hashlib.sha256()
            for output in runner.run(None, self.images[:COMPARED]):
                total.update(output.tobytes())
            found.setdefault(total.hexdigest(), []).append(name)
        return found

    def tables(self, threads: int, repeats: int) -> Iterator[dict[str, Any]]:
        """Times, a table a batch."""
        for batch in self.setting.batches:
            feed = self.images[:batch]
            # Plain C++ is for processors that have none of the others.
            runners = {name: runner for name, runner in self.sessions(threads).items() if "portable" not in name}
            runs = {name: functools.partial(burst, runner, feed) for name, runner in runners.items()}
            other = timing.OtherWork()
            bursts = interleaved(runs, repeats)
            seconds = {name: [value / BURST for value in values] for name, values in bursts.items()}
            yield {"batch": batch, "rows": rows(seconds, ANN), "seconds": seconds} | other.summary()


def main() -> None:
    """Measure, print, write after each."""
    parser = arguments(__doc__, repeats=50)
    parser.add_argument("networks", nargs="+", choices=[*SETTINGS], metavar="NETWORK", help=", ".join(SETTINGS))
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="networks that PyPI does not have")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="CIFAR-10, and pictures of ImageNet")
    parser.add_argument("--folder", type=Path, help="where networks are kept, and taken from (default: nowhere)")
    options = parser.parse_args()
    document: dict[str, Any] = {"benchmark": "integer_execution", "entries": []}
    if options.output is not None and options.output.exists():
        document = json.loads(options.output.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folders = Folders(options.models, options.data, options.folder or Path(temporary))
        folders.folder.mkdir(parents=True, exist_ok=True)
        for name in options.networks:
            measured = Measured(name, folders)
            entry: dict[str, Any] = {
                "network": name,
                "machine": machine(options.threads),
                "bits": measured.bits(options.threads),
                "tables": [],
            }
            print(f"{name}: {len(entry['bits'])} different outputs")
            for table in measured.tables(options.threads, options.repeats):
                entry["tables"].append(table)
                report(f"{name}, batch {table['batch']}, {options.threads} threads", table, None)
            others = [
                one for one in document["entries"]
                if (one["network"], one["machine"]["threads"]) != (name, options.threads)
            ]  # fmt: skip
            document["entries"] = [*others, entry]
            write(document, options.output)


if __name__ == "__main__":
    main()
