"""What the operating system knows of a process."""

import subprocess
import sys

import pytest

from pconv_onnx.basics import process


def test_there_is_a_cpu_to_run_on():
    assert process.cpus()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such average")
def test_the_load_is_that_of_some_processes():
    assert process.load_average() >= 0


def test_the_peak_of_memory_stays_when_memory_is_given_back():
    before = process.peak_memory()
    taken = bytearray(64 << 20)
    taken[::4096] = b"x" * len(taken[::4096])
    del taken
    assert before + 60 < process.peak_memory() < before + 200


def test_what_c_streams_hold_is_written():
    program = (
        "import ctypes, os; from pconv_onnx.basics.process import flush_c_streams\n"
        "ctypes.CDLL(None).puts(b'held'); flush_c_streams(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "held\n"
