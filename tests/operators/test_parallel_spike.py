"""The operator: kernel, function body and NumPy reference give the same values, and faults are statuses."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from operator_cases import (
    BFLOAT16,
    CODED,
    DTYPES,
    FLOAT16,
    HALF_TYPES,
    KERNELS,
    LEVELS,
    SHAPES,
    TYPES,
    WRONG,
    case,
    drawn_case,
    every_number,
    in_body,
    in_kernel,
    model,
    radix,
)
from opsets import opsets

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.operators.domain import OP_TYPE
from pconv_onnx.operators.library import register
from pconv_onnx.operators.parallel_spike import reference

# NaN and infinities are among the currents; some NumPy types tell of each.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")


def assert_kernel_gives_the_reference_value(arrays, attributes) -> None:
    np.testing.assert_array_equal(in_kernel(arrays, attributes), reference(**arrays, **attributes))


@pytest.mark.every_pair(
    {
        "shape, rows, axis": SHAPES,
        "steps": [1, 2, 3, 8, 15, 16, 17, 33, 255, 256],
        "input_steps": [1, 3, 8],
        "spikes, dtype": KERNELS,
    }
)
def test_kernel_gives_the_reference_value(shape, rows, axis, steps, input_steps, spikes, dtype):
    assert_kernel_gives_the_reference_value(
        *case(shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, spikes=spikes, dtype=dtype)
    )


@pytest.mark.every_pair(
    {"shape, rows, axis": SHAPES, "steps, coding": CODED, "input_steps": [1, 8], "dtype": DTYPES},
)
def test_kernel_gives_the_reference_value_of_every_coding(shape, rows, axis, steps, coding, input_steps, dtype):
    assert_kernel_gives_the_reference_value(
        *case(shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, dtype=dtype, coding=coding)
    )


@pytest.mark.parametrize("shape, rows", [((2, 3, 40), 1), ((2, 3, 40), 3), ((90, 3), 3)])
@pytest.mark.parametrize("coding", [radix(65535), radix(65535, 32767), radix(65535, 65535), radix(65535, 0, 240)])
def test_binary_digits_of_sixteen_bits_are_emitted(shape, rows, coding):
    assert_kernel_gives_the_reference_value(*case(shape, steps=65535, rows=rows, coding=coding))


@pytest.mark.parametrize("rows, shape", [(1, (4, 6, 67)), (6, (4, 6, 67)), (6, (90, 6))])
@pytest.mark.parametrize("coding", [radix(254), radix(254, 127), {"coding": 0, "steps": 0, "zero": 127}])
@TYPES
def test_trains_turn_exactly_at_thresholds(rows, shape, coding, dtype):
    arrays, attributes = case(shape, steps=254, rows=rows, dtype=dtype, coding=coding)
    theta = np.linspace(1, 3, rows).reshape(-1, 1)
    arrays["thresholds"] = (theta * (np.arange(254) - coding["zero"] + 0.5) / 127).astype(dtype)
    arrays["levels"] = (theta * (np.arange(255) - coding["zero"]) / 127).astype(dtype)
    flat = arrays["current"].reshape(-1)
    flat[::4] = np.resize(arrays["thresholds"], flat[::4].shape)
    for start, towards in ((1, -np.inf), (2, np.inf)):
        flat[start::4] = np.nextafter(flat[::4], dtype.type(towards))[: flat[start::4].size]
    assert_kernel_gives_the_reference_value(arrays, attributes)


@HALF_TYPES
def test_every_number_of_a_half_type_has_the_signed_train_of_its_count(dtype):
    arrays, attributes = case((len(every_number(dtype)),), steps=254, dtype=dtype, coding=radix(254, 127))
    arrays["current"] = every_number(dtype)
    assert_kernel_gives_the_reference_value(arrays, attributes)


@pytest.mark.parametrize("rows", [1, 64])
@TYPES
def test_trains_of_binary_digits_that_outgrow_the_cache_are_right(rows, dtype):
    arrays, attributes = case(
        (8, 64, 61, 69), steps=254, rows=rows, input_steps=3, dtype=dtype, coding=radix(254, 127, 1)
    )
    expected = reference(**arrays, **attributes)
    assert expected.size * dtype.itemsize >= 32 << 20
    np.testing.assert_array_equal(in_kernel(arrays, attributes), expected)


def test_the_mean_does_not_look_at_the_attributes_of_trains():
    arrays, attributes = case((4, 3, 5), steps=4, spikes=0)
    expected = in_kernel(arrays, attributes)
    spoiled = {**attributes, "coding": 9, "steps": "yes", "zero": -1}
    np.testing.assert_array_equal(in_kernel(arrays, spoiled), expected)


@pytest.mark.parametrize("rows, shape", [(1, (8, 6, 37)), (6, (8, 6, 37)), (6, (8, 6))])
@pytest.mark.parametrize("highest, zero", [(255, 0), (254, 127)])
@TYPES
def test_trains_of_binary_digits_may_take_the_place_of_the_current(rows, shape, highest, zero, dtype):
    coding = radix(highest, zero)
    steps = coding["steps"]
    arrays, attributes = case(shape, steps=highest, rows=rows, input_steps=steps, dtype=dtype, coding=coding)
    x = arrays.pop("current")
    found = between_others(x, arrays, attributes, x.shape)
    np.testing.assert_array_equal(found, reference(x, **arrays, **attributes).astype(np.float64))


@pytest.mark.parametrize("shape, rows", [((2, 3, 40), 1), ((2, 3, 40), 3), ((90, 3), 3)])
@pytest.mark.parametrize("steps", [32767, 65535])
def test_counts_of_sixteen_bits_are_found(shape, rows, steps):
    arrays, attributes = case(shape, steps=steps, rows=rows, spikes=0)
    assert_kernel_gives_the_reference_value(arrays, attributes)


@pytest.mark.parametrize("shape, rows", [((4, 6, 67), 1), ((4, 6, 67), 6), ((90, 6), 6)])
@pytest.mark.parametrize("steps", [17, 64, 255])
@pytest.mark.parametrize("spikes", [0, 1])
@TYPES
def test_evenly_spaced_thresholds_are_reached_as_any_others_are(shape, rows, steps, spikes, dtype):
    arrays, attributes = case(shape, steps=steps, rows=rows, spikes=spikes, dtype=dtype)
    theta = np.linspace(1, 3, rows).reshape(-1, 1)
    arrays["thresholds"] = (theta * (np.arange(steps) + 0.5) / steps).astype(dtype)
    flat = arrays["current"].reshape(-1)
    flat[::3] = np.resize(arrays["thresholds"], flat[::3].shape)
    flat[1::3] = np.nextafter(flat[::3], dtype.type(-np.inf))[: flat[1::3].size]
    assert_kernel_gives_the_reference_value(arrays, attributes)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_kernel_gives_the_reference_value_at_any_size(data):
    arrays, attributes = drawn_case(data.draw)
    assert_kernel_gives_the_reference_value(arrays, attributes)


@pytest.mark.parametrize("spikes", [0, 1])
@pytest.mark.parametrize("rows", [1, 64])
@TYPES
def test_kernel_is_right_where_the_output_outgrows_the_cache(rows, spikes, dtype):
    arrays, attributes = case((8, 64, 61, 69), steps=8, rows=rows, input_steps=3, spikes=spikes, dtype=dtype)
    expected = reference(**arrays, **attributes)
    # Trains of so many bytes are written past the cache.
    assert not spikes or expected.size * dtype.itemsize >= 32 << 20
    np.testing.assert_array_equal(in_kernel(arrays, attributes), expected)


@pytest.mark.every_pair(
    {
        # A body of its own for each.
        "opset, dtype": [
            pytest.param(*opset.values, dtype, marks=opset.marks)
            for opset in opsets(13, 14, 17, 20, 23)
            for dtype in DTYPES
        ],
        "shape, rows, axis": [SHAPES[i] for i in (0, 2, 3, 5, 7)],
        "steps, input_steps, spikes": [(1, 3, 0), (8, 1, 1), (8, 8, 0), (17, 3, 1), (256, 1, 0)],
    }
)
def test_function_body_gives_the_reference_value(opset, shape, rows, axis, steps, input_steps, spikes, dtype):
    arrays, attributes = case(
        shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, spikes=spikes, dtype=dtype
    )
    expected = reference(**arrays, **attributes)
    for level in LEVELS:
        np.testing.assert_array_equal(in_body(arrays, attributes, opset, level), expected)
    onnx.checker.check_model(model(arrays, attributes, opset=opset))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("spikes", [0, 1])
@pytest.mark.parametrize(("rows", "steps"), [(64, 8), (64, 16), (1, 40), (64, 255)])
def test_function_body_folds_tables_that_are_constants(rows, steps, spikes, level):
    """As they are in a rewritten network; large ones onnxruntime keeps apart from the graph."""
    generator = np.random.default_rng(0)
    tables = {"thresholds": (rows, steps), "levels": (rows, steps + 1)}
    tables = {name: np.sort(generator.normal(0, 1, shape).astype(np.float32)) for name, shape in tables.items()}
    arrays = {"current": generator.normal(0, 1, (2, 64, 3, 3)).astype(np.float32), **tables}
    attributes = {"input_steps": 1, "channel_axis": 1, "spikes": spikes}
    constants = model(arrays, attributes, opset=17)
    del constants.graph.input[1:]
    constants.graph.initializer.extend(numpy_helper.from_array(table, name) for name, table in tables.items())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    (found,) = onnxruntime.InferenceSession(constants.SerializeToString(), options).run(
        None, {"current": arrays["current"]}
    )
    np.testing.assert_array_equal(found, reference(**arrays, **attributes))


def test_function_body_builds_no_tensor_of_all_time_steps_where_the_mean_is_asked_for():
    """The peak of a process of its own: at T = 255 such a tensor would hold 255 MiB as booleans alone."""
    code = """
import resource
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from pconv_onnx.operators.parallel_spike import functions

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

node = helper.make_node("ParallelSpike", ["x", "thresholds", "levels"], ["y"], domain="pconv", input_steps=1,
                        channel_axis=1, spikes=0)
tables = {"thresholds": (np.arange(255) + 0.5) / 255, "levels": np.arange(256) / 255}
graph = helper.make_graph(
    [node], "neuron",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [32, 32, 32, 32])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    [numpy_helper.from_array(table[None].astype(np.float32), name) for name, table in tables.items()],
)
model = helper.make_model(
    graph, functions=functions(17, np.dtype(np.float32), 255, 1), ir_version=8,
    opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("pconv", 1)],
)
session = onnxruntime.InferenceSession(model.SerializeToString())
x = np.random.default_rng(0).normal(0.5, 0.5, (32, 32, 32, 32)).astype(np.float32)
before = peak_mib()
session.run(None, {"x": x})
print(peak_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


@pytest.mark.parametrize("shape, rows, axis", [SHAPES[i] for i in (0, 2, 5, 7)])
@pytest.mark.parametrize("input_steps, spikes", [(1, 1), (3, 0), (3, 1)])
@TYPES
def test_function_body_runs_in_the_reference_evaluator(shape, rows, axis, input_steps, spikes, dtype):
    arrays, attributes = case(shape, steps=6, rows=rows, axis=axis, input_steps=input_steps, spikes=spikes, dtype=dtype)
    (found,) = ReferenceEvaluator(model(arrays, attributes)).run(None, arrays)
    np.testing.assert_array_equal(found, reference(**arrays, **attributes))


@pytest.mark.parametrize("runner", [in_kernel, partial(in_body, opset=13), partial(in_body, opset=20), reference])
@pytest.mark.parametrize("spikes", [0, 1])
@pytest.mark.parametrize("input_steps", [1, 4])
def test_an_empty_batch_gives_an_empty_output(runner, spikes, input_steps):
    arrays, attributes = case((2, 3, 4), steps=5, input_steps=1, spikes=spikes)
    arrays["current"] = arrays["current"][:0]
    attributes["input_steps"] = input_steps
    found = runner(**arrays, **attributes) if runner is reference else runner(arrays, attributes)
    assert found.shape == (0, 3, 4)


@pytest.mark.parametrize("rows", [1, 1 << 20])
def test_an_empty_tensor_may_have_sizes_without_a_product(rows):
    shape = (0, 1 << 20, 1 << 20, 1 << 20)
    tables = {"thresholds": np.zeros((rows, 1), np.float32), "levels": np.zeros((rows, 2), np.float32)}
    arrays = {"current": np.zeros(shape, np.float32), **tables}
    assert in_kernel(arrays, {"input_steps": 1, "channel_axis": 1, "spikes": 0}).shape == shape


RUNNERS = pytest.mark.parametrize(
    "runner, dtype", [(runner, dtype) for runner in (in_kernel, in_body) for dtype in (np.float32, FLOAT16, BFLOAT16)]
)


@RUNNERS
def test_a_current_that_is_the_same_at_each_step_fires_as_the_static_value_does(runner, dtype):
    arrays, attributes = case((4, 3, 50), steps=255, spikes=0, dtype=dtype)
    if dtype == BFLOAT16:  # reaches as far as float32, in which 255 of its greatest number have no sum
        for name in ("current", "thresholds"):
            arrays[name] /= BFLOAT16.type(256)
    static = runner(arrays, attributes)
    arrays["current"] = np.concatenate([arrays["current"]] * 255)
    np.testing.assert_array_equal(runner(arrays, {**attributes, "input_steps": 255}), static)


@pytest.mark.parametrize("runner", [in_kernel, in_body])
def test_the_time_sum_runs_in_order_in_float64(runner):
    rows = [[1e30, -1e30, 4, 0], [1e30, 4, -1e30, 0], [1, 2**-30, 0, 0]]
    assert counts(runner, rows, [0.25, 1], np.float32) == [2, 0, 1]


@HALF_TYPES
def test_the_time_sum_of_half_types_runs_in_order_in_float32(dtype):
    even = 2 / float(ml_dtypes.finfo(dtype).eps)  # this and 1 are rounded to this
    rows = [[2**15, -(2**15), 2**-10, 0], [2**15, 2**-10, -(2**15), 0], [even, 0, 0, 0], [even, 1, 1, 0]]
    assert counts(in_kernel, rows, [2**-12, even / 4 + 0.5], dtype) == [1, 0, 1, 2]


def counts(runner, rows, thresholds, dtype) -> list[int]:
    """Spike counts of neurons that each see the currents of one row; the reference gives the same."""
    arrays = {
        "current": np.array(rows, dtype).T.reshape(-1, 1),
        "thresholds": np.array([thresholds], dtype),
        "levels": np.arange(len(thresholds) + 1).astype(dtype).reshape(1, -1),
    }
    attributes = {"input_steps": len(rows[0]), "channel_axis": 1, "spikes": 0}
    found = runner(arrays, attributes)
    np.testing.assert_array_equal(found, reference(**arrays, **attributes))
    return found[:, 0].tolist()


def assert_means_are(expected, *current) -> None:
    """Each neuron is given its expected mean and the next greater number as thresholds, and reaches only the first."""
    dtype = expected.dtype
    thresholds = np.stack([expected, np.nextafter(expected, dtype.type(np.inf))], axis=1)
    thresholds[expected == dtype.type(np.inf), 1] = np.nan
    arrays = {
        "current": np.stack(current),
        "thresholds": thresholds,
        "levels": np.tile(np.arange(3).astype(dtype), (len(expected), 1)),
    }
    attributes = {"input_steps": len(current), "channel_axis": 1, "spikes": 0}
    np.testing.assert_array_equal(in_kernel(arrays, attributes)[0], ~np.isnan(expected))


@HALF_TYPES
def test_every_number_of_a_half_type_is_its_own_mean(dtype):
    numbers = every_number(dtype)
    assert_means_are(numbers, numbers)
    summable = numbers[~(np.isfinite(numbers) & np.isinf(numbers.astype(np.float32) * 3))]
    assert_means_are(summable, summable, summable, summable)


@HALF_TYPES
def test_means_of_half_types_are_rounded_to_the_nearest_and_ties_to_even(dtype):
    numbers = every_number(dtype)
    wide = numbers.astype(np.float32)
    above = np.nextafter(numbers, dtype.type(np.inf))
    assert_means_are(((wide + above.astype(np.float32)) / 2).astype(dtype), numbers, above)
    for seed in range(8):
        others = [np.random.default_rng([seed, i]).permutation(numbers) for i in range(2)]
        total = wide + others[0].astype(np.float32)
        assert_means_are((total / 2).astype(dtype), numbers, others[0])
        assert_means_are(((total + others[1].astype(np.float32)) / 3).astype(dtype), numbers, *others)


def test_several_sessions_in_several_threads_do_not_disturb_each_other():
    from concurrent.futures import ThreadPoolExecutor

    cases = [case((4, 8, 31), steps=8, rows=8, input_steps=1 + i % 3, seed=i) for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda pair: in_kernel(*pair), cases))
    for (arrays, attributes), output in zip(cases, found, strict=True):
        np.testing.assert_array_equal(output, reference(**arrays, **attributes))


@TYPES
def test_one_thread_gives_what_two_give(dtype):
    arrays, attributes = case((8, 16, 33, 31), steps=8, rows=16, input_steps=2, dtype=dtype)
    np.testing.assert_array_equal(in_kernel(arrays, attributes, 1), in_kernel(arrays, attributes, 2))


@pytest.mark.parametrize("name, spoil", WRONG)
def test_faults_are_statuses_that_name_the_input(name, spoil):
    arrays, attributes = case((4, 3, 5), steps=4, rows=3, input_steps=1)
    spoil(arrays, attributes)
    with pytest.raises(Exception, match=f"ParallelSpike.*{name}") as caught:
        in_kernel(arrays, attributes)
    assert type(caught.value).__module__.startswith("onnxruntime")


def test_another_element_type_is_refused_with_an_error():
    arrays, attributes = case((4, 3, 5), steps=4)
    content = model(arrays, attributes, with_body=False, element=TensorProto.DOUBLE).SerializeToString()
    options = register(onnxruntime.SessionOptions())
    with pytest.raises(Exception, match=r"\(current\) of operator \(ParallelSpike\)"):
        onnxruntime.InferenceSession(content, options)


def test_reference_refuses_what_the_kernel_refuses():
    arrays, attributes = case((4, 3, 5), steps=4, rows=3)
    with pytest.raises(ValueError, match="does not hold 3 time-steps"):
        reference(**arrays, **{**attributes, "input_steps": 3})
    with pytest.raises(ValueError, match="has no such channels"):
        reference(**arrays, **{**attributes, "channel_axis": 2})


def between_others(x, tables, attributes, shape) -> np.ndarray:
    """The node between casts of float64, so that onnxruntime is free to plan the memory of its input and output."""
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["current"], to=element),
        helper.make_node(OP_TYPE, ["current", *tables], ["between"], domain=DOMAIN, **attributes),
        helper.make_node("Cast", ["between"], ["output"], to=TensorProto.DOUBLE),
    ]
    graph = helper.make_graph(
        nodes,
        "between",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)],
        [helper.make_tensor_value_info("output", TensorProto.DOUBLE, [None] * x.ndim)],
        [onnx.numpy_helper.from_array(value, name) for name, value in tables.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(content, register(onnxruntime.SessionOptions()))
    return session.run(None, {"x": x.astype(np.float64)})[0]


@pytest.mark.parametrize(
    "steps, input_steps, spikes", [(1, 1, 1), (8, 8, 1), (3, 3, 1), (17, 1, 0), (16, 1, 0), (255, 1, 0)]
)
@pytest.mark.parametrize("rows, shape", [(1, (4, 6, 37)), (6, (4, 6, 37)), (6, (4, 6))])
@TYPES
def test_an_output_may_take_the_place_of_the_current(steps, input_steps, spikes, rows, shape, dtype):
    """Behind a Cast onnxruntime gives both the same memory, since their sizes are known to be equal."""
    arrays, attributes = case(shape, steps=steps, rows=rows, input_steps=input_steps, spikes=spikes, dtype=dtype)
    x = arrays.pop("current")
    assert len(x) // input_steps * (steps if spikes else 1) == len(x)
    found = between_others(x, arrays, attributes, x.shape)
    np.testing.assert_array_equal(found, reference(x, **arrays, **attributes).astype(np.float64))


@pytest.mark.parametrize("name", ["N", "8*N", "0*N", "*", "8*", "12", "-3", "n m"])
def test_names_of_dimensions_do_not_mislead_the_planner(name):
    """Whatever a first dimension is called, an output of other size does not get its buffer."""
    arrays, attributes = case((4, 3, 5), steps=8)
    x = arrays.pop("current")
    found = between_others(x, arrays, attributes, [name, 3, 5])
    np.testing.assert_array_equal(found, reference(x, **arrays, **attributes).astype(np.float64))
