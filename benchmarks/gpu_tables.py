"""The tables of docs/gpu.md, from what `make gpu` measured.

python benchmarks/gpu_tables.py benchmarks/results/nvidia-h200.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Row = dict[str, Any]

# What convolutions are computed in, by precision and TF32.
ARITHMETIC = {
    ("float32", "off"): "float32",
    ("float32", "on"): "float32, TF32",
    ("float16", "off"): "float16",
}


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *lines))


def operator(rows: Sequence[Row]) -> str:
    """Share of a copy's bandwidth, lowest of both kinds of thresholds, by size and element type."""
    shares: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["name"] != row["baseline"]:
            _, dtype, size, _ = row["name"].split(", ")
            by_type = shares.setdefault(size, {})
            by_type[dtype] = min(by_type.get(dtype, 1), 1 / row["ratio"])
    types = next(iter(shares.values()))
    return table(
        ["currents, and spikes as well", *types],
        (
            [size, *(f"{share:.0%}".replace("%", " %") for share in by_type.values())]
            for size, by_type in shares.items()
        ),
    )


def neuron(rows: Sequence[Row]) -> str:
    """Time of one layer."""
    return table(["", "time", ""], ([row["name"], _time(row), f"{row['ratio']:.1f} ×"] for row in rows))


def one_step(rows: Sequence[Row]) -> str:
    """Ratios to the ReLU ANN of what takes no steps, node by node and as a graph."""
    found = [row for row in rows if row["steps"] is None and row["speedup"] is None]
    modes = [mode for mode in dict.fromkeys(row["mode"] for row in found) if mode != "ReLU ANN"]
    cells: dict[tuple[str, int], dict[str, list[str]]] = {}
    for row in found:
        cell = cells.setdefault((row["network"], row["batch"]), {}).setdefault(row["mode"], [])
        cell.append(_time(row) if row["mode"] == "ReLU ANN" else f"{row['ratio']:.2f} ×")
    return table(
        ["", "ReLU ANN", *modes],
        (
            [f"{network}, batch {batch}", *(" / ".join(by_mode[mode]) for mode in ("ReLU ANN", *modes))]
            for (network, batch), by_mode in cells.items()
        ),
    )


def speedups(rows: Sequence[Row]) -> str:
    """Of parallel over serial, node by node and as a graph, by network, batch, arithmetic and T."""
    found = [row for row in rows if row["mode"] == "parallel"]
    steps = sorted({row["steps"] for row in found})
    cells: dict[tuple[str, int, str], dict[int, list[str]]] = {}
    for row in found:
        arithmetic = ARITHMETIC[row["precision"], row["tf32"]]
        line = cells.setdefault((row["network"], row["batch"], arithmetic), {})
        line.setdefault(row["steps"], []).append(f"{row['speedup']:.1f}")
    return table(
        ["", *(f"T = {count}" if not i else str(count) for i, count in enumerate(steps))],
        (
            [f"{network}, batch {batch}, {arithmetic}", *(_cell(line.get(count)) for count in steps)]
            for (network, batch, arithmetic), line in cells.items()
        ),
    )


def times(rows: Sequence[Row], network: str, batch: int) -> str:
    """Of a network as a CUDA graph, by mode, arithmetic and T."""
    found = [row for row in rows if (row["network"], row["batch"]) == (network, batch) and row["cuda_graph"]]
    found = [row for row in found if row["steps"] is not None]
    steps = sorted({row["steps"] for row in found})
    cells: dict[str, dict[int, str]] = {}
    for row in found:
        name = f"`{row['mode']}`, {ARITHMETIC[row['precision'], row['tf32']]}"
        cells.setdefault(name, {})[row["steps"]] = _time(row)
    return table(
        [f"{network}, batch {batch}", *(f"T = {count}" if not i else str(count) for i, count in enumerate(steps))],
        ([name, *(line.get(count, "–") for count in steps)] for name, line in cells.items()),
    )


def _cell(pair: Sequence[str] | None) -> str:
    return " / ".join(pair) if pair else "–"


def _time(row: Row) -> str:
    return f"{row['median_ms']:.3g} ms"


def tables(document: dict[str, Any]) -> Iterator[str]:
    """All of them."""
    sections: dict[str, list[Row]] = {}
    for row in document["rows"]:
        sections.setdefault(row["section"], []).append(row)
    networks = sections["network"]
    yield operator(sections["operator"])
    yield neuron(sections["neuron"])
    yield one_step(networks)
    yield speedups(networks)
    for network, batch in dict.fromkeys((row["network"], row["batch"]) for row in networks):
        yield times(networks, network, batch)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print("\n\n".join(tables(json.load(file))))
