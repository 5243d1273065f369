"""Every way in which PyTorch writes QCFS to ONNX, converted and compared value by value.

Each form of the activation is exported by itself, by each of torch's exporters, at each opset and in each type; the
file is rewritten, and its neuron is compared with the source on every threshold, the floats next to it, and others of
every size. The source is what onnx defines: its reference evaluator, operator by operator. The neuron runs as its
function body in the same evaluator (mode folded), and as spike trains on the native kernel where it is all that is left
and onnxruntime takes its type from NumPy (bfloat16 it does not).

Needs torch: pip install 'pconv-onnx[torch]'. Writes docs/exports.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import torch
import torch.nn.functional as functional
from measure import machine, write
from onnx.reference import ReferenceEvaluator
from torch import nn

import pconv_onnx
from pconv_onnx.basics.errors import PconvError

# No power of two, and no round number: neither hides a rounding.
LEVELS, THETA = 6, 1.7
CHANNELS = 3
OPSETS = {"TorchScript": (11, 12, 13, 17, 21), "dynamo": (18, 20, 23, 25)}
TYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
Tensor = torch.Tensor


class GradFloor(torch.autograd.Function):
    """Floor with a straight-through gradient, as papers' repositories write it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class SymbolicFloor(GradFloor):
    """The same with an ONNX symbol of its own."""

    @staticmethod
    def symbolic(graph: Any, x: Any) -> Any:
        return graph.op("Floor", x)


def straight_through(x: Tensor) -> Tensor:
    return x + (x.floor() - x).detach()


def unit(x: Tensor) -> Tensor:
    return torch.clamp(x, 0, 1)


def floor_then_clip(x: Tensor, theta: Tensor, floor: Callable = torch.floor, clip: Callable = unit) -> Tensor:
    return clip(floor(x / theta * LEVELS + 0.5) / LEVELS) * theta


def clip_then_floor(x: Tensor, theta: Tensor, floor: Callable = torch.floor, clip: Callable = unit) -> Tensor:
    return floor(clip(x / theta) * LEVELS + 0.5) / LEVELS * theta


def one(x: Tensor) -> Tensor:
    return torch.ones((), dtype=x.dtype)


# Code of the activation → x and θ to value.
FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clamp(floor(x/θ·L + ½)/L, 0, 1)·θ": floor_then_clip,
    "floor(clamp(x/θ, 0, 1)·L + ½)/L·θ": clip_then_floor,
    "clamp(floor(x·L/θ + ½), 0, L)·θ/L": lambda x, t: (
        torch.clamp(torch.floor(x * LEVELS / t + 0.5), 0, LEVELS) * t / LEVELS
    ),
    "clamp(floor(x·(L/θ) + ½), 0, L)·(θ/L)": lambda x, t: (
        torch.clamp(torch.floor(x * (LEVELS / t) + 0.5), 0, LEVELS) * (t / LEVELS)
    ),
    "clamp(floor(x/(θ/L) + ½), 0, L)·(θ/L)": lambda x, t: (
        torch.clamp(torch.floor(x / (t / LEVELS) + 0.5), 0, LEVELS) * (t / LEVELS)
    ),
    "autograd.Function floor": lambda x, t: floor_then_clip(x, t, GradFloor.apply),
    "autograd.Function floor with symbolic": lambda x, t: floor_then_clip(x, t, SymbolicFloor.apply),
    "autograd.Function floor, clip first": lambda x, t: clip_then_floor(x, t, GradFloor.apply),
    "z + (floor(z) − z).detach()": lambda x, t: floor_then_clip(x, t, straight_through),
    "z + (floor(z) − z).detach(), clip first": lambda x, t: clip_then_floor(x, t, straight_through),
    "hardtanh(·, 0, 1)": lambda x, t: floor_then_clip(x, t, clip=lambda z: functional.hardtanh(z, 0.0, 1.0)),
    "relu, clamp(max=1)": lambda x, t: floor_then_clip(x, t, clip=lambda z: functional.relu(z).clamp(max=1)),
    "relu, minimum": lambda x, t: floor_then_clip(x, t, clip=lambda z: torch.minimum(functional.relu(z), one(z))),
    "minimum(relu(x), θ) first": lambda x, t: clip_then_floor(
        torch.minimum(functional.relu(x), t), t, clip=lambda z: z
    ),
    "clamp(min=0), clamp(max=1)": lambda x, t: floor_then_clip(x, t, clip=lambda z: z.clamp(min=0).clamp(max=1)),
    "1 − relu(1 − relu(·))": lambda x, t: floor_then_clip(
        x, t, clip=lambda z: 1 - functional.relu(1 - functional.relu(z))
    ),
    "calibrated: (θ + φ)·clamp(floor((x + ψ)·L/θ + ½)/L, 0, 1)": lambda x, t: (
        (t * 1.1) * torch.clamp(torch.floor((x + t * 0.3) * LEVELS / t + 0.5) / LEVELS, 0, 1)
    ),
    "θ = abs(parameter)": lambda x, t: floor_then_clip(x, t.abs()),
    "θ = softplus(parameter)": lambda x, t: floor_then_clip(x, functional.softplus(t)),
}
THETAS = {
    "scalar": torch.tensor(THETA),
    "per channel": THETA * torch.tensor([0.31, 1.0, 2.3]).reshape(CHANNELS, 1, 1),
}


class Activation(nn.Module):
    """One form with a learned θ."""

    def __init__(self, form: Callable[[Tensor, Tensor], Tensor], theta: Tensor) -> None:
        super().__init__()
        self.form, self.threshold = form, nn.Parameter(theta.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x, self.threshold)


class Network(nn.Module):
    """The activation as a module of its own, as in networks."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


@dataclass
class Cell:
    """One export. `mismatches` of `values`, where it was converted; else why it was not.

    `overflows` more values, finite ones, are so large that the source makes a NaN of them.
    """

    form: str
    theta: str
    exporter: str
    opset: int
    dtype: str
    folded: bool
    outcome: str
    reason: str = ""
    values: int = 0
    mismatches: int = 0
    overflows: int = 0


def export(module: nn.Module, x: Tensor, path: Path, exporter: str, opset: int, fold: bool) -> None:
    common: dict[str, Any] = {"opset_version": opset, "input_names": ["x"], "output_names": ["y"]}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if exporter == "TorchScript":
            axes = {"x": {0: "batch"}, "y": {0: "batch"}}
            torch.onnx.export(module, (x,), path, dynamo=False, do_constant_folding=fold, dynamic_axes=axes, **common)
        else:
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (x,), path, dynamo=True, optimize=fold, dynamic_shapes=shapes, **common)


def inputs(neuron: Any, dtype: np.dtype) -> np.ndarray:
    """`[n, C, 1, 1]`: thresholds, the floats on either side, floats near them and floats of every size."""
    generator = np.random.default_rng(0)
    at = np.broadcast_to(neuron.thresholds, (CHANNELS, neuron.steps))
    if dtype.itemsize == 2:
        every = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(dtype)
        values = np.broadcast_to(every, (CHANNELS, every.size))
    else:
        sides = [np.nextafter(at, dtype.type(side)) for side in (-np.inf, np.inf)]
        near = generator.normal(0, 2 * np.abs(at).max(), (CHANNELS, 4000)).astype(dtype)
        every = generator.integers(0, 2**32, (CHANNELS, 4000), dtype=np.uint32).view(dtype)
        odd = np.broadcast_to(np.array([0, -0.0, np.inf, -np.inf, 1e-45], dtype=dtype), (CHANNELS, 5))
        values = np.concatenate([at, *sides, near, every, odd], axis=1)
    # A NaN never fires; the source hands it on. Straight-through floors make one of an infinity.
    finite = np.isfinite(values.astype(np.float64)).all(axis=0)
    return np.ascontiguousarray(values[:, finite].T).reshape(-1, CHANNELS, 1, 1)


def compare(path: Path, dtype: np.dtype) -> tuple[str, str, int, int, int]:
    """Outcome, reason, values compared, mismatches and overflows of one file."""
    try:
        result, folded = pconv_onnx.rewrite(path), pconv_onnx.rewrite(path, mode="folded")
    except PconvError as error:
        return "refused", error.message.split(": ", 1)[1], 0, 0, 0
    (neuron,) = result.plan.neurons.values()
    x = inputs(neuron, dtype)
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(onnx.load(path)).run(None, {"x": x})
        (found,) = ReferenceEvaluator(folded.model).run(None, {"x": x})
    overflown = np.isnan(expected.astype(np.float64))
    wrong = (found != expected) & ~overflown
    if dtype.name != "bfloat16" and all(node.domain == "pconv" for node in result.model.graph.node):
        (in_kernel,) = pconv_onnx.session(result.model).run(None, {"x": x})
        wrong |= (in_kernel != expected) & ~overflown
    return "converted", "", int((~overflown).sum()), int(wrong.sum()), int(overflown.sum())


def cells(folder: Path) -> Iterator[Cell]:
    runs = [(e, opset, dtype, True) for e, opsets in OPSETS.items() for opset in opsets for dtype in TYPES]
    # Without the exporters' constant folding, once each.
    runs += [("TorchScript", 17, "float32", False), ("dynamo", 20, "float32", False)]
    for exporter, opset, dtype, folded in runs:
        for form, code in FORMS.items():
            for theta, value in THETAS.items():
                path = folder / "activation.onnx"
                module = Network(Activation(code, value)).to(getattr(torch, dtype)).eval()
                x = torch.zeros(2, CHANNELS, 1, 1, dtype=getattr(torch, dtype))
                key = (form, theta, exporter, opset, dtype, folded)
                try:
                    export(module, x, path, exporter, opset, folded)
                except Exception as error:  # torch raises what its passes do
                    yield Cell(*key, "not exported", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
                    continue
                written = onnx.load(path).opset_import[0].version
                if written != opset:
                    yield Cell(*key, "not exported", f"the exporter wrote opset {written}")
                    continue
                yield Cell(*key, *compare(path, TYPES[dtype]))


PAGE = """\
# QCFS as PyTorch exports it

This page shows which ways of writing QCFS in PyTorch you can export and convert. `make exports`
(`benchmarks/exports.py`) generates it; the raw figures are in `benchmarks/results/exports.json`.

It ran with torch {torch}, onnx {onnx} and onnxruntime {onnxruntime}. L is {levels}, and θ is learned, one scalar
or one value per channel. {converted} exports were converted and {refused} refused; the exporter could not write
{missing}.
**{wrong} of {compared:,} values differ** from the source's.

A cell lists the opsets that are converted without a mismatch. Half types are compared on every finite value. float32 is
compared, for each channel, on every threshold, the floats next to it and 8,000 others.

{table}

{notes}

*unfolded*: in float32, TorchScript with `do_constant_folding=False` at opset 17, and dynamo with `optimize=False` at
opset 20.

Opsets before 13 are brought to 17 ([opsets.md](opsets.md)). The table leaves out infinite inputs, and finite inputs so
large that the source itself turns them into a NaN: {overflows:,} values, all of straight-through floors that are
clipped afterwards (∞ − ∞, once the scaled value overflows). The neuron saturates there, as the floor does. If an
operator that runtimes approximate computes θ, TorchScript leaves that operator in the graph, and the scaling by θ
stays outside the neuron.
"""


def markdown(cells: list[Cell], where: dict[str, Any]) -> str:
    """The table as a page."""
    columns = [(exporter, dtype) for exporter in OPSETS for dtype in TYPES]
    notes: dict[str, int] = {}
    heads = [*(f"{exporter} {dtype}" for exporter, dtype in columns), "unfolded"]
    table = [f"| form | θ | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for form in FORMS:
        for theta in THETAS:
            own = [cell for cell in cells if (cell.form, cell.theta) == (form, theta)]
            groups = [[c for c in own if (c.exporter, c.dtype, c.folded) == (*column, True)] for column in columns]
            groups.append([cell for cell in own if not cell.folded])
            table.append(f"| `{form}` | {theta} | {' | '.join(_cell(group, notes) for group in groups)} |")
    outcomes = Counter(cell.outcome for cell in cells)
    return PAGE.format(
        **where,
        levels=LEVELS,
        converted=outcomes["converted"],
        refused=outcomes["refused"],
        missing=outcomes["not exported"],
        wrong=sum(cell.mismatches for cell in cells),
        compared=sum(cell.values for cell in cells),
        overflows=sum(cell.overflows for cell in cells),
        table="\n".join(table),
        notes="\n".join(f"- [{number}] {reason}" for reason, number in notes.items()),
    )


def _cell(cells: list[Cell], notes: dict[str, int]) -> str:
    parts = []
    right = [str(cell.opset) for cell in cells if cell.outcome == "converted" and not cell.mismatches]
    if right:
        parts.append(", ".join(right))
    for cell in cells:
        if cell.outcome == "converted" and not cell.mismatches:
            continue
        reason = cell.reason or f"{cell.mismatches} of {cell.values} values differ"
        number = notes.setdefault(f"{cell.outcome}: {reason}", len(notes) + 1)
        parts.append(f"{cell.opset}: [{number}]")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table there, as Markdown")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    where = {**machine(threads=torch.get_num_threads()), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        found = list(cells(Path(folder)))
    page = markdown(found, where)
    print(page)
    write({"machine": where, "cells": [asdict(cell) for cell in found]}, options.output)
    if options.page:
        options.page.write_text(page)


if __name__ == "__main__":
    main()
