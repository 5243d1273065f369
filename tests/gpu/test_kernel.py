"""The CUDA kernels on a GPU, without onnxruntime: the bits of the reference, wherever its memory lies."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_device import Device, Layout, layout_of, serial_layout_of
from operator_cases import CODED, DTYPES, FLOAT16, HALF_TYPES, KERNELS, SHAPES, TYPES, case, every_number
from serial_operator_cases import assert_same_bits
from serial_operator_cases import case as serial_case

from pconv_onnx.operators.parallel_spike import reference
from pconv_onnx.operators.serial_spike import serial_reference

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")

POISON = 0x4D
# How many threads are few: all vectors are as wide as can be, or narrow.
WIDTHS = (0, 1 << 62)


class Memory:
    """Arrays on the device for as long as a block of code runs."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._taken: list[int] = []

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        for address in self._taken:
            self.device.release(address)

    def room(self, size: int, offset: int = 0) -> int:
        address = self.device.allocate(size + offset)
        self._taken.append(address)
        self.device.fill(address, POISON, size + offset)
        return address + offset

    def copy_of(self, array: np.ndarray, offset: int = 0) -> int:
        address = self.room(array.nbytes, offset)
        self.device.upload(array, address)
        return address


def on_device(device, arrays, attributes, *, offsets=(0, 0), in_place=False, stream=0, few=None) -> np.ndarray:
    """The kernel's output; `offsets` in elements move the current and the output away from aligned addresses."""
    current, thresholds, levels = arrays.values()
    layout = layout_of(current, thresholds, **attributes)
    shape = (len(current) // layout.input_steps * layout.steps, *current.shape[1:])
    starts = [offset * current.itemsize for offset in offsets]
    with Memory(device) as memory:
        source = memory.copy_of(current, starts[0])
        target = source if in_place else memory.room(int(np.prod(shape)) * current.itemsize, starts[1])
        tables = [memory.copy_of(thresholds), memory.copy_of(levels)]
        device.launch(layout, current.dtype, [source, *tables, target], stream, few)
        device.synchronize(stream)
        return device.download(target, shape, current.dtype)


def assert_reference_bits(device, arrays, attributes, **how) -> None:
    expected = reference(**arrays, **attributes)
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    for few in WIDTHS:
        found = on_device(device, arrays, attributes, few=few, **how)
        np.testing.assert_array_equal(found.view(bits), expected.view(bits))


@pytest.mark.every_pair(
    {
        "shape, rows, axis": [*SHAPES, ((3, 8, 16), 8, 1), ((2, 8, 12), 8, 1)],
        "steps": [1, 3, 8, 32, 33, 256],
        "input_steps": [1, 3, 41],
        "spikes, dtype": KERNELS,
    }
)
def test_kernel_gives_the_bits_of_the_reference(device, shape, rows, axis, steps, input_steps, spikes, dtype):
    assert_reference_bits(
        device,
        *case(shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, spikes=spikes, dtype=dtype),
    )


@pytest.mark.every_pair(
    {
        "shape, rows, axis": [*SHAPES, ((3, 8, 16), 8, 1), ((2, 8, 12), 8, 1)],
        "steps, coding": CODED,
        "input_steps": [1, 3],
        "dtype": DTYPES,
    }
)
def test_kernel_gives_the_bits_of_the_reference_in_every_coding(
    device, shape, rows, axis, steps, coding, input_steps, dtype
):
    arrays, attributes = case(
        shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, dtype=dtype, coding=coding
    )
    assert_reference_bits(device, arrays, attributes)


@pytest.mark.parametrize("offsets", [(0, 0), (1, 0), (0, 1), (2, 4), (8, 8)])
@pytest.mark.parametrize("elements", [1, 7, 8, 127, 128, 1000, 4099])
@TYPES
def test_misaligned_memory_and_ragged_sizes_change_nothing(device, offsets, elements, dtype):
    arrays, attributes = case((elements, 3), steps=8, rows=3, input_steps=8, dtype=dtype)
    assert_reference_bits(device, arrays, attributes, offsets=offsets)


@pytest.mark.parametrize("steps, input_steps, spikes", [(1, 1, 1), (8, 8, 1), (3, 3, 1), (17, 1, 0), (255, 1, 0)])
@pytest.mark.parametrize("rows, shape", [(1, (8, 6, 37)), (6, (4, 6, 37)), (6, (4, 6)), (16, (32, 16, 32, 32))])
@TYPES
def test_an_output_may_take_the_place_of_the_current(device, steps, input_steps, spikes, rows, shape, dtype):
    arrays, attributes = case(shape, steps=steps, rows=rows, input_steps=input_steps, spikes=spikes, dtype=dtype)
    assert_reference_bits(device, arrays, attributes, in_place=True)


def test_another_stream_than_the_default_one_is_used(device):
    arrays, attributes = case((16, 64, 32, 32), steps=8, rows=64, input_steps=8)
    assert_reference_bits(device, arrays, attributes, stream=device.make_stream())


@pytest.mark.every_pair(
    {
        "shape, rows, axis": [*SHAPES, ((3, 8, 16), 8, 1), ((16, 64, 31, 67), 64, 1)],
        "in_place": [False, True],
        "few": WIDTHS,
        "dtype": DTYPES,
    }
)
def test_serial_kernel_gives_the_bits_of_the_reference(device, shape, rows, axis, in_place, few, dtype):
    arrays, attributes = serial_case(shape, rows=rows, axis=axis, dtype=dtype)
    layout = serial_layout_of(arrays["current"], arrays["levels"], **attributes)
    stream = device.make_stream()
    with Memory(device) as memory:
        inputs = [memory.copy_of(array) for array in arrays.values()]
        outputs = inputs[:2] if in_place else [memory.room(arrays["current"].nbytes) for _ in range(2)]
        device.launch_serial(layout, dtype, [*inputs, *outputs], stream, few)
        device.synchronize(stream)
        found = [device.download(address, shape, dtype) for address in outputs]
    assert_same_bits(found, serial_reference(**arrays, **attributes))


@HALF_TYPES
def test_every_number_of_a_half_type_is_its_own_mean(device, dtype):
    """Each neuron has its own number as first threshold and the next one as second, and reaches only the first."""
    numbers = every_number(dtype)
    thresholds = np.stack([numbers, np.nextafter(numbers, dtype.type(np.inf))], axis=1)
    thresholds[numbers == dtype.type(np.inf), 1] = np.nan
    arrays = {
        "current": np.stack([numbers] * 2),
        "thresholds": thresholds,
        "levels": np.tile(np.arange(3).astype(dtype), (len(numbers), 1)),
    }
    attributes = {"input_steps": 2, "channel_axis": 1, "spikes": 0}
    assert_reference_bits(device, arrays, attributes)


@HALF_TYPES
def test_means_of_half_types_are_rounded_as_the_reference_rounds_them(device, dtype):
    numbers = every_number(dtype)
    others = [np.random.default_rng(seed).permutation(numbers) for seed in range(2)]
    current = np.stack([numbers, *others])
    wide = current.astype(np.float32)
    mean = ((wide[0] + wide[1] + wide[2]) / np.float32(3)).astype(dtype)
    arrays = {
        "current": current,
        "thresholds": np.stack([mean, np.nextafter(mean, dtype.type(np.inf))], axis=1),
        "levels": np.tile(np.arange(3).astype(dtype), (len(numbers), 1)),
    }
    assert_reference_bits(device, arrays, {"input_steps": 3, "channel_axis": 1, "spikes": 0})


@pytest.mark.slow
def test_more_than_two_to_the_31_elements_are_reached(device):
    channels, inner = 3, 1 << 14
    sample = channels * inner
    elements = (2**31 // sample + 2) * sample
    arrays, attributes = case((1, channels, inner), steps=5, rows=channels, spikes=0, dtype=FLOAT16)
    with Memory(device) as memory:
        try:
            source, target = (memory.room(2 * elements) for _ in range(2))
        except RuntimeError as error:
            pytest.skip(f"needs 9 GB of memory on the GPU: {error}")
        last = 2 * (elements - sample)
        device.upload(arrays["current"], source + last)
        tables = [memory.copy_of(arrays[name]) for name in ("thresholds", "levels")]
        device.launch(Layout(1, elements, channels, inner, 5, 1, False), FLOAT16, [source, *tables, target])
        device.synchronize()
        found = device.download(target + last, (1, channels, inner), FLOAT16)
    np.testing.assert_array_equal(found, reference(**arrays, **attributes))


def test_what_cuda_refuses_is_told_and_the_next_call_works(device):
    with pytest.raises(RuntimeError, match="out of memory"):
        device.allocate(1 << 60)
    arrays, attributes = case((4, 3), steps=2)
    layout = layout_of(arrays["current"], arrays["thresholds"], **attributes)
    with Memory(device) as memory:
        places = [memory.room(1024) for _ in range(4)]
        capturing = device.begin_capture()
        with pytest.raises(RuntimeError, match="legacy stream"):
            device.launch(layout, np.float32, places)
        with pytest.raises(RuntimeError, match="capture"):
            device.end_capture(capturing)
    assert_reference_bits(device, arrays, attributes)
