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
    # By itself: what else ran in this process may have taken more before.
    program = (
        "from pconv_onnx.basics.process import peak_memory\n"
        "before = peak_memory()\n"
        "taken = bytearray(256 << 20)\n"
        "taken[::4096] = b'x' * len(taken[::4096])\n"
        "del taken\n"
        "print(peak_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 200 < float(done.stdout) < 300


def test_what_c_streams_hold_is_written():
    program = (
        "import ctypes, os; from pconv_onnx.basics.process import flush_c_streams\n"
        "ctypes.CDLL(None).puts(b'held'); flush_c_streams(); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "held\n"
