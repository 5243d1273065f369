"""The native library by itself: builds without a warning, exports one symbol, and is right on any processor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_operator import TYPES, case, in_kernel

from pconv_onnx import operator
from pconv_onnx.operator import reference

SOURCE = Path(__file__).parents[1] / "custom_ops"

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
    pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning"),
]


def cmake(*arguments) -> subprocess.CompletedProcess[str]:
    found = pytest.importorskip("cmake")
    return subprocess.run([os.path.join(found.CMAKE_BIN_DIR, "cmake"), *arguments], capture_output=True, text=True)


def build(folder: Path, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Build a target there, with warnings as errors."""
    ninja = os.path.join(pytest.importorskip("ninja").BIN_DIR, "ninja")
    options = ("-DPCONV_WERROR=ON", "-DCMAKE_BUILD_TYPE=Release", *options)
    done = cmake("-S", SOURCE, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return cmake("--build", folder, "--target", target)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    """The library for the processor's baseline instruction set."""
    folder = tmp_path_factory.mktemp("baseline")
    done = build(folder, "pconv_ops", "-DPCONV_ISA_DISPATCH=OFF")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libpconv_ops.so"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm to list symbols with")
def test_only_the_entry_point_is_exported(baseline):
    listed = subprocess.run(["nm", "-D", "--defined-only", baseline], capture_output=True, text=True, check=True)
    assert [line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()] == ["RegisterCustomOps"]


@pytest.mark.slow
@pytest.mark.parametrize("shape, rows", [((7, 3, 41), 1), ((7, 3, 41), 3), ((9, 5), 5), ((2, 16, 33, 33), 16)])
@pytest.mark.parametrize("steps, input_steps, spikes", [(8, 8, 1), (8, 1, 0), (5, 3, 0), (100, 1, 1), (255, 2, 0)])
@TYPES
def test_without_vector_instructions_the_values_are_the_same(
    baseline, monkeypatch, shape, rows, steps, input_steps, spikes, dtype
):
    monkeypatch.setattr(operator, "_LIBRARY_FOLDER", baseline.parent)
    arrays, attributes = case(shape, steps=steps, rows=rows, input_steps=input_steps, spikes=spikes, dtype=dtype)
    np.testing.assert_array_equal(in_kernel(arrays, attributes), reference(**arrays, **attributes))


def test_the_declarations_of_the_abi_are_the_official_ones(tmp_path):
    done = build(tmp_path, "test_abi")
    if "unknown target" in done.stdout + done.stderr:
        pytest.skip("no onnxruntime_c_api.h on this machine; the environment variable ORT_INCLUDE_DIR names its folder")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_declared_function_of_the_abi_is_compared_with_the_official_one():
    declared = re.findall(r"Slot<\d+,[^;]*>\s+(\w+);", (SOURCE / "include/pconv/ort_abi.h").read_text())
    assert re.findall(r"CHECK_SLOT\((\w+)\);", (SOURCE / "tests/abi.cpp").read_text()) == declared != []
