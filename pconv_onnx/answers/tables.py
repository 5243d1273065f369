"""Rows of JSON documents as cells of tables: the same values in the style of a terminal, or of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Style:
    """The style of cells.

    Attributes:
        absent: the text for no value.
        space: the space between a number and its unit.
        count: a number of operations.
        rate: a number of images a second.
    """

    absent: str
    space: str
    count: Callable[[float], str]
    rate: Callable[[float], str]

    def text(self, value: Any) -> str:
        """A value; the text for none if it is zero or None."""
        return str(value or self.absent)

    def number(self, value: float | None, form: str) -> str:
        """A number in one of Python's formats."""
        return self.absent if value is None else format(value, form)

    def percent(self, share: float | None) -> str:
        """A share."""
        return self.absent if share is None else f"{100 * share:.2f}{self.space}%"

    def operations(self, value: float | None) -> str:
        """A number of operations."""
        return self.absent if value is None else self.count(value)


Cells = dict[str, str]


def steps(row: dict[str, Any], style: Style) -> str:
    """The time-steps of a row, and the coding of its trains."""
    signed = "signed " if row.get("zero") else ""
    return f"{row['steps']} {signed}{row['coding']}" if row["steps"] and row["coding"] else style.text(row["steps"])


def activations(rows: Iterable[dict[str, Any]], style: Style) -> list[Cells]:
    """Cells for the activations of a plan."""
    return [
        {
            "name": row["name"],
            "encoding": row["encoding"],
            "levels": style.text(row["levels"]),
            "steps": steps(row, style),
            "status": row["status"],
            "operators": " ".join(row["op_types"]),
            "reason": row["reason"] or style.absent,
        }
        for row in rows
    ]


def times(rows: Iterable[dict[str, Any]], style: Style) -> list[Cells]:
    """Cells for the measured rows of a benchmark: milliseconds and MiB, without units."""
    return [
        {
            "mode": row["mode"],
            "steps": steps(row, style),
            "batch": str(row["batch"]),
            "median": f"{row['median_ms']:.2f}",
            "spread": f"{row['p10_ms']:.2f} … {row['p90_ms']:.2f}",
            "rate": style.rate(row["images_per_s"]),
            "ratio": style.number(row["ratio_to_ann"], ".2f"),
            "memory": style.number(row["peak_memory_mib"], ".0f"),
        }
        for row in rows
        if row["repetitions"]
    ]


def accuracies(rows: Iterable[dict[str, Any]], style: Style) -> list[Cells]:
    """Cells for the rows of an evaluation."""
    return [
        {
            "steps": steps(row, style),
            "top1": style.percent(row["top1"]),
            "error": style.percent(row["top1_standard_error"]),
            "top5": style.percent(row["top5"]),
            "rmse": style.number(row["rmse"], ".4g"),
            "mae": style.number(row["mae"], ".4g"),
            "r2": style.number(row.get("r2"), ".4f"),
            "token_top1": style.percent(row["token_top1"]),
            "perplexity": style.number(row["perplexity"], ".4g"),
            "agreement": style.percent(row.get("agreement")),
            "token_agreement": style.percent(row.get("token_agreement")),
            "mse": style.number(row.get("mse"), ".3g"),
            "cosine": style.number((row.get("cosine") or {}).get("median"), ".4f"),
            "cosine_05": style.number((row.get("cosine") or {}).get("quantile_05"), ".4f"),
        }
        for row in rows
    ]


def accuracy_columns(summary: dict[str, Any]) -> list[str]:
    """The cells of `accuracies` that are defined for an evaluation, whether or not their values are finite."""

    def known(key: str) -> bool:
        return any(row.get(key) is not None for row in (summary["ann"] or {}, *summary["rows"]))

    defined = {
        "top1": summary["labels"],
        "top5": known("top5"),
        "rmse": summary["targets"],
        "mae": summary["targets"],
        "r2": summary["targets"] and known("r2"),
        "token_top1": summary["tokens"],
        "perplexity": summary["tokens"],
        "agreement": known("agreement"),
        "token_agreement": known("token_agreement"),
        "mse": summary["ann"] and summary["rows"],
        "cosine": known("cosine"),
        "cosine_05": known("cosine"),
    }
    return [column for column, shown in defined.items() if shown]


def not_finite(summary: dict[str, Any]) -> Iterator[str]:
    """For each T of an evaluation, a line about outputs that have no cosine."""
    for row in summary["rows"]:
        cosine = row["cosine"]
        if cosine and cosine["not_finite"]:
            yield (
                f"T = {row['steps']}: {cosine['not_finite']} of {cosine['count']} {cosine['of']} of "
                f"'{cosine['output']}' have a NaN or an infinity, here or in the ANN"
            )


def firing(layers: Iterable[dict[str, Any]], style: Style) -> list[Cells]:
    """Cells for the layers of statistics."""
    return [
        {
            "name": layer["name"],
            "steps": steps(layer, style),
            "neurons": str(layer["neurons"]),
            "channels": str(layer["channels"]),
            "silent": str(layer["silent_channels"]),
            "saturated": str(layer["saturated_channels"]),
            "rate": style.percent(layer["firing_rate"]),
        }
        for layer in layers
    ]


def operations(operators: Iterable[dict[str, Any]], style: Style) -> list[Cells]:
    """Cells for the linear operators of statistics."""
    return [
        {
            "name": entry["name"],
            "type": entry["op_type"],
            "input": entry["input"],
            "macs": style.operations(entry["macs"]),
            "accumulates": style.operations(entry["synaptic_operations"]),
            "remaining": style.operations(entry["multiply_accumulates"]),
        }
        for entry in operators
    ]


def of(rows: Iterable[Cells], *columns: str) -> list[list[str]]:
    """Some of the cells of each row, in that order."""
    return [[row[column] for column in columns] for row in rows]
