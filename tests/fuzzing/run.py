"""Many random cases, in several processes: networks, corrupted ones, mutated files or requests, operators' calls.

    python tests/fuzzing/run.py --what files --first 0 --count 10000

Each seed makes the same case again; those with a fault are told. A process that crashes, hangs or wants more memory
than it may have is a fault of its seed; where onnxruntime does not survive a source by itself, that is told apart.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# In place of this folder, whose modules are called as packages are.
sys.path[0] = str(Path(__file__).parents[1])

from fuzzing import CASES  # noqa: E402  # tests are no package
from fuzzing.hostile import FOREIGN  # noqa: E402
from fuzzing.workers import outcomes  # noqa: E402

# Of a case that takes milliseconds, on a machine that may be busy.
_SECONDS = 60


def main() -> int:
    """Run; the exit status is 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=CASES, default="networks")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=10_000, metavar="N")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N")
    options = parser.parse_args()
    start, wrong, foreign = time.monotonic(), 0, 0
    seeds = range(options.first, options.first + options.count)
    for done, outcome in enumerate(outcomes(f"{CASES[options.what]}.faults", seeds, options.processes, _SECONDS), 1):
        if outcome.found:
            elsewhere = outcome.ended_at == FOREIGN
            foreign, wrong = foreign + elsewhere, wrong + (not elsewhere)
            print(f"{'(elsewhere) ' if elsewhere else ''}seed {outcome.case}: {'; '.join(outcome.found)}", flush=True)
        if done % 1000 == 0:
            print(f"{done} {options.what}, {wrong} with a fault, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{options.count} {options.what} from seed {options.first}, {wrong} with a fault", end="")
    print(f", {foreign} that onnxruntime does not survive" if foreign else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
