"""How large the distributions are, and how long a first import, a first command and a first session take.

Each start is a fresh process, whose files the system has read before: a machine that has just started takes longer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from measure import write

import pconv_onnx
from pconv_onnx.measure.timing import OtherWork, machine, spread

EXAMPLE = Path(__file__).parents[1] / "examples" / "resnet20" / "resnet20-qcfs8.onnx"


def starts(snn: Path) -> dict[str, list[str]]:
    """What is started, each with the arguments of Python."""
    return {
        "python": ["-c", ""],
        "import onnxruntime": ["-c", "import onnxruntime"],
        "import pconv_onnx": ["-c", "import pconv_onnx"],
        "pconv-onnx --help": ["-m", "pconv_onnx", "--help"],
        "first session": ["-c", f"import pconv_onnx; pconv_onnx.session({str(snn)!r})"],
    }


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Of a start: by the clock, and of CPUs on all threads, which other processes lengthen less."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - start, os.times()
    return elapsed, sum(after[2:4]) - sum(before[2:4])


def size(file: Path) -> dict[str, Any]:
    """Bytes of a distribution, and of the native library in it as it is installed."""
    row: dict[str, Any] = {"file": file.name, "bytes": file.stat().st_size}
    if file.suffix == ".whl":
        entries = zipfile.ZipFile(file).infolist()
        row["installed_bytes"] = sum(entry.file_size for entry in entries)
        row["library_bytes"] = sum(entry.file_size for entry in entries if "pconv_ops." in entry.filename)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", nargs="*", type=Path, help="wheels and source distributions")
    parser.add_argument("--starts", type=int, default=15, help="of each (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        snn = Path(folder, "snn.onnx")
        pconv_onnx.rewrite(EXAMPLE, snn)
        work, commands = OtherWork(), starts(snn)
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.starts + 1):
            for name, arguments in commands.items():
                measured[name].append(seconds(arguments))
    rows = {}
    for name, taken in measured.items():
        elapsed, cpu = zip(*taken[1:], strict=True)  # the first fills the caches
        rows[name] = {"elapsed": spread(elapsed), "cpu": spread(cpu)}
        print(f"{name:<20} {rows[name]['elapsed']['median_ms']:8.0f} ms, CPU {rows[name]['cpu']['median_ms']:8.0f} ms")
    sizes = [size(file) for file in options.dist]
    for row in sizes:
        print(f"{row['file']}: {row['bytes']:,} bytes")
    write({"machine": machine() | work.summary(), "starts": rows, "distributions": sizes}, options.output)


if __name__ == "__main__":
    main()
