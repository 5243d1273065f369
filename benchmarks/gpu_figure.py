"""The figure of docs/gpu.md: how many times as fast as stepping through time all steps at once are.

python benchmarks/gpu_figure.py benchmarks/results/nvidia-h200.json docs/gpu.svg
"""

from __future__ import annotations

import json
import sys

from peers.figure import over_steps, plt, save

# By network and batch.
STYLES = {
    ("ResNet-20", 1): {"color": "#0068a8", "marker": "o", "linewidth": 2.5},
    ("ResNet-34", 1): {"color": "#c85200", "marker": "s", "linewidth": 2.5},
    ("ResNet-20", 128): {"color": "#0068a8", "marker": "o", "linestyle": "--"},
    ("ResNet-34", 128): {"color": "#c85200", "marker": "s", "linestyle": "--"},
}
PANELS = (("float32", False), ("float32", True), ("float16", True))


def main(source: str, target: str) -> None:
    """Draw."""
    with open(source, encoding="utf-8") as file:
        rows = [row for row in json.load(file)["rows"] if row.get("mode") == "parallel" and row["tf32"] == "off"]
    steps = sorted({row["steps"] for row in rows})
    figure, panels = plt.subplots(1, len(PANELS), figsize=(9, 3.6), layout="constrained", sharey=True)
    for axes, (precision, captured) in zip(panels, PANELS, strict=True):
        axes.loglog(steps, steps, color="#1b1f24", linestyle=":", linewidth=1, label="T times as fast")
        for (network, batch), style in STYLES.items():
            points = [row for row in rows if (row["network"], row["batch"]) == (network, batch)]
            points = [row for row in points if (row["precision"], row["cuda_graph"]) == (precision, captured)]
            axes.loglog(
                [row["steps"] for row in points],
                [row["speedup"] for row in points],
                label=f"{network}, batch {batch}",
                **style,
            )
        how = "as a CUDA graph" if captured else "node by node"
        axes.set(yticks=[1, 2, 4, 8, 16, 32])
        over_steps(axes, f"{precision}, {how}", steps, "{x:g} ×")
    panels[0].set_ylabel("parallel over serial")
    save(figure, panels, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
