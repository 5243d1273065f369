"""Recognition of QCFS: every spelling is read, every near miss is refused with its reason."""

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from harness import assert_converted, onnxruntime_of
from networks import CONSTANTS, MODES, network, qcfs

from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.recognise import recognise

FLOOR_THEN_CLIP = """
    a = Div (x, theta)
    b = Mul (a, count)
    c = Add (b, half)
    d = Floor (c)
    e = Div (d, count)
    f = Clip (e, zero, one)
    y = Mul (f, theta)
"""
CLIP_THEN_FLOOR = """
    a = Div (x, theta)
    b = Clip (a, zero, one)
    c = Mul (b, count)
    d = Add (c, half)
    e = Floor (d)
    f = Div (e, count)
    y = Mul (f, theta)
"""
SPELLINGS = {
    "floor then clip": (FLOOR_THEN_CLIP, {}),
    "clip then floor": (CLIP_THEN_FLOOR, {}),
    "operands swapped": (FLOOR_THEN_CLIP.replace("Mul (a, count)", "Mul (count, a)"), {}),
    "reciprocals": (
        "a = Mul (x, r) b = Mul (a, count) c = Add (half, b) d = Floor (c) e = Mul (d, s) f = Clip (e, zero, one)"
        " y = Mul (theta, f)",
        {"r": 0.5, "s": 0.25},
    ),
    "multiplied out": (
        "a = Mul (x, gain) b = Add (a, half) c = Floor (b) d = Clip (c, zero, count) y = Mul (d, step)",
        {"gain": 2.0, "step": 0.5},
    ),
    "clip on the input": (
        "a = Clip (x, zero, theta) b = Div (a, step) c = Add (b, half) d = Floor (c) y = Mul (d, step)",
        {"step": 0.5},
    ),
    "clip on the output": (
        "a = Div (x, step) b = Add (a, half) c = Floor (b) d = Mul (c, step) y = Clip (d, zero, theta)",
        {"step": 0.5},
    ),
    "max and min": (FLOOR_THEN_CLIP.replace("f = Clip (e, zero, one)", "g = Max (e, zero) f = Min (one, g)"), {}),
    "relu and min": (CLIP_THEN_FLOOR.replace("b = Clip (a, zero, one)", "g = Relu (a) b = Min (g, one)"), {}),
    "two clips": (CLIP_THEN_FLOOR.replace("b = Clip (a, zero, one)", "g = Clip (a, , one) b = Clip (g, zero)"), {}),
    "relu in front, min behind": (
        "r = Relu (x)" + FLOOR_THEN_CLIP.replace("(x,", "(r,").replace("Clip (e, zero, one)", "Min (e, one)"),
        {},
    ),
    "clip on the input and behind": ("r = Clip (x, zero, theta)" + FLOOR_THEN_CLIP.replace("(x,", "(r,"), {}),
    "straight-through floor": (
        CLIP_THEN_FLOOR.replace("e = Floor (d)", "g = Floor (d) h = Sub (g, d) e = Add (d, h)"),
        {},
    ),
    "straight-through floor, then clip": (
        FLOOR_THEN_CLIP.replace("d = Floor (c)", "g = Floor (c) h = Sub (g, c) d = Add (h, c)"),
        {},
    ),
    "constants behind Identity and Cast": (
        "t = Identity (theta) h = Cast <to = 1> (half_) n = Cast <to = 1> (count_) i = Identity (n)"
        + FLOOR_THEN_CLIP.replace("theta", "t").replace("half", "h").replace("count", "i"),
        {"half_": np.array(0.5, dtype=np.float16), "count_": np.array(4)},
    ),
    "constant nodes": (
        "theta_ = Constant <value_float = 2.0> ()" + FLOOR_THEN_CLIP.replace("theta", "theta_"),
        {},
    ),
}


def only(nodes, weights=None, **arguments):
    """The one activation of a network."""
    (activation,) = recognise(prepared(network(nodes, weights=weights, **arguments)))
    return activation


def naive(x, theta=2.0, levels=4):
    return theta / levels * np.clip(np.floor(np.float64(x) * levels / theta + 0.5), 0, levels)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read(spelling):
    nodes, weights = SPELLINGS[spelling]
    activation = only(nodes, weights)
    assert (activation.status, activation.reason) == ("converted", "")
    assert (activation.input.name, activation.output.name) == ("x", "y")
    assert activation.spec.levels == 4
    assert activation.spec.threshold == 2
    assert activation.spec.shift == 1
    x = np.linspace(-1, 4, 401, dtype=np.float32)
    np.testing.assert_array_equal(activation.spec(x[np.newaxis])[0], naive(x))
    neuron = activation.spec.neuron()
    np.testing.assert_array_equal(neuron.value(neuron.search_form(x)), naive(x))


@pytest.mark.parametrize("nodes", [FLOOR_THEN_CLIP, CLIP_THEN_FLOOR])
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_threshold_per_channel_is_read(nodes, shape):
    theta = np.array([0.5, 2, 3.7], dtype=np.float32)
    spec = only(nodes, {"theta": theta.reshape(shape)}).spec
    assert spec.channel_axis == 1
    np.testing.assert_allclose(spec.threshold, theta, rtol=1e-6)
    assert spec.neuron().thresholds.shape == (3, 4)


def test_threshold_per_channel_of_a_linear_layer_is_read():
    theta = np.array([0.5, 2, 3.7], dtype=np.float32)
    spec = only(FLOOR_THEN_CLIP, {"theta": theta}, inputs="float[N, 3] x", outputs="float[N, 3] y").spec
    assert spec.channel_axis == 1


def test_what_scales_the_value_further_belongs_to_the_next_layer():
    """The cut is where both ends have one θ, however long the chain of scalings is."""
    nodes = (
        "before = Mul (x, ten)" + FLOOR_THEN_CLIP.replace("(x,", "(before,").replace("y =", "z =") + "y = Mul (z, ten)"
    )
    activation = only(nodes, {"ten": 10.0})
    assert (activation.input.name, activation.output.name, activation.status) == ("before", "z", "converted")


def test_a_gain_on_the_output_is_the_amplitude():
    activation = only(FLOOR_THEN_CLIP.replace("y = Mul (f, theta)", "y = Mul (f, half)"))
    assert (activation.input.name, activation.output.name, activation.status) == ("x", "y", "converted")
    assert activation.spec.threshold == 2
    np.testing.assert_array_equal(activation.spec.neuron().levels, [[0, 0.125, 0.25, 0.375, 0.5]])


def test_a_bias_for_each_channel_of_a_scalar_threshold_stays_outside():
    bias = {"psi": np.array([1, 2, 3], dtype=np.float32).reshape(3, 1, 1)}
    nodes = "s = Add (x, psi)" + FLOOR_THEN_CLIP.replace("(x,", "(s,")
    assert only(nodes, bias).input.name == "s"
    theta = {"theta": np.array([1, 2, 3], dtype=np.float32).reshape(3, 1, 1)}
    assert only(nodes, bias | theta).input.name == "x"


CALIBRATED = """
    s = Add (x, psi) a = Mul (s, count) b = Div (a, theta) c = Add (b, half) d = Floor (c) e = Div (d, count)
    f = Clip (e, zero, one) y = Mul (f, amplitude)
"""


@pytest.mark.parametrize("channels", [1, 3])
def test_the_calibrated_form_is_read(channels):
    """Threshold θ, shift θ/2 + T·ψ, amplitude θ + φ, each a scalar or per channel."""
    generator = np.random.default_rng(0)
    theta, psi, phi = (generator.uniform(low, 3, (channels, 1, 1)).astype(np.float32) for low in (0.5, -1, -0.2))
    activation = only(CALIBRATED, {"theta": theta, "psi": psi, "amplitude": theta + phi})
    assert (activation.input.name, activation.output.name, activation.status) == ("x", "y", "converted")
    spec = activation.spec
    assert spec.channel_axis == (1 if channels > 1 else None)
    np.testing.assert_allclose(spec.threshold, theta.reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(spec.bias, psi.reshape(-1))
    neuron = spec.neuron(8)
    k = np.arange(1, 9)
    theta, psi, phi = (v.reshape(-1, 1).astype(np.float64) for v in (theta, psi, phi))
    np.testing.assert_allclose(neuron.thresholds, (k * theta - theta / 2 - 8 * psi) / 8, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(neuron.levels[:, -1:], theta + phi, rtol=1e-6)


def test_a_value_that_others_use_as_well_ends_the_chain():
    """The scaling at either end may be somebody else's: what is between is the activation."""
    nodes = (
        "s = Add (x, psi) o = Abs (s)" + FLOOR_THEN_CLIP.replace("(x,", "(s,").replace("y =", "z =")
        + "y = Mul (z, ten) p = Exp (z)"
    )  # fmt: skip
    outputs = {"outputs": "float[N, 3, 8, 8] y, float[N, 3, 8, 8] o, float[N, 3, 8, 8] p"}
    (activation,) = recognise(prepared(network(nodes, weights={"ten": 10.0, "psi": 0.25}, **outputs)))
    assert (activation.input.name, activation.output.name, activation.status) == ("s", "z", "converted")


def test_a_straight_through_floor_that_leaks_is_refused():
    nodes = CLIP_THEN_FLOOR.replace("e = Floor (d)", "g = Floor (d) h = Sub (g, d) e = Add (d, h) o = Abs (h)")
    reason = only(nodes, outputs="float[N, 3, 8, 8] y, float[N, 3, 8, 8] o").reason
    assert "its intermediate value 'd' is also used by Sub 'h'" in reason


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spelling", [FLOOR_THEN_CLIP, CLIP_THEN_FLOOR])
def test_half_types_are_read(spelling, channels, dtype):
    weights = {name: np.array(value).astype(dtype) for name, value in CONSTANTS.items()}
    weights["theta"] = np.array([0.7, 2.1, 3.3][:channels]).astype(dtype).reshape(-1, 1, 1)
    shape = f"{dtype}[N, 3, 8, 8]"
    activation = only(spelling, weights, inputs=f"{shape} x", outputs=f"{shape} y")
    assert (activation.status, activation.spec.dtype, activation.spec.levels) == ("converted", dtype, 4)
    neuron = activation.spec.neuron()
    assert neuron.thresholds.dtype == neuron.levels.dtype == dtype
    assert not neuron.why_not_carried


AUTOCAST = FLOOR_THEN_CLIP.replace(
    "b = Mul (a, count)", "h = Cast <to = 10> (a) i = Cast <to = 1> (h) b = Mul (i, count)"
).replace("f = Clip (e, zero, one)", "j = Cast <to = 10> (e) k = Cast <to = 1> (j) f = Clip (k, zero, one)")
DOUBLE = (
    "w = Cast <to = 11> (x)" + FLOOR_THEN_CLIP.replace("(x,", "(w,").replace("y =", "z =") + "y = Cast <to = 1> (z)"
)
DOUBLES = {name: np.array(value, np.float64) for name, value in (CONSTANTS | {"theta": 0.7}).items()}


@pytest.mark.parametrize("mode", MODES)
def test_casts_to_a_wider_type_are_part_of_the_activation(mode):
    assert only(DOUBLE, DOUBLES).op_types[0] == "Cast"
    model = network(DOUBLE, weights=DOUBLES, inputs="float[N, 3, 1, 1] x", outputs="float[N, 3, 1, 1] y")
    assert_converted(model, onnxruntime_of(model), mode, levels=4)


def test_casts_to_a_narrower_type_within_are_told():
    """As autocast leaves them; onnxruntime may leave them out, so that nothing says which value is the source's."""
    (found,) = (
        one for one in recognise(prepared(network(AUTOCAST, weights={"theta": 0.7}))) if one.encoding == "uniform"
    )
    assert found.reason.startswith(
        "it is given float32 and computes in float16, which onnxruntime does not always round"
    )


def test_a_cast_to_integers_within_the_chain_is_told():
    nodes = FLOOR_THEN_CLIP.replace(
        "f = Clip (e, zero, one)", "j = Cast <to = 6> (e) k = Cast <to = 1> (j) f = Clip (k, zero, one)"
    )
    (reason,) = (found.reason for found in recognise(prepared(network(nodes))) if found.encoding == "uniform")
    assert (
        reason == "it is not bounded: there is no Clip before or after Floor; Cast 'j' ends the chain: export it in"
        " floats throughout"
    )


def test_activations_are_named_for_the_module_that_owns_the_threshold():
    nodes = FLOOR_THEN_CLIP.replace("theta", "theta_")
    model = network(nodes, weights={"theta_": 2.0})
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("theta_", "layer1.act.up")
    for node in model.graph.node:
        node.input[:] = [name.replace("theta_", "layer1.act.up") for name in node.input]
    assert recognise(prepared(model))[0].name == "layer1.act"


def test_activations_that_share_a_module_have_names_of_their_own():
    model = network(qcfs("x", "z") + qcfs("z", "y"))
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("theta", "act.up")
    for node in model.graph.node:
        node.input[:] = [name.replace("theta", "act.up") for name in node.input]
    assert [activation.name for activation in recognise(prepared(model))] == ["act:z", "act:y"]


def test_neighbours_do_not_share_nodes():
    """With θ = L every scaling is by 1, so that cuts alone do not tell whose it is."""
    spelled = "{y}a = Mul ({x}, one) {y}b = Add ({y}a, half) {y}c = Floor ({y}b) {y}d = Clip ({y}c, zero, count)"
    chain = spelled + " {y} = Mul ({y}d, one)"
    model = network(chain.format(x="x", y="z") + chain.format(x="z", y="y"))
    found = recognise(prepared(model))
    nodes = [id(node) for activation in found for node in activation.nodes]
    assert len(nodes) == len(set(nodes))
    assert found[0].status == "converted"


def test_names_are_unique_across_bodies_too():
    """Names of tensors may repeat in branches that exclude each other, and with them the names of activations."""
    nodes = f"""
        y = If (yes) <
            then_branch = p () => (float[N, 3, 8, 8] f) {{ {qcfs("x", "f")} }},
            else_branch = q () => (float[N, 3, 8, 8] f) {{ {qcfs("x", "f")} }}
        >
    """
    found = recognise(prepared(network(nodes, weights={**CONSTANTS, "yes": np.array(True)})))
    assert len({activation.name for activation in found}) == 2


NEAR_MISSES = {
    "threshold zero": ({"theta": 0.0}, "'first' scales by 0; a scale must be positive"),
    "threshold negative": ({"theta": -2.0}, "'first' scales by -2; a scale must be positive"),
    "one channel negative": (
        {"theta": np.array([1, -3, 2], dtype=np.float32).reshape(3, 1, 1)},
        "'first' scales by -3; a scale must be positive",
    ),
    "threshold infinite": ({"theta": np.inf}, "'theta', an operand of 'first', is not finite"),
    "threshold NaN": ({"theta": np.nan}, "'theta', an operand of 'first', is not finite"),
    "levels not whole": ({"count": 4.5}, "its Clip ends at 4.5 levels, which is not one whole number of them"),
    "clip between levels": ({"one": 0.9}, "its Clip ends at 3.6 levels, which is not one whole number of them"),
    "too many levels": ({"count": 70000.0}, "it has 70000 levels; 1 to 65535 are possible"),
    "threshold along two axes": (
        {"theta": np.ones((3, 8, 1), dtype=np.float32)},
        "'theta' of shape [3, 8, 1] does not run along one axis of the activation",
    ),
}


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_near_misses_are_refused_with_the_reason(miss):
    weights, reason = NEAR_MISSES[miss]
    nodes = FLOOR_THEN_CLIP
    model = network(nodes, weights={**CONSTANTS, **weights})
    for index, node in enumerate(model.graph.node):
        node.name = "first" if index == 0 else f"node{index}"
    (activation,) = recognise(prepared(model))
    assert activation.status == "refused"
    assert activation.spec is None
    assert reason in activation.reason


@pytest.mark.parametrize(
    "nodes, reason",
    [
        ("a = Div (x, theta) b = Mul (a, count) c = Add (b, half) d = Floor (c) e = Div (d, count) y = Mul (e, theta)",
         "it is not bounded: there is no Clip"),
        (CLIP_THEN_FLOOR.replace("Clip (a, zero, one)", "Clip (a, , one)"), "it is not bounded below"),
    ],
)  # fmt: skip
def test_chains_that_are_not_qcfs_are_refused_with_the_reason(nodes, reason):
    activation = only(nodes)
    assert activation.status == "refused"
    assert reason in activation.reason


@pytest.mark.parametrize("nodes", [FLOOR_THEN_CLIP.replace("Clip (e, zero, one)", "Clip (e, zero)"),
                                   CLIP_THEN_FLOOR.replace("Clip (a, zero, one)", "Max (a, zero)")])  # fmt: skip
def test_levels_without_end_need_calibration(nodes):
    activation = only(nodes)
    assert activation.status == "needs-calibration"
    assert activation.reason.startswith("it has no highest level; pass `calibration='data.npz', steps=T` to find one")
    np.testing.assert_array_equal(activation.unit, [0.5])


def test_a_computed_bound_is_refused():
    nodes = "top = Exp (zero)" + FLOOR_THEN_CLIP.replace("zero, one)", "zero, top)")
    assert "'top', an operand of 'f', is computed; a constant is needed" in only(nodes).reason


def test_an_intermediate_value_used_elsewhere_is_refused():
    two = {"outputs": "float[N, 3, 8, 8] y, float[N, 3, 8, 8] z"}
    assert "'d' is also used by" in only(FLOOR_THEN_CLIP + "z = Relu6 (d)".replace("Relu6", "Abs"), **two).reason
    two = {"outputs": "float[N, 3, 8, 8] y, float[N, 3, 8, 8] d"}
    assert "'d' is also an output of the model" in only(FLOOR_THEN_CLIP, **two).reason


def test_another_element_type_is_refused():
    shape = "double[N, 3, 8, 8]"
    activation = only(FLOOR_THEN_CLIP, DOUBLES, inputs=f"{shape} x", outputs=f"{shape} y")
    assert activation.reason.startswith("it computes in float64; float32, float16, bfloat16 are supported")


def test_a_type_that_a_cast_changes_for_good_is_told():
    nodes = FLOOR_THEN_CLIP.replace("f = Clip (e, zero, one)", "e_ = Cast <to = 10> (e) f = Clip (e_, zero, one)")
    halves = {name: np.array(CONSTANTS[name], np.float16) for name in ("zero", "one")}
    nodes = nodes.replace("y = Mul (f, theta)", "y = Mul (f, two)")
    activation = only(nodes, {**halves, "two": np.array(2, np.float16)}, outputs="float16[N, 3, 8, 8] y")
    assert activation.reason.startswith("it is given float32 and gives float16; neurons have one type")


def test_a_floor_of_something_else_is_no_activation():
    assert recognise(prepared(network("y = Floor (x)"))) == []
    assert recognise(prepared(network("a = Exp (x) b = Floor (a) y = Exp (b)"))) == []


def test_operators_of_another_domain_are_not_onnx_s():
    """They may bear the same names; the activation is then a chain without a Clip."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20, "mine" : 1]> test (float[N, 3] x) => (float[N, 3] y)
        <float two = {2.0}, float zero = {0.0}, float four = {4.0}, float h = {0.5}>
        { a = Mul (x, two) b = Add (a, h) c = Floor (b) d = mine.Clip (c, zero, four) y = Mul (d, h) }
        <opset_import: ["" : 20], domain: "mine"> Clip (a, low, high) => (b) { b = Max (a, low) }
    """)
    assert all(activation.spec is None for activation in recognise(prepared(model)))


def test_a_chain_does_not_enter_a_body():
    nodes = """
        a = Div (x, theta) b = Mul (a, count) c = Add (b, half) d = Floor (c)
        y = If (yes) <
            then_branch = p () => (float[N, 3, 8, 8] f) {
                e = Div (d, count) g = Clip (e, zero, one) f = Mul (g, theta)
            },
            else_branch = q () => (float[N, 3, 8, 8] h) { h = Identity (x) }
        >
    """
    found = recognise(prepared(network(nodes, weights={**CONSTANTS, "yes": np.array(True)})))
    assert [activation.encoding for activation in found if activation.op_types != ["Clip"]] == []


def test_activations_in_branches_are_recognised():
    body = qcfs("x", "f").replace("f_", "in_")
    nodes = f"""
        y = If (yes) <
            then_branch = p () => (float[N, 3, 8, 8] f) {{ {body} }},
            else_branch = q () => (float[N, 3, 8, 8] h) {{ h = Relu (x) }}
        >
    """
    found = recognise(prepared(network(nodes, weights={**CONSTANTS, "yes": np.array(True)})))
    assert [activation.encoding for activation in found] == ["qcfs", "relu"]
    assert [activation.status for activation in found] == ["converted", "needs-calibration"]


@pytest.mark.parametrize("channels", ["1", "C"])
def test_a_scaling_that_broadcasts_the_activation_stays_outside(channels):
    theta = {"theta": np.array([1, 2, 3], dtype=np.float32).reshape(1, 3, 1, 1)}
    (activation,) = recognise(prepared(network(FLOOR_THEN_CLIP, weights=theta, inputs=f"float[N, {channels}, 8, 8] x")))
    assert (activation.input.name, activation.status) == ("a", "converted")
    np.testing.assert_array_equal(activation.spec.amplitude, [1, 2, 3])


@pytest.mark.parametrize("channels, told", [("1", "has 1"), ("C", "has a size that is open")])
def test_values_per_channel_of_another_number_of_channels_are_refused(channels, told):
    """Here the constant only bounds the code, and would broadcast it."""
    nodes = "a = Mul (x, two) b = Add (a, half) c = Floor (b) d = Min (c, four) e = Max (d, zero) y = Mul (e, half)"
    four = {"two": 2.0, "four": np.full((1, 3, 1, 1), 4, dtype=np.float32)}
    (activation,) = recognise(prepared(network(nodes, weights=four, inputs=f"float[N, {channels}, 8, 8] x")))
    assert f"'four' holds 3 values along axis 1, where the activation {told}" in activation.reason


def test_a_scalar_is_refused():
    assert "its input is a scalar" in only(FLOOR_THEN_CLIP, inputs="float x", outputs="float y").reason


def test_a_tensor_divided_by_itself_ends_the_chain():
    nodes = "d = Div (x, x)" + qcfs("d", "y")
    activation = only(nodes)
    assert (activation.input.name, activation.status) == ("d", "converted")


def test_a_relu_that_belongs_to_an_activation_is_not_listed_by_itself():
    found = recognise(prepared(network("r = Relu (x)" + FLOOR_THEN_CLIP.replace("(x,", "(r,"))))
    assert [(activation.encoding, activation.input.name) for activation in found] == [("qcfs", "x")]


def test_relu_is_listed_and_needs_calibration():
    (activation,) = recognise(prepared(network("y = Relu (x)")))
    assert (activation.encoding, activation.status) == ("relu", "needs-calibration")
    assert "has no levels of its own" in activation.reason
