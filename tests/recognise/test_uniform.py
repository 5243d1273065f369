"""Uniform quantisers: every spelling is converted bit by bit, what is no staircase is refused with its reason."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from harness import assert_converted, definition_of, found, onnxruntime_of, own_part
from networks import network, weight

from pconv_onnx import inspect, rewrite
from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.neuron.quantiser import FloatOperation
from pconv_onnx.recognise import recognise
from pconv_onnx.recognise.base import never, where_zero

MODES = ("parallel", "folded")
NUMBERS = {"zero": 0, "one": 1}
SHAPE = "[N, 3, 1, 1]"
PER_CHANNEL = np.array([0.013, 0.4, 2.3], dtype=np.float32).reshape(3, 1, 1)


def quantiser(nodes: str, dtype: str = "float", **constants):
    """A model of one quantiser from `x` to `y`; constants are of its type, and those that it does not use left out."""
    element = np.dtype(np.float32 if dtype == "float" else getattr(ml_dtypes, dtype, None) or dtype)
    used = set(re.findall(r"\w+", nodes))
    weights = {name: np.asarray(value).astype(element) for name, value in (NUMBERS | constants).items() if name in used}
    return network(nodes, inputs=f"{dtype}{SHAPE} x", outputs=f"{dtype}{SHAPE} y", weights=weights)


def only(nodes: str, dtype: str = "float", **weights):
    (activation,) = found(quantiser(nodes, dtype, **weights))
    return activation


LSQ = "a = Div (x, s) b = Clip (a, zero, n) c = Round (b) y = Mul (c, s)"
PACT = "a = Clip (x, zero, alpha) b = Mul (a, g) c = Round (b) y = Div (c, g)"
DOREFA = "a = Clip (x, zero, one) b = Mul (a, n) c = Round (b) y = Div (c, n)"
LSQ_PLUS = "a = Sub (x, beta) b = Div (a, s) c = Clip (b, zero, n) d = Round (c) e = Mul (d, s) y = Add (e, beta)"
AFFINE = "a = Div (x, s) b = Round (a) c = Add (b, z) d = Clip (c, zero, n) e = Sub (d, z) y = Mul (e, s)"
AFFINE_INSIDE = AFFINE.replace("b = Round (a) c = Add (b, z)", "b = Add (a, z) c = Round (b)")


def bits(count: int) -> int:
    return 2**count - 1


def after_relu(nodes: str) -> str:
    return "r = Relu (x)" + nodes.replace("(x,", "(r,")


# Name: nodes, constants, levels.
CONVERTED = {
    **{f"LSQ, {count} bits": (LSQ, {"s": 0.123, "n": bits(count)}, bits(count)) for count in (1, 2, 4, 8)},
    "LSQ, ties": (LSQ, {"s": 0.25, "n": 15}, 15),
    "LSQ per channel": (LSQ, {"s": PER_CHANNEL, "n": 15}, 15),
    "LSQ, the scale inverted": (LSQ.replace("Div (x, s)", "Mul (x, i)"), {"s": 0.123, "i": 1 / 0.123, "n": 15}, 15),
    "LSQ, clip after": ("a = Div (x, s) b = Round (a) c = Clip (b, zero, n) y = Mul (c, s)", {"s": 0.3, "n": 7}, 7),
    "LSQ, signed after Relu": (after_relu(LSQ).replace("zero", "m"), {"s": 0.3, "m": -8, "n": 7}, 7),
    "LSQ, signed before Relu": (LSQ.replace("zero", "m").replace("y =", "o =") + "y = Relu (o)",
                                {"s": 0.3, "m": -8, "n": 7}, 7),
    "PACT": (PACT, {"alpha": 5.7, "g": 15 / 5.7}, 15),
    "PACT, Max and Min": (PACT.replace("a = Clip (x, zero, alpha)", "r = Max (zero, x) a = Min (r, alpha)"),
                          {"alpha": 5.7, "g": 15 / 5.7}, 15),
    "PACT per channel": (PACT.replace("a = Clip (x, zero, alpha)", "r = Relu (x) a = Min (r, alpha)"),
                         {"alpha": PER_CHANNEL, "g": 15 / PER_CHANNEL}, 15),
    "DoReFa": (DOREFA, {"n": 3}, 3),
    "DoReFa, other gain": (DOREFA.replace("Div (c, n)", "Mul (c, s)"), {"n": 3, "s": 0.7}, 3),
    "LSQ+": (LSQ_PLUS, {"s": 0.123, "beta": -0.31, "n": 15}, 15),
    "LSQ+ per channel": (LSQ_PLUS, {"s": PER_CHANNEL, "beta": -3 * PER_CHANNEL, "n": 15}, 15),
    "affine after Relu": (after_relu(AFFINE), {"s": 0.037, "z": 17, "n": 255}, 238),
    "affine": (AFFINE, {"s": 0.037, "z": 17, "n": 255}, 255),
    "affine, added inside": (AFFINE_INSIDE, {"s": 0.25, "z": 17, "n": 255}, 255),
    "affine, a part of a code added inside": (AFFINE_INSIDE, {"s": 0.3, "z": 1.3, "n": 15}, 15),
    "floor": (LSQ.replace("Round", "Floor"), {"s": 0.123, "n": 15}, 15),
    "ceil": (LSQ.replace("Round", "Ceil"), {"s": 0.123, "n": 15}, 15),
    "floor, 0.4": ("a = Div (x, s) b = Add (a, h) c = Floor (b) d = Clip (c, zero, n) y = Mul (d, s)",
                   {"s": 0.123, "h": 0.4, "n": 15}, 15),
    "codes themselves": ("a = Round (x) y = Clip (a, zero, n)", {"n": 15}, 15),
    "a bound between codes, before rounding": ("a = Clip (x, zero, six) b = Div (a, s) c = Round (b) y = Mul (c, s)",
                                               {"six": 6, "s": 0.7}, 9),
}  # fmt: skip


SIGNED = {
    "LSQ": (LSQ.replace("zero", "m"), {"s": 0.123, "m": -8, "n": 7}, 15),
    "LSQ, ties": (LSQ.replace("zero", "m"), {"s": 0.5, "m": -128, "n": 127}, 255),
    "LSQ per channel": (LSQ.replace("zero", "m"), {"s": PER_CHANNEL, "m": -8, "n": 7}, 15),
    "LSQ, symmetric": (LSQ.replace("zero", "m"), {"s": 0.123, "m": -7, "n": 7}, 14),
    "LSQ+": (LSQ_PLUS.replace("zero", "m"), {"s": 0.123, "beta": 0.31, "m": -8, "n": 7}, 15),
    "floor": (LSQ.replace("zero", "m").replace("Round", "Floor"), {"s": 0.123, "m": -8, "n": 7}, 15),
    "affine": (AFFINE, {"s": 0.037, "z": 17, "n": 255}, 255),
    "an offset of whole steps": (LSQ_PLUS, {"s": 0.123, "beta": -2 * np.float32(0.123), "n": 15}, 15),
}


def straight_through(nodes: str, total: str) -> str:
    """With `z + (round(z) − z)` in place of `round(z)`."""
    spelled = rf"code = Round (\2) difference = Sub (code, \2) \1 = Add ({total})"
    return re.sub(r"(\w) = Round \((\w)\)", spelled.replace("z", r"\2"), nodes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CONVERTED)
def test_quantisers_are_converted_bit_by_bit(case, mode):
    nodes, constants, levels = CONVERTED[case]
    part = own_part(quantiser(nodes, **constants))
    for oracle in (onnxruntime_of, definition_of):
        assert_converted(part, oracle(part), mode, levels=levels)
    assert [row["encoding"] for row in inspect(part)["activations"]] == ["uniform"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SIGNED)
def test_signed_values_are_converted_bit_by_bit(case, mode):
    nodes, constants, levels = SIGNED[case]
    part = own_part(quantiser(nodes, **constants))
    assert assert_converted(part, onnxruntime_of(part), mode, levels=levels).coding.signed


@pytest.mark.parametrize("mode", MODES)
def test_values_without_a_zero_among_them_are_converted_where_asked_for(mode):
    model = quantiser(LSQ.replace("zero", "m"), s=0.123, m=3, n=9)
    assert "its lowest value is not zero, nor is another" in inspect(model)["activations"][0]["reason"]
    assert_converted(model, onnxruntime_of(model), mode, levels=6, signed=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("total", ["z, difference", "difference, z"])
@pytest.mark.parametrize("case", ["LSQ, ties", "LSQ per channel", "PACT", "DoReFa", "LSQ+"])
def test_straight_through_gradients_may_be_left_in(case, total, mode):
    nodes, constants, levels = CONVERTED[case]
    part = own_part(quantiser(straight_through(nodes, total), **constants))
    assert [node.op_type for node in part.graph.node].count("Sub") >= 1
    assert_converted(part, onnxruntime_of(part), mode, levels=levels)


@pytest.mark.parametrize("case", ["LSQ, ties", "LSQ per channel", "PACT", "DoReFa", "LSQ+", "floor", "ceil"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_converted_for_every_value(case, dtype):
    nodes, constants, levels = CONVERTED[case]
    part = own_part(quantiser(nodes, dtype, **constants))
    if dtype == "float16":
        # Of what onnxruntime computes in float32 between, it does not round every value.
        assert_converted(part, definition_of(part), "parallel", levels=levels)
    spec, x = found(part)[0].spec, np.arange(2**16, dtype=np.uint16).view(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    x = np.broadcast_to(x[~np.isnan(x)], (3, np.count_nonzero(~np.isnan(x)))).T.reshape(-1, 3, 1, 1)
    neuron = spec.neuron()
    np.testing.assert_array_equal(neuron.value(neuron.search_form(x)), definition_of(part)(x), strict=True)


@pytest.mark.parametrize("operation", ["Floor", "Round", "Ceil"])
@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)], ids=str)
def test_straight_through_roundings_are_the_rounding_in_floats(operation, dtype):
    generator = np.random.default_rng(0)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    every = np.arange(2**16) if dtype.itemsize == 2 else generator.integers(0, 2**32, 10**6)
    near = generator.uniform(-3, 3, 10**5).astype(dtype)
    z = np.concatenate([every.astype(unsigned).view(dtype), near])
    z = z[np.isfinite(z.astype(np.float64))]
    code = FloatOperation(operation)(z[np.newaxis])[0]
    np.testing.assert_array_equal(z + (code - z), code)


@pytest.mark.parametrize(
    "case, ends",
    [
        ("LSQ+", ("x", "e")),  # β is the next layer's
        ("affine after Relu", ("x", "y")),
        ("LSQ, signed before Relu", ("x", "y")),
        ("a bound between codes, before rounding", ("x", "y")),
    ],
)
def test_what_would_make_silence_a_value_is_left_to_the_next_layer(case, ends):
    nodes, constants, _ = CONVERTED[case]
    activation = only(nodes, **constants)
    assert (activation.input.name, activation.output.name) == ends
    assert not activation.spec.silent.any()


@pytest.mark.parametrize(
    "nodes, constants, with_signs, without",
    [
        (AFFINE, {"s": 0.037, "z": 17, "n": 255}, "y", "d"),
        (LSQ_PLUS, {"s": 0.123, "beta": -2 * np.float32(0.123), "n": 15}, "y", "e"),
        (LSQ_PLUS, {"s": 0.123, "beta": -0.25, "n": 15}, "e", "e"),
        (LSQ_PLUS, {"s": PER_CHANNEL, "beta": -3 * PER_CHANNEL, "n": 15}, "y", "e"),
        (LSQ_PLUS, {"s": PER_CHANNEL, "beta": [[[-0.026]], [[-1.2]], [[-4.6]]], "n": 15}, "e", "e"),
        (SIGNED["LSQ+"][0], SIGNED["LSQ+"][1], "e", "y"),
    ],
)
def test_what_makes_another_level_zero_is_the_neuron_s_where_trains_have_signs(nodes, constants, with_signs, without):
    """Its trains are then silent at zero, and nothing is added to them."""
    model = prepared(quantiser(nodes, **constants))
    for signs, end in ((where_zero, with_signs), (never, without)):
        (activation,) = recognise(model, signs=signs)
        assert activation.output.name == end
        assert signs is never or not activation.spec.silent.any() or activation.spec.zero


@pytest.mark.parametrize("options", [{"mode": "serial"}, {"signed": True}, {"mode": "serial", "signed": True}])
@pytest.mark.parametrize("nodes, constants", [
    (AFFINE, {"s": 0.037, "z": 17, "n": 255}), (LSQ_PLUS, {"s": 0.123, "beta": -2 * np.float32(0.123), "n": 15}),
])  # fmt: skip
def test_where_trains_have_no_signs_it_is_the_next_layer_s(nodes, constants, options):
    (neuron,) = rewrite(quantiser(nodes, **constants), **options).plan.neurons.values()
    assert not neuron.levels[:, 0].any()


@pytest.mark.parametrize(
    "before, after, ends",
    [
        ("k = Mul (x, w) i = Add (k, v)", "y = Identity (o)", ("i", "o")),
        ("i = Neg (x)", "k = Mul (o, w) y = Add (k, v)", ("i", "o")),
        ("i = Add (x, half)", "y = Mul (o, half)", ("x", "o")),
    ],
)
def test_scalings_and_biases_of_the_neighbours_are_theirs(before, after, ends):
    """Such as those of a batch norm written out; an addition of one number costs less within the neuron."""
    own = LSQ.replace("(x,", "(i,").replace("y =", "o =")
    activation = only(f"{before} {own} {after}", s=0.123, n=15, w=3 * PER_CHANNEL, v=PER_CHANNEL, half=0.5)
    assert (activation.status, activation.input.name, activation.output.name) == ("converted", *ends)


def test_gains_may_differ_at_the_two_ends():
    spec = only(LSQ.replace("y = Mul (c, s)", "y = Mul (c, t)"), s=0.5, t=0.75, n=4).spec
    np.testing.assert_array_equal((spec.threshold, spec.amplitude), ([2], [3]))


@pytest.mark.parametrize("nodes, shift, bias", [
    (LSQ, 0.5, 0), (LSQ.replace("Round", "Floor"), 0, 0), (LSQ.replace("Round", "Ceil"), 1, 0),
    (AFFINE, 0.5, 3), (AFFINE_INSIDE, 0.5, 3), (LSQ.replace("zero", "low"), 0.5, 1),
])  # fmt: skip
def test_another_number_of_steps_takes_evenly_spaced_thresholds(nodes, shift, bias):
    """`(t·θ − b')/T − ψ`, with the shift b and the bias ψ in units of θ and of a step."""
    spec = only(nodes, s=0.5, n=15, z=3, low=-1).spec
    np.testing.assert_array_equal((spec.shift / spec.threshold, spec.bias / 0.5), ([shift], [bias]))
    even = spec.neuron(2 * spec.levels)
    steps = np.arange(1, even.steps + 1)
    moved = 0.5 + (shift - 0.5) * 2
    expected = (steps - moved) * spec.threshold / even.steps - spec.bias
    np.testing.assert_allclose(even.thresholds[0], expected, rtol=1e-6, atol=1e-6)


CHOICES = {
    "x > c ? c : x": "Greater (x, alpha) a = Where (k, alpha, x)",
    "x >= c ? c : x": "GreaterOrEqual (x, alpha) a = Where (k, alpha, x)",
    "x < c ? x : c": "Less (x, alpha) a = Where (k, x, alpha)",
    "c > x ? x : c": "Greater (alpha, x) a = Where (k, x, alpha)",
    "c <= x ? c : x": "LessOrEqual (alpha, x) a = Where (k, alpha, x)",
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_of_a_constant_is_a_clip(choice):
    """Here as an upper bound, and then with the operands the other way round as a lower one."""
    above = CHOICES[choice]
    below = re.sub(r"Where \(k, (\w+), (\w+)\)", r"Where (k, \2, \1)", above)
    below = re.sub(r"\bx\b", "u", below).replace("alpha", "zero").replace("k", "m").replace("a =", "r =")
    nodes = f"u = Add (x, one) m = {below} k = {above.replace('x', 'r')} b = Mul (a, g) c = Round (b) y = Div (c, g)"
    model = quantiser(nodes, alpha=5.7, g=15 / 5.7)
    assert found(model)[0].input.name == "x"
    assert_converted(model, onnxruntime_of(model), "parallel", levels=15)


REFUSED = {
    "scale zero": (LSQ, {"s": 0}, "'a' scales by 0; a scale must be positive"),
    "scale negative": (LSQ, {"s": -0.1}, "'a' scales by -0.1; a scale must be positive"),
    "scale of a channel negative": (LSQ, {"s": PER_CHANNEL - 0.1}, "'a' scales by -0.087; a scale must be positive"),
    "scale infinite": (LSQ, {"s": np.inf}, "'s', an operand of 'a', is not finite"),
    "scale NaN": (LSQ, {"s": np.nan}, "'s', an operand of 'a', is not finite"),
    "a bound without a value": (LSQ, {"n": np.zeros(0)}, "'n' of shape [0] has no values"),
    "a bound infinite": (LSQ, {"n": np.inf}, "'n', an operand of 'b', is not finite"),
    "a bound computed": ("t = Exp (n)" + LSQ.replace("zero, n", "zero, t"), {}, "'t', an operand of 'b', is computed"),
    "no clip": ("a = Div (x, s) b = Round (a) y = Mul (b, s)", {}, "there is no Clip before or after Round"),
    "no lower end": (LSQ.replace("Clip (a, zero, n)", "Min (a, n)"), {}, "is not bounded below"),
    "a clip between codes": (AFFINE, {"z": 1.3}, "its Clip starts at -1.3 levels, which is not one whole number"),
    "levels of channels": (DOREFA, {"n": np.array([3, 7, 15]).reshape(3, 1, 1)},
                           "its channels have from 3 to 15 levels; one number for all is needed"),
    "one level": (LSQ, {"n": 0.4}, "it has 0 levels; 1 to 65535 are possible"),
    "too many levels": (LSQ, {"n": 70000}, "it has 70000 levels; 1 to 65535 are possible"),
    "values that overflow": (LSQ.replace("Mul (c, s)", "Mul (c, big)"), {"big": 3e38}, "are not finite and ascending"),
    "another constant chosen": ("k = Greater (x, t) e = Where (k, n, x) r = Relu (e) a = Div (r, s) b = Round (a)"
                                " y = Mul (b, s)", {"t": 3}, "'e' compares with 3 and gives 15; one is expected"),
    "the formula of PACT": ("e = Abs (x) f = Sub (x, n) h = Abs (f) i = Sub (e, h) j = Add (i, n) a = Mul (j, s)"
                            " b = Mul (a, s) c = Round (b) y = Div (c, s)", {}, "Sub 'i' before it is no clip"),
    "a comparison of something else": ("r = Relu (x) k = Less (x, n) a = Where (k, r, n) b = Mul (a, s) c = Round (b)"
                                       " y = Div (c, s)", {}, "Where 'a' before it is no clip"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_staircase_is_refused_with_the_reason(case):
    nodes, constants, reason = REFUSED[case]
    (activation,) = (row for row in found(quantiser(nodes, **{"s": 0.123, "n": 15} | constants))
                     if row.encoding == "uniform")  # fmt: skip
    assert (activation.status, activation.spec) == ("refused", None)
    assert reason in activation.reason


@pytest.mark.parametrize("inner, ends", [("a", ("a", "o")), ("c", ("x", "c"))])
def test_what_others_use_ends_a_quantiser(inner, ends):
    nodes = LSQ.replace("y =", "o =") + f"p = Neg ({inner}) y = Add (o, p)"
    activation = only(nodes, s=0.123, n=15)
    assert (activation.status, activation.input.name, activation.output.name) == ("converted", *ends)


def test_a_clipped_value_that_others_use_is_refused():
    activation = only(LSQ.replace("y =", "o =") + "p = Neg (b) y = Add (o, p)", s=0.123, n=15)
    assert activation.reason == "its intermediate value 'b' is also used by Neg 'p'"


def test_a_computed_scale_stays_outside():
    activation = only("t = Exp (s)" + LSQ.replace("s)", "t)").replace("Exp (t)", "Exp (s)"), s=0.1, n=15)
    assert (activation.status, activation.input.name, activation.output.name) == ("converted", "a", "c")


@pytest.mark.parametrize("outputs", [8, 40000])
@pytest.mark.parametrize(
    "quantised",
    [
        "a = Div (w, s) b = Clip (a, low, n) c = Round (b) q = Mul (c, s)",
        "t = Tanh (w) m = ReduceMax <keepdims = 0> (t) a = Div (t, m) h = Clip (a, zero, one) b = Mul (h, n)"
        " c = Round (b) q = Div (c, n)",
    ],
)
def test_quantised_weights_are_no_activations(quantised, outputs):
    """Whether folding makes constants of them or not: large ones it leaves."""
    weights = {"w": weight(outputs, 3, 1, 1), "s": 0.1, "low": -8.0, "n": 7.0, "zero": 0.0, "one": 1.0}
    used = {name: value for name, value in weights.items() if re.search(rf"\b{name}\b", quantised)}
    model = network(f"{quantised} y = Conv (x, q)", outputs=f"float[N, {outputs}, 8, 8] y", weights=used)
    assert found(model) == []


def test_a_rounding_without_bounds_or_scalings_is_no_quantiser():
    assert found(network("y = Round (x)")) == []
    assert found(network("a = Exp (x) b = Round (a) y = Exp (b)")) == []
    assert found(network("a = Mul (x, s) y = Round (a)", weights={"s": 2.0})) == []


SIGNS = {
    "sign alone": ("y = Sign (x)", {}, 2, True),
    "from zero on": ("a = Sign (x) b = Add (a, one) y = Div (b, two)", {}, 2, False),
    "of a ReLU": ("a = Relu (x) y = Sign (a)", {}, 1, False),
    "scaled": ("a = Sub (x, s) b = Sign (a) c = Relu (b) y = Mul (c, two)", {"s": PER_CHANNEL}, 1, False),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SIGNS)
def test_signs_are_converted_bit_by_bit(case, mode):
    nodes, constants, levels, signed = SIGNS[case]
    model = quantiser(nodes, **{"one": 1, "two": 2}, **constants)
    assert_converted(model, onnxruntime_of(model), mode, levels=levels, signed=signed)


@pytest.mark.parametrize("steps", [3, 7])
def test_a_ceil_of_zero_stays_zero(steps):
    """Above its thresholds it rounds up, not at them; zero is the commonest input behind a ReLU."""
    spec = only(LSQ.replace("Round", "Ceil"), s=0.25, n=7).spec
    neuron, serial = spec.neuron(steps), spec.serial_neuron(steps)
    assert neuron.search_form(np.zeros((1, 3, 1, 1), np.float32)).max() == 0
    assert (serial.threshold > 0).all()
