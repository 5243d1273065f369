"""The kernels of integer layers against their definition, bit by bit, for each instruction set."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from instructions import lacks
from integer_operator_cases import (
    INPUTS,
    INSTRUCTIONS,
    LAYER,
    LAYER_IN_TIME,
    RADIX,
    RATE,
    TRAINS,
    Case,
    in_kernel,
    model,
    random_case,
    random_constants,
    reference,
    session,
    sums,
)
from native_build import build

from pconv_onnx.operators.integer_spike import worths

pytestmark = pytest.mark.usefixtures("library")

CONSTANTS = tuple(LAYER[1:])


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request, monkeypatch) -> str:
    if lacks(request.param):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("PCONV_INSTRUCTIONS", request.param)
    return request.param


def conv(counts=(2, 5, 6, 8), weights=(16, 8, 3, 3), op_type="IntegerSpikeConv", thresholds=(1, 8), **changed) -> Case:
    """A layer of random numbers; `changed` names attributes, and tables by their shapes."""
    draw = np.random.default_rng(0)
    attributes = {"zero": 0, "highest": 8, "residual_zero": 0}
    if op_type.endswith("Conv"):
        attributes |= {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1]}
    arrays = {
        "counts": draw.integers(0, 8, counts, np.uint8, endpoint=True),
        "weights": draw.integers(-128, 127, weights, np.int8, endpoint=True),
        "residual": np.zeros(changed.pop("residual", (1,)), changed.pop("residual_type", np.uint8)),
    }
    for name in ("bias", "factor", "multiplier"):
        arrays[name] = draw.integers(1, 5, changed.pop(name, weights[:1]), np.int32)
    if "Spike" in op_type:
        arrays["thresholds"] = np.sort(draw.integers(-5000, 5000, thresholds, np.int32))
    return Case(op_type, arrays, attributes | changed)


def gemm(counts=(3, 8), weights=(16, 8), op_type="IntegerSpikeGemm", **changed) -> Case:
    return conv(counts, weights, op_type, **changed)


@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 40))])
def test_random_layers_give_the_integers_of_the_definition(instructions, seed):
    draw = np.random.default_rng(seed)
    for _ in range(int(os.environ.get("PCONV_RANDOM_LAYERS", "5"))):
        case = random_case(draw)
        given = in_kernel(case, random_constants(draw, case), threads=int(draw.integers(1, 3)))
        expected = reference(case)
        assert given.dtype == expected.dtype
        np.testing.assert_array_equal(given, expected)


def weights_at_limits(draw: np.random.Generator, shape: tuple[int, ...], kind: str, highest: int) -> np.ndarray:
    """Weights around what sums of products have room for in 16 bits, for counts up to `highest`."""
    if kind == "trained":  # a bell, of which few pairs and runs are too large
        bell = np.clip(np.rint(draw.standard_normal(shape) * 25), -128, 127)
        return np.where(draw.random(shape) < 0.01, draw.choice([-128, 127], shape), bell).astype(np.int8)
    if kind == "extreme":
        return draw.choice([-128, -128, 0, 127, 127], shape).astype(np.int8)
    if kind == "limit":  # pairs of channels that just fit, or just not
        most = np.iinfo(np.int16).max // highest
        pairs = np.array([most // 2, most - most // 2, most // 2, most - most // 2 + 1, -most // 2, -most // 2 - 1])
        channels = np.resize(np.clip(pairs, -128, 127), shape[1])
        return np.broadcast_to(channels[:, None, None], shape).astype(np.int8)
    return np.full(shape, {"least": -128, "most": 127}[kind], np.int8)


@pytest.mark.parametrize("kind", ["trained", "extreme", "limit", "least", "most"])
@pytest.mark.parametrize("highest, zero", [(255, 0), (254, 127), (200, 0), (127, 3), (31, 0), (8, 0)])
@pytest.mark.parametrize(
    "channels, weights",
    [
        (3, (20, 3, 3, 3)),
        (24, (70, 24, 3, 3)),
        (150, (40, 150, 1, 1)),
        (40, (40, 1, 3, 3)),
        (40, (40, 1, 5, 5)),
        (12, (12, 1, 2, 3)),
        (12, (18, 6, 1, 3)),
    ],
)
def test_sums_are_exact_whatever_16_bits_hold(instructions, channels, weights, highest, zero, kind):
    draw = np.random.default_rng(0)
    case = conv((1, 7, 9, channels), weights, "IntegerConv", group=channels // weights[1], highest=highest, zero=zero)
    case.arrays["weights"] = weights_at_limits(draw, weights, kind, highest)
    counts = draw.integers(0, highest, case.arrays["counts"].shape, np.uint8, endpoint=True)
    case.arrays["counts"] = np.where(draw.random(counts.shape) < 0.7, np.uint8(highest), counts)
    np.testing.assert_array_equal(in_kernel(case, CONSTANTS), reference(case))


@pytest.mark.parametrize("counts, weights", [((3, 32, 32, 16), (16, 16, 3, 3)), ((2, 40, 30, 96), (96, 1, 3, 3))])
def test_layers_of_many_chunks_are_the_same_on_two_threads(instructions, counts, weights):
    case = conv(counts, weights, group=weights[0] if weights[1] == 1 else 1)
    for threads in (1, 2):
        np.testing.assert_array_equal(in_kernel(case, CONSTANTS + ("thresholds",), threads), reference(case))


@pytest.mark.parametrize(
    "counts, weights",
    [((2, 32, 32, 16), (16, 16, 3, 3)), ((1, 40, 30, 96), (96, 1, 3, 3)), ((3, 7, 7, 96), (900, 96, 1, 1))],
)
@pytest.mark.parametrize("coding, steps, silent", [(RATE, 5, 3), (RADIX, 4, 0)])
@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_layers_of_many_chunks_in_time_are_the_same_on_two_threads(
    instructions, counts, weights, coding, steps, silent, kind
):
    pads = [weights[-1] // 2] * 4
    shape = (2 * counts[0], *counts[1:3], weights[0])
    group = weights[0] if weights[1] == 1 else 1
    time = {"input_steps": 2, "residual_steps": 2, "input_coding": coding}
    time |= {"steps": steps, "coding": coding, "silent": silent}
    case = conv(
        (2 * counts[0], *counts[1:]), weights, group=group, pads=pads, residual=shape, residual_type=kind, **time
    )
    case.arrays["residual"] += np.arange(case.arrays["residual"].size, dtype=np.int64).reshape(shape).astype(kind) % 99
    for threads in (1, 2):
        np.testing.assert_array_equal(
            in_kernel(case, CONSTANTS[:3] + ("multiplier", "thresholds"), threads), reference(case)
        )


@pytest.mark.parametrize(
    "coding, steps, highest",
    [(RATE, 127, 2), (RATE, 128, 2), (RADIX, 7, 2), (RADIX, 8, 2), (RADIX, 16, 255), (RATE, 70_000, 255)],
)
@pytest.mark.parametrize("op_type", ["IntegerSpikeConv", "IntegerConv"])
@pytest.mark.parametrize("group", [1, 5])
def test_trains_may_be_worth_more_than_a_byte(instructions, coding, steps, highest, op_type, group):
    draw = np.random.default_rng(0)
    time = {"input_steps": steps, "input_coding": coding, "highest": highest, "zero": 1}
    case = conv((steps, 1, 2, 5), (5, 5 // group, 1, 3), op_type, group=group, pads=[0, 1, 0, 1], **time)
    case.arrays["counts"] = draw.integers(0, highest, (steps, 1, 2, 5), np.uint8, endpoint=True)
    case.arrays["weights"] = draw.integers(-2, 2, (5, 5 // group, 1, 3), np.int8, endpoint=True)
    each = worths(steps, coding)
    counts = np.tensordot(each, case.arrays["counts"].astype(np.int64), 1)[None]
    at_once = Case(
        op_type, case.arrays | {"counts": counts}, case.attributes | {"input_steps": 1, "zero": int(each.sum())}
    )
    if case.spikes:
        case.arrays["thresholds"] = np.sort(sums(at_once).reshape(1, -1)[:, :9]).astype(np.int32)
        at_once.arrays.update(thresholds=case.arrays["thresholds"])
    constants = tuple(name for name in INPUTS[op_type] if name != "counts")
    np.testing.assert_array_equal(in_kernel(case, constants), reference(at_once))


@pytest.mark.parametrize("op_type", INPUTS)
def test_empty_tensors_give_empty_ones(instructions, op_type):
    if op_type == "IntegerSpike":
        case = Case(op_type, {"sums": np.zeros((0, 5), np.int32), "thresholds": np.zeros((1, 4), np.int32)}, {})
        assert in_kernel(case).shape == (0, 5)
    elif op_type.endswith("Gemm"):
        assert in_kernel(gemm((0, 8), op_type=op_type)).shape == (0, 16)
    else:
        assert in_kernel(conv((0, 5, 6, 8), op_type=op_type)).shape == (0, 5, 6, 16)
        assert in_kernel(conv((2, 5, 6, 8), (0, 8, 3, 3), op_type=op_type)).shape == (2, 5, 6, 0)
        assert in_kernel(conv((2, 5, 6, 8), (0, 8, 3, 3), op_type=op_type, input_steps=2)).shape == (1, 5, 6, 0)
        assert in_kernel(conv((0, 5, 6, 8), op_type=op_type, input_steps=2)).shape == (0, 5, 6, 16)


def test_without_channels_the_bias_is_left(instructions):
    for case in (conv((1, 5, 6, 0), (16, 0, 3, 3)), gemm((3, 0), (16, 0))):
        np.testing.assert_array_equal(in_kernel(case), reference(case))


def test_thresholds_at_the_ends_of_int32_are_compared_exactly(instructions):
    most, least = np.iinfo(np.int32).max, np.iinfo(np.int32).min
    reached = np.array([[most, most - 1, 0, least + 1, least]], np.int32).T
    thresholds = np.array([[least, least + 1, most - 1, most, most]], np.int32)
    case = Case("IntegerSpike", {"sums": reached, "thresholds": thresholds}, {})
    np.testing.assert_array_equal(in_kernel(case), [[5], [3], [2], [2], [1]])


@pytest.mark.parametrize("highest", [1, 8, 255])
@pytest.mark.parametrize("spacing", [0.3, 1.0, 77.7, 12345.6])
def test_every_sum_around_evenly_spaced_thresholds_is_counted_exactly(instructions, highest, spacing):
    thresholds = np.ceil(np.arange(1, highest + 1) * spacing - 40.2)[None].astype(np.int32)
    near = thresholds.T + np.array([-2, -1, 0, 1, 2], np.int32)
    case = Case("IntegerSpike", {"sums": near.reshape(-1, 1), "thresholds": thresholds}, {})
    np.testing.assert_array_equal(in_kernel(case, ("thresholds",)), reference(case))


def nearly_even(draw: np.random.Generator, rows: int, highest: int, spacing: int) -> np.ndarray:
    """Thresholds up to 0.4 steps off a line."""
    most = 2 * spacing // 5
    off = draw.integers(-most, most, (rows, highest), endpoint=True)
    return (np.arange(1, highest + 1) * spacing - 500 + off).astype(np.int32)


@pytest.mark.parametrize("highest", [20, 24, 127, 255])
@pytest.mark.parametrize("spacing", [3, 1000, 30_000])
@pytest.mark.parametrize("layer", ["alone", "dense", "depthwise"])
def test_every_sum_around_nearly_even_thresholds_is_counted_exactly(instructions, highest, spacing, layer):
    thresholds = nearly_even(np.random.default_rng(highest), 20, highest, spacing)
    near = (thresholds.T[:, None] + np.array([-2, -1, 0, 1, 2])[:, None]).reshape(1, 1, -1, 20)
    near = np.append(near, np.tile([[[[2**31 - 1], [-(2**31)]]]], 20), axis=2).astype(np.int32)
    if layer == "alone":
        case = Case("IntegerSpike", {"sums": near, "thresholds": thresholds}, {})
    else:
        each = 1 if layer == "depthwise" else 20
        group = 20 // each
        case = conv((*near.shape[:3], 20), (20, each, 1, 1), group=group, pads=[0] * 4, residual_type=np.int32)
        one = np.ones(20, np.int32)
        case.arrays.update(residual=near, thresholds=thresholds, multiplier=one, factor=one, bias=0 * one)
        case.arrays.update(weights=0 * case.arrays["weights"], line=np.zeros((20, 2), np.float32))
    constants = tuple(name for name in INPUTS[case.op_type] if name not in ("counts", "residual", "sums"))
    np.testing.assert_array_equal(in_kernel(case, constants), reference(case))


@pytest.fixture(scope="module")
def kind_of(tmp_path_factory) -> Callable[[np.ndarray], int]:
    """How neurons with thresholds `[rows, S]` are counted."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("neurons")
    done = build(folder, "test_neurons")
    assert done.returncode == 0, done.stdout + done.stderr
    kind = ctypes.CDLL(str(folder / "libtest_neurons.so")).pconv_test_kind
    kind.argtypes = [np.ctypeslib.ndpointer(np.int32, flags="C"), ctypes.c_int64, ctypes.c_int32]
    return lambda thresholds: kind(thresholds, *thresholds.shape)


FLOAT, DOUBLE, ESTIMATED, COMPARED = range(4)


def test_neurons_are_counted_in_the_fastest_way_that_is_exact(kind_of):
    draw = np.random.default_rng(0)

    def even(highest: int, spacing: float) -> np.ndarray:
        return np.ceil(np.arange(highest) * spacing)[None].astype(np.int32)

    assert kind_of(even(255, 77.7)) == FLOAT
    assert kind_of(even(255, 123_456.7)) == DOUBLE
    for highest in (24, 127, 255):
        for spacing in (3, 1000, 123_456):
            near = nearly_even(draw, 16, highest, spacing)
            assert kind_of(near) == ESTIMATED
            assert kind_of(np.append(near[:-1], even(highest, spacing), axis=0)) == ESTIMATED
            far = near.copy()
            far[3, highest // 2 :] += 3 * spacing
            assert kind_of(far) == COMPARED
    assert kind_of(nearly_even(draw, 16, 20, 1000)) == COMPARED


@pytest.mark.parametrize("op_type", ["IntegerSpikeConv", "IntegerConv", "IntegerSpikeGemm", "IntegerGemm"])
@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_the_shape_and_type_of_the_output_are_known_before_a_run(op_type, kind):
    if op_type.endswith("Conv"):
        case, declared, expected = (
            conv(op_type=op_type, strides=[2, 1], residual_type=kind),
            ["N", 5, "W", 8],
            ["N", 3, "W", 16],
        )
    else:
        case, declared, expected = gemm(op_type=op_type, residual_type=kind), ["N", 8], ["N", 16]
    (output,) = session(model(case, CONSTANTS, {"counts": declared})).get_outputs()
    assert (output.type, output.shape) == ("tensor(uint8)" if case.spikes else "tensor(int32)", expected)


@pytest.mark.parametrize("given, expected", [("N", "2*N"), ("4*N", "8*N"), ("N*M", None), (12, 24)])
def test_the_first_axis_of_the_output_has_its_steps_and_not_those_of_the_input(given, expected):
    case = conv(input_steps=4, steps=8, pads=[1] * 4)
    (output,) = session(model(case, CONSTANTS, {"counts": [given, 5, 6, 8]})).get_outputs()
    assert output.shape == [expected, 5, 6, 16] if expected else output.shape in ([], [None] * 4)
    sums_of = Case(
        "IntegerSpike", {"sums": np.zeros((2, 3), np.int32), "thresholds": np.zeros((1, 8), np.int32)}, {"steps": 8}
    )
    (output,) = session(model(sums_of, ("thresholds", "line"), {"sums": ["N", 3]})).get_outputs()
    assert output.shape == ["8*N", 3]


def test_a_size_that_does_not_follow_from_names_is_left_open():
    case = conv(strides=[2, 2])
    (output,) = session(model(case, CONSTANTS, {"counts": ["N", "H", "W", 8]})).get_outputs()
    assert output.shape in ([], [None] * 4)


@pytest.mark.parametrize(
    "case, told",
    [
        (conv(weights=(16, 8, 3)), r"input 'weights' has shape \[16, 8, 3\]; expected \[M, C/group, kH, kW\]"),
        (conv(weights=(16, 8, 0, 3)), "kH and kW at least 1"),
        (conv(weights=(16, 4, 3, 3)), r"input 'counts' has shape \[2, 5, 6, 8\]; expected 4 channels on the last axis"),
        (conv(weights=(9, 4, 3, 3), group=2), r"a first dimension that is a multiple of 'group' = 2"),
        (conv(counts=(2, 5, 8)), r"input 'counts' has shape \[2, 5, 8\]; expected \[N, H, W, C\]"),
        (conv(counts=(2, 1, 6, 8), pads=[0, 1, 1, 1]), "expected with its padding at least the 3 rows and 3 columns"),
        (conv(bias=(15,)), r"input 'bias' has shape \[15\]; expected \[16\] for 'weights'"),
        (conv(factor=(1,)), r"input 'factor' has shape \[1\]; expected \[16\]"),
        (conv(multiplier=(16, 1)), r"input 'multiplier' has shape \[16, 1\]; expected \[16\]"),
        (
            conv(residual=(2, 5, 6, 1)),
            r"input 'residual' has shape \[2, 5, 6, 1\]; expected \[2, 5, 6, 16\] or one element",
        ),
        (conv(thresholds=(2, 8)), r"input 'thresholds' has shape \[2, 8\]; expected \[1, S\] or \[16, S\]"),
        (conv(thresholds=(1, 256)), "S from 1 to 255"),
        (conv(thresholds=(1, 0)), "S from 1 to 255"),
        (gemm(weights=(16, 8, 1)), r"input 'weights' has shape \[16, 8, 1\]; expected \[M, C\]"),
        (gemm(counts=()), "input 'counts' is a scalar"),
        (gemm(counts=(3, 7)), r"input 'counts' has shape \[3, 7\]; expected 8 channels"),
        (
            conv(input_steps=4),
            r"input 'counts' has shape \[2, 5, 6, 8\]; expected a first dimension that is a multiple of",
        ),
        (
            gemm(counts=(8,), input_steps=4),
            r"input 'counts' has shape \[8\]; expected a first dimension that is a multiple",
        ),
        (gemm(counts=(8,), steps=8), r"input 'counts' has shape \[8\]; expected an axis of samples"),
        (conv(input_steps=2, residual_steps=2), r"input 'residual' has shape \[1\]; expected \[2, 5, 6, 16\]"),
        (
            conv(input_steps=2, residual_steps=2, residual=(1, 5, 6, 16)),
            r"input 'residual' has shape \[1, 5, 6, 16\]; expected \[2, 5, 6, 16\]",
        ),
        (conv(steps=7), "attribute 'steps' is 7; expected 8 for 'thresholds' of 8 columns with 'coding' = 0"),
        (conv(steps=3, coding=RADIX), "attribute 'steps' is 3; expected 4 to 256 for 'thresholds' of 8 columns"),
        (conv(steps=8, silent=9), "attribute 'silent' is 9; expected 0 to 8 for 'thresholds' of 8 columns"),
    ],
)
def test_shapes_that_break_the_contract_are_refused(case, told):
    for constants in ((), tuple(name for name in case.arrays if name not in ("counts", "residual"))):
        with pytest.raises(Exception, match=f"{case.op_type}: .*{told}"):
            in_kernel(case, constants)


@pytest.mark.parametrize(
    "name, value, told",
    [
        ("zero", 256, "attribute 'zero' is 256; expected 0 to 255"),
        ("zero", None, "attribute 'zero' is missing"),
        ("zero", 0.5, "attribute 'zero' is missing or is not an int"),
        ("highest", 0, "attribute 'highest' is 0; expected 1 to 255"),
        ("residual_zero", -1, "attribute 'residual_zero' is -1; expected 0 to 255"),
        *((name, None, f"attribute '{name}' is missing") for name in LAYER_IN_TIME + TRAINS),
        ("input_steps", 0, "attribute 'input_steps' is 0; expected 1 to"),
        ("input_coding", 2, "attribute 'input_coding' is 2; expected 0 to 1"),
        ("residual_steps", 3, "attribute 'residual_steps' is 3; expected 1"),
        ("steps", -1, "attribute 'steps' is -1; expected 0 to"),
        ("coding", -1, "attribute 'coding' is -1; expected 0 to 1"),
        ("silent", 256, "attribute 'silent' is 256; expected 0 to 255"),
        ("group", 0, "attribute 'group' is 0"),
        ("strides", [1, 0], "attribute 'strides' is 0"),
        ("strides", [1], "attribute 'strides' has 1 values; expected a list of 2 ints"),
        ("strides", 1, "attribute 'strides' has 0 values; expected a list of 2 ints"),
        ("dilations", None, "attribute 'dilations' is missing or is not a list of 2 ints"),
        ("dilations", [0, 1], "attribute 'dilations' is 0"),
        ("pads", [0, 0, 0, -1], "attribute 'pads' is -1"),
        ("pads", [0, 0], "attribute 'pads' has 2 values; expected a list of 4 ints"),
    ],
)
def test_attributes_that_break_the_contract_are_refused(name, value, told):
    case = conv()
    case.attributes[name] = value
    if value is None:
        del case.attributes[name]
    with pytest.raises(Exception, match=f"IntegerSpikeConv: {told}"):
        session(model(case))


@pytest.mark.parametrize(
    "told, changed",
    [
        (
            "attribute 'residual_steps' is 2; expected 1 or 4, that of 'input_steps'",
            {"input_steps": 4, "residual_steps": 2},
        ),
        ("attribute 'input_steps' is 17; expected 1 to 16", {"input_steps": 17, "input_coding": RADIX}),
        ("attribute 'steps' is 257; expected 0 to 256", {"steps": 257, "coding": RADIX}),
        ("attribute 'steps' is 256; expected 0 to 255", {"steps": 256}),
    ],
)
def test_times_that_break_the_contract_are_refused(told, changed):
    with pytest.raises(Exception, match=f"IntegerSpikeConv: {told}"):
        session(model(conv(**changed)))


@pytest.mark.parametrize("name", TRAINS)
def test_neurons_alone_need_every_attribute_of_trains(name):
    case = Case("IntegerSpike", {"sums": np.zeros((2, 3), np.int32), "thresholds": np.zeros((1, 2), np.int32)}, {})
    del case.attributes[name]
    with pytest.raises(Exception, match=f"IntegerSpike: attribute '{name}' is missing"):
        session(model(case))


def test_a_zero_of_a_residual_of_sums_is_refused():
    with pytest.raises(Exception, match="attribute 'residual_zero' is 1; expected 0 for a residual of int32"):
        session(model(conv(residual_type=np.int32, residual_zero=1)))


@pytest.mark.parametrize(
    "arrays, told",
    [
        ({"sums": np.zeros((), np.int32), "thresholds": np.zeros((1, 2), np.int32)}, "input 'sums' is a scalar"),
        ({"sums": np.zeros((2, 3), np.int32), "thresholds": np.zeros((2, 2), np.int32)}, r"\[1, S\] or \[3, S\]"),
    ],
)
def test_sums_that_break_the_contract_are_refused(arrays, told):
    for constants in ((), ("thresholds",)):
        with pytest.raises(Exception, match=f"IntegerSpike: .*{told}"):
            in_kernel(Case("IntegerSpike", arrays, {}), constants)


def test_instructions_that_there_are_not_are_refused(monkeypatch):
    monkeypatch.setenv("PCONV_INSTRUCTIONS", "sse9")
    told = "PCONV_INSTRUCTIONS is 'sse9'; expected avx512vnni, avxvnni, avx512, avx2 or portable"
    with pytest.raises(Exception, match=told):
        session(model(conv()))
