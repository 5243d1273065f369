"""Model files of other projects, each classified: none may end in a traceback, in a crash or in another network.

    python tests/suites/run.py --suite onnx-backend -o suites.json

Files that a suite makes lie in build/suites/ afterwards. The exit status is 1 where there is a fault.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from fuzzing.workers import Outcome, outcomes  # noqa: E402
from measure import fill, machine, write  # noqa: E402  # neither are packages

from suites.classify import FOREIGN, STEPS, Row  # noqa: E402
from suites.table import faulty, markdown  # noqa: E402

# The module of each.
SUITES = {
    "onnx-backend": "suites.onnx_backend",
    "onnx-backend-light": "suites.onnx_backend_light",
    "onnxruntime-quantiser": "suites.onnxruntime_quantiser",
    "qonnx": "suites.qonnx_models",
    "brevitas": "suites.brevitas_models",
}
# That a file may take; networks in full size take longer.
_SECONDS = {"onnx-backend-light": 600}


def cases(suite: str, folder: Path) -> list[tuple[str, str, Path]]:
    """The files of a suite, which are written where it makes them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return [(suite, name, path) for name, path in importlib.import_module(SUITES[suite]).files(folder)]


def row_of(outcome: Outcome) -> dict[str, Any]:
    """The row of a file, whose process may have ended."""
    if not outcome.ended_at and isinstance(outcome.found[0], dict):
        return outcome.found[0]
    suite, file, _ = outcome.case
    (told,) = outcome.found
    ends = "timeout" if "does not end" in told else "crash"
    foreign = outcome.ended_at == FOREIGN
    return asdict(Row(suite, file, f"{ends} of onnxruntime" if foreign else ends, faults=[] if foreign else [told]))


def main() -> int:
    """Run; the exit status is 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="append", choices=SUITES, help="only that one; may be repeated")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write a row for each file there, as JSON")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables into its section on the suites")
    options = parser.parse_args()
    rows = []
    for suite in options.suite or SUITES:
        start = time.monotonic()
        files = cases(suite, ROOT / "build" / "suites" / suite)
        print(f"{suite}: {len(files)} files ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
        for outcome in outcomes("suites.classify.rows", files, options.processes, _SECONDS.get(suite, 60)):
            row = row_of(outcome)
            rows.append(row)
            for fault in [*row["differences"], *row["faults"]]:
                print(f"{suite}, {row['file']}: {fault}", file=sys.stderr, flush=True)
        print(f"{suite}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: (list(SUITES).index(row["suite"]), row["file"]))
    where = machine(threads=options.processes)
    page = markdown(rows, where, STEPS)
    print(page)
    told = [{key: value for key, value in row.items() if value or key == "loads"} for row in rows]
    write({"machine": where, "rows": told}, options.output)
    if options.page:
        fill(options.page, "suites", page)
    return 1 if any(faulty(row) or row["differences"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
