"""Architectures that this project did not make, each through the whole pipeline, into docs/support.md.

Every network is calibrated on random samples (T = 4), rewritten in every mode, and compared with the quantised network
that it was made of: layer by layer, where not one spike count may differ, and end to end. What cannot be done is told
in the sentence that users get.

Needs torch: pip install 'pconv-onnx[torch]'.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import re
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from measure import fill, machine, write
from zoo_networks import LIGHT, TORCH, light, samples, torch_network

import pconv_onnx
from pconv_onnx.basics.choices import ModeName
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.network import captured
from pconv_onnx.graph.view import key_of
from pconv_onnx.measure.comparison import Comparison
from pconv_onnx.plan.plan import Plan

# Those on floats; integer weights are measured on networks that are trained.
MODES: tuple[ModeName, ...] = ("parallel", "folded", "serial")

STEPS, METHOD = 4, "mse"
EXPORTERS = ("TorchScript", "dynamo")


@dataclass
class Row:
    """One network of one exporter.

    Attributes:
        opset: that of the file.
        found: activations of the source.
        converted: those that are neurons in the spiking network.
        left: why the others are not, with how many have that reason.
        modes: what came of each mode: a difference, or a sentence.
        itself: by how much the source differs from itself once onnxruntime optimises it.
        wrong: modes in which something is not as it has to be.
        decoded: operators that end the time axis, with how many of them there are.
        hybrid: activations that stay analog between neurons.
    """

    model: str
    exporter: str
    opset: int = 0
    found: int = 0
    converted: int = 0
    left: dict[str, int] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)
    itself: str = ""
    wrong: list[str] = field(default_factory=list)
    decoded: dict[str, int] = field(default_factory=dict)
    hybrid: int = 0


def export(name: str, exporter: str, path: Path) -> None:
    """Write one of the PyTorch networks for any batch."""
    module, inputs, names = torch_network(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter == "TorchScript":
            torch.onnx.export(
                module, inputs, path, dynamo=False, opset_version=17, input_names=list(names),
                dynamic_axes={name: {0: "batch"} for name in names},
            )  # fmt: skip
        else:
            batch = torch.export.Dim("batch")
            torch.onnx.export(
                module, inputs, path, dynamo=True, external_data=False, input_names=list(names),
                dynamic_shapes=tuple({0: batch} for _ in names),
            )  # fmt: skip


def networks(
    folder: Path, chosen: Sequence[str], exporters: Sequence[str] = EXPORTERS
) -> Iterator[tuple[Row, Path, dict[str, np.ndarray]]]:
    """A file, until the next is written, and samples for each network; a row with a reason where there is no file."""
    for path in sorted(LIGHT.glob("light_*.onnx")):
        name = path.stem.removeprefix("light_")
        if name in chosen:
            written = folder / "network.onnx"
            model = light(path)
            onnx.save(model, written)
            constants = {tensor.name for tensor in model.graph.initializer}
            (image,) = (info.name for info in model.graph.input if info.name not in constants)
            values = np.random.default_rng(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
            yield Row(name, "Caffe2"), written, {image: values}
    for name in TORCH:
        for exporter in exporters if name in chosen else ():
            written = folder / "network.onnx"
            row = Row(name, exporter)
            try:
                export(name, exporter, written)
            except Exception as error:  # torch raises what its passes do
                row.modes["export"] = f"not written by the exporter: {str(error).strip().splitlines()[0]}"
            yield row, written, samples(TORCH[name][1], 32)


def convert(row: Row, path: Path, data: dict[str, np.ndarray]) -> None:
    """Fill in a row."""
    row.opset = onnx.load(path).opset_import[0].version
    try:
        row.found = len(pconv_onnx.inspect(path)["activations"])
        calibration = pconv_onnx.calibrate(path, data, steps=STEPS, method=METHOD, readouts="spiking")
    except PconvError as error:
        row.modes["calibrate"] = str(error)
        return
    for mode in MODES:
        try:
            result = pconv_onnx.rewrite(calibration.model, mode=mode)
        except PconvError as error:
            row.modes[mode] = error.message
            continue
        if mode == "parallel":
            plan = result.plan
            left = [activation for activation in plan.activations if activation.name not in plan.neurons]
            row.left = dict(Counter(_nameless(calibration.why_it_stays(a.input, a.op_types) or a.reason) for a in left))
            row.converted, row.hybrid, row.decoded = len(plan.neurons), len(plan.hybrid), dict(decoding(plan))
        if not compared(row, mode, calibration.model, result.model, data):
            row.wrong.append(mode)


def decoding(plan: Plan) -> Counter[str]:
    """The operators that take a decoded tensor, by how many of them there are."""
    return Counter(
        node.op_type
        for node in plan.network.proto.graph.node
        if key_of(node) not in plan.replaced and key_of(node) not in plan.passages
        if any(name in plan.kinds for name in (*node.input, *captured(node)))
    )


def compared(row: Row, mode: str, ann: onnx.ModelProto, snn: onnx.ModelProto, data: dict[str, np.ndarray]) -> bool:
    """Whether a spiking network is as it has to be; what to tell of it goes into the row.

    No layer may count otherwise than its source. Folded, every operator gets what the source's does, so outputs differ
    by rounding at most; in parallel, convolutions over more rows may round otherwise, and a spike that this flips
    travels. A serial network is not its source; that it runs is all that is asked.
    """
    if mode == "serial":
        outputs = pconv_onnx.SerialSession(snn).run(None, {name: values[:1] for name, values in data.items()})
        right = all(np.isfinite(output).all() for output in outputs)
        row.modes[mode] = "runs" if right else "not finite"
        return right
    found = pconv_onnx.verify(ann, snn, data)
    mismatches = sum(layer.mismatches for layer in found.layers)
    row.modes[mode] = share(found.unoptimised) + (f", {mismatches} spike counts" if mismatches else "")
    row.itself = share(found.source_itself)
    return found.verdict != "different" and not (mode == "folded" and "unoptimised" in found.outputs_differ)


def share(difference: Comparison) -> str:
    """The largest difference as a share of the largest output."""
    return f"{difference.max_abs_diff / (difference.magnitude or 1):.0e}" if difference.max_abs_diff else "0"


PAGE = """\
# Networks that were put through the pipeline

This page shows which architectures convert, and in which modes they run. `make zoo` (`benchmarks/zoo.py`) generates
this part; the raw figures are in `benchmarks/results/zoo.json`.

It ran with torch {torch}, onnx {onnx} and onnxruntime {onnxruntime}. *Caffe2* networks come from onnx's backend tests,
in full size, without the Softmax at their end. The others are small PyTorch networks of the families that they are
named after, exported for any batch (`benchmarks/zoo_networks.py`). All weights and all data are random, so the table
shows what converts, and says nothing about accuracy.

There are {networks} exports with {activations} activations, which became {converted} neurons. **{wrong} results are
wrong**. A result is wrong if a spike count of a layer is not its source's, if folded outputs differ by more than
rounding, or if a value is not finite.

Each network is calibrated (`--method {method} --readouts spiking`, T = {steps}), rewritten, and
compared with the quantised network that
calibration made. A number in the column of a mode is the largest difference of an output, as a share of the largest
output, with graph optimisations off. In mode `parallel` convolutions run over more rows, so they may round differently
and flip a spike. A flipped spike travels, farthest in deep networks. The columns are:

- *H*: the network is a hybrid.
- *decoded*: the operators at which the time axis ends, and how many there are of each.
- *left*: activations that stay as they are, or stay in front of a neuron that encodes their output.
- *itself*: how much the quantised network differs from itself once it is optimised.

{table}

{notes}
"""


def markdown(rows: list[Row], where: dict[str, Any]) -> str:
    """The rows as a page."""
    notes: dict[str, int] = {}
    modes = list(MODES)
    heads = ["network", "exporter", "opset", "found", "neurons", "H", "decoded", "left", *modes, "itself"]
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        left = "; ".join(f"{count} {_note(reason, notes)}" for reason, count in row.left.items()) or "–"
        told = [_note(value, notes) for key, value in row.modes.items() if key not in modes] * len(modes)
        told = told or [_told(row.modes[mode], notes) for mode in modes]
        cells = [*counts(row), left, *told, row.itself or "–"]
        table.append(f"| {' | '.join(map(str, cells))} |")
    return PAGE.format(
        **where,
        steps=STEPS,
        method=METHOD,
        networks=len(rows),
        activations=sum(row.found for row in rows),
        converted=sum(row.converted for row in rows),
        wrong=sum(len(row.wrong) for row in rows),
        table="\n".join(table),
        notes="\n".join(f"- [{number}] {reason}" for reason, number in notes.items()),
    )


def counts(row: Row) -> list[object]:
    """The first cells of a row of the table."""
    decoded = ", ".join(f"{count} {name}" for name, count in sorted(row.decoded.items())) or "–"
    return [row.model, row.exporter, row.opset, row.found, row.converted, "H" if row.hybrid else "", decoded]


def _told(value: str, notes: dict[str, int]) -> str:
    return _note(value, notes) if " " in value and "spike counts" not in value else value


def _note(sentence: str, notes: dict[str, int]) -> str:
    """A number for a sentence, the same whatever names it has in it."""
    sentence = _nameless(sentence.split("one time-step at a time: ")[-1])
    return f"[{notes.setdefault(sentence, len(notes) + 1)}]"


def _nameless(sentence: str) -> str:
    return re.sub(r"'[^']*'", "…", sentence)


def main() -> None:
    names = [path.stem.removeprefix("light_") for path in sorted(LIGHT.glob("light_*.onnx"))] + list(TORCH)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=names, choices=names, metavar="NAME")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into its section on the zoo")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    where = {**machine(threads=torch.get_num_threads()), "torch": torch.__version__}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row, path, data in networks(Path(folder), options.networks):
            start = time.perf_counter()
            if not row.modes:
                convert(row, path, data)
            rows.append(row)
            told = f"wrong: {row.wrong}" if row.wrong else "done"
            seconds = time.perf_counter() - start
            print(f"{row.model}, {row.exporter}: {told} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    page = markdown(rows, where)
    print(page)
    write({"machine": where, "rows": [asdict(row) for row in rows]}, options.output)
    if options.page:
        fill(options.page, "zoo", page)


if __name__ == "__main__":
    main()
