"""What attention weights and scales cost: a transformer calibrated in several ways, against its ANN.

Ways are how far levels reach, `calibrate`'s rules and scale migration half-way between two of them (Xiao et al.,
SmoothQuant, 2023), with attention weights as exp(z − max z); and, with the first, weights as Softmax gives them.
Outputs are compared by cosine and by their largest entry, in mode folded; energy is that of `stats`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure import arguments, machine, write
from onnx import helper, numpy_helper

import pconv_onnx
from pconv_onnx.calibration import calibrating, choosing, staircases

# Samples run at once, and counted operations on.
BATCH, COUNTED = 50, 16
MIGRATED = "migrated"


def ways(steps: int) -> Iterator[tuple[str, str]]:
    """How levels reach, and what is encoded of attention weights; of few levels `calibrate` knows one rule."""
    rules = ("fit",) if 2**steps - 1 <= 32 else ("fit", "channel", "tensor", MIGRATED)
    yield from ((rule, "exp") for rule in rules)
    yield rules[0], "softmax"


def with_softmax_itself(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights times one behind each Softmax: so nothing divides by their sum later."""
    one = numpy_helper.from_array(np.ones((), np.float32), "one_for_weights")
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type == "Softmax":
            given = node.output[0]
            node.output[0] = f"{given}/weights"
            nodes.append(helper.make_node("Mul", [node.output[0], one.name], [given]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(one)
    return model


class _Reaching:
    """While it lasts `calibrate` has one rule."""

    def __init__(self, rule: str) -> None:
        self.rule, self.before = rule, (calibrating.RULES, choosing._ALIKE, staircases.by_maximum)

    def __enter__(self) -> None:
        *_, by_maximum = self.before
        # A scale for each channel, however alike they are.
        choosing._ALIKE = 0.0
        calibrating.RULES = ("channel",) if self.rule == MIGRATED else (self.rule,)
        if self.rule == MIGRATED:
            staircases.by_maximum = lambda reach, steps: by_maximum(np.sqrt(reach * reach.max()), steps)

    def __exit__(self, *_: object) -> None:
        calibrating.RULES, choosing._ALIKE, staircases.by_maximum = self.before


def output(model: Any, data: dict[str, np.ndarray], count: int) -> np.ndarray:
    """The first output for so many samples."""
    session = pconv_onnx.session(model)
    parts = (slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH))
    return np.concatenate([session.run(None, {name: x[part] for name, x in data.items()})[0] for part in parts])


def compared(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Cosines along the last axis, and how many have the same largest entry there."""
    left, right = (values.reshape(-1, values.shape[-1]).astype(np.float64) for values in (found, expected))
    cosine = (left * right).sum(axis=1) / np.maximum(
        np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1), 1e-30
    )
    return {
        "cosine_median": float(np.median(cosine)),
        "cosine_05": float(np.quantile(cosine, 0.05)),
        "agreement": float((left.argmax(axis=1) == right.argmax(axis=1)).mean()),
    }


def measured(options: argparse.Namespace, steps: int) -> Iterator[dict[str, Any]]:
    """An entry for each way."""
    model = onnx.load(options.model)
    data = {name: values for name, values in np.load(options.data).items() if name != "labels"}
    given = {name: values[: options.samples] for name, values in np.load(options.calibration).items()}
    count = min(options.count, len(next(iter(data.values()))))
    expected = output(model, data, count)
    for rule, encoded in ways(steps):
        source = with_softmax_itself(onnx.load(options.model)) if encoded == "softmax" else model
        with _Reaching(rule), tempfile.TemporaryDirectory() as folder:
            calibrated, spiking = (Path(folder) / f"{name}.onnx" for name in ("calibrated", "spiking"))
            pconv_onnx.calibrate(source, given, calibrated, steps=steps, coding="radix", neurons="products")
            pconv_onnx.rewrite(calibrated, spiking, steps=steps, coding="radix", mode="folded")
            counted = pconv_onnx.stats(spiking, {name: values[:COUNTED] for name, values in data.items()}).summary()
            entry = {
                "model": options.name, "steps": steps, "rule": rule, "attention_weights": encoded,
                "samples": options.samples, "compared": count, **compared(output(spiking, data, count), expected),
                "energy_ratio": counted["energy"]["ratio"], "share": counted["spike_driven"]["share"],
            }  # fmt: skip
        print(
            {name: round(value, 5) if isinstance(value, float) else value for name, value in entry.items()}, flush=True
        )
        yield entry


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("model", type=Path)
    parser.add_argument("--name", required=True, help="what to call the model")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DATA.npz")
    parser.add_argument("--data", type=Path, required=True, metavar="DATA.npz")
    parser.add_argument("--steps", type=int, nargs="+", required=True, metavar="T")
    parser.add_argument("--samples", type=int, default=200, metavar="N", help="to calibrate on")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="samples compared at most")
    options = parser.parse_args()
    entries = [entry for steps in options.steps for entry in measured(options, steps)]
    write({"benchmark": "attention_weights", "entries": entries, "machine": machine(options.threads)}, options.output)


if __name__ == "__main__":
    main()
