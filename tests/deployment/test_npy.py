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


@pytest.mark.slow
def test_random_files_are_read_where_they_are_right_and_refused_in_one_line_where_not(tmp_path):
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip("no C++ compiler")
    empty = tmp_path / "empty.cpp"
    empty.write_text("int main() {}\n")
    if subprocess.run([compiler, *SANITIZED, empty, "-o", tmp_path / "empty"], capture_output=True).returncode:
        pytest.skip("no AddressSanitizer")
    source = Path(__file__).with_name("npy_fuzzing.cpp")
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{Path(bundle.__file__).parent / 'cpp'}"]
    subprocess.run([compiler, *options, *SANITIZED, source, "-o", tmp_path / "npy_fuzzing"], check=True)
    done = subprocess.run([tmp_path / "npy_fuzzing", SECONDS], capture_output=True, text=True)
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    files, taken = (int(part.split()[0]) for part in done.stdout.split(", "))
    assert 0 < taken < files
