"""The integer form: close to the float network, the same bits however run, and floats where integers cannot be."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from pconv_onnx import Rewriting, rewrite, session
from pconv_onnx.integer import form, scales
from pconv_onnx.integer.units import Layer

INPUTS = {"input_bits": 8, "input_range": (-4, 4)}
FORMS = {"rate": {"coding": "rate"}, "radix": {"coding": "radix"}, "folded": {"mode": "folded"},
         "integer": {"mode": "integer"}}  # fmt: skip
OPTIMISED = (onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
SAME = "<pads = [1, 1, 1, 1]>"


def activation(x: str, y: str, theta: str = "theta") -> str:
    return qcfs(x, y).replace("theta", theta)


def uniform(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 3, shape).astype(np.float32)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


# Activations of one threshold a channel, `a` [N, 4, 8, 8] and `b` with others, and a convolution `d` of `a`.
A = f"c = Conv {SAME} (x, w) {activation('c', 'a', 'each')}"
D = f"{A} d = Conv {SAME} (a, v)"
B = f"{D} {activation('d', 'b', 'other')}"
F = f"{A} p = GlobalAveragePool (a) f = Flatten (p)"
CONSTANTS = {
    "w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 3, 3, seed=1), "v2": 2 * weight(4, 4, 3, 3, seed=3),
    "each": uniform(5, 4, 1, 1), "other": uniform(6, 4, 1, 1), "one_theta": np.float32(1.3),
    "u": weight(4, 5, seed=2), "ut": weight(5, 4, seed=15), "u16": weight(16, 5, seed=8), "k": normal(7, 5),
    "wide": 2 * weight(4, 8, 1, 1, seed=4), "narrow": 2 * weight(2, 4, 1, 1, seed=11),
    "widen": 2 * weight(4, 2, 1, 1, seed=12), "square": weight(2, 2, 1, 1, seed=27),
    "single": 2 * weight(1, 4, 3, 3, seed=21),
    "up": weight(4, 3, 2, 2, seed=13), "depth": 2 * weight(4, 1, 3, 3, seed=14),
    "gain": np.array([1, -0.7, 0.4, -1.2], np.float32), "shift": normal(9, 4),
    "mean": 0.1 * normal(10, 4), "variance": np.array([0.5, 1, 2, 1], np.float32),
    "nowhere": np.array([1, 1e30, 2, 1], np.float32), "dead": np.array([1, 0, 0.4, -1.2], np.float32),
    "axes": np.array([2, 3]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "rows": np.array([-1, 16, 16]),
    "columns": np.array([-1, 4, 64]), "m16": weight(16, 16, seed=16), "m4": weight(4, 5, seed=25),
    "one_channel": normal(26, 1, 1, 1, 1), "grid": normal(22, 1, 1, 8, 8),
    "s1": np.float32(0.05), "s2": np.float32(0.11), "z8": np.zeros((), np.int8), "z8u": np.zeros((), np.uint8),
    "order": np.array([2, 0, 3, 1]), "one_i": np.array([1]), "nine": np.array([9]),
    "three": 2 * weight(4, 3, 1, 1, seed=31),
    "last": np.array([-1]), "table": np.array([-0.7, 0.1, 0.25, 1.5], np.float32), "third": np.float32(0.3),
    "minus": np.float32(-1),
}  # fmt: skip
RANKS = {2: "float[N, M] y", 3: "float[N, C, M] y", 4: "float[N, C, H, W] y"}


def built(nodes: str, rank: int = 4, outputs: str = "", **weights: np.ndarray) -> onnx.ModelProto:
    """A network with those of the constants that it names."""
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: value for name, value in (CONSTANTS | weights).items() if name in words}
    return network(nodes, outputs=RANKS[rank] + outputs, weights=used)


def normalised(x: str, y: str, gain: str = "gain", variance: str = "variance") -> str:
    return f"{y} = BatchNormalization ({x}, {gain}, shift, mean, {variance})"


def pair(x: str, y: str, scale: str, zero: str = "z8") -> str:
    return f"{y}_q = QuantizeLinear ({x}, {scale}, {zero}) {y} = DequantizeLinear ({y}_q, {scale}, {zero})"


COUNTED = """
    n_u = Unsqueeze (d, last) n_k = GreaterOrEqual (n_u, table) n_c = Cast <to = 1> (n_k)
    n_s = ReduceSum <keepdims = 0> (n_c, last) n = Mul (n_s, third)
"""
OUT = activation("s", "y", "other")
NETWORKS: dict[str, tuple[str, int]] = {
    "an activation behind a convolution": (f"{D} {activation('d', 'y')}", 4),
    "a convolution's output": (f"{A} y = Conv (a, v)", 4),
    "activation + convolution": (f"{D} s = Add (d, a) {OUT}", 4),
    "convolution + convolution": (f"{D} e = Conv {SAME} (a, v2) s = Add (d, e) {OUT}", 4),
    "activation + activation, of other spacings": (f"{B} t = Add (a, b) s = Conv (t, v2) {OUT}", 4),
    "activation + activation, an output": (f"{D} {activation('d', 'b', 'one_theta')} y = Add (a, b)", 4),
    "concatenated channels of other spacings": (f"{B} t = Concat <axis = 1> (a, b) s = Conv (t, wide) {OUT}", 4),
    "GlobalAveragePool": (f"{F} y = Gemm (f, u, k)", 2),
    "ReduceMean": (f"{A} f = ReduceMean <keepdims = 0> (a, axes) y = Gemm (f, u, k)", 2),
    "AveragePool": (f"{A} p = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (a) f = Flatten (p) "
                    "y = Gemm (f, u16, k)", 2),
    "AveragePool of everything": (f"{A} p = AveragePool <kernel_shape = [8, 8]> (a) f = Flatten (p) "
                                  "y = Gemm (f, u, k)", 2),
    "AveragePool that counts its padding": (f"{A} p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], "
                                            f"count_include_pad = 1> (a) s = Conv (p, v) {OUT}", 4),
    "channels taken apart": (
        f"{D} l, r = Split <axis = 1, num_outputs = 2> (d) t = Add (l, r) {activation('t', 'b')} "
        f"e, f = Split <axis = 1, num_outputs = 2> (a) g = Add (b, f) s = Conv (g, widen) {OUT}",
        4,
    ),
    "channels in another order": (
        f"{D} t = Gather <axis = 1> (d, order) m = Slice (a, one_i, nine, one_i) g = Slice (t, one_i, nine, one_i) "
        f"h = Add (g, m) s = Conv (h, three) {OUT}",
        4,
    ),
    "MaxPool": (f"{A} p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a) s = Conv (p, v) {OUT}", 4),
    "BatchNormalization behind a convolution": (f"{D} {normalised('d', 's')} {OUT}", 4),
    "BatchNormalization behind an activation": (f"{A} {normalised('a', 't')} s = Conv (t, v) {OUT}", 4),
    "BatchNormalization behind a sum": (f"{D} t = Add (a, d) {normalised('t', 's')} {OUT}", 4),
    "BatchNormalization with a gain of zero": (f"{A} {normalised('a', 't', 'dead')} s = Conv (t, v) {OUT}", 4),
    "BatchNormalization with a dead channel": (f"{A} {normalised('a', 't', variance='nowhere')} s = Conv (t, v) {OUT}",
                                               4),
    "Sub": (f"{D} s = Sub (a, d) {OUT}", 4),
    "Sub from a convolution, then Neg": (f"{D} t = Sub (d, a) s = Neg (t) {OUT}", 4),
    "Sub from a constant": (f"{D} s = Sub (one_theta, d) {OUT}", 4),
    "Neg": (f"{D} n = Neg (d) s = Add (n, a) {OUT}", 4),
    "Mul behind a sum": (f"{D} t = Add (d, a) m = Mul (t, other) s = Mul (m, one_theta) {OUT}", 4),
    "Div behind a sum": (f"{D} t = Add (d, a) s = Div (t, other) {OUT}", 4),
    "an offset behind a sum": (f"{D} t = Add (d, a) s = Add (t, other) {OUT}", 4),
    "MatMul and a bias": (f"{F} m = MatMul (f, u) y = Add (m, k)", 2),
    "Gemm with factors": (f"{F} y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (f, ut, k)", 2),
    "MatMul of two activations": (f"c = Conv {SAME} (x, w) {activation('c', 'a')} d = Conv {SAME} (a, v) "
                                  f"{activation('d', 'b', 'one_theta')} s = MatMul (a, b) {OUT}", 4),
    "linear bottlenecks": (f"{A} d = Conv (a, narrow) e = Conv (d, widen) {activation('e', 'b')} h = Conv (b, narrow) "
                           f"g = Add (d, h) s = Conv (g, widen) {OUT}", 4),
    "a convolution of a convolution, added to it": (
        f"{A} d = Conv (a, narrow) e = Conv (d, square) y = Add (d, e)",
        4,
    ),
    "a convolution + a multiple of it": (f"{D} m = Mul (d, one_theta) s = Add (d, m) {OUT}", 4),
    "a convolution added to itself": (f"{D} s = Add (d, d) {OUT}", 4),
    "one channel + several": (f"{A} d = Conv {SAME} (a, single) s = Add (d, a) {OUT}", 4),
    "one channel + a convolution": (f"{D} e = Conv {SAME} (a, single) s = Add (e, d) {OUT}", 4),
    "one channel + a number a channel": (f"{A} d = Conv {SAME} (a, single) s = Add (d, other) {OUT}", 4),
    "ConvTranspose in groups": (f"{A} s = ConvTranspose <strides = [2, 2], group = 2> (a, up) "
                                f"{activation('s', 'y')}", 4),
    "depthwise": (f"{A} s = Conv <group = 4> (a, depth) {OUT}", 4),
    "Pad": (f"{A} p = Pad (a, pads) s = Conv (p, v) {OUT}", 4),
    "Relu": (f"{D} r = Relu (d) s = Add (r, a) {OUT}", 4),
    "Reshape that keeps channels": (f"{A} r = Reshape (a, columns) t = Transpose <perm = [0, 2, 1]> (r) "
                                    "y = MatMul (t, m4)", 3),
    "signed activations": (f"{D.replace('zero, one', 'minus, one')} s = Add (d, a) {OUT}", 4),
    "QuantizeLinear of an input": (f"{pair('x', 'q', 's1')} c = Conv (q, w) r = Relu (c) {pair('r', 'a', 's2', 'z8u')} "
                                   "y = Conv (a, v)", 4),
    "counted thresholds": (f"{D} {COUNTED} s = Conv (n, v2) {OUT}", 4),
}  # fmt: skip


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return normal(0, 5, 3, 8, 8)


def run(model: onnx.ModelProto, x: np.ndarray, *, library: bool = False, level=OPTIMISED[0]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    if library:
        return session(model, options=options).run(None, {"x": x})
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})


def bits(values: list[np.ndarray]) -> list[bytes]:
    return [one.tobytes() for one in values]


def assert_same_bits(rewritten: dict[str, Rewriting], x: np.ndarray) -> list[np.ndarray]:
    """Every form, without the library and with it, optimised and not, of all samples and of each alone."""
    expected = run(rewritten["folded"].integers.model, x)
    for name, one in rewritten.items():
        found = {
            "as an ANN": run(one.integers.model, x, level=OPTIMISED[1]),
            "without the library": run(one.model, x),
            "with it": run(one.model, x, library=True),
            "not optimised": run(one.model, x, library=True, level=OPTIMISED[1]),
        }
        for how, values in found.items():
            assert bits(values) == bits(expected), (name, how)
        assert bits(run(one.model, x[2:3], library=True)) == bits([values[2:3] for values in expected]), (name, "alone")
    return expected


def coded(x: np.ndarray) -> np.ndarray:
    """Inputs as their codes are worth."""
    step = np.float32(8 / 255)
    return np.clip(np.rint(x / step), -127, 128) * step


def off(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The mean error as a share of the mean value."""
    return max(float(abs(a - b).mean() / abs(b).mean()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", NETWORKS)
def test_all_forms_have_the_same_bits(case, images, library):
    nodes, rank = NETWORKS[case]
    model = built(nodes, rank)
    inputs = {} if "QuantizeLinear" in nodes else INPUTS
    rewritten = {name: rewrite(model, weights="int8", **inputs, **options) for name, options in FORMS.items()}
    for one in rewritten.values():
        assert one.integers.proof.exact
        assert one.integers.summary()["islands"] == {}
    found = assert_same_bits(rewritten, images)
    expected = run(model, coded(images) if inputs else images, level=OPTIMISED[1])
    # Of weights of 8 bits what they lose, most of it where a value passes a threshold.
    assert off(found, expected) < 0.1


# Sums of sums of so fine weights are more than floats hold.
FINER = [case for case in NETWORKS if case != "a convolution of a convolution, added to it"]


@pytest.mark.parametrize("case", FINER)
def test_with_finer_weights_it_comes_closer_to_the_float_network(case, images, monkeypatch):
    """Units are right: what the form of 8 bits is off is its weights' rounding alone."""
    monkeypatch.setitem(form.BITS, "int8", 18)
    monkeypatch.setattr(scales, "_ROOM", np.inf)
    nodes, rank = NETWORKS[case]
    model = built(nodes, rank)
    inputs = {} if "QuantizeLinear" in nodes else INPUTS
    fine = rewrite(model, weights="int8", mode="folded", dry_run=True, **inputs).integers.model
    expected = run(model, coded(images) if inputs else images, level=OPTIMISED[1])
    assert off(run(fine, images), expected) < 0.006


def test_each_of_two_outputs_has_the_same_bits(images, library):
    model = built(f"{D} s = Add (d, a) {OUT} z = GlobalAveragePool (d)", outputs=", float[N, C, E, F] z")
    rewritten = {name: rewrite(model, weights="int8", **INPUTS, **options) for name, options in FORMS.items()}
    assert off(assert_same_bits(rewritten, images), run(model, coded(images))) < 0.06


# Weights


def weights_of(result: Rewriting) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each layer its weights and bias in the spiking network."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    return [
        (constants[node.input[1]], constants[node.input[2]] if len(node.input) > 2 else np.zeros(1))
        for node in result.model.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and "ones" not in node.input[1]
    ]


@pytest.mark.parametrize(
    ("weights", "mode"), [("int8", "folded"), pytest.param("int4", "parallel", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("case", [case for case in NETWORKS if "MatMul of two" not in case])
def test_weights_are_integers_of_so_many_bits_times_whole_factors(case, mode, weights):
    nodes, rank = NETWORKS[case]
    result = rewrite(built(nodes, rank), weights=weights, mode=mode, **INPUTS)
    highest = {"int8": 128, "int4": 8}[weights]
    layers = [step for step in result.integers.reading.steps if isinstance(step, Layer)]
    for layer, (values, bias) in zip(layers, weights_of(result), strict=True):
        factor = layer.factor
        assert (factor == np.rint(factor)).all()
        assert (factor >= 1).all()
        assert (values == np.rint(values)).all()
        assert (bias == np.rint(bias)).all()
        integers, _ = result.integers.rounding[id(layer)]
        plain = integers / factor.reshape(-1, 1)
        assert (plain == np.rint(plain)).all()
        assert plain.min() >= -highest
        assert plain.max() < highest
        assert sorted(values.reshape(-1)) == sorted(integers.reshape(-1))


@pytest.mark.parametrize("scale", [np.float32(0.02), np.array([0.02, 0.005, 0.1, 3], np.float32)], ids=["one", "each"])
@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_weights_that_are_integers_already_stay_so(scale, mode):
    codes = np.random.default_rng(0).integers(-128, 128, (4, 4, 3, 3)).astype(np.int8)
    codes[:, 0, 0, 0] = [-128, 127, -128, 100]
    codes[:, 0, 0, 1] = [3, 5, 127, -128]
    zero = np.zeros(scale.shape, np.int8)
    # Levels of one spacing for all channels: weights would take other ones in.
    first = A.replace("each", "one_theta")
    nodes = f"{first} q = DequantizeLinear <axis = 0> (codes, scale, zero_point) s = Conv (a, q) {OUT}"
    model = built(nodes, codes=codes, scale=scale, zero_point=zero)
    _, (values, _) = weights_of(rewrite(model, weights="int8", mode=mode, **INPUTS))
    np.testing.assert_array_equal(values, codes)


# Floats

ISLANDS = {
    "Softmax": (f"{F} m = Gemm (f, u, k) y = Softmax (m)", 2, "y", "Softmax computes floats"),
    "a gate": (f"{D} g = Sigmoid (d) y = Mul (g, a)", 4, "g", "Sigmoid computes floats"),
    "AveragePool with other divisors at the border": (
        f"{A} p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a) s = Conv (p, v) {OUT}", 4, "p",
        "divisor differs at the border"),
    "AveragePool in ceil mode": (
        f"{A} p = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a) s = Conv (p, v) {OUT}", 4,
        "p", "divisor differs at the border"),
    "channels that a reshape mixes": (f"{A} r = Reshape (a, rows) y = MatMul (r, m16)", 3, "y", "channels of what it"),
    "channels that are no longer one axis": (f"{B} t = Concat <axis = 2> (a, b) s = Conv (t, v2) {OUT}", 4, "s",
        "it reads 't', which are floats: what its channels are worth cannot be followed through it"),
    "numbers a pixel": (f"{A} t = Add (a, grid) s = Conv (t, v2) {OUT}", 4, "s",
        "it reads 't', which are floats: its constant is not one number a channel"),
    "no finite weights": (f"{A} s = Conv (a, infinite) {OUT}", 4, "s", "its weights are not finite"),
}  # fmt: skip


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("case", ISLANDS)
def test_what_cannot_be_integers_is_named_with_its_reason(case, options):
    nodes, rank, name, reason = ISLANDS[case]
    infinite = CONSTANTS["v"].copy()
    infinite[0, 0, 0, 0] = np.inf
    result = rewrite(built(nodes, rank, infinite=infinite), weights="int8", **INPUTS, **options)
    summary = result.integers.summary()
    assert not summary["exact"]
    assert reason in summary["islands"][name]
    assert summary["layers"]


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_weights_that_the_input_changes_stay_floats(options):
    result = rewrite(
        built(f"{A} g = ReduceMax (x) h = Mul (v, g) s = Conv (a, h) {OUT}"), weights="int8", **INPUTS, **options
    )
    assert result.integers.reading.stays["s"] == "its weights are computed"
    assert not result.integers.summary()["exact"]


def test_weights_that_nodes_compute_of_constants_are_integers():
    nodes = f"{A} h = Relu (v) s = Conv (a, h) {OUT}"
    result = rewrite(built(nodes), weights="int8", **INPUTS)
    plain = rewrite(built(nodes.replace("Relu", "Identity"), v=np.maximum(CONSTANTS["v"], 0)), weights="int8", **INPUTS)
    for found, expected in zip(weights_of(result), weights_of(plain), strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
    assert result.integers.proof.exact


BODY = """
    choice = ReduceMax <keepdims = 0> (x)
    flag = Greater (choice, zero)
    s = If (flag) <then_branch = then () => (float[N, 4, 6, 6] s_then) { s_then = Conv (a, v) },
                   else_branch = otherwise () => (float[N, 4, 6, 6] s_else) { s_else = Conv (a, v2) }>
"""


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_a_layer_in_a_body_stays_floats(options, images, library):
    model = network(f"{A} {BODY} {OUT}", outputs=RANKS[4],
                    weights={name: CONSTANTS[name] for name in ("w", "v", "v2", "each", "other")})  # fmt: skip
    result = rewrite(model, weights="int8", **INPUTS, **options)
    assert not result.integers.proof.exact
    assert list(result.integers.summary()["islands"]) == ["s"]
    expected = run(model, coded(images))
    assert off(run(result.model, images, library=True), expected) < 0.06


class Images(CalibrationDataReader):
    """Data for onnxruntime's quantiser."""

    def __init__(self) -> None:
        self.left = [{"x": normal(seed, 4, 3, 8, 8)} for seed in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize(
    ("kind", "per_channel"),
    [
        (QuantType.QUInt8, True),
        (QuantType.QInt8, False),
        pytest.param(QuantType.QUInt8, False, marks=pytest.mark.slow),
        pytest.param(QuantType.QInt8, True, marks=pytest.mark.slow),
    ],
)
def test_what_onnxruntime_quantised_keeps_its_integers(per_channel, kind, images, library, tmp_path):
    nodes = f"""
        c = Conv {SAME} (x, w, shift) a = Relu (c) d = Conv {SAME} (a, v, shift) s = Add (d, a) e = Relu (s)
        p = GlobalAveragePool (e) f = Flatten (p) y = Gemm (f, u, k)
    """
    weights = {name: CONSTANTS[name] for name in ("w", "v", "u", "k", "shift")}
    onnx.save(network(nodes, outputs=RANKS[2], weights=weights, opset=17), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "quantised.onnx", Images(), quant_format=QuantFormat.QDQ,
        per_channel=per_channel, weight_type=QuantType.QInt8, activation_type=kind,
        extra_options={"ActivationSymmetric": kind is QuantType.QInt8, "WeightSymmetric": True},
    )  # fmt: skip
    model = onnx.load(tmp_path / "quantised.onnx")
    rewritten = {name: rewrite(model, weights="int8", **options) for name, options in FORMS.items()}
    found = assert_same_bits(rewritten, images)
    # Codes that lie on a threshold but for the last bit of a float may be others.
    assert off(found, run(model, images, level=OPTIMISED[1])) < 0.003
    form = rewritten["folded"].integers
    assert form.proof.exact
    layers = [step for step in form.reading.steps if isinstance(step, Layer)]
    assert len(layers) == 3
    for layer in layers:
        integers, _ = form.rounding[id(layer)]
        worth = integers * layer.accumulator.root.unit.reshape(-1, 1) / layer.input_unit
        np.testing.assert_allclose(worth, layer.weights, rtol=1e-6, atol=1e-6 * abs(layer.weights).max())
