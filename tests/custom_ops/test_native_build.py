"""The native library by itself: builds without a warning, exports one symbol, and is right on any processor."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cuda_device import Layout
from native_build import SOURCE, build, configure
from onnx import TensorProto
from operator_cases import TYPES, case, in_kernel
from serial_operator_cases import assert_same_bits
from serial_operator_cases import case as serial_case
from serial_operator_cases import in_kernel as in_serial_kernel

from pconv_onnx.operators import library as native
from pconv_onnx.operators.parallel_spike import reference
from pconv_onnx.operators.serial_spike import serial_reference

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
    pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning"),
]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    """The library for the processor's baseline instruction set."""
    folder = tmp_path_factory.mktemp("baseline")
    done = build(folder, "pconv_ops", "-DPCONV_ISA_DISPATCH=OFF")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libpconv_ops.so"


@pytest.fixture(scope="module")
def with_cuda(tmp_path_factory) -> tuple[Path, str]:
    """The library with CUDA kernels, for every GPU that the compiler knows, and what the compiler was told."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    folder = tmp_path_factory.mktemp("cuda")
    done = build(folder, "pconv_ops", "-DPCONV_CUDA=ON")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libpconv_ops.so", done.stdout


def exported(library: Path) -> list[str]:
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    return [line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm to list symbols with")
def test_only_the_entry_point_is_exported(baseline):
    assert exported(baseline) == ["RegisterCustomOps"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm to list symbols with")
def test_with_cuda_only_the_entry_point_is_exported(with_cuda):
    assert exported(with_cuda[0]) == ["RegisterCustomOps"]


@pytest.mark.slow
def test_beside_the_library_lies_what_it_has_kernels_for(baseline, with_cuda):
    for library, providers in ((baseline, ["cpu"]), (with_cuda[0], ["cpu", "cuda"])):
        assert json.loads(library.with_name(native._FACTS_NAME).read_bytes()) == {"providers": providers}
        assert (b"CUDAExecutionProvider" in library.read_bytes()) == ("cuda" in providers)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd to list libraries with")
def test_with_cuda_the_library_needs_neither_driver_nor_toolkit(with_cuda):
    listed = subprocess.run(["ldd", with_cuda[0]], capture_output=True, text=True, check=True).stdout
    needed = {line.split()[0].split("/")[-1].split(".so")[0] for line in listed.splitlines()}
    assert not {name for name in needed if "cu" in name or "nv" in name or "stdc++" in name}, listed


@pytest.mark.slow
def test_with_cuda_there_is_machine_code_for_each_gpu_and_source_for_later_ones(with_cuda):
    listed = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    known = [gpu for gpu in (75, 80, 86, 89, 90, 100, 120) if f"compute_{gpu}" in listed.split()]
    compiled = [line for line in with_cuda[1].splitlines() if re.search(r"\.cu\b", line) and "code=" in line]
    assert len(compiled) == len(list(SOURCE.glob("cuda/*.cu")))
    for line in compiled:
        assert re.findall(r"code=\[(\w+)\]", line) == [*(f"sm_{gpu}" for gpu in known), f"compute_{known[-1]}"]
        assert "-fmad=false" in line


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_what_gpus_are_tested_with_compiles_and_tells_where_there_is_none(tmp_path):
    done = build(tmp_path, "test_device", "-DPCONV_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=90")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"sm_\d+", done.stdout)) == {"sm_90"}
    if Path("/dev/nvidia0").exists():
        return
    # Without a driver, CUDA's words come back, as often as it is tried.
    kernel = ctypes.CDLL(str(tmp_path / "libtest_device.so")).launch
    kernel.restype = ctypes.c_char_p
    layout = Layout(1, 8, 1, 8, 2, 2, True)
    for _ in range(2):
        told = kernel(TensorProto.FLOAT, ctypes.byref(layout), *[ctypes.c_void_p(64)] * 4, None, ctypes.c_int64(-1))
        assert b"driver" in told, told


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_parallel_kernels_move_sixteen_bytes_at_once_and_keep_neurons_in_registers(tmp_path):
    options = ["-std=c++17", "-O3", "-fmad=false", "-arch=compute_90", f"-I{SOURCE}", f"-I{SOURCE / 'include'}"]
    ptx = tmp_path / "kernels.ptx"
    subprocess.run(["nvcc", *options, "-ptx", SOURCE / "cuda/parallel_spike.cu", "-o", ptx], check=True)
    kernels = re.findall(r"\.entry (\w+)(\(.*?^})", ptx.read_text(), re.DOTALL | re.MULTILINE)
    assert len(kernels) == 3 * 3 * 2
    for name, body in kernels:
        assert "ld.local" not in body and "st.local" not in body
        assert "fma." not in body
        wide = "Li1E" not in name
        stores = re.findall(r"st\.global[.\w]*", body)
        assert stores and all((".v4." in store) == wide for store in stores)
        assert bool(re.search(r"ld\.global\.v4", body)) == wide


@pytest.mark.slow
@TYPES
def test_with_cuda_the_cpu_kernel_runs_as_before(with_cuda, monkeypatch, dtype):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", with_cuda[0].parent)
    arrays, attributes = case((7, 3, 41), steps=8, rows=3, input_steps=8, dtype=dtype)
    np.testing.assert_array_equal(in_kernel(arrays, attributes), reference(**arrays, **attributes))


@pytest.mark.parametrize("compiler", ["/nowhere/nvcc", shutil.which("false")])
def test_a_missing_cuda_compiler_is_an_error_only_where_cuda_was_asked_for(compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDACXX", compiler)
    asked = configure(tmp_path / "on", "-DPCONV_CUDA=ON")
    assert asked.returncode != 0
    assert "Install NVIDIA's CUDA toolkit" in " ".join(asked.stderr.split())
    found = configure(tmp_path / "auto")
    assert found.returncode == 0
    assert "No CUDA compiler: CPU kernels only" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("shape, rows", [((7, 3, 41), 1), ((7, 3, 41), 3), ((9, 5), 5), ((2, 16, 33, 33), 16)])
@pytest.mark.parametrize("steps, input_steps, spikes", [(8, 8, 1), (8, 1, 0), (5, 3, 0), (100, 1, 1), (255, 2, 0)])
@TYPES
def test_without_vector_instructions_the_values_are_the_same(
    baseline, monkeypatch, shape, rows, steps, input_steps, spikes, dtype
):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", baseline.parent)
    arrays, attributes = case(shape, steps=steps, rows=rows, input_steps=input_steps, spikes=spikes, dtype=dtype)
    np.testing.assert_array_equal(in_kernel(arrays, attributes), reference(**arrays, **attributes))


@pytest.mark.slow
@pytest.mark.parametrize("shape, rows", [((7, 3, 41), 1), ((7, 3, 41), 3), ((9, 5), 5)])
@TYPES
def test_without_vector_instructions_serial_neurons_do_the_same(baseline, monkeypatch, shape, rows, dtype):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", baseline.parent)
    arrays, attributes = serial_case(shape, rows=rows, dtype=dtype)
    assert_same_bits(in_serial_kernel(arrays, attributes), serial_reference(**arrays, **attributes))


def test_the_declarations_of_the_abi_are_the_official_ones(tmp_path):
    done = build(tmp_path, "test_abi")
    if "unknown target" in done.stdout + done.stderr:
        pytest.skip("no onnxruntime_c_api.h on this machine; the environment variable ORT_INCLUDE_DIR names its folder")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_declared_function_of_the_abi_is_compared_with_the_official_one():
    declared = re.findall(r"Slot<\d+,[^;]*>\s+(\w+);", (SOURCE / "include/pconv/ort_abi.h").read_text())
    assert re.findall(r"CHECK_SLOT\((\w+)\);", (SOURCE / "tests/abi.cpp").read_text()) == declared != []
