"""SerialSpike: kernel, function body and NumPy reference give the same bits, in place and over several steps."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from operator_cases import DTYPES, FLOAT16, LEVELS, SHAPES, TYPES
from opsets import opsets
from serial_operator_cases import (
    OUTPUTS,
    TABLES,
    assert_same_bits,
    case,
    drawn_case,
    in_body,
    in_kernel,
    kernel_options,
    model,
)

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.operators.domain import SERIAL_OP_TYPE
from pconv_onnx.operators.serial_spike import serial_reference, serial_spike

# NaN and infinities are among the currents; some NumPy types tell of each.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")


@pytest.mark.parametrize("shape, rows, axis", [*SHAPES, ((16, 64, 31, 67), 64, 1), ((80, 7, 96), 96, -1)])
@TYPES
def test_kernel_gives_the_bits_of_the_reference(shape, rows, axis, dtype):
    arrays, attributes = case(shape, rows=rows, axis=axis, dtype=dtype)
    assert_same_bits(in_kernel(arrays, attributes), serial_reference(**arrays, **attributes))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_kernel_gives_the_bits_of_the_reference_at_any_size(data):
    arrays, attributes = drawn_case(data.draw)
    assert_same_bits(in_kernel(arrays, attributes), serial_reference(**arrays, **attributes))


@TYPES
def test_one_thread_gives_what_two_give(dtype):
    arrays, attributes = case((8, 16, 33, 31), rows=16, dtype=dtype)
    assert_same_bits(in_kernel(arrays, attributes, 1), in_kernel(arrays, attributes, 2))


@pytest.mark.parametrize("shape, rows", [((3, 5), 1), ((3, 37), 37), ((2, 3, 17, 19), 3), ((5, 16, 32, 33), 16)])
@pytest.mark.parametrize("dtype", [np.float32, FLOAT16])
def test_outputs_may_take_the_place_of_inputs(shape, rows, dtype):
    """The state of a network lies in one buffer, which the steps rewrite; and so do current and spikes here."""
    arrays, attributes = case(shape, rows=rows, dtype=dtype)
    runner = onnxruntime.InferenceSession(
        model(arrays, attributes, with_body=False).SerializeToString(), kernel_options()
    )
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
    binding = runner.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for target, place in zip(OUTPUTS, ["current", "potential"], strict=True):
        binding.bind_ortvalue_output(target, values[place])
    for _ in range(4):
        arrays["current"], arrays["potential"] = serial_reference(**arrays, **attributes)
        runner.run_with_iobinding(binding)
        assert_same_bits([values[name].numpy() for name in ("current", "potential")], list(arrays.values())[:2])


@pytest.mark.parametrize("rows", [1, 6])
@TYPES
def test_a_chain_runs_at_every_batch_where_onnxruntime_plans_its_memory(rows, dtype):
    """Behind Casts onnxruntime puts spikes and potentials where currents and potentials were."""
    arrays, attributes = case((5, 6, 37), rows=rows, dtype=dtype)
    element = helper.np_dtype_to_tensor_dtype(arrays["current"].dtype)
    state = ["current", "potential"]
    tables = {name: arrays[name] for name in TABLES}
    nodes = [helper.make_node("Cast", [name], [f"{name}_0"], to=element) for name in state]
    for i in range(3):
        sources, targets = ([f"{name}_{step}" for name in state] for step in (i, i + 1))
        nodes.append(helper.make_node(SERIAL_OP_TYPE, [*sources, *tables], targets, domain=DOMAIN, **attributes))
    nodes += [
        helper.make_node("Cast", [f"{name}_3"], [target], to=TensorProto.DOUBLE)
        for name, target in zip(state, OUTPUTS, strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        *(
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", 6, 37]) for name in names]
            for names in (state, OUTPUTS)
        ),
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)]
    content = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    runner = onnxruntime.InferenceSession(content, kernel_options())
    for batch in (5, 2, 0, 4):
        step = [arrays[name][:batch] for name in state]
        found = runner.run(None, {name: array.astype(np.float64) for name, array in zip(state, step, strict=True)})
        for _ in range(3):
            step = serial_reference(*step, **tables, **attributes)
        assert_same_bits(found, [array.astype(np.float64) for array in step])


def test_steps_are_those_of_a_plain_loop():
    """In numbers whose sums are exact, in which it does not matter that the potential is counted from b."""
    generator = np.random.default_rng(0)
    theta, shift, bias = (np.array(values, np.float32) for values in ([1, 0.5, 2], [0.5, 0.25, 0], [0, -0.25, 0.125]))
    currents = (generator.integers(-8, 24, (16, 40, 3, 5)) / 16).astype(np.float32)
    arrays = {
        "current": currents[0],
        "potential": np.zeros_like(currents[0]),
        "bias": bias,
        "threshold": theta - shift,
        "reset": theta,
        "levels": np.stack([np.zeros(3, np.float32), theta], axis=1),
    }
    runner = onnxruntime.InferenceSession(
        model(arrays, {"channel_axis": 1}, with_body=False).SerializeToString(), kernel_options()
    )
    threshold = torch.from_numpy(theta).reshape(3, 1)
    potential = torch.from_numpy(shift).reshape(3, 1).expand(currents.shape[1:])
    counts = 0
    for current in currents:
        potential = potential + torch.from_numpy(current + bias.reshape(3, 1))
        fires = (potential >= threshold).float()
        potential = potential - threshold * fires
        spikes, arrays["potential"] = runner.run(None, {**arrays, "current": current})
        np.testing.assert_array_equal(spikes, (threshold * fires).numpy())
        np.testing.assert_array_equal(arrays["potential"] + shift.reshape(3, 1), potential.numpy())
        counts = counts + fires
    assert len(counts.unique()) > 8


def test_no_convolution_takes_operations_of_the_body_into_itself():
    """A Conv that did would round otherwise, and the body would not have the bits of the kernel."""
    arrays, attributes = case((2, 16, 9, 9), rows=16)
    generator = np.random.default_rng(1)
    weights = {
        "w": generator.normal(0, 0.3, (16, 16, 3, 3)).astype(np.float32),
        "c": generator.normal(0, 0.3, 16).astype(np.float32),
        **{name: arrays[name] for name in TABLES},
    }
    feed = {name: generator.normal(0, 1, (2, 16, 9, 9)).astype(np.float32) for name in ("x", "potential")}
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"], ["current"], pads=[1, 1, 1, 1]),
        helper.make_node(SERIAL_OP_TYPE, list(arrays), OUTPUTS, domain=DOMAIN, **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        *(
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 16, 9, 9]) for name in names]
            for names in (feed, OUTPUTS)
        ),
        [numpy_helper.from_array(table, name) for name, table in weights.items()],
    )
    layer = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[serial_spike(20, np.dtype(np.float32))],
        ir_version=8,
    ).SerializeToString()
    in_body = onnxruntime.InferenceSession(layer).run(None, feed)
    assert_same_bits(in_body, onnxruntime.InferenceSession(layer, kernel_options()).run(None, feed))


@pytest.mark.parametrize("runner", [in_kernel, in_body])
@pytest.mark.parametrize("rows", [1, 3])
def test_an_empty_batch_gives_empty_outputs(runner, rows):
    arrays, attributes = case((2, 3, 4), rows=rows)
    for name in ("current", "potential"):
        arrays[name] = arrays[name][:0]
    assert [array.shape for array in runner(arrays, attributes)] == [(0, 3, 4)] * 2
    assert [array.shape for array in serial_reference(**arrays, **attributes)] == [(0, 3, 4)] * 2


WRONG = [
    ("current", lambda a, b: a.update(current=np.array(1, "f4"), potential=np.array(1, "f4"))),
    ("potential", lambda a, b: a.update(potential=a["potential"][:1])),
    ("potential", lambda a, b: a.update(potential=a["potential"].reshape(4, 5, 3))),
    ("potential", lambda a, b: a.update(potential=a["potential"][..., None])),
    ("threshold", lambda a, b: a.update(threshold=np.array(1, "f4"))),
    ("threshold", lambda a, b: a.update(threshold=a["threshold"][:, None])),
    ("threshold", lambda a, b: a.update({name: a[name][:0] for name in TABLES})),
    ("threshold", lambda a, b: a.update({name: a[name][:2] for name in TABLES})),
    ("bias", lambda a, b: a.update(bias=a["bias"][:1])),
    ("reset", lambda a, b: a.update(reset=a["reset"][:1])),
    ("levels", lambda a, b: a.update(levels=a["levels"][:1])),
    ("levels", lambda a, b: a.update(levels=a["levels"][:, :1])),
    ("levels", lambda a, b: a.update(levels=a["levels"].reshape(-1))),
    ("channel_axis", lambda a, b: b.update(channel_axis=0)),
    ("channel_axis", lambda a, b: b.update(channel_axis=3)),
    ("channel_axis", lambda a, b: b.update(channel_axis=-4)),
    ("channel_axis", lambda a, b: b.update(channel_axis=1.0)),
    ("channel_axis", lambda a, b: b.pop("channel_axis")),
]


@pytest.mark.parametrize("name, spoil", WRONG)
def test_faults_are_statuses_that_name_the_input(name, spoil):
    arrays, attributes = case((4, 3, 5), rows=3)
    spoil(arrays, attributes)
    with pytest.raises(Exception, match=f"SerialSpike: (input|attribute) '{name}'") as caught:
        in_kernel(arrays, attributes)
    assert type(caught.value).__module__.startswith("onnxruntime")


def test_another_element_type_is_refused_with_an_error():
    arrays, attributes = case((4, 3, 5))
    content = model(arrays, attributes, with_body=False, element=TensorProto.DOUBLE).SerializeToString()
    with pytest.raises(Exception, match=r"\(current\) of operator \(SerialSpike\)"):
        onnxruntime.InferenceSession(content, kernel_options())


@pytest.mark.every_pair({"shape, rows, axis": SHAPES, "opset": opsets(13, 14, 17, 20, 23), "dtype": DTYPES})
def test_function_body_gives_the_bits_of_the_reference(opset, shape, rows, axis, dtype):
    arrays, attributes = case(shape, rows=rows, axis=axis, dtype=dtype)
    expected = serial_reference(**arrays, **attributes)
    for level in LEVELS:
        assert_same_bits(in_body(arrays, attributes, opset, level), expected)
    onnx.checker.check_model(model(arrays, attributes, opset=opset))


@pytest.mark.parametrize("shape, rows, axis", SHAPES)
@TYPES
def test_function_body_runs_in_the_reference_evaluator(shape, rows, axis, dtype):
    arrays, attributes = case(shape, rows=rows, axis=axis, dtype=dtype)
    found = ReferenceEvaluator(model(arrays, attributes)).run(None, arrays)
    assert_same_bits(found, serial_reference(**arrays, **attributes))


def test_a_spike_is_fired_at_the_threshold_and_takes_the_reset_from_the_potential():
    one = np.ones(1, np.float32)
    arrays = {"bias": one / 4, "threshold": one, "reset": 2 * one, "levels": np.array([[-1, 3]], np.float32)}
    current = np.array([0.5, 0.375, np.nan], np.float32)
    potential = np.full(3, 0.25, np.float32)
    spikes, left = serial_reference(current, potential, **arrays, channel_axis=1)
    assert spikes.tolist() == [3, -1, -1]
    assert left[:2].tolist() == [-1, 0.875] and np.isnan(left[2])


def test_reference_refuses_what_the_specification_rules_out():
    arrays, attributes = case((4, 3, 5), rows=3)
    with pytest.raises(ValueError, match="current has shape"):
        serial_reference(**{**arrays, "potential": arrays["potential"][:1]}, **attributes)
    with pytest.raises(ValueError, match="of one R"):
        serial_reference(**{**arrays, "reset": arrays["reset"][:1]}, **attributes)
    with pytest.raises(ValueError, match="has no such channels"):
        serial_reference(**arrays, channel_axis=2)
