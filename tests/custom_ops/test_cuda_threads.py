"""The CUDA kernels, thread by thread on the CPU: every index, vector width and tail gives the CPU kernels' bits.

The GPU compiles the same source; what only a GPU can show is in tests/gpu.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import shutil
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import pytest
from cuda_device import Layout, SerialLayout, addresses_of, layout_of, serial_layout_of
from hypothesis import given, settings
from hypothesis import strategies as st
from native_build import build
from onnx import helper
from operator_cases import (
    BFLOAT16,
    CODED,
    DTYPES,
    FLOAT16,
    KERNELS,
    SHAPES,
    TYPES,
    case,
    drawn_case,
    in_kernel,
    radix,
)
from serial_operator_cases import assert_same_bits as assert_same_outputs
from serial_operator_cases import case as serial_case
from serial_operator_cases import drawn_case as drawn_serial_case
from serial_operator_cases import in_kernel as in_serial_kernel

from pconv_onnx.operators.parallel_spike import reference
from pconv_onnx.operators.serial_spike import serial_reference

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
    pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning"),
]

VECTOR_BYTES = 16
# How many threads are few: all vectors are as wide as can be, or narrow.
WIDE, NARROW = 0, 1 << 62
WIDTHS = [pytest.param(WIDE, id="wide"), pytest.param(NARROW, id="narrow")]
BLOCK = 128


class Grid(ctypes.Structure):
    _fields_ = [
        ("width", ctypes.c_int32),
        *((name, ctypes.c_bool) for name in ("one_channel", "averages")),
        ("blocks", ctypes.c_int64),
    ]


@pytest.fixture(scope="module")
def threads(tmp_path_factory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("threads")
    done = build(folder, "test_threads")
    assert done.returncode == 0, done.stdout + done.stderr
    return ctypes.CDLL(str(folder / "libtest_threads.so"))


def placed(array: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins so many elements past an address that every vector is aligned to."""
    room = np.zeros(array.nbytes + (offset + 1) * array.itemsize + 64, np.uint8)
    begin = -room.ctypes.data % 64 + offset * array.itemsize
    copy = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass
class Call:
    """One call of the kernel on arrays of the test."""

    library: ctypes.CDLL
    layout: Layout
    current: np.ndarray
    tables: tuple[np.ndarray, np.ndarray]
    output: np.ndarray
    few: int = WIDE

    def __post_init__(self) -> None:
        self.type = helper.np_dtype_to_tensor_dtype(self.current.dtype)
        self.grid = Grid()
        self.library.grid_of(
            self.type,
            ctypes.byref(self.layout),
            *(ctypes.c_void_p(array.ctypes.data) for array in (self.current, self.output)),
            ctypes.c_int64(self.few),
            ctypes.byref(self.grid),
        )

    def run(self, blocks: int = 0, first: int = 0, last: int | None = None, backwards: bool = False) -> np.ndarray:
        blocks = blocks or self.grid.blocks
        arrays = (self.current, *self.tables, self.output)
        self.library.run_threads(
            self.type,
            ctypes.byref(self.layout),
            *(ctypes.c_void_p(array.ctypes.data) for array in arrays),
            ctypes.byref(self.grid),
            *(ctypes.c_int64(value) for value in (blocks, first, blocks * BLOCK if last is None else last)),
            ctypes.c_bool(backwards),
        )
        return self.output


def call(library, arrays, attributes, *, offsets=(0, 0), in_place=False, few=WIDE) -> Call:
    current, thresholds, levels = arrays.values()
    layout = layout_of(current, thresholds, **attributes)
    shape = (len(current) // layout.input_steps * layout.steps, *current.shape[1:])
    placed_current = placed(current, offsets[0])
    # Poisoned: what is not written shows.
    poison = np.full(shape, 77, current.dtype)
    output = placed_current.reshape(shape) if in_place else placed(poison, offsets[1])
    return Call(library, layout, placed_current, (np.ascontiguousarray(thresholds), levels.copy()), output, few)


def assert_same_bits(found, expected) -> None:
    bits = np.dtype(f"u{found.dtype.itemsize}")
    np.testing.assert_array_equal(found.view(bits), expected.astype(found.dtype).view(bits))


@pytest.mark.every_pair(
    {
        "shape, rows, axis": [*SHAPES, ((2, 4, 6), 4, 1), ((3, 8, 16), 8, 1), ((2, 8, 12), 8, 1)],
        "steps": [1, 3, 8, 32, 33, 256],
        "input_steps": [1, 3, 41],
        "spikes, dtype": KERNELS,
        "few": WIDTHS,
    }
)
def test_threads_give_the_bits_of_the_cpu_kernel(threads, shape, rows, axis, steps, input_steps, spikes, few, dtype):
    arrays, attributes = case(
        shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, spikes=spikes, dtype=dtype
    )
    assert_same_bits(call(threads, arrays, attributes, few=few).run(), in_kernel(arrays, attributes))


@pytest.mark.every_pair(
    {
        "shape, rows, axis": [*SHAPES, ((2, 4, 6), 4, 1), ((3, 8, 16), 8, 1), ((2, 8, 12), 8, 1)],
        "steps, coding": CODED,
        "input_steps": [1, 3],
        "dtype": DTYPES,
        "few": WIDTHS,
    }
)
def test_threads_give_the_bits_of_the_cpu_kernel_in_every_coding(
    threads, shape, rows, axis, steps, coding, input_steps, few, dtype
):
    arrays, attributes = case(
        shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, dtype=dtype, coding=coding
    )
    assert_same_bits(call(threads, arrays, attributes, few=few).run(), in_kernel(arrays, attributes))


@pytest.mark.parametrize("rows, shape", [(1, (8, 6, 37)), (6, (4, 6, 16)), (6, (4, 6))])
@pytest.mark.parametrize("backwards", [False, True])
@TYPES
def test_trains_of_binary_digits_may_take_the_place_of_the_current(threads, rows, shape, backwards, dtype):
    arrays, attributes = case(shape, steps=255, rows=rows, input_steps=8, dtype=dtype, coding=radix(255))
    found = call(threads, arrays, attributes, in_place=True).run(backwards=backwards)
    assert_same_bits(found, reference(**arrays, **attributes))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_threads_give_the_reference_value_at_any_size_place_and_number_of_blocks(threads, data):
    draw = data.draw
    arrays, attributes = drawn_case(draw)
    offsets = draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))
    one = call(threads, arrays, attributes, offsets=offsets, few=draw(st.sampled_from([WIDE, NARROW])))
    # Fewer blocks than there is work for go round again, more find none.
    found = one.run(blocks=draw(st.integers(1, 2 * one.grid.blocks)), backwards=draw(st.booleans()))
    assert_same_bits(found, reference(**arrays, **attributes))


@pytest.mark.every_pair(
    {
        "steps, input_steps, spikes": [(1, 1, 1), (8, 8, 1), (3, 3, 1), (17, 1, 0), (255, 1, 0)],
        "rows, shape": list(itertools.product([1, 6], [(8, 6, 37), (4, 6, 16), (4, 6)])),
        "backwards": [False, True],
        "few": WIDTHS,
        "dtype": DTYPES,
    }
)
def test_an_output_may_take_the_place_of_the_current(
    threads, steps, input_steps, spikes, rows, shape, backwards, few, dtype
):
    arrays, attributes = case(shape, steps=steps, rows=rows, input_steps=input_steps, spikes=spikes, dtype=dtype)
    found = call(threads, arrays, attributes, in_place=True, few=few).run(backwards=backwards)
    assert_same_bits(found, reference(**arrays, **attributes))


@pytest.mark.parametrize("offsets", [(0, 0), (1, 0), (0, 1), (2, 2), (4, 8), (8, 8)])
@pytest.mark.parametrize("elements", [1, 4, 8, 12, 1000, 1001, 1024])
@TYPES
def test_vectors_are_as_wide_as_every_row_is_aligned(threads, offsets, elements, dtype):
    arrays, attributes = case((elements,), steps=8, input_steps=8, dtype=dtype)
    one = call(threads, arrays, attributes, offsets=offsets)
    begins = [array[0] for array in (one.current.reshape(8, -1), one.output.reshape(8, -1))]
    aligned = all((begin.ctypes.data + t * begin.nbytes) % VECTOR_BYTES == 0 for begin in begins for t in range(8))
    assert one.grid.width == (VECTOR_BYTES // dtype.itemsize if aligned else 1)
    assert one.grid.blocks == -(-elements // (one.grid.width * BLOCK))


def test_few_threads_take_narrow_vectors(threads):
    arrays, attributes = case((4000,), steps=8)
    widths = [call(threads, arrays, attributes, few=few).grid.width for few in (1000, 1001)]
    assert widths == [4, 1]


@pytest.mark.parametrize("inner, one_channel", [(16, True), (8, True), (7, False), (1, False)])
def test_thresholds_are_shared_where_vectors_do_not_cross_channels(threads, inner, one_channel):
    arrays, attributes = case((8, 3, inner), steps=8, rows=3)
    grid = call(threads, arrays, attributes).grid
    assert (grid.width, grid.one_channel) == (4, one_channel)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_more_than_two_to_the_31_elements_are_reached(threads, dtype):
    """Of a call of 2³¹ + 4096 neurons the last threads alone; pages that nothing touches take no memory."""
    channels, inner = 3, 1024
    rows = 2**31 // (channels * inner) + 2
    elements = rows * channels * inner
    limits = ml_dtypes.finfo(dtype)
    maps = [
        mmap.mmap(-1, elements * limits.dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        for _ in range(2)
    ]  # 0x4000: MAP_NORESERVE, which Python has no name for
    current, output = (np.frombuffer(memory, dtype=dtype) for memory in maps)
    arrays, attributes = case((1, channels, inner), steps=5, rows=channels, spikes=0, dtype=dtype)
    tail = channels * inner
    current[-tail:] = arrays["current"].reshape(-1)
    layout = Layout(1, elements, channels, inner, 5, 1, False)
    one = Call(threads, layout, current, (arrays["thresholds"], arrays["levels"]), output)
    count = elements // one.grid.width
    one.run(first=count - tail // one.grid.width, last=count)
    assert elements > 2**31
    assert_same_bits(output[-tail:].reshape(1, channels, inner), reference(**arrays, **attributes))
    assert not output[:tail].any()


def serial_grid_of(library, layout, element, addresses, few=WIDE) -> Grid:
    grid = Grid()
    arguments = (ctypes.byref(layout), addresses_of(addresses), ctypes.c_int64(few), ctypes.byref(grid))
    library.serial_grid_of(element, *arguments)
    return grid


def serial_threads(
    library, arrays, attributes, *, blocks=0, offsets=(0, 0), in_place=False, backwards=False, few=WIDE
) -> list[np.ndarray]:
    """The outputs of SerialSpike, by that many blocks or as many as it is launched with."""
    layout = serial_layout_of(arrays["current"], arrays["levels"], **attributes)
    current, potential, *tables = arrays.values()
    inputs = [placed(array, offsets[0]) for array in (current, potential)]
    tables = [np.array(table, order="C") for table in tables]
    outputs = inputs if in_place else [placed(np.full_like(array, 77), offsets[1]) for array in inputs]
    element = helper.np_dtype_to_tensor_dtype(current.dtype)
    addresses = [array.ctypes.data for array in (*inputs, *tables, *outputs)]
    grid = serial_grid_of(library, layout, element, addresses, few)
    library.run_serial_threads(
        element,
        ctypes.byref(layout),
        addresses_of(addresses),
        ctypes.byref(grid),
        ctypes.c_int64(blocks or grid.blocks),
        ctypes.c_bool(backwards),
    )
    return outputs


@pytest.mark.parametrize("shape, rows, axis", [*SHAPES, ((2, 4, 6), 4, 1), ((3, 8, 16), 8, 1), ((2, 8, 12), 8, 1)])
@pytest.mark.parametrize("few", WIDTHS)
@TYPES
def test_serial_threads_give_the_bits_of_the_cpu_kernel(threads, shape, rows, axis, few, dtype):
    arrays, attributes = serial_case(shape, rows=rows, axis=axis, dtype=dtype)
    assert_same_outputs(serial_threads(threads, arrays, attributes, few=few), in_serial_kernel(arrays, attributes))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_serial_threads_give_the_reference_bits_at_any_size_place_and_number_of_blocks(threads, data):
    draw = data.draw
    arrays, attributes = drawn_serial_case(draw)
    how = {
        "in_place": draw(st.booleans()),
        "backwards": draw(st.booleans()),
        "few": draw(st.sampled_from([WIDE, NARROW])),
        "blocks": draw(st.integers(1, 40)),
        "offsets": draw(st.tuples(st.integers(0, 9), st.integers(0, 9))),
    }
    found = serial_threads(threads, arrays, attributes, **how)
    assert_same_outputs(found, serial_reference(**arrays, **attributes))


@pytest.mark.parametrize("moved", [None, 0, 1, 6, 7])
def test_serial_vectors_are_as_wide_as_every_array_is_aligned(threads, moved):
    addresses = [64 + 4 * (place == moved) for place in range(8)]
    grid = serial_grid_of(threads, SerialLayout(1000, 1, 1000), onnx.TensorProto.FLOAT, addresses)
    assert (grid.width, grid.blocks) == ((4, 2) if moved is None else (1, 8))


@pytest.mark.parametrize("elements, blocks", [(1, 1), (128, 1), (129, 2), (2**40 + 1, 2**31 - 1)])
def test_serial_calls_of_any_size_have_a_grid(threads, elements, blocks):
    layout = SerialLayout(elements, 1, elements)
    assert serial_grid_of(threads, layout, onnx.TensorProto.FLOAT, [4] * 8).blocks == blocks
