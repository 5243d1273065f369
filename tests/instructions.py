"""Instruction sets that the native library has kernels for, and which of them this processor lacks."""

from __future__ import annotations

from pathlib import Path

# By the names that PCONV_INSTRUCTIONS takes: what Linux calls all that they need and what is next has not.
FLAGS = {"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx512": "avx512bw", "avx2": "avx2", "portable": ""}


def lacks(instructions: str) -> bool:
    flag, about = FLAGS[instructions], Path("/proc/cpuinfo")
    return bool(flag) and (not about.exists() or f" {flag} " not in about.read_text().replace("\n", " "))
