"""The table of the suites in docs/support.md, made of the rows that classify gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def faulty(row: Row) -> bool:
    """Whether a file came to what none may come to."""
    return bool(row.get("faults"))


def markdown(rows: Sequence[Row]) -> str:
    """A line for each suite, and the reasons."""
    suites = list(dict.fromkeys(row["suite"] for row in rows))
    heads = ["suite", "files", "unreadable", "of these onnxruntime loads", "nothing to convert", "refused",
             "needs calibration", "converted", "equal", "measured", "different", "tracebacks", "ended"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for suite in suites:
        cells = [suite, *counts([row for row in rows if row["suite"] == suite])]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "unreadable or refused", ""]
    for (suite, outcome, reason), count in reasons(rows).most_common():
        lines.append(f"- {suite}, {outcome}, {count}: {reason}")
    return "\n".join(lines)


def counts(rows: Sequence[Row]) -> list[int]:
    """The cells of one suite."""
    outcomes = Counter(row["outcome"] for row in rows)
    verdicts = Counter(
        verdict for row in rows for told in ("verdicts", "calibrated") for verdict in row.get(told, {}).values()
    )
    return [
        len(rows),
        outcomes["unreadable"],
        sum(row["outcome"] == "unreadable" and row["loads"] for row in rows),
        *(outcomes[name] for name in ("nothing to convert", "refused", "needs calibration", "converted")),
        *(verdicts[name] for name in ("equal", "measured", "different")),
        sum(any("is different" not in fault for fault in row.get("faults", ())) for row in rows),
        outcomes["timeout"] + outcomes["crash"],
    ]


def reasons(rows: Sequence[Row]) -> Counter[tuple[str, str, str]]:
    """Why files are not converted, by suite and outcome."""
    return Counter((row["suite"], row["outcome"], row["reason"]) for row in rows if row.get("reason"))
