"""Times networks against each other, and describes the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.process import cpu_seconds, load_average
from pconv_onnx.operators.library import library_path
from pconv_onnx.runtime.device_memory import CUDA
from pconv_onnx.runtime.installation import installed
from pconv_onnx.runtime.opening import import_onnxruntime

# Share of the CPU time that others may take while figures are still those of a quiet machine.
_QUIET = 0.05


def rounds(candidates: Mapping[str, Callable[[], object]], count: int) -> Iterator[dict[str, float]]:
    """Time all candidates in turns, so that a drift of the machine's speed meets them all alike.

    Yields:
        The seconds of each candidate in one round; each round starts with the next of them.
    """
    order = list(candidates)
    for _ in range(count):
        seconds = {}
        for name in order:
            start = time.perf_counter()
            candidates[name]()
            seconds[name] = time.perf_counter() - start
        yield seconds
        order = order[1:] + order[:1]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile, in ms."""
    p10, median, p90 = (float(value) for value in np.percentile(np.array(seconds) * 1e3, [10, 50, 90]))
    return {"median_ms": median, "p10_ms": p10, "p90_ms": p90}


def ratio(seconds: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of the ratios of the same rounds."""
    return float(np.median(np.array(seconds) / np.array(baseline)))


def session_options() -> Any:
    """Options of an onnxruntime session that takes turns: its threads spin in its own runs, as users have it, only."""
    options = import_onnxruntime().SessionOptions()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def machine() -> dict[str, Any]:
    """What a figure depends on; None where something cannot be had."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    library = None
    with suppress(PconvError):
        library = library_path().name
    ort = import_onnxruntime()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": _gpu() if CUDA in ort.get_available_providers() else None,
        "system": platform.platform(),
        "load_average": load_average(),
        "python": platform.python_version(),
        "pconv_onnx": installed("pconv-onnx"),
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "library": library,
    }


def _gpu() -> str | None:
    """Name and driver of the first GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError, IndexError):
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.splitlines()[0]
    return None


class OtherWork:
    """Watches, from when it is made, what other processes take of the CPUs that this one may run on."""

    def __init__(self) -> None:
        self._start = cpu_seconds()

    def share(self) -> float | None:
        """Share of the CPU time since then that went to others; None where the system does not tell."""
        now = cpu_seconds()
        if self._start is None or now is None or now[0] <= self._start[0]:
            return None
        total, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        return min(1.0, max(0.0, busy - own) / total)

    def summary(self) -> dict[str, Any]:
        """For the record of the machine: `quiet` and `other_work`, a share; both None where it is not known."""
        share = self.share()
        return {"quiet": None if share is None else share <= _QUIET, "other_work": share}


def threads_of(make: Callable[[], Any]) -> tuple[Any, int | None]:
    """What `make` gives, and how many threads it runs on: this one and those that it starts; None if not known."""
    tasks = Path("/proc/self/task")
    before = len(os.listdir(tasks)) if tasks.exists() else None
    made = make()
    return made, None if before is None else 1 + len(os.listdir(tasks)) - before
