"""Builds of the native library and of what it is tested with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "custom_ops"


def cmake(*arguments) -> subprocess.CompletedProcess[str]:
    found = pytest.importorskip("cmake")
    return subprocess.run([os.path.join(found.CMAKE_BIN_DIR, "cmake"), *arguments], capture_output=True, text=True)


def build(folder: Path, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Build a target there, with warnings as errors; without CUDA, unless an option asks for it."""
    done = configure(folder, "-DPCONV_WERROR=ON", "-DPCONV_CUDA=OFF", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return cmake("--build", folder, "--target", target, "--verbose")


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    ninja = os.path.join(pytest.importorskip("ninja").BIN_DIR, "ninja")
    options = ("-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options)
    return cmake("-S", SOURCE, "-B", folder, "-G", "Ninja", *options)
