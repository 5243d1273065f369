"""The reader of .npy files of the C++ program, under sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pconv_onnx.deployment.bundle import target as bundle

SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")
# `make fuzz-npy` takes a minute.
SECONDS = os.environ.get("PCONV_FUZZ_SECONDS", "2")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Builds a program beside this module, under sanitizers."""
    compiler, folder = os.environ.get("CXX", "c++"), tmp_path_factory.mktemp("programs")
    if shutil.which(compiler) is None:
        pytest.skip("no C++ compiler")
    empty = folder / "empty.cpp"
    empty.write_text("int main() {}\n")
    if subprocess.run([compiler, *SANITIZED, empty, "-o", folder / "empty"], capture_output=True).returncode:
        pytest.skip("no AddressSanitizer")

    def program(name: str) -> Path:
        source = Path(__file__).with_name(f"{name}.cpp")
        options = ["-std=c++17", "-pthread", "-Wall", "-Wextra", "-Werror", f"-I{Path(bundle.__file__).parent / 'cpp'}"]
        subprocess.run([compiler, *options, *SANITIZED, source, "-o", folder / name], check=True)
        return folder / name

    return program


@pytest.mark.slow
def test_random_files_are_read_where_they_are_right_and_refused_in_one_line_where_not(compiled):
    done = subprocess.run([compiled("npy_fuzzing"), SECONDS], capture_output=True, text=True)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    files, taken = (int(part.split()[0]) for part in done.stdout.split(", "))
    assert 0 < taken < files


@pytest.mark.slow
def test_several_writers_of_one_file_leave_one_s_array_at_any_time(compiled, tmp_path):
    done = subprocess.run([compiled("npy_writers"), tmp_path / "0.npy"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["0.npy"]
