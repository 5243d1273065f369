"""The CUDA kernels without onnxruntime: built, called and timed on memory of a GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from pconv_onnx.operators.parallel_spike import coding_of

Array = np.ndarray[Any, np.dtype[Any]]

SOURCE = Path(__file__).parent.parent / "custom_ops"


class Layout(ctypes.Structure):
    """`pconv::Layout`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("input_steps", "elements", "channels", "inner")),
        ("highest", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("spikes", ctypes.c_bool),
        ("coding", ctypes.c_int32),
        ("zero", ctypes.c_int32),
    ]


def layout_of(
    current: Array,
    thresholds: Array,
    *,
    input_steps: int,
    channel_axis: int,
    spikes: int,
    coding: int = 0,
    steps: int = 0,
    zero: int = 0,
) -> Layout:
    """What the operator makes of its inputs and attributes."""
    rows, highest = thresholds.shape
    elements = current.size // input_steps
    after = current.shape[channel_axis % current.ndim + 1 :]
    inner = int(np.prod(after)) if rows > 1 else elements
    steps = coding_of(highest, coding, steps, zero).steps if spikes else 1
    return Layout(input_steps, elements, rows, inner, highest, steps, bool(spikes), coding, zero)


class SerialLayout(ctypes.Structure):
    """`pconv::SerialLayout`."""

    _fields_ = [(name, ctypes.c_int64) for name in ("elements", "channels", "inner")]


def serial_layout_of(current: Array, levels: Array, *, channel_axis: int) -> SerialLayout:
    """What SerialSpike makes of its inputs and its attribute."""
    rows = len(levels)
    after = current.shape[channel_axis % current.ndim + 1 :]
    return SerialLayout(current.size, rows, int(np.prod(after)) if rows > 1 else current.size)


def addresses_of(addresses: Sequence[int]) -> Any:
    """The array that kernels take where they have many arguments."""
    return (ctypes.c_void_p * len(addresses))(*addresses)


class Device:
    """The first GPU of this machine.

    Raises:
        RuntimeError: there is none, or no compiler for it, with the reason.
    """

    def __init__(self) -> None:
        if shutil.which("nvcc") is None:
            raise RuntimeError("no nvcc to compile the kernel with")
        if not any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/dxg")):
            raise RuntimeError("no NVIDIA GPU on this machine")
        self._library = ctypes.CDLL(str(_built()))
        for function in (
            "device_count", "describe", "allocate", "release", "copy", "fill", "make_stream", "begin_capture",
            "end_capture", "synchronize", "launch", "launch_serial", "time_launches", "time_copies",
        ):  # fmt: skip
            getattr(self._library, function).restype = ctypes.c_char_p
        count = ctypes.c_int32()
        self._check(self._library.device_count(ctypes.byref(count)))

    def _check(self, error: bytes | None) -> None:
        if error is not None:
            raise RuntimeError(error.decode())

    def describe(self) -> dict[str, Any]:
        """Name, versions and cache of the GPU."""
        name = ctypes.create_string_buffer(256)
        driver, runtime, cache_bytes = ctypes.c_int32(), ctypes.c_int32(), ctypes.c_int64()
        found = (ctypes.byref(value) for value in (driver, runtime, cache_bytes))
        self._check(self._library.describe(name, len(name), *found))
        versions = {"cuda_driver": driver.value, "cuda_runtime": runtime.value}
        return {"gpu": name.value.decode(), **versions, "l2_bytes": cache_bytes.value}

    def allocate(self, size: int) -> int:
        """The address of that many bytes."""
        memory = ctypes.c_void_p()
        self._check(self._library.allocate(ctypes.c_int64(size), ctypes.byref(memory)))
        assert memory.value is not None
        return memory.value

    def release(self, address: int) -> None:
        """Give them back."""
        self._check(self._library.release(ctypes.c_void_p(address)))

    def upload(self, array: Array, address: int) -> None:
        """Copy an array there."""
        array = np.ascontiguousarray(array)
        self._check(
            self._library.copy(*map(ctypes.c_void_p, (address, array.ctypes.data)), ctypes.c_int64(array.nbytes))
        )

    def download(self, address: int, shape: Sequence[int], dtype: Any) -> Array:
        """Copy an array from there."""
        array = np.empty(shape, dtype)
        self._check(
            self._library.copy(*map(ctypes.c_void_p, (array.ctypes.data, address)), ctypes.c_int64(array.nbytes))
        )
        return array

    def fill(self, address: int, byte: int, size: int) -> None:
        """Set every byte."""
        self._check(self._library.fill(ctypes.c_void_p(address), ctypes.c_int32(byte), ctypes.c_int64(size)))

    def make_stream(self) -> int:
        """A stream that does not wait for the default one."""
        stream = ctypes.c_void_p()
        self._check(self._library.make_stream(ctypes.byref(stream)))
        assert stream.value is not None
        return stream.value

    def begin_capture(self) -> int:
        """A stream that captures, so that nothing may be queued on the default one."""
        stream = ctypes.c_void_p()
        self._check(self._library.begin_capture(ctypes.byref(stream)))
        assert stream.value is not None
        return stream.value

    def end_capture(self, stream: int) -> None:
        """End that, and raise what made the capture void."""
        self._check(self._library.end_capture(ctypes.c_void_p(stream)))

    def synchronize(self, stream: int = 0) -> None:
        """Wait for a stream, and raise what went wrong on it."""
        self._check(self._library.synchronize(ctypes.c_void_p(stream)))

    def launch(
        self, layout: Layout, dtype: Any, addresses: Sequence[int], stream: int = 0, few: int | None = None
    ) -> None:
        """Queue a call on current, thresholds, levels and output.

        Fewer than `few` threads take narrow vectors; by default as in the operator.
        """
        self._check(self._library.launch(*_call(layout, dtype, addresses), *_how(stream, few)))

    def launch_serial(
        self, layout: SerialLayout, dtype: Any, addresses: Sequence[int], stream: int = 0, few: int | None = None
    ) -> None:
        """Queue a call of SerialSpike on its inputs and outputs, likewise."""
        element = ctypes.c_int32(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        arguments = (ctypes.byref(layout), addresses_of(addresses), *_how(stream, few))
        self._check(self._library.launch_serial(element, *arguments))

    def time_launches(self, layout: Layout, dtype: Any, addresses: Sequence[int], repeats: int) -> list[float]:
        """Seconds of each of several calls, by the clock of the GPU."""
        found = (ctypes.c_float * repeats)()
        arguments = (*_call(layout, dtype, addresses), ctypes.c_void_p(0), ctypes.c_int32(repeats), found)
        self._check(self._library.time_launches(*arguments))
        return [value / 1e3 for value in found]

    def time_copies(self, to: int, source: int, size: int, repeats: int) -> list[float]:
        """Seconds of each of several copies within the GPU's memory, likewise."""
        found = (ctypes.c_float * repeats)()
        arguments = (*map(ctypes.c_void_p, (to, source)), ctypes.c_int64(size), ctypes.c_void_p(0))
        self._check(self._library.time_copies(*arguments, ctypes.c_int32(repeats), found))
        return [value / 1e3 for value in found]


def _call(layout: Layout, dtype: Any, addresses: Sequence[int]) -> tuple[Any, ...]:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return (ctypes.c_int32(element), ctypes.byref(layout), *map(ctypes.c_void_p, addresses))


def _how(stream: int, few: int | None) -> tuple[Any, ...]:
    return ctypes.c_void_p(stream), ctypes.c_int64(-1 if few is None else few)


@cache
def _built() -> Path:
    from cmake import CMAKE_BIN_DIR
    from ninja import BIN_DIR

    folder = Path(tempfile.mkdtemp(prefix="pconv-device-"))
    cmake = os.path.join(CMAKE_BIN_DIR, "cmake")
    options = ("-DPCONV_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native", "-DCMAKE_BUILD_TYPE=Release")
    ninja = f"-DCMAKE_MAKE_PROGRAM={os.path.join(BIN_DIR, 'ninja')}"
    for command in (
        [cmake, "-S", SOURCE, "-B", folder, "-G", "Ninja", ninja, *options],
        [cmake, "--build", folder, "--target", "test_device"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the kernel does not compile: {done.stdout}{done.stderr}")
    return folder / "libtest_device.so"
