"""The section of docs/support.md on the suites, made of the rows that `classify` gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

# What is in each suite.
ABOUT = {
    "onnx-backend": "backend tests of the onnx package: those that it ships and those that its code makes",
    "onnx-backend-light": "the full-size networks among them, whose weights are all equal",
    "onnxruntime-quantiser": "small networks as onnxruntime's tools write them: quantised statically (any two options "
    "meet in some file) and dynamically, in float16, and optimised offline",
    "qonnx": "networks that the qonnx package ships, and the results of its conversions, also of Brevitas' exports",
    "brevitas": "small networks of Brevitas' layers, as QONNX and as QCDQ, by both exporters of torch",
}
PAGE = """\
## Files of other projects

This part shows what happens to the model files of other projects. `make suites` (`tests/suites/run.py`) generates it,
with onnx {onnx} and onnxruntime {onnxruntime}; `benchmarks/results/suites.json` has a row for each file.

{about}

Each file is inspected, and rewritten in modes `parallel` and `folded`, and with `--signed` too if an activation needs
that. If activations have no levels, the file is calibrated on random data (T = {steps}) and rewritten. `verify`
compares every resulting network with its source on random inputs. **{wrong} are different, {broken} do not run although
their source does, and {ended} files end in a traceback, a crash or a timeout.**

{table}

*loads* is the number of files refused at reading that onnxruntime loads. *equal*, *measured* and *different* count
networks by the verdict of `verify`; a file gives up to six networks.

Files are refused for these reasons (names and numbers in the messages are replaced by …):

{reasons}
"""
_HEADS = (
    "suite", "files", "refused at reading", "loads", "nothing to convert", "refused", "needs calibration", "converted",
    "equal", "measured", "different", "do not run", "tracebacks", "crashes, timeouts",
)  # fmt: skip


def markdown(rows: Sequence[Row], where: dict[str, Any], steps: int) -> str:
    """The rows as a section."""
    suites = {name: [row for row in rows if row["suite"] == name] for name in ABOUT}
    found = {name: own for name, own in suites.items() if own}
    table = [_line(_HEADS), "|---" * len(_HEADS) + "|", *(_line([name, *counts(own)]) for name, own in found.items())]
    told = sorted(reasons(rows).items(), key=lambda item: (*item[0][:2], -item[1], item[0][2]))
    return PAGE.format(
        **where,
        steps=steps,
        about="\n".join(f"- *{name}*: {ABOUT[name]}" for name in found),
        wrong=_verdicts(rows)["different"],
        broken=_verdicts(rows)["does not run"],
        ended=sum(map(faulty, rows)),
        table="\n".join(table),
        reasons="\n".join(f"- {suite}, {outcome}: {count} × {reason}" for (suite, outcome, reason), count in told),
    )


def counts(rows: Sequence[Row]) -> list[int]:
    """The cells of one suite."""
    outcomes, verdicts = Counter(row["outcome"] for row in rows), _verdicts(rows)
    ended = outcomes["timeout"] + outcomes["crash"]
    return [
        len(rows),
        outcomes["unreadable"],
        sum(row["outcome"] == "unreadable" and row["loads"] for row in rows),
        *(outcomes[name] for name in ("nothing to convert", "refused", "needs calibration", "converted")),
        *(verdicts[name] for name in ("equal", "measured", "different", "does not run")),
        sum(map(faulty, rows)) - ended,
        ended,
    ]


def reasons(rows: Sequence[Row]) -> Counter[tuple[str, str, str]]:
    """Why files are not converted, by suite and outcome."""
    return Counter((row["suite"], row["outcome"], row["reason"]) for row in rows if row.get("reason"))


def faulty(row: Row) -> bool:
    """Whether a file ends in a traceback, a crash or a timeout."""
    return bool(row.get("faults"))


def _verdicts(rows: Sequence[Row]) -> Counter[str]:
    return Counter(
        verdict for row in rows for told in ("verdicts", "calibrated") for verdict in row.get(told, {}).values()
    )


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
