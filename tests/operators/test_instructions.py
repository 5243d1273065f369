"""The loops of operators give the same bits by each instruction set."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from instructions import FLAGS, lacks
from integer_operator_cases import in_kernel as in_integer_kernel
from integer_operator_cases import random_case as random_integer_case
from integer_operator_cases import random_constants
from integer_operator_cases import reference as integer_reference
from operator_cases import TYPES, case, in_kernel, radix
from serial_operator_cases import assert_same_bits
from serial_operator_cases import case as serial_case
from serial_operator_cases import in_kernel as in_serial_kernel

from pconv_onnx.operators import library as native
from pconv_onnx.operators.parallel_spike import reference
from pconv_onnx.operators.serial_spike import serial_reference

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")

EACH = pytest.mark.usefixtures("instructions")
SHAPES = [((7, 3, 41), 1), ((7, 3, 41), 3), ((9, 5), 5), ((2, 16, 33, 33), 16)]


@pytest.fixture
def copied(library, monkeypatch, tmp_path) -> None:
    """A copy of the library, which has not asked yet which instructions its loops take: it asks once."""
    shutil.copy(library, tmp_path)
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)


@pytest.fixture(params=FLAGS)
def instructions(request, monkeypatch, copied) -> None:
    if lacks(request.param):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("PCONV_INSTRUCTIONS", request.param)


@TYPES
@EACH
def test_parallel_neurons(dtype):
    for shape, rows in SHAPES:
        for steps, input_steps, coding in ((8, 8, {}), (100, 1, {}), (9, 3, radix(9, 4)), (255, 2, radix(255))):
            sizes = {"steps": steps, "rows": rows, "input_steps": input_steps, "dtype": dtype}
            for spikes in (0, 1):
                arrays, attributes = case(shape, **sizes, spikes=spikes, coding=coding if spikes else None)
                np.testing.assert_array_equal(in_kernel(arrays, attributes), reference(**arrays, **attributes))


@TYPES
@EACH
def test_serial_neurons(dtype):
    for shape, rows in SHAPES:
        arrays, attributes = serial_case(shape, rows=rows, dtype=dtype)
        assert_same_bits(in_serial_kernel(arrays, attributes), serial_reference(**arrays, **attributes))


@EACH
def test_layers_of_integers():
    draw = np.random.default_rng(0)
    for _ in range(20):
        layer = random_integer_case(draw)
        found = in_integer_kernel(layer, random_constants(draw, layer))
        np.testing.assert_array_equal(found, integer_reference(layer))


@pytest.mark.usefixtures("copied")
def test_neurons_refuse_instructions_that_there_are_not(monkeypatch):
    monkeypatch.setenv("PCONV_INSTRUCTIONS", "sse9")
    arrays, attributes = case((2, 3, 4), steps=4)
    for _ in range(2):
        with pytest.raises(Exception, match="PCONV_INSTRUCTIONS is 'sse9'; expected avx512vnni, avxvnni, avx512"):
            in_kernel(arrays, attributes)
