"""What the operating system knows of this process, where systems are asked in different ways."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_MEBIBYTE = 1 << 20


def cpus() -> set[int]:
    """The CPUs that this process may run on, by the system's numbers."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    else:
        return set(range(os.cpu_count() or 1))


def cpu_seconds() -> tuple[float, float, float] | None:
    """Time of the CPUs that this process may run on, how much of it was busy, and with this process and its children.

    What a hypervisor took for other guests counts as busy.

    Returns:
        Seconds since the system started; None where it does not count them so.
    """
    if sys.platform == "linux":
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        except OSError:  # a container may hide it
            return None
        own = {f"cpu{index}" for index in cpus()}
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are in the time of users.
        rows = [[int(ticks) for ticks in line[1:9]] for line in lines if line[0] in own]
        total, idle = sum(map(sum, rows)), sum(row[3] + row[4] for row in rows)
        tick = os.sysconf("SC_CLK_TCK")
        return total / tick, (total - idle) / tick, sum(os.times()[:4])
    else:
        return None


def load_average() -> float | None:
    """How many processes wanted a CPU over the last minute; None where the system does not count them."""
    if sys.platform == "win32":
        return None
    else:
        return os.getloadavg()[0]


def peak_memory() -> float:
    """The most resident memory that this process has had, in MiB."""
    if sys.platform == "linux":
        # Not getrusage, which begins with the peak of the process that started this one.
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 1024
    elif sys.platform == "win32":
        return _peak_working_set() / _MEBIBYTE
    else:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MEBIBYTE  # macOS gives bytes


def flush_c_streams() -> None:
    """Write what C's streams still hold; libraries in C and C++ print through them."""
    if sys.platform == "win32":
        # Of the C library that extension modules use.
        with suppress(OSError):
            ctypes.CDLL("ucrtbase").fflush(None)
    else:
        ctypes.CDLL(None).fflush(None)


if sys.platform == "win32":
    from ctypes import wintypes

    class _MemoryCounters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS of psapi.h."""

        _fields_ = (
            ("size", wintypes.DWORD),
            ("page_faults", wintypes.DWORD),
            ("peak_working_set", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        )

    def _peak_working_set() -> int:
        """In bytes."""
        counters = _MemoryCounters(size=ctypes.sizeof(_MemoryCounters))
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.GetCurrentProcess.restype = wintypes.HANDLE
        kernel.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD)
        if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size):
            raise ctypes.WinError(ctypes.get_last_error())
        return int(counters.peak_working_set)
