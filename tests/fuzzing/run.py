"""Many random networks, in several processes.

    python tests/fuzzing/run.py --first 0 --count 10000

Each seed makes the same network again; those with a fault are told.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzzing.answers import faults  # noqa: E402  # tests are no package


def told(seed: int) -> tuple[int, list[str]]:
    """A seed and what is wrong with its network, exceptions included."""
    try:
        return seed, faults(seed)
    except Exception as error:  # whatever it is, it is a fault
        return seed, [f"{type(error).__name__}: {error}"]


def main() -> int:
    """Run; the exit status is 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--count", type=int, default=10_000, metavar="N")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N")
    options = parser.parse_args()
    start, wrong = time.monotonic(), 0
    seeds = range(options.first, options.first + options.count)
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=50) as pool:
        for done, (seed, found) in enumerate(pool.imap_unordered(told, seeds, chunksize=20), 1):
            if found:
                wrong += 1
                print(f"seed {seed}: {'; '.join(found)}", flush=True)
            if done % 1000 == 0:
                print(f"{done} networks, {wrong} with a fault, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{options.count} networks from seed {options.first}, {wrong} with a fault")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
