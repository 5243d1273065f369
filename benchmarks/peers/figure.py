"""The figure of the comparison: time of a run against T.

python benchmarks/peers/figure.py benchmarks/results/peers.json docs/speed.svg
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "pconv-onnx",
    "axes.grid": True,
    "grid.color": "#c9ced6",
}

import matplotlib.pyplot as plt  # noqa: E402  # after what it is set to

# By runtime, the faster of its settings.
LINES = {
    ("onnxruntime", "ReLU ANN"): ("onnxruntime, ReLU ANN", {"color": "#1b1f24", "linestyle": "-", "linewidth": 1}),
    ("onnxruntime", "folded"): ("pconv-onnx, folded", {"color": "#007a5e", "marker": "D", "linestyle": "--"}),
    ("onnxruntime", "parallel"): ("pconv-onnx, parallel", {"color": "#0068a8", "marker": "o", "linewidth": 2.5}),
    ("onnxruntime", "serial"): ("pconv-onnx, serial", {"color": "#c85200", "marker": "s", "linestyle": "--"}),
    ("onnxruntime", "parallel, standard operators"): (
        "onnxruntime without the library",
        {"color": "#a8457f", "marker": "^", "linestyle": "-."},
    ),
    ("PyTorch", "the paper's formulas"): (
        "PyTorch, the paper's formulas",
        {"color": "#6a717b", "marker": "v", "linestyle": ":"},
    ),
    ("PyTorch", "SpikingJelly"): ("SpikingJelly", {"color": "#1b1f24", "marker": "x", "linestyle": ":"}),
}


def over_steps(axes: plt.Axes, title: str, steps: Sequence[int], numbers: str) -> None:
    """A panel over T, its numbers written in that format."""
    axes.set(title=title, xlabel="time-steps T", xticks=steps, xticklabels=steps)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(numbers)


def save(figure: plt.Figure, panels: Sequence[plt.Axes], target: str) -> None:
    """With the legend of the first panel."""
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(target, metadata={"Date": None})


def main(source: str, target: str) -> None:
    """Draw."""
    with open(source, encoding="utf-8") as file:
        rows = json.load(file)["rows"]
    batches = sorted({row["batch"] for row in rows})
    figure, panels = plt.subplots(1, len(batches), figsize=(9, 3.8), layout="constrained")
    steps = sorted({row["steps"] for row in rows})
    for axes, batch in zip(panels, batches, strict=True):
        for (runtime, name), (label, style) in LINES.items():
            points = [row for row in rows if (row["name"], row["batch"]) == (name, batch)]
            points = [row for row in points if row["runtime"].startswith(runtime)]
            times = [min(row["median_ms"] for row in points if row["steps"] == count) for count in steps]
            axes.loglog(steps, times, label=label, **style)
        over_steps(axes, f"batch {batch}", steps, "{x:g}")
    panels[0].set_ylabel("ms a run")
    save(figure, panels, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
