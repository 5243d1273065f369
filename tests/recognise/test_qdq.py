"""QuantizeLinear and DequantizeLinear: every pair that is a staircase is converted bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from harness import assert_converted, boundaries, definition_of, onnxruntime_of
from networks import MODES, network, weight
from notes import noted
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from opsets import PAIR, known, opsets

from pconv_onnx import PconvError, inspect, rewrite, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.plan.plan import Planned
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.recognise import recognise

RELU = "r = Relu (x) q = QuantizeLinear (r, s, z) y = DequantizeLinear (q, s, z)"
NO_RELU = "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"
AFTER = NO_RELU.replace("(x", "(r")
PER_CHANNEL = np.array([0.013, 0.4, 2.3], dtype=np.float32)
TYPES = {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def pair(nodes: str, scale, zero, *, opset: int = 21, dtype: str = "float", **weights) -> onnx.ModelProto:
    return network(
        nodes,
        inputs=f"{dtype}[N, 3, 1, 1] x",
        outputs=f"{dtype}[N, 3, 1, 1] y",
        weights={"s": np.asarray(scale, dtype=TYPES[dtype]), "z": zero, **weights},
        opset=opset,
        ir_version={23: 11, 25: 13}.get(opset, 10),
    )


def zeros(dtype, value: int = 0, shape: tuple[int, ...] = ()) -> np.ndarray:
    return np.full(shape, value).astype(getattr(ml_dtypes, dtype, dtype) if isinstance(dtype, str) else dtype)


def only(source: onnx.ModelProto, **options) -> Planned:
    """The one quantiser of a model, as the plan has it."""
    plan = make_plan(fold(load(source)), **options)
    (activation,) = (found for found in plan.activations if found.encoding == "qdq")
    return activation


CONVERTED = {
    "int8 after a bounded ReLU": ("r = Clip (x, zero, theta)" + AFTER, 0.025, zeros(np.int8), 80),
    "uint8 after a bounded ReLU": ("r = Clip (x, zero, theta)" + AFTER, 2 / 255, zeros(np.uint8), 255),
    "uint8 after a Clip without an end": ("r = Clip (x, zero)" + AFTER, 0.05, zeros(np.uint8, 7), 248),
    "uint8 after Relu": (RELU, 0.0237, zeros(np.uint8), 255),
    "uint8 without Relu": (NO_RELU, 0.0237, zeros(np.uint8), 255),
    "int8 whose lowest code is zero": (NO_RELU, 0.0237, zeros(np.int8, -128), 255),
    "int8 after Relu": (RELU, 0.0237, zeros(np.int8), 127),
    "a zero-point between, after Relu": (RELU, 0.0237, zeros(np.uint8, 5), 250),
    "per channel": (RELU, PER_CHANNEL, zeros(np.uint8, 0, (3,)), 255),
    "int8 per channel after Relu": (RELU, PER_CHANNEL, zeros(np.int8, 0, (3,)), 127),
    "no zero-point": (RELU.replace(", z)", ")"), 0.0237, zeros(np.uint8), 255),
    "constants of one entry": (RELU, [0.0237], zeros(np.uint8, 0, (1,)), 255),
    "subnormal scale": (RELU, 1e-40, zeros(np.uint8), 255),
    "the largest scale": (RELU, 1.3e36, zeros(np.uint8), 255),
    "codes cast to their own type": ("r = Relu (x) q = QuantizeLinear (r, s, z) c = Cast <to = 2> (q) i = Identity (c)"
                                     " y = DequantizeLinear (i, s, z)", 0.0237, zeros(np.uint8), 255),
}  # fmt: skip


@pytest.mark.every_pair({"case": list(CONVERTED), "opset": opsets(13, 19, 21, 23, 25, nodes=PAIR), "mode": MODES})
def test_pairs_are_converted_bit_by_bit(case, opset, mode):
    nodes, scale, zero, levels = CONVERTED[case]
    source = pair(nodes, scale, zero, opset=opset)
    activation = only(source)
    assert (activation.status, activation.input, activation.output) == ("converted", "x", "y")
    assert_converted(source, onnxruntime_of(source), mode, levels=levels)
    if opset >= 19:  # the evaluator knows no earlier version of the operators
        assert_converted(source, definition_of(source), mode, limit=min(3e38, 2.0**30 * np.min(scale)))


@pytest.mark.parametrize("mode", MODES)
def test_opset_10_is_converted_too(mode):
    source = pair(RELU, 0.0237, zeros(np.uint8), opset=10)
    with noted("uses opset 10; what is written uses opset 17"):
        assert_converted(source, onnxruntime_of(source), mode, levels=255)


def test_what_is_written_verifies():
    source = pair(RELU, PER_CHANNEL, zeros(np.uint8, 0, (3,)))
    result = rewrite(source)
    (neuron,) = result.plan.neurons.values()
    assert verify(source, result.model, {"x": boundaries(neuron, 3)[:100]}).passed


@pytest.mark.parametrize("mode", MODES)
def test_the_type_of_codes_may_be_an_attribute(mode):
    """Without a zero-point, from opset 21 on."""
    nodes = "r = Relu (x) q = QuantizeLinear <output_dtype = 3> (r, s) y = DequantizeLinear (q, s)"
    source = pair(nodes, 0.0237, zeros(np.int8))
    assert_converted(source, definition_of(source), mode, levels=127, limit=1e6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("element, zero, nodes, levels, opset", [
    ("uint4", 0, NO_RELU, 15, 21), ("uint4", 3, RELU, 12, 21), ("int4", -8, NO_RELU, 15, 21), ("int4", 0, RELU, 7, 21),
    ("uint2", 0, NO_RELU, 3, 25), ("uint2", 1, RELU, 2, 25), ("int2", -2, NO_RELU, 3, 25), ("int2", 0, RELU, 1, 25),
])  # fmt: skip
def test_codes_of_few_bits_are_converted_bit_by_bit(element, zero, nodes, levels, opset, mode):
    if not hasattr(ml_dtypes, element) or onnx.defs.onnx_opset_version() < opset or not known(opset):
        pytest.skip(f"{element} is not known to what is installed")
    source = pair(nodes, 0.3, zeros(element, zero), opset=opset)
    assert_converted(source, definition_of(source), mode, levels=levels, limit=1e6)


@pytest.mark.parametrize("element, zero, levels", [("uint16", 0, 65535), ("int16", 0, 32767), ("uint16", 5, 65530)])
def test_codes_of_sixteen_bits_are_converted_but_for_trains_of_equal_spikes(element, zero, levels):
    source = pair(RELU, 0.0237, zeros(element, zero))
    for mode in MODES:
        assert assert_converted(source, onnxruntime_of(source), mode, levels=levels).steps == levels.bit_length()
    told = (
        f"it has {levels} levels and a train of coding 'rate' has up to 256 steps; coding 'radix' takes fewer; "
        "mode 'folded' takes it"
    )
    assert only(source, coding="rate").reason == told
    assert only(source, steps=16).status == "converted"


def require_rounding(source: onnx.ModelProto, scale) -> None:
    """Skip the test where onnxruntime rounds codes of float16 towards zero, as older ones do."""
    largest = np.max(np.asarray(scale, np.float16))
    if not onnxruntime_of(source)(np.full((1, 3, 1, 1), 0.75 * largest, np.float16)).all():
        pytest.skip("this onnxruntime rounds codes of float16 towards zero")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["", "<precision = 10>"])
@pytest.mark.parametrize("opset", opsets(23, 25, nodes=PAIR))
@pytest.mark.parametrize("scale", [0.0237, 1.7, PER_CHANNEL, 6e-6], ids=str)
def test_float16_is_converted_for_every_value(scale, opset, precision, mode):
    """From opset 23 on, where onnx and onnxruntime both divide in that type."""
    nodes = RELU.replace("QuantizeLinear (r", f"QuantizeLinear {precision} (r")
    source = pair(nodes, scale, zeros(np.uint8, 0, np.shape(scale)), opset=opset, dtype="float16")
    require_rounding(source, scale)
    assert_converted(source, onnxruntime_of(source), mode, levels=255)
    # Beyond that quotients are infinite, and the evaluator has no code for them.
    assert_converted(source, definition_of(source), mode, levels=255, limit=60000 * min(1.0, np.min(scale)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.0237, 1.7, PER_CHANNEL, 6e-6], ids=str)
def test_float16_is_converted_as_onnxruntime_computes_it_before_opset_23(scale, mode):
    """Its operator divides in float32, where onnx's reference divides in float16."""
    source = pair(RELU, scale, zeros(np.int8, 0, np.shape(scale)), opset=19, dtype="float16")
    require_rounding(source, scale)
    assert_converted(source, onnxruntime_of(source), mode, levels=127)
    assert verify(source, rewrite(source).model).verdict == "equal"


def test_bfloat16_is_quantised_as_onnx_defines_it():
    """Every value; onnxruntime cannot run the source."""
    source = pair(RELU, PER_CHANNEL, zeros("uint4", 0, (3,)), opset=23, dtype="bfloat16")
    neuron = only(source).spec.neuron()
    x = boundaries(neuron, 3, ml_dtypes.bfloat16, limit=1e6)
    np.testing.assert_array_equal(neuron.value(neuron.search_form(x)), definition_of(source)(x), strict=True)


CLIPPED = {
    "both bounds": ("c = Clip (q, low, high)", np.uint8, 0, 0, 15, 15),
    "no lower bound": ("c = Clip (q, , high)", np.uint8, 0, 0, 127, 127),
    "no upper bound": ("c = Clip (q, low)", np.int8, -8, -8, 0, 135),
    "no bounds": ("c = Clip (q)", np.uint8, 0, 0, 0, 255),
    "a narrow range": ("c = Clip (q, low, high)", np.int8, -127, -127, 127, 254),
    "Max and Min": ("m = Max (low, q) c = Min (m, high)", np.uint8, 2, 2, 7, 5),
    "two in a row": ("m = Clip (q, , high) c = Clip (m, low, top)", np.uint8, 0, 0, 7, 7),
}


def clipped(clip: str, dtype, zero: int, low: int, high: int, nodes: str = NO_RELU) -> onnx.ModelProto:
    nodes = nodes.replace("y = DequantizeLinear (q", f"{clip} y = DequantizeLinear (c")
    bounds = {"low": zeros(dtype, low), "high": zeros(dtype, high), "top": zeros(dtype, 99)}
    return pair(nodes, 0.3, zeros(dtype, zero), **bounds)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nodes", [NO_RELU, RELU], ids=["no Relu", "Relu"])
@pytest.mark.parametrize("case", CLIPPED)
def test_clipped_codes_are_converted_bit_by_bit(case, nodes, mode):
    *arguments, levels = CLIPPED[case]
    source = clipped(*arguments, nodes)
    try:
        expected = onnxruntime_of(source)
    except PconvError as error:
        # onnxruntime up to 1.23 has no Max of 8 bits.
        if case != "Max and Min" or "does not compute it" not in error.message:
            raise
        pytest.skip(error.message)
    assert_converted(source, expected, mode, levels=levels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype, zero, low, high, levels", [
    (np.int8, 0, -8, 7, 15), (np.uint8, 128, 0, 255, 255), (np.int8, 0, -128, 127, 255), (np.int8, 0, -127, 127, 254),
])  # fmt: skip
def test_signed_values_are_converted_bit_by_bit(dtype, zero, low, high, levels, mode):
    source = clipped("c = Clip (q, low, high)", dtype, zero, low, high)
    assert assert_converted(source, onnxruntime_of(source), mode, levels=levels).coding.zero == zero - low


@pytest.mark.parametrize("mode", MODES)
def test_values_without_a_zero_among_them_are_converted_where_asked_for(mode):
    source = clipped("c = Clip (q, low, high)", np.uint8, 0, 3, 15)
    assert "its lowest value is not zero, nor is another" in only(source).reason
    assert_converted(source, onnxruntime_of(source), mode, levels=12, signed=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reader", ["", "n = Neg (r)"])
def test_a_relu_that_is_needed_elsewhere_stays(reader, mode):
    """What it gives to the quantiser is not negative all the same."""
    other = "n" if reader else "r"
    shape = "float[N, 3, 1, 1]"
    source = network(f"{RELU} {reader}", inputs=f"{shape} x", outputs=f"{shape} y, {shape} {other}",
                     weights={"s": 0.3, "z": zeros(np.int8)})  # fmt: skip
    activation = only(source)
    assert (activation.input, activation.op_types) == ("r", ["QuantizeLinear", "DequantizeLinear"])
    assert_converted(source, onnxruntime_of(source), mode, levels=127)


BAD_SCALE = "'s', the scale of 'q', is not positive and finite; calibrate again"
REFUSED = {
    "scale zero": (pair(RELU, 0.0, zeros(np.uint8)), BAD_SCALE),
    "scale negative": (pair(RELU, -1.0, zeros(np.uint8)), BAD_SCALE),
    "scale infinite": (pair(RELU, np.inf, zeros(np.uint8)), BAD_SCALE),
    "scale NaN": (pair(RELU, np.nan, zeros(np.uint8)), BAD_SCALE),
    "one scale NaN": (pair(RELU, [0.1, np.nan, 0.1], zeros(np.uint8, 0, (3,))), BAD_SCALE),
    "one scale zero": (pair(RELU, [0.1, 0.1, 0.0], zeros(np.uint8, 0, (3,))), BAD_SCALE),
    "levels that overflow": (
        pair(RELU, 3e36, zeros(np.uint8)),
        "its levels are not finite and ascending in float32, with a scale of 'q' of up to 3e+36; calibrate again"),
    "one level that overflows": (
        pair(RELU, [0.1, 0.1, 1e38], zeros(np.uint8, 0, (3,))), "with a scale of 'q' of up to 1e+38"),
    "levels that bfloat16 rounds to one": (
        pair(RELU, 0.3, zeros(np.uint8), opset=23, dtype="bfloat16"),
        "its levels are not finite and ascending in bfloat16, with a scale of 'q' of up to 0.300781"),
    "shapes": (
        pair(RELU, PER_CHANNEL, zeros(np.uint8)), "'q' has a scale of shape [3] and a zero-point of []"),
    "too many scales": (
        pair(RELU, [0.1] * 4, zeros(np.uint8, 0, (4,))), "'s' holds 4 scales, which do not run along a channel axis"),
    "an axis that is none": (
        pair(NO_RELU.replace("(x", "<axis = 7> (x").replace("(q", "<axis = 7> (q"), PER_CHANNEL,
             zeros(np.uint8, 0, (3,))),
        "'s' holds 3 scales, which do not run along a channel axis"),
    "codes of no type": (
        pair("q = QuantizeLinear <output_dtype = 999> (x, s) y = DequantizeLinear (q, s)", 0.1, zeros(np.uint8)),
        "'q' writes codes of an unknown type; export it again"),
    "codes that are cast to no type": (
        pair("q = QuantizeLinear (x, s, z) c = Cast <to = 999> (q) y = DequantizeLinear (c, s, z)", 0.1,
             zeros(np.uint8)),
        "'c' casts the codes of 'q' to another type; export in one type of codes"),
    "values of no type": (
        pair("q = QuantizeLinear (x, s, z) y = DequantizeLinear <output_dtype = 999> (q, s, z)", 0.1, zeros(np.uint8),
             opset=23),
        "'q' quantises float32 with scales or values of an unknown type; export one type"),
    "another scale": (
        pair("q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, t, z)", 0.1, zeros(np.uint8), t=np.float32(0.2)),
        "'q' and 'y' have unequal scales, zero-points or axes; export them in pairs"),
    "another zero-point": (
        pair("q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, t)", 0.1, zeros(np.uint8), t=zeros(np.uint8, 1)),
        "'q' and 'y' have unequal scales, zero-points or axes; export them in pairs"),
    "another axis": (
        network("q = QuantizeLinear <axis = 1> (x, s, z) y = DequantizeLinear <axis = 2> (q, s, z)",
                inputs="float[N, 3, 3, 1] x", outputs="float[N, 3, 3, 1] y",
                weights={"s": PER_CHANNEL, "z": zeros(np.uint8, 0, (3,))}),
        "'q' and 'y' have unequal scales, zero-points or axes; export them in pairs"),
    "computed scale": (
        pair("t = Exp (s) q = QuantizeLinear (x, t, z) y = DequantizeLinear (q, t, z)", 0.1, zeros(np.uint8)),
        "'t', an operand of 'q', is not a constant; quantise statically"),
    "scale of the user": (
        network(NO_RELU, inputs="float[N, 3, 1, 1] x, float s", outputs="float[N, 3, 1, 1] y",
                weights={"z": zeros(np.uint8)}),
        "'s', an operand of 'q', is not a constant; quantise statically"),
    "scales of blocks": (
        pair("q = QuantizeLinear <axis = 1, block_size = 3> (x, s, z)"
             "y = DequantizeLinear <axis = 1, block_size = 3> (q, s, z)",
             np.full((2, 1, 1, 1), 0.1), zeros(np.uint8, 0, (2, 1, 1, 1))),
        "'q' has a scale for each block; export one scale per tensor or per channel"),
    "float8": (
        pair(RELU, 0.1, zeros("float8_e4m3fn"), opset=19),
        "'q' writes codes of float8_e4m3fn; quantise to integers, such as uint8"),
    "codes of another type": (
        pair("q = QuantizeLinear (x, s, z) c = Cast <to = 6> (q) y = DequantizeLinear (c, s)", 0.1, zeros(np.uint8)),
        "'c' casts the codes of 'q' to another type; export in one type of codes"),
    "codes used elsewhere": (
        pair("q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) c = Cast <to = 1> (q) y = Add (c, d)", 0.1,
             zeros(np.uint8)),
        "its codes are also read by Cast 'c'; export with QuantizeLinear and DequantizeLinear in pairs"),
    "clipped codes used elsewhere": (
        pair("q = QuantizeLinear (x, s, z) c = Clip (q, z) d = DequantizeLinear (c, s, z) f = Cast <to = 1> (c)"
             "y = Add (f, d)", 0.1, zeros(np.uint8)),
        "its codes are also read by Cast 'f'; export with QuantizeLinear and DequantizeLinear in pairs"),
    "codes that are handed out": (
        network(NO_RELU, outputs="float[N, 3, 8, 8] y, uint8[N, 3, 8, 8] q", weights={"s": 0.1, "z": zeros(np.uint8)}),
        "its codes 'q' are also an output of the model"),
    "codes that nothing reads": (
        pair("q = QuantizeLinear (x, s, z) y = Neg (x)", 0.1, zeros(np.uint8)), "nothing reads its codes"),
    "no DequantizeLinear": (
        pair("q = QuantizeLinear (x, s, z) y = Cast <to = 1> (q)", 0.1, zeros(np.uint8)),
        "its codes 'y' are also an output of the model"),
    "two readers": (
        pair("q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) e = DequantizeLinear (q, t, z)"
             "y = Add (d, e)", 0.1, zeros(np.uint8), t=np.float32(0.2)),
        "its codes are read by 2 unequal DequantizeLinear; export one for each"),
    "unequal channels": (
        pair(RELU, PER_CHANNEL, np.array([0, 1, 2], np.uint8)),
        "its channels have from 253 to 255 levels; one number for all is needed"),
    "bounds that leave nothing": (
        clipped("c = Clip (q, low, high)", np.uint8, 0, 9, 4), "the codes of 'q' have no range"),
    "bounds that leave one code": (
        clipped("c = Clip (q, low, high)", np.uint8, 0, 4, 4), "the codes of 'q' have no range"),
    "nothing above zero": (
        clipped("c = Clip (q, low, high)", np.int8, 9, -9, 9, RELU), "the codes of 'q' have no range"),
    "a computed bound": (
        clipped("b = Sub (high, low) d = ReduceMax <keepdims = 0> (b) c = Clip (q, low, d)", np.uint8, 0, 0, 9),
        "'d', a bound of 'c', is computed; export constant bounds"),
    "computed bounds": (
        clipped("b = ReduceMax <keepdims = 0> (low) c = Max (q, b)", np.uint8, 0, 0, 9),
        "'c' clips codes by something computed; export constant bounds"),
    "bounds for each channel": (
        pair("q = QuantizeLinear (x, s, z) c = Min (q, m) y = DequantizeLinear (c, s, z)", 0.1, zeros(np.uint8),
             m=zeros(np.uint8, 7, (3, 1, 1))),
        "'m', a bound of 'c', has 3 values; export one for all"),
    "bfloat16 before opset 23": (
        pair(RELU, 0.1, zeros(np.uint8), dtype="bfloat16"),
        "'q' quantises bfloat16 before opset 23; export with that"),
    "float32 divided in float16": (
        pair(RELU.replace("QuantizeLinear (r", "QuantizeLinear <precision = 10> (r"), 0.1, zeros(np.uint8), opset=23),
        "'q' divides float32 in float16; export without a precision"),
    "float32 with scales of float16": (
        pair("q = QuantizeLinear (x, h, z) y = DequantizeLinear <output_dtype = 1> (q, h, z)", 0.1, zeros(np.uint8),
             opset=23, h=np.array(0.1, np.float16)),
        "'q' quantises float32 with scales or values of float16; export one type"),
    "float16 with codes of sixteen bits": (
        pair(RELU, 0.001, zeros(np.int16), opset=23, dtype="float16"),
        "float16 cannot tell the codes of 'q' apart; quantise float32"),
    "integers": (
        network("i = Cast <to = 6> (x) q = QuantizeLinear (i, s, z) y = DequantizeLinear (q, s, z)", opset=17,
                weights={"s": 0.1, "z": zeros(np.uint8)}),
        "'q' quantises int32; float32, float16, bfloat16 are supported"),
    "a scalar": (
        network(NO_RELU, inputs="float x", outputs="float y", weights={"s": 0.1, "z": zeros(np.uint8)}),
        "its input is a scalar, without rows for time-steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_quantisers_are_refused_with_the_reason(case):
    source, reason = REFUSED[case]
    activation = only(source)
    assert activation.status == "refused"
    assert reason in activation.reason
    assert "\n" not in activation.reason


@pytest.mark.parametrize("nodes, element, levels, mode", [
    (RELU, np.uint16, 65535, "folded"), (NO_RELU, np.uint16, 65535, "folded"), (RELU, np.int16, 32767, "folded"),
    (RELU, np.uint8, 255, "parallel"), (RELU, np.int8, 127, "parallel"),
])  # fmt: skip
def test_quantisers_of_onnxruntime_s_own_domain_are_converted(nodes, element, levels, mode):
    """Its quantize_static writes them for codes of 16 bits before opset 21."""
    source = pair(nodes, 0.0237, zeros(element), opset=20)
    for node in source.graph.node:
        node.domain = "com.microsoft" if node.op_type.endswith("Linear") else ""
    source.opset_import.add(domain="com.microsoft", version=1)
    assert_converted(source, onnxruntime_of(source), mode, levels=levels)


AFTER_A_PAIR = "p = QuantizeLinear (x, t, u) d = DequantizeLinear (p, t, u) r = Relu (d)" + AFTER
REQUANTISED = {
    "the same scale": (AFTER_A_PAIR, 0.0237, 0.0237, 127),
    "a coarser one": (AFTER_A_PAIR, 0.05, 0.0237, 60),
    "a finer one, which some codes of never come": (AFTER_A_PAIR, 0.0237, 0.0411, 127),
    "a clip between": (AFTER_A_PAIR.replace("Relu (d)", "Clip (d, zero, theta)"), 0.0237, 0.0411, 84),
    "scales per channel": (AFTER_A_PAIR, PER_CHANNEL, PER_CHANNEL, 127),
    "the first alone per channel": (AFTER_A_PAIR, 0.01, np.float32([0.02, 0.04, 0.1]), 127),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", REQUANTISED)
def test_two_pairs_around_a_clip_are_one_neuron(case, mode):
    nodes, scale, first, levels = REQUANTISED[case]
    source = pair(nodes, scale, zeros(np.int8, 0, np.shape(scale)), t=np.float32(first),
                  u=zeros(np.int8, 0, np.shape(first)))  # fmt: skip
    assert only(source).op_types == [node.op_type for node in source.graph.node]
    assert_converted(source, onnxruntime_of(source), mode, levels=levels)


def test_two_pairs_have_even_thresholds_where_their_scales_say_so():
    signed = {"t": np.float32(0.0237), "u": zeros(np.int8)}
    even, uneven = (only(pair(AFTER_A_PAIR, scale, zeros(np.int8), **signed)).spec for scale in (0.0237, 0.0411))
    assert even.threshold is not None
    assert uneven.threshold is None
    reason = only(pair(AFTER_A_PAIR, 0.0411, zeros(np.int8), **signed), steps=8).reason
    assert "its thresholds are not evenly spaced" in reason


def test_two_pairs_along_unequal_axes_are_two():
    nodes = AFTER_A_PAIR.replace("(r, s, z)", "<axis = 2> (r, s, z)").replace("(q, s, z)", "<axis = 2> (q, s, z)")
    shape = "float[N, 3, 2, 1]"
    weights = {
        "s": np.float32([0.1, 0.2]),
        "z": zeros(np.int8, 0, (2,)),
        "t": PER_CHANNEL,
        "u": zeros(np.int8, 0, (3,)),
    }
    found = inspect(network(nodes, inputs=f"{shape} x", outputs=f"{shape} y", weights=weights))["activations"]
    assert [row["status"] for row in found if row["encoding"] == "qdq"] == ["converted", "converted"]


@pytest.mark.parametrize("nodes, outputs, first", [
    (AFTER_A_PAIR + "o = Neg (d)", "o", "converted"), (AFTER_A_PAIR + "o = Neg (r)", "o", "converted"),
    (AFTER_A_PAIR, "d", "converted"), (AFTER_A_PAIR.replace("(p, t, u)", "(p, v, u)"), "", "refused"),
])  # fmt: skip
def test_two_pairs_that_are_not_one_neuron_are_listed_each(nodes, outputs, first):
    shape = "float[N, 3, 1, 1]"
    handed_out = ", ".join(f"{shape} {name}" for name in ("y", outputs) if name)
    weights = {"s": 0.0237, "z": zeros(np.int8), "t": 0.0237, "u": zeros(np.int8), "v": 0.1}
    source = network(nodes, inputs=f"{shape} x", outputs=handed_out, weights=weights)
    found = [row for row in inspect(source)["activations"] if row["encoding"] == "qdq"]
    assert [row["status"] for row in found] == [first, "converted"]
    assert found[1]["op_types"][-3:] in (["Relu", "QuantizeLinear", "DequantizeLinear"],
                                         ["QuantizeLinear", "DequantizeLinear"])  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.0, -1.0, np.inf, np.nan, 3e36])
def test_the_rest_of_a_network_is_converted(scale, mode):
    bad = "r = Relu (x) q = QuantizeLinear (r, s, z) d = DequantizeLinear (q, s, z)"
    nodes = f"{bad} t = Relu (x) p = QuantizeLinear (t, u, z) y = DequantizeLinear (p, u, z)"
    shape = "float[N, 3, 1, 1]"
    source = network(nodes, inputs=f"{shape} x", outputs=f"{shape} y, {shape} d",
                     weights={"s": scale, "u": 0.1, "z": zeros(np.uint8)})  # fmt: skip
    assert_converted(source, onnxruntime_of(source), mode, levels=255)
    # Unoptimised: onnxruntime takes scales for positive and drops a Relu for them.
    x = np.float32([-1, 0, 1, 2, 3]).reshape(-1, 1, 1, 1).repeat(3, axis=1)
    left, right = (onnxruntime_of(model, "d")(x) for model in (source, rewrite(source, mode=mode).model))
    np.testing.assert_array_equal(left, right)


WEIGHTS = {
    "quantised": "q = QuantizeLinear (w, s, z) d = DequantizeLinear (q, s, z)",
    "clipped": "q = QuantizeLinear (w, s, z) c = Clip (q, z) d = DequantizeLinear (c, s, z)",
    "transposed": "t = Transpose <perm = [0, 1, 3, 2]> (w) q = QuantizeLinear (t, s, z) d = DequantizeLinear (q, s, z)",
    "computed": "e = Exp (w) q = QuantizeLinear (e, s, z) d = DequantizeLinear (q, s, z)",
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_quantised_weights_are_no_activation(case):
    model = network(f"{WEIGHTS[case]} y = Conv (x, d)", outputs="float[N, 3, 8, 8] y",
                    weights={"w": weight(3, 3, 1, 1), "s": np.float32(0.1), "z": zeros(np.int8)})  # fmt: skip
    assert recognise(load(model)) == []


class Images(CalibrationDataReader):
    """Calibration data for onnxruntime's quantiser."""

    def __init__(self) -> None:
        self.batches = iter(np.random.default_rng(1).normal(0, 1, (4, 8, 3, 8, 8)).astype(np.float32))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("activations, per_channel", [(QuantType.QUInt8, False), (QuantType.QInt8, True)])
def test_a_network_of_onnxruntime_s_quantiser_is_converted(tmp_path, activations, per_channel, mode):
    nodes = """
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w) r = Relu (a)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) b = Conv <kernel_shape = [3, 3]> (p, v) t = Relu (b)
        g = GlobalAveragePool (t) f = Flatten (g) y = Gemm (f, u)
    """
    weights = {"w": 2 * weight(8, 3, 3, 3), "v": 2 * weight(8, 8, 3, 3, seed=1), "u": weight(8, 5, seed=2)}
    onnx.save(network(nodes, outputs="float[N, 5] y", weights=weights, opset=17), tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "qdq.onnx", Images(), quant_format=QuantFormat.QDQ,
        activation_type=activations, per_channel=per_channel,
    )  # fmt: skip
    summary = inspect(tmp_path / "qdq.onnx")
    converted = [row for row in summary["activations"] if row["status"] == "converted"]
    assert [row["levels"] for row in converted] == [255] * len(converted)
    assert len(converted) >= 2
    assert all(
        "its lowest value is not zero" in row["reason"] for row in summary["activations"] if row["status"] == "refused"
    )
    rewrite(tmp_path / "qdq.onnx", tmp_path / "snn.onnx", mode=mode)
    x = np.random.default_rng(2).normal(0, 1, (20, 3, 8, 8)).astype(np.float32)
    verification = verify(tmp_path / "qdq.onnx", tmp_path / "snn.onnx", {"x": x})
    assert verification.passed
    assert verification.unoptimised.agreeing >= 19
