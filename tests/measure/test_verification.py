"""`verify`: passes what `rewrite` wrote, and names what is wrong with anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from batches import batch_sizes
from networks import network, qcfs, weight
from notes import noted
from onnx import numpy_helper
from refusals import refusal_of

import pconv_onnx.runtime.side_by_side
from pconv_onnx import PconvError, rewrite, verify
from pconv_onnx.measure import layer_check, verification
from pconv_onnx.measure.comparison import Comparison


@pytest.fixture(params=["parallel", "folded"])
def pair(request, small_network):
    """The small network and its spiking form, in each mode."""
    return small_network, rewrite(small_network, mode=request.param).model


def change(model, name, edit) -> onnx.ModelProto:
    """A copy of the model with one initializer edited."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), name))
    return copy


refusal = partial(refusal_of, verify)


def mismatches(result) -> dict[str, float]:
    return {layer.name: layer.count_mismatch_rate for layer in result.layers if layer.count_mismatch_rate}


def test_what_rewrite_wrote_passes(pair):
    result = verify(*pair)
    assert result.passed
    assert [(layer.name, layer.exact, layer.count_mismatch_rate) for layer in result.layers] == [
        ("a_code", True, 0.0),
        ("b_code", True, 0.0),
    ]
    assert all(layer.elements > 0 for layer in result.layers)


def test_what_is_shown_of_a_verification_has_no_layers(small_network):
    shown = repr(verify(small_network, rewrite(small_network).model))
    assert "samples=32" in shown and "a_code" not in shown


def test_the_spiking_network_runs_on_the_providers_that_are_named(pair, monkeypatch):
    asked = {}

    def open_session(model, name, level=None, providers=None, folder=None, keeps_memory=True):
        asked.setdefault(str(providers), []).append(name)
        return open_here(model, name, level, folder=folder)

    open_here = pconv_onnx.runtime.side_by_side.open_session
    for module in (verification, layer_check):
        monkeypatch.setattr(module, "open_session", open_session)
    assert verify(*pair, providers=["elsewhere"]).passed
    # What operators between neurons mean is seen on the CPU.
    assert set(asked["None"]) == {"the model"}
    assert [name.split(" of ")[0] for name in asked["['elsewhere']"]] == [
        "neuron 'a_code'", "neuron 'b_code'", "the model", "the model", "the model",
    ]  # fmt: skip


def test_random_inputs_are_seeded_and_said_to_be_random(pair):
    first, second = verify(*pair), verify(*pair)
    assert first.summary() == second.summary()
    assert first.summary()["random_inputs"] is True
    assert first.samples == 32
    given = verify(*pair, {"x": np.ones((3, 3, 8, 8), np.float32)}).summary()
    assert (given["random_inputs"], given["samples"]) == (False, 3)


@pytest.mark.parametrize("layer", ["a_code", "b_code"])
@pytest.mark.parametrize(
    ("table", "edit"),
    [
        ("thresholds", lambda table: table + np.float32(0.1)),
        ("thresholds", lambda table: table[:, ::-1].copy()),
        ("thresholds", lambda table: np.where(np.arange(4) == 2, np.float32(np.nan), table)),
        ("levels", lambda table: table * np.float32(1.0001)),
        ("levels", lambda table: table + np.float32(0.5)),
    ],
    ids=["shifted", "unsorted", "never reached", "scaled", "raised"],
)
def test_a_broken_neuron_is_named(pair, layer, table, edit):
    ann, snn = pair
    result = verify(ann, change(snn, f"{layer}/{table}", edit))
    assert not result.passed
    assert mismatches(result).keys() == {layer}


def test_thresholds_out_of_order_are_noticed_though_no_sample_reaches_them(pair):
    ann, snn = pair
    broken = change(snn, "a_code/thresholds", lambda table: table[:, ::-1].copy())
    assert mismatches(verify(ann, broken, {"x": np.zeros((2, 3, 8, 8), np.float32)})) == {"a_code": 1.0}


@pytest.mark.parametrize("index", [1, 4])
def test_one_wrong_level_is_noticed_whether_or_not_any_sample_reaches_it(small_network, index):
    def edit(table):
        table[:, index] *= 3
        return table

    broken = change(rewrite(small_network).model, "a_code/levels", edit)
    # A current that stays below the first threshold reaches no level but the lowest.
    result = verify(small_network, broken, {"x": np.zeros((2, 3, 8, 8), np.float32)})
    assert mismatches(result) == {"a_code": 1.0}


def backwards(trains):
    return trains.reshape(4, -1, *trains.shape[1:])[::-1].reshape(trains.shape)


@pytest.mark.parametrize("edit", [backwards, lambda trains: 1.5 * trains], ids=["unsorted", "another amplitude"])
def test_a_kernel_that_emits_wrong_trains_of_the_right_count_is_noticed(small_network, edit, monkeypatch):
    run = layer_check.run_session

    def faulty(runner, feed, names=None):
        outputs = run(runner, feed, names)
        return list(map(edit, outputs)) if runner.get_outputs()[0].name == "a/steps" else outputs

    monkeypatch.setattr(layer_check, "run_session", faulty)
    assert mismatches(verify(small_network, rewrite(small_network).model)).keys() == {"a_code"}


def test_one_threshold_that_is_one_float_too_high_is_noticed():
    ann = network(qcfs("x", "y"), inputs="float[N, 3] x", outputs="float[N, 3] y")
    snn = rewrite(ann).model
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in snn.graph.initializer}
    exactly = tables["y_code/thresholds"][0, :3][np.newaxis]
    assert verify(ann, snn, {"x": exactly}).passed
    broken = change(snn, "y_code/thresholds", lambda table: np.nextafter(table, np.float32(9)))
    assert mismatches(verify(ann, broken, {"x": exactly})) == {"y_code": 1.0}


def beyond(result) -> set[str]:
    return {segment.told for segment in result.segments if segment.beyond}


def test_a_broken_weight_is_a_difference_and_its_segment_is_named(pair):
    ann, snn = pair
    right = verify(ann, snn, atol=1e-4)
    assert (right.verdict, right.passed, right.differences, right.not_compared) == ("equal", True, [], [])
    assert all(segment.bounded and segment.elements for segment in right.segments)
    told = verify(ann, change(snn, "u", lambda table: table + np.float32(0.5)))
    assert (told.verdict, told.passed, beyond(told)) == ("different", False, {"output 'y'"})
    assert told.as_run.max_abs_diff > 0.1 and mismatches(told) == {}
    told = verify(ann, change(snn, "v", lambda table: -table), atol=1e4)
    assert (told.verdict, beyond(told)) == ("different", {"neuron 'b_code'"})


def test_a_tolerance_is_kept_on_top_of_that(small_network):
    lossy = rewrite(small_network, steps=7).model
    assert verify(small_network, lossy, atol=1e4).verdict == "measured"
    told = verify(small_network, lossy, atol=1e-6)
    assert told.differences == ["outputs differ by more than 1e-06"] and told.passed is False


def test_one_weight_that_is_off_by_little_is_noticed(pair):
    ann, snn = pair

    def edit(table):
        table[0, 0] += np.float32(1e-4)
        return table

    assert beyond(verify(ann, change(snn, "u", edit))) == {"output 'y'"}


@pytest.mark.parametrize("atol", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none_is_told(small_network, atol):
    assert "is not a tolerance" in refusal(small_network, small_network, atol=atol)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_other_steps_than_levels_leave_nothing_to_be_equal_to(small_network, mode):
    result = verify(small_network, rewrite(small_network, steps=7, mode=mode).model)
    assert (result.verdict, result.passed) == ("measured", None)
    assert result.not_compared == ["2 neurons with T other than the source's levels"]
    assert [(layer.exact, layer.count_mismatch_rate) for layer in result.layers] == [(False, None)] * 2
    assert result.as_run.max_abs_diff > 0
    assert all(segment.bounded and not segment.beyond for segment in result.segments)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("table", ["thresholds", "levels"])
def test_a_neuron_of_other_steps_has_to_be_what_they_make_of_the_activation(small_network, mode, table):
    snn = rewrite(small_network, steps=7, mode=mode).model
    result = verify(small_network, change(snn, f"b_code/{table}", lambda values: values * np.float32(1.5)))
    assert result.differences == ["neuron 'b_code' is not what its time-steps make of the source's activation"]


def test_segments_of_a_network_with_other_steps_are_compared_all_the_same(small_network):
    broken = change(rewrite(small_network, steps=7).model, "v", lambda table: -table)
    assert beyond(verify(small_network, broken)) == {"neuron 'b_code'"}


def decoding_network() -> onnx.ModelProto:
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} s = Sigmoid (a) y = Conv (s, w)"
    return network(nodes, weights={"w": weight(3, 3, 1, 1)})


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("table", ["thresholds", "levels"])
def test_what_decodes_trains_has_to_be_made_of_their_levels(steps, table):
    ann = decoding_network()
    snn = rewrite(ann, steps=steps).model
    assert verify(ann, snn).differences == []
    broken = verify(ann, change(snn, f"a/decode/{table}", lambda values: values * np.float32(1.25)))
    assert "trains of 'a' are coded or decoded otherwise than its levels and record say" in broken.differences


def encoding_network() -> onnx.ModelProto:
    """Levels in 2 and 3 binary digits: an Add gives the former another coding, and a MaxPool encodes again."""
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} {qcfs('x', 'b').replace('count', 'many')} s = Add (a, b)"
    nodes += f" {qcfs('s', 't')} p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t) y = Conv (p, w)"
    return network(nodes, outputs="float[N, 3, 4, 4] y", weights={"w": weight(3, 3, 1, 1), "many": 8.0})


def test_what_encodes_levels_again_is_no_neuron_that_the_record_leaves_out():
    ann = encoding_network()
    snn = rewrite(ann, coding="radix").model
    layers = [layer.name for layer in verify(ann, snn).layers]
    assert layers == ["a_code", "b_code", "t_code"]
    assert {node.name for node in snn.graph.node if node.op_type == "ParallelSpike"} - set(layers) == {
        "a/recode", "p/encode", "t/decode",
    }  # fmt: skip
    assert verify(ann, snn).verdict == "equal"


@pytest.mark.parametrize("name", ["a/recode", "p/encode"])
@pytest.mark.parametrize("table", ["thresholds", "levels"])
def test_what_encodes_levels_again_has_to_be_made_of_them(name, table):
    ann = encoding_network()
    broken = change(rewrite(ann, coding="radix").model, f"{name}/{table}", lambda values: values * np.float32(1.25))
    assert verify(ann, broken).verdict == "different"


def test_operators_without_magnitudes_are_compared_in_every_bit():
    ann = decoding_network()
    snn = rewrite(ann).model
    right = verify(ann, snn)
    assert right.verdict == "equal"
    assert {segment.told for segment in right.segments} == {"neuron 'a_code'", "tensor 'a'", "tensor 's'", "output 'y'"}
    next(node for node in snn.graph.node if node.op_type == "Sigmoid").op_type = "Tanh"
    assert beyond(verify(ann, snn)) == {"tensor 's'"}


def test_what_is_decoded_for_one_operator_is_in_time_for_another():
    """SiLU: the Sigmoid is given the source's values, the product by it what the convolution gives."""
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} d = Conv (a, v) s = Sigmoid (d) m = Mul (d, s) {qcfs('m', 'y')}"
    weights = {"w": weight(16, 3, 3, 3), "v": weight(3, 16, 3, 3, seed=1)}
    ann = network(nodes, outputs="float[N, 3, 4, 4] y", weights=weights)
    result = verify(ann, rewrite(ann).model)
    assert result.verdict == "equal"
    assert {segment.told: segment.of_bound > 0 for segment in result.segments}["neuron 'y_code'"]


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_an_edge_that_reads_another_tensor_and_an_operator_that_is_lost_are_named(mode):
    nodes = (
        f"c = Conv (x, w) {qcfs('c', 'a')} d = Conv (a, v) e = Add (d, a) {qcfs('e', 'b')} n = Neg (b) y = Conv (n, w)"
    )
    ann = network(nodes, weights={"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1, seed=1)})

    def told(op_type, edit):
        snn = rewrite(ann, mode=mode).model
        edit(next(node for node in snn.graph.node if node.op_type == op_type))
        return beyond(verify(ann, snn))

    def reads_itself_twice(node):
        node.input[1] = node.input[0]

    def hands_on(node):
        node.op_type = "Identity"

    assert told("Add", reads_itself_twice) == {"neuron 'b_code'"}
    assert told("Neg", hands_on) == {"output 'y'"}


def test_initializers_that_are_inputs_as_well_are_constants():
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = Conv (a, w)"
    ann = network(nodes, weights={"w": weight(3, 3, 1, 1)}, opset=12, ir_version=4)
    ann.ir_version = 3
    for tensor in ann.graph.initializer:
        ann.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    data = {"x": np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)}
    with noted("uses opset 12"):
        snn = rewrite(ann).model
    assert verify(ann, snn, data).verdict == "equal"
    assert beyond(verify(ann, change(snn, "w", lambda table: -table), data)) == {"neuron 'a_code'", "output 'y'"}


@pytest.mark.parametrize("noise", ["r = RandomNormal <shape = [3, 8, 8]> ()", "r = RandomUniformLike (c)"])
def test_what_is_drawn_anew_in_each_run_is_no_difference(noise):
    nodes = f"c = Conv (x, w) {noise} n = Add (c, r) {qcfs('n', 'a')} y = Conv (a, w)"
    ann = network(nodes, weights={"w": weight(3, 3, 1, 1)})
    result = verify(ann, rewrite(ann).model)
    assert result.verdict == "measured" and result.unoptimised.max_abs_diff > 0
    assert result.not_compared == ["1 segment of which it is not known what rounding explains, to tensor 'r'"]


AFTER = "c = Conv <pads = [1, 1, 1, 1]> (x, w)" + qcfs("c", "a") + "d = Conv <pads = [1, 1, 1, 1]> (a, v) "
KERNELS = {"w": weight(3, 3, 3, 3), "v": weight(3, 3, 3, 3, seed=1)}


def right_and_spoiled(nodes, table, *, outputs="float[N, 3, 8, 8] y", edit=lambda values: 3 * values, **weights):
    """What is said of a network as it is, and with one table edited."""
    used = {name: value for name, value in (KERNELS | weights).items() if f"{name}" in nodes}
    ann = network(nodes, outputs=outputs, weights=used)
    snn = rewrite(ann).model
    return verify(ann, snn), verify(ann, change(snn, table, edit))


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ("y = Max (d, low)", "float[N, 3, 8, 8] y"),
        ("y = Where (mask, d, low)", "float[N, 3, 8, 8] y"),
        ("e = Where (mask, d, low) y = ReduceMax <keepdims = 0> (e, axes)", "float[N, 3] y"),
        ("e = Pad (d, pads, low) y = GlobalMaxPool (e)", "float[N, 3, 1, 1] y"),
    ],
)
def test_a_large_constant_that_is_only_picked_hides_nothing(nodes, outputs):
    constants = {
        "low": np.float32(-1e9),
        "mask": np.arange(8) % 2 == 0,
        "axes": np.array([2, 3]),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    }
    right, spoiled = right_and_spoiled(AFTER + nodes, "v", outputs=outputs, **constants)
    assert right.verdict == "equal" and beyond(spoiled) == {"output 'y'"}


def test_codes_in_a_narrower_network_are_not_known_to_be_equal():
    nodes = "q = QuantizeLinear (x, s, i) h = DequantizeLinear (q, s, i) c = Conv (h, w) " + qcfs("c", "y")
    weights = {"w": weight(3, 3, 1, 1), "s": np.float32(0.05), "i": np.array(0, np.int8)}
    ann = network(nodes, weights=weights, opset=21)
    assert verify(ann, rewrite(ann, exclude=["q"]).model).verdict == "equal"
    result = verify(ann, rewrite(ann, exclude=["q"], precision="float16").model)
    assert result.differences == [] and "tensor 'q'" in result.not_compared[0]


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_tensors_without_elements_are_equal(mode):
    nodes = AFTER + "e = Slice (a, zero1, zero1, one1)" + qcfs("e", "h") + "y = Neg (h)"
    weights = KERNELS | {"zero1": np.array([0]), "one1": np.array([1])}
    ann = network(nodes, outputs="float[N, 0, 8, 8] y", weights=weights)
    assert verify(ann, rewrite(ann, mode=mode).model).verdict == "equal"


def test_the_error_of_numbers_too_small_for_float16_grows_with_what_they_are_multiplied_by():
    nodes = "c = Conv (x, w)" + qcfs("c", "a").replace("theta", "large") + "y = Conv (a, k)"
    weights = {"w": 1000 * weight(3, 3, 1, 1), "k": np.float32(1e-5) * weight(3, 3, 1, 1, seed=1)}
    ann = network(nodes, weights=weights | {"large": np.float32(1000)})
    assert verify(ann, rewrite(ann, precision="float16").model).differences == []


def test_a_variance_below_zero_has_no_bound():
    variance = np.array([-9.999e-6, -9.99e-6, 1e-3], np.float32)
    rows = {name: weight(3, seed=seed) for seed, name in enumerate(("mean", "bias"))}
    nodes = AFTER + "y = BatchNormalization (d, gain, bias, mean, variance)"
    ann = network(nodes, weights=KERNELS | rows | {"gain": np.full(3, 100, np.float32), "variance": variance})
    assert verify(ann, rewrite(ann).model).verdict == "measured"


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_an_output_that_is_a_constant_in_the_place_of_what_was_computed_is_noticed(mode):
    nodes = "c = Conv (x, w)" + qcfs("c", "a") + "y = Conv (a, w)"
    shapes = "float[4, 3, 8, 8] y, float[4, 3, 8, 8] a"
    ann = network(nodes, inputs="float[4, 3, 8, 8] x", outputs=shapes, weights={"w": weight(3, 3, 1, 1)})
    for output in ("y", "a"):
        snn = rewrite(ann, mode=mode).model
        for node in snn.graph.node:
            node.output[:] = [f"{name}/gone" if name == output else name for name in node.output]
            node.input[:] = [f"{name}/gone" if name == output else name for name in node.input]
        snn.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 3, 8, 8), np.float32), output))
        assert f"output '{output}'" in beyond(verify(ann, snn))


def test_outputs_that_are_constants_or_inputs_are_compared():
    nodes = AFTER + "y = Neg (d) k = Mul (half, half)"
    right, spoiled = right_and_spoiled(nodes, "v", outputs="float[N, 3, 8, 8] y, float k, float half")
    assert right.verdict == "equal" and beyond(spoiled) == {"output 'y'"}


def test_a_branch_that_no_sample_gets_to_leaves_the_verdict_open():
    nodes = (
        AFTER
        + """m = ReduceMax <keepdims = 0> (x, axes) n = ReduceMax <keepdims = 0> (m, axis) t = Greater (n, zero)
        y = If (t) <then_branch = p () => (float[N, 3, 8, 8] i) { i = Conv <pads = [1, 1, 1, 1]> (a, v) },
                    else_branch = q () => (float[N, 3, 8, 8] j) { j = Neg (a) }>"""
    )
    weights = KERNELS | {"axes": np.array([1, 2, 3]), "axis": np.array([0])}
    ann = network(nodes, weights=weights)
    snn = rewrite(ann).model
    ones = np.ones((3, 3, 8, 8), np.float32)
    assert verify(ann, snn, {"x": ones}).not_compared == ["1 branch that no sample got to"]
    # In batches of one sample each.
    monotonous = verify(ann, snn, {"x": np.concatenate([ones, -ones])}, memory=1 << 20)
    assert monotonous.differences == []


def test_outputs_at_each_step_are_not_compared(small_network):
    result = verify(small_network, rewrite(small_network, per_step_outputs=True).model)
    assert (result.verdict, result.not_compared) == ("measured", ["1 output at each step"])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float64])
def test_tables_of_another_type_are_told(small_network, dtype):
    broken = change(rewrite(small_network).model, "a_code/levels", lambda table: table.astype(dtype))
    assert "neuron 'a_code' of the model is not there any more" in refusal(small_network, broken)


@pytest.mark.parametrize("key", ["input", "output"])
@pytest.mark.parametrize("name", ["y", "best", "text"])
def test_a_record_that_names_another_tensor_is_told(key, name):
    nodes = AFTER + "m = GlobalMaxPool (d) y = Flatten (m) best = ReduceMax <keepdims = 0> (y) text = Cast <to = 8> (y)"
    ann = network(nodes, outputs="float[N, 3] y, float best, string[N, 3] text", weights=KERNELS)
    snn = rewrite(ann).model
    entry = next(entry for entry in snn.metadata_props if entry.key.endswith("activations"))
    entry.value = json.dumps([row | {key: name} for row in json.loads(entry.value)])
    assert "the model" in refusal(ann, snn)


def test_a_record_with_other_steps_than_the_neuron_s_is_told(small_network):
    snn = rewrite(small_network).model
    entry = next(entry for entry in snn.metadata_props if entry.key.endswith("activations"))
    entry.value = json.dumps([row | {"steps": 3} for row in json.loads(entry.value)])
    assert "is not there any more as rewrite wrote it" in refusal(small_network, snn)


def test_a_folded_neuron_that_takes_samples_for_time_steps_is_noticed():
    ann = network(f"{qcfs('x', 'a')} y = Add (a, x)")
    snn = rewrite(ann, mode="folded").model
    node = next(node for node in snn.graph.node if node.name == "a_code")
    next(entry for entry in node.attribute if entry.name == "input_steps").i = 2
    data = {"x": np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)}
    assert beyond(verify(ann, snn, data)) == {"neuron 'a_code'"}


def test_a_decoder_without_inputs_is_told():
    ann = decoding_network()
    for steps in (None, 7):
        snn = rewrite(ann, steps=steps).model
        del next(node for node in snn.graph.node if node.name == "a/decode").input[:]
        assert "the model" in refusal(ann, snn)


def test_more_than_two_neurons_in_a_row_and_neurons_that_are_outputs_work():
    nodes = f"{qcfs('x', 'a')} {qcfs('a', 'b')} {qcfs('b', 'y')}"
    ann = network(nodes, outputs="float[N, 3, 8, 8] y, float[N, 3, 8, 8] a")
    for mode in ("parallel", "folded"):
        assert verify(ann, rewrite(ann, mode=mode).model).verdict == "equal"


def test_signed_trains_are_bounded_by_their_own_magnitudes():
    """A mean near zero is one of large values of either sign."""
    nodes = "c = Conv (x, w) q = QuantizeLinear (c, s, z) d = DequantizeLinear (q, s, z) y = Conv (d, v)"
    weights = {"w": weight(8, 3, 3, 3), "v": weight(4, 8, 3, 3, seed=1)}
    weights |= {"s": np.float32(0.05), "z": np.zeros((), np.int8)}
    ann = network(nodes, outputs="float[N, 4, 4, 4] y", weights=weights)
    result = verify(ann, rewrite(ann, signed=True).model)
    assert result.verdict == "equal" and any(segment.of_bound > 0 for segment in result.segments)


def test_a_network_with_weights_in_float16_is_bounded_by_their_rounding(small_network):
    snn = rewrite(small_network, precision="float16").model
    result = verify(small_network, snn)
    assert result.differences == [] and all(segment.bounded for segment in result.segments)
    assert max(segment.max_abs_diff for segment in result.segments) > 1e-5
    assert verify(small_network, change(snn, "u", lambda table: -table)).passed is False


def test_networks_of_many_steps_are_run_on_few_samples_at_once(monkeypatch):
    """T·B rows of a large network would not fit in memory."""
    sizes = batch_sizes(monkeypatch, verification)
    nodes = qcfs("x", "y").replace("count", "many")
    ann = network(nodes, weights={"many": 256.0}, outputs="float[N, 3, 8, 8] y")
    result = verify(ann, rewrite(ann, coding="rate").model, {"x": np.ones((20, 3, 8, 8), np.float32)})
    assert (result.passed, result.samples, max(sizes)) == (True, 20, 1)


def test_networks_with_a_fixed_batch_work():
    nodes = f"{qcfs('x', 'a')} y = MatMul (a, w)"
    ann = network(nodes, inputs="float[4, 3] x", outputs="float[4, 5] y", weights={"w": weight(3, 5)})
    snn = rewrite(ann).model
    assert verify(ann, snn).samples == 4
    assert verify(ann, snn, {"x": np.ones((12, 3), np.float32)}).samples == 12
    assert "batches of 4, and 5 samples are not a multiple" in refusal(ann, snn, {"x": np.ones((5, 3), np.float32)})


def test_more_samples_than_one_batch_are_all_compared():
    ann = network(qcfs("x", "y"), inputs="float[N, 3] x", outputs="float[N, 3] y")
    result = verify(ann, rewrite(ann).model, {"x": np.ones((123, 3), np.float32)})
    assert (result.samples, result.as_run.samples, result.layers[0].elements) == (123, 123, 369)


def test_networks_with_several_inputs_and_outputs_work():
    nodes = f"""
        k = Cast <to = 1> (i)
        z = Add (x, k) {qcfs("z", "a")}
        best = ArgMax <axis = 1, keepdims = 0> (a)
        on = Cast <to = 9> (a)
        y = MatMul (a, w)
    """
    outputs = "int64[N] best, bool[N, 3] on, float[N, 5] y, float[N, 3] a"
    ann = network(nodes, inputs="float[N, 3] x, int64[N, 3] i", outputs=outputs, weights={"w": weight(3, 5)})
    snn = rewrite(ann).model
    result = verify(ann, snn)
    assert result.passed and result.as_run.max_abs_diff < 1e-5
    broken = change(snn, "w", lambda table: -table)
    assert verify(ann, broken).summary()["top1_agreement"] < 1


def test_token_inputs_work():
    nodes = f"e = Gather (table, i) {qcfs('e', 'a')} f = Flatten (a) y = MatMul (f, w)"
    weights = {"table": weight(2, 8), "w": weight(32, 3)}
    ann = network(nodes, inputs="int64[N, 4] i", outputs="float[N, 3] y", weights=weights)
    assert verify(ann, rewrite(ann).model).passed


def test_inputs_that_cannot_be_drawn_ask_for_data():
    ann = network(qcfs("x", "y"), inputs="float[N, M] x", outputs="float[N, M] y")
    snn = rewrite(ann).model
    assert refusal(ann, snn).endswith("pass `data=`")
    assert verify(ann, snn, {"x": np.ones((2, 5), np.float32)}).passed


def test_a_network_without_inputs_is_told():
    ann = network("e = Exp (k)" + qcfs("e", "y"), inputs="", outputs="float[2, 3] y", weights={"k": weight(2, 3)})
    assert "has no inputs" in refusal(ann, rewrite(ann).model)


def test_an_output_that_is_no_tensor_is_told():
    nodes = f"{qcfs('x', 'y')} s = SplitToSequence <axis = 1> (y)"
    ann = network(nodes, inputs="float[N, 3] x", outputs="float[N, 3] y, seq(float[N, 1]) s")
    assert "output 's' of the model is seq(tensor(float))" in refusal(ann, rewrite(ann).model)


def test_a_network_without_logits_has_no_top1(tmp_path):
    ann = network(qcfs("x", "y"), inputs="float[N, 3, 8, 8] x")
    samples = {"x": np.ones((2, 3, 8, 8), np.float32), "labels": np.arange(2)}
    summary = verify(ann, rewrite(ann).model, samples).summary()
    assert (summary["top1_agreement"], summary["accuracy"]) == (None, None)


def test_labels_give_both_accuracies(small_network):
    snn = rewrite(small_network).model
    x = np.random.default_rng(1).normal(size=(60, 3, 8, 8)).astype(np.float32)
    logits = pconv_onnx.session(small_network).run(None, {"x": x})[0]
    labels = logits.argmax(1)
    labels[:15] = 99
    assert verify(small_network, snn, {"x": x, "labels": labels}).summary()["accuracy"] == {"ann": 0.75, "snn": 0.75}
    assert verify(small_network, snn, {"x": x}).summary()["accuracy"] is None
    of_tokens = {"x": x, "labels": np.zeros((60, 5), int)}
    assert verify(small_network, snn, of_tokens).summary()["accuracy"] is None


def test_error_against_targets_is_that_of_both_networks(small_network):
    snn = rewrite(small_network, steps=2).model
    x = np.random.default_rng(1).normal(size=(7, 3, 8, 8)).astype(np.float32)
    targets = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float32)
    summary = verify(small_network, snn, {"x": x, "labels": targets}).summary()
    assert summary["accuracy"] is None
    for name, model in (("ann", small_network), ("snn", snn)):
        difference = pconv_onnx.session(model).run(None, {"x": x})[0].astype(np.float64) - targets
        rmse, mae = np.sqrt(np.square(difference).mean()), np.abs(difference).mean()
        r2 = 1 - np.square(difference).sum() / np.square(targets - targets.mean(axis=0)).sum()
        assert summary["target_error"][name] == pytest.approx({"rmse": rmse, "mae": mae, "r2": r2})
    assert summary["target_error"]["ann"] != summary["target_error"]["snn"]
    assert verify(small_network, snn, {"x": x}).summary()["target_error"] is None


def test_swapped_arguments_are_told(ann, snn):
    assert refusal(snn, ann) == (
        f"'{ann}' was not written by pconv-onnx rewrite; pass the ANN first and then the spiking network"
    )


def test_another_source_is_told(ann, snn, tmp_path):
    other = onnx.load(ann)
    other.doc_string = "another"
    onnx.save(other, tmp_path / "other.onnx")
    told = refusal(tmp_path / "other.onnx", snn)
    assert told == f"'{snn}' was not made from '{tmp_path}/other.onnx'; pass the file that was rewritten"
    assert "was not made from" in refusal(snn, snn)


@pytest.mark.parametrize("rows", ["", "5", "[5]", "[{}]", '{"a": 1}'])
def test_a_provenance_that_rewrite_did_not_write_is_told(small_network, rows):
    snn = rewrite(small_network).model
    next(entry for entry in snn.metadata_props if entry.key.endswith("activations")).value = rows
    assert "was not written by pconv-onnx rewrite" in refusal(small_network, snn)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_neuron_that_the_record_does_not_name_is_told(pair, kept):
    ann, snn = pair
    entry = next(entry for entry in snn.metadata_props if entry.key.endswith("activations"))
    entry.value = json.dumps(json.loads(entry.value)[:kept])
    left_out = ("a_code", "b_code")[kept]
    assert refusal(ann, snn) == (
        f"the record of the model does not name the activation of its neuron '{left_out}'; rewrite the model again"
    )


@pytest.mark.parametrize("fault", ["renamed", "without attribute", "tables of other shapes", "tables computed"])
def test_a_neuron_that_was_edited_is_told(small_network, fault):
    snn = rewrite(small_network).model
    node = next(node for node in snn.graph.node if node.name == "a_code")
    if fault == "renamed":
        node.name = "other"
    elif fault == "without attribute":
        del node.attribute[:]
    elif fault == "tables of other shapes":
        snn = change(snn, "a_code/thresholds", lambda table: table[:, :2].copy())
    else:
        table = next(tensor for tensor in snn.graph.initializer if tensor.name == "a_code/levels")
        snn.graph.node.insert(0, onnx.helper.make_node("Constant", [], [table.name], value=table))
        snn.graph.initializer.remove(table)
    assert "a_code" in (told := refusal(small_network, snn)) or fault == "without attribute"
    assert "the model" in told


def test_other_outputs_than_the_sources_are_told(small_network):
    snn = rewrite(small_network).model
    also = onnx.helper.make_tensor_value_info(snn.graph.node[0].output[0], onnx.TensorProto.FLOAT, ["N", 4, 6, 6])
    snn.graph.output.append(also)
    assert "has other inputs or outputs than" in refusal(small_network, snn)


def test_a_source_that_onnxruntime_refuses_is_told_by_name(tmp_path, capfd):
    # The checker knows no kernels: onnxruntime has none for this type.
    nodes = f"{qcfs('x', 'y')} b = Cast <to = 16> (y) z = Floor (b)"
    ann = network(nodes, inputs="float[N, 3] x", outputs="float[N, 3] y, bfloat16[N, 3] z")
    onnx.save(ann, tmp_path / "ann.onnx")
    rewrite(tmp_path / "ann.onnx", tmp_path / "snn.onnx")
    told = refusal(tmp_path / "ann.onnx", tmp_path / "snn.onnx")
    assert told.startswith(f"'{tmp_path}/ann.onnx': onnxruntime cannot load the model: ")
    assert capfd.readouterr().err == ""


def test_a_network_that_fails_while_it_runs_is_told(capfd):
    nodes = f"r = Reshape (x, i) {qcfs('r', 'y')}"
    ann = network(nodes, inputs="float[N, 4] x, int64[N] i", outputs="float[N, M] y")
    data = {"x": np.ones((2, 4), np.float32), "i": np.array([3, 5])}
    assert "onnxruntime cannot run the model: " in refusal(ann, rewrite(ann).model, data)
    assert capfd.readouterr().err == ""


def low_bit_network() -> onnx.ModelProto:
    """A Relu that onnxruntime leaves out at full optimisation, and negative values come through."""
    nodes = "r = Relu (x) q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z)"
    zero = np.zeros((), ml_dtypes.int4)
    return network(nodes, weights={"s": np.float32(0.3), "z": zero}, opset=21)


def test_outputs_that_onnxruntime_s_optimisation_changes_are_told_from_the_networks_own():
    ann = low_bit_network()
    x = np.linspace(-2, 2, 192, dtype=np.float32).reshape(1, 3, 8, 8)
    if (pconv_onnx.session(ann).run(None, {"x": x})[0] >= 0).all():
        pytest.skip("this onnxruntime keeps the Relu")
    snn = rewrite(ann).model
    result = verify(ann, snn, {"x": x})
    assert result.passed
    assert (result.unoptimised.max_abs_diff, result.spiking_itself.max_abs_diff) == (0, 0)
    assert result.as_run.max_abs_diff == result.source_itself.max_abs_diff > 1
    assert result.outputs_differ == ["as_run"]
    # What a user runs is not within the tolerance, whoever is to blame.
    assert not verify(ann, snn, {"x": x}, atol=0.1).passed


def test_no_setting_is_named_where_outputs_agree_to_rounding(pair):
    assert verify(*pair).outputs_differ == []


def test_a_broken_weight_differs_in_both_settings(pair):
    ann, snn = pair
    broken = change(snn, "u", lambda table: table + np.float32(0.5))
    assert verify(ann, broken).outputs_differ == ["unoptimised", "as_run"]
    assert verify(ann, broken, atol=1e4).outputs_differ == []


@pytest.fixture
def unloadable(monkeypatch):
    """A function that makes onnxruntime refuse a model unless graph optimisations are disabled."""
    open_session = pconv_onnx.runtime.side_by_side.session
    refused = []

    def session(model, *, options, providers=None):
        level = options.graph_optimization_level
        if model in refused and level != onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL:
            raise PconvError("onnxruntime cannot load the model: no reason")
        return open_session(model, options=options)

    monkeypatch.setattr(pconv_onnx.runtime.side_by_side, "session", session)
    return lambda *models: refused.extend(models)


def test_a_source_that_loads_only_unoptimised_is_compared_so(pair, unloadable):
    ann, snn = pair
    unloadable(ann)
    x = np.random.default_rng(1).normal(size=(60, 3, 8, 8)).astype(np.float32)
    result = verify(ann, snn, {"x": x, "labels": np.zeros(60, int)}, atol=1e-4)
    assert result.passed
    summary = result.summary()
    assert summary["load_errors"] == {"ann": "the model: onnxruntime cannot load the model: no reason"}
    not_run = {"max_abs_diff": None, "top1_agreement": None}
    assert {name: summary[name] for name in not_run} == summary["source_against_itself"] == not_run
    assert summary["unoptimised"]["top1_agreement"] == summary["spiking_against_itself"]["top1_agreement"] == 1
    assert summary["accuracy"]["ann"] == summary["accuracy"]["snn"]
    broken = change(snn, "u", lambda table: table + np.float32(0.5))
    assert not verify(ann, broken, {"x": x}, atol=1e-4).passed


def test_a_spiking_network_has_to_load_as_its_source_does(pair, unloadable):
    ann, snn = pair
    unloadable(snn)
    assert not verify(ann, snn).passed
    unloadable(ann)
    result = verify(ann, snn)
    assert result.passed
    assert result.load_errors.keys() == {"ann", "snn"}
    assert result.unoptimised.samples == result.samples and result.as_run.samples == 0


def test_a_network_that_onnxruntime_breaks_while_it_optimises_it_is_verified():
    nodes = """
        a = Conv <pads = [1, 1, 1, 1]> (x, w) q = QuantizeLinear (a, s, z) d = DequantizeLinear (q, s, z)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
        b = Conv <pads = [1, 1, 1, 1]> (p, v) r = Relu (b) k = QuantizeLinear (r, s, z) e = DequantizeLinear (k, s, z)
        g = GlobalAveragePool (e) f = Flatten (g) y = Gemm (f, u)
    """
    weights = {"w": 2 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 3, 3, seed=1), "u": weight(4, 5, seed=2)}
    weights |= {"s": np.float32(0.03), "z": np.zeros((), np.int8)}
    ann = network(nodes, outputs="float[N, 5] y", weights=weights, opset=21)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(ann.SerializeToString(), options)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        reason = str(error).partition("[TypeInferenceError] ")[2].rstrip(".")
    else:
        pytest.skip("this onnxruntime loads it")
    result = verify(ann, rewrite(ann, signed=True).model)
    assert result.passed
    told = f"the model: onnxruntime cannot load the model: QuantizeLinear 'p_q': {reason}"
    assert result.load_errors == {"ann": told}
    assert result.unoptimised.max_abs_diff < 1e-5


def comparison(left, right) -> float:
    result = Comparison()
    result.add([np.asarray(left)], [np.asarray(right)], 1)
    return result.max_abs_diff


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("left", "right", "difference"),
    [
        ([1.0, 2.0], [1.0, 4.5], 2.5),
        ([NAN, INF, -INF], [NAN, INF, -INF], 0),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([INF], [-INF], INF),
        ([INF], [1.0], INF),
        ([1, 2], [1, 5], 3),
        ([True, False], [True, True], 1),
        (["a", "b"], ["a", "b"], 0),
        (["a", "b"], ["a", "c"], 1),
        ([1.0], [1.0, 1.0], INF),
        ([1.0], [1], INF),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0),
    ],
)
def test_the_largest_difference_counts_every_kind_of_value(left, right, difference):
    assert comparison(left, right) == difference


def test_logits_of_another_shape_agree_on_no_sample():
    result = Comparison()
    result.add([np.eye(2, 5)], [np.eye(2, 4)], 2)
    assert (result.agreeing, result.max_abs_diff) == (0, INF)


def test_an_output_without_a_row_for_each_sample_is_no_logits():
    nodes = f"{qcfs('x', 'a')} y = Reshape (a, shape)"
    ann = network(
        nodes, inputs="float[N, 4, 6] x", outputs="float[M, 6] y", weights={"shape": np.array([-1, 6], np.int64)}
    )
    result = verify(ann, rewrite(ann).model)
    assert result.passed
    assert result.summary()["top1_agreement"] is None


def test_a_network_that_answers_nan_differs_and_is_still_a_json_document(small_network):
    snn = change(rewrite(small_network).model, "u", lambda table: table * np.float32(np.nan))
    result = verify(small_network, snn, atol=1.0)
    assert not result.passed
    assert json.loads(json.dumps(result.summary(), allow_nan=False))["max_abs_diff"] is None


def test_the_resnet_passes_on_images(qcfs_resnet, resnet_samples, tmp_path):
    rewrite(qcfs_resnet, tmp_path / "snn.onnx")
    few = {name: array[:6] for name, array in resnet_samples.items()}
    result = verify(qcfs_resnet, tmp_path / "snn.onnx", few)
    assert result.passed
    assert len(result.layers) == 19
    assert result.summary()["accuracy"]["ann"] > 0.5


SCALED = {
    "a scaling behind": "r = Relu (c) s = Mul (r, half)",
    "a division behind": "r = Relu (c) s = Div (r, three)",
    "a gate: an offset before and a division behind": "o = Add (c, three) r = Clip (o, zero, six) s = Div (r, six)",
    "a negative scaling behind": "r = Relu (c) s = Mul (r, minus)",
    "an offset behind": "r = Relu (c) s = Add (r, three)",
}


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("nodes", SCALED.values(), ids=SCALED)
def test_what_a_neuron_took_in_beside_a_calibrated_activation_is_no_difference(nodes, mode):
    """The source has no levels that its counts could be equal to, whatever tensor they are named after."""
    second = nodes.replace("(c", "(d").replace(" o ", " p ").replace("(o", "(p").replace("r = ", "q = ")
    second = second.replace("(r", "(q").replace("s = ", "t = ").replace("o = ", "p = ")
    weights = {
        **{name: weight(3, 3, 1, 1, seed=seed) for seed, name in enumerate("wvu")},
        **{"three": np.float32(3), "six": np.float32(6), "minus": np.float32(-0.5), "half": np.float32(0.5)},
    }
    ann = network(f"c = Conv (x, w) {nodes} d = Conv (s, v) {second} y = Conv (t, u)", weights=weights | {"zero": 0.0})
    data = {"x": np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)}
    found = verify(ann, rewrite(ann, mode=mode, calibration=data, steps=8).model, data)
    assert (found.verdict, found.passed, found.differences) == ("measured", None, [])
    assert found.layers_compared == len(found.layers) > 0
    assert all(layer.calibrated and layer.elements for layer in found.layers)
    assert all(segment.bounded and segment.elements for segment in found.segments)


def test_levels_of_the_source_are_compared_beside_calibrated_ones():
    ann = network(
        f"c = Conv (x, w) r = Relu (c) d = Conv (r, v) {qcfs('d', 'y')}",
        weights={"w": weight(3, 3, 1, 1), "v": weight(3, 3, 1, 1, seed=1)},
    )
    data = {"x": np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)}
    found = verify(ann, rewrite(ann, calibration=data, steps=4).model, data)
    assert {layer.name: layer.calibrated for layer in found.layers} == {"r": True, "y_code": False}
    assert found.verdict == "measured" and found.layers_compared == 2


@pytest.fixture(scope="module", params=[None, "float16"], ids=["float32", "float16"])
def calibrated(request):
    """A ReLU network, its spiking form, and data."""
    ann = network(
        "c = Conv (x, w) r = Relu (c) d = Conv (r, v) s = Relu (d) y = Conv (s, u)",
        weights={name: weight(3, 3, 1, 1, seed=seed) for seed, name in enumerate("wvu")},
    )
    data = {"x": np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)}
    return ann, rewrite(ann, calibration=data, steps=8, precision=request.param).model, data


def test_a_calibrated_network_is_compared_with_what_calibration_made(calibrated):
    ann, snn, data = calibrated
    right = verify(ann, snn, data)
    assert (right.verdict, right.differences, right.layers_compared) == ("measured", [], 2)
    assert right.not_compared == ["outputs, since a calibration gave 2 neurons levels that the source does not have"]
    assert right.as_run.max_abs_diff > 0
    told = verify(ann, change(snn, "r/thresholds", lambda table: table * np.asarray(1.25, table.dtype)), data)
    assert mismatches(told).keys() == {"r"}


def test_weights_that_calibration_corrected_are_told_where_they_were_changed_since(calibrated):
    ann, snn, data = calibrated
    told = verify(ann, change(snn, "v.corrected", lambda table: -table), data)
    assert told.differences == ["weight 'v.corrected' is not what calibration made it"]


@pytest.mark.parametrize("form", [None, "", "%", "QUJD"])
def test_a_record_without_what_calibration_made_is_told(calibrated, form):
    ann, snn, data = calibrated
    copy = onnx.ModelProto()
    copy.CopyFrom(snn)
    entry = next(entry for entry in copy.metadata_props if entry.key.endswith("calibrated_form"))
    if form is None:
        copy.metadata_props.remove(entry)
    else:
        entry.value = form
    assert "does not have the network that calibration made: " in (told := refusal(ann, copy, data))
    assert told.endswith("; rewrite the model again")


def test_a_spelling_that_changes_values_is_a_difference(monkeypatch):
    """Whoever reads a source in another form may be wrong, and what is compared with that form would not tell."""
    model, other = (network(qcfs("x", "a") + f"y = {op_type} (a)") for op_type in ("Neg", "Abs"))
    snn = rewrite(model).model
    monkeypatch.setattr(verification, "respelled", lambda source: replace(source, proto=other))
    assert "the source gives other values in the spelling that it was read in" in verify(model, snn).differences


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_network_of_no_elements_is_not_called_equal():
    weights = {"e": np.zeros((4, 0), np.float32)}
    ann = network(
        f"c = MatMul (x, e) {qcfs('c', 'y')}", inputs="float[N, 4] x", outputs="float[N, 0] y", weights=weights
    )
    found = verify(ann, rewrite(ann).model)
    assert (found.verdict, found.passed) == ("measured", None)
    assert found.not_compared == ["anything: neither outputs nor neurons have elements"]


def coded(op: str = "", *, signed: bool, scale: float = 0.03) -> onnx.ModelProto:
    """A network of 8-bit activations `a` and `b`, with an operator between these."""
    kind = np.int8 if signed else np.uint8
    quantised = "{y}_q = QuantizeLinear ({x}, s, i) {y} = DequantizeLinear ({y}_q, s, i)"
    nodes = f"""c = Conv <pads = [1, 1, 1, 1]> (x, w) {quantised.format(x="c", y="a")} {op or "m = Identity (a)"}
        d = Conv (m, v) {quantised.format(x="d", y="b")} y = Conv (b, u)"""
    weights = {"s": np.float32(scale), "i": np.zeros((), kind)}
    weights |= {"w": 2 * weight(4, 3, 3, 3), "v": weight(4, 4, 1, 1, seed=1), "u": weight(3, 4, 1, 1, seed=2)}
    return network(nodes, outputs="float[N, 3, H, W] y", weights=weights)


POOLED = "m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)"
LEAKY = "m = LeakyRelu <alpha = 0.25> (a)"


@pytest.mark.parametrize("precision", [None, "float16"])
@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("op", ["", POOLED, "m = Relu (a)", LEAKY, "m = Neg (a)"])
@pytest.mark.parametrize("signed", [False, True])
def test_coded_trains_are_verified(signed, op, mode, precision):
    snn = rewrite(coded(op, signed=signed), mode=mode, precision=precision)
    (coding,) = {neuron.coding for neuron in snn.plan.neurons.values()}
    assert (coding.name, coding.steps, coding.signed) == ("radix", 8, signed)
    result = verify(coded(op, signed=signed), snn.model)
    assert (result.verdict, result.differences, result.not_compared) == ("equal", [], [])


MEETING = f"""{qcfs("a", "e")} m = Add (a, e)"""


def node_of(model: onnx.ModelProto, part: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.domain == "pconv" and part in node.name)


@pytest.mark.parametrize("precision", [None, "float16"])
@pytest.mark.parametrize(("op", "signed", "part", "table", "different"), [
    ("", False, "a_q", "thresholds", "neuron 'a_q' gives other spike counts"),
    ("", True, "a_q", "thresholds", "neuron 'a_q' gives other spike counts"),
    ("", True, "b_q", "levels", "neuron 'b_q' gives other spike counts"),
    (POOLED, False, "a/decode", "thresholds", "trains of 'a' are"),
    (POOLED, True, "a/decode", "levels", "trains of 'a' are"),
    (POOLED, False, "m/encode", "thresholds", "trains of 'm/steps' are"),
    (POOLED, True, "m/encode", "levels", "trains of 'm/steps' are"),
    (MEETING, False, "/recode", "thresholds", "trains of 'e/radix_8' are"),
    (MEETING, False, "/recode", "levels", "trains of 'e/radix_8' are"),
])  # fmt: skip
def test_a_changed_table_of_coded_trains_is_a_difference(op, signed, part, table, different, precision):
    ann = coded(op, signed=signed)
    snn = rewrite(ann, precision=precision).model
    assert verify(ann, snn).verdict == "equal"
    name = node_of(snn, part).input[1 + (table == "levels")]

    def edited(values):
        values[:, values.shape[1] // 2 :] *= values.dtype.type(1.25)
        return values

    result = verify(ann, change(snn, name, edited))
    assert result.verdict == "different" and any(different in told for told in result.differences)


@pytest.mark.parametrize(("op", "part", "attribute", "value"), [
    ("", "a_q", "coding", 0),
    ("", "a_q", "steps", 9),
    ("", "a_q", "zero", 0),
    ("", "a_q", "zero", 127),
    (POOLED, "m/encode", "coding", 0),
    (POOLED, "m/encode", "steps", 9),
    (POOLED, "m/encode", "zero", 0),
    (POOLED, "a/decode", "input_steps", 4),
])  # fmt: skip
def test_a_changed_attribute_of_coded_trains_is_not_equal(op, part, attribute, value):
    ann = coded(op, signed=True)
    snn = onnx.ModelProto()
    snn.CopyFrom(rewrite(ann).model)
    entry = next(entry for entry in node_of(snn, part).attribute if entry.name == attribute)
    assert entry.i != value
    entry.i = value
    try:
        verdict = verify(ann, snn).verdict
    except PconvError as error:
        verdict = error.message
    refusals = ("is not there any more as rewrite wrote it", "attribute 'steps' is 8; expected 128")
    assert verdict == "different" or any(told in verdict for told in refusals)


def test_trains_that_are_not_recorded_in_their_coding_are_a_difference():
    """Counts of −1 to 6 take three digits with silence in the middle and without, and means are the same."""
    weights = {"s": np.float32(0.5), "i": np.zeros((), np.int8), "low": np.float32(-0.5), "high": np.float32(3)}
    nodes = """c = Clip (x, low, high) q = QuantizeLinear (c, s, i) a = DequantizeLinear (q, s, i)
        y = Conv (a, w)"""
    ann = network(nodes, weights=weights | {"w": weight(3, 3, 1, 1)})
    snn = rewrite(ann, coding="radix").model
    assert verify(ann, snn).verdict == "equal"
    entry = next(entry for entry in node_of(snn, "").attribute if entry.name == "zero")
    assert entry.i == 1
    entry.i = 0
    told = "trains of 'a/steps' are coded or decoded otherwise than its levels and record say"
    assert verify(ann, snn).differences == [told]


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("options", [{"coding": "rate"}, {"signed": True}, {"signed": True, "coding": "rate"}])
def test_other_codings_are_verified(options, mode):
    for op in ("", POOLED):
        ann = coded(op, signed=True)
        assert verify(ann, rewrite(ann, mode=mode, **options).model).verdict == "equal"
