"""Quant, BipolarQuant and MultiThreshold: converted bit by bit, compared with qonnx's own execution of them."""

from __future__ import annotations

import importlib.resources
import warnings

import numpy as np
import onnx
import pytest
import torch
from harness import assert_converted
from networks import weight
from notes import noted
from onnx import helper

from pconv_onnx import inspect, rewrite, session, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.qonnx import DOMAINS
from pconv_onnx.recognise import recognise

pytest.importorskip("qonnx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
    import brevitas.quant
    from brevitas.export import export_qonnx
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.custom_op.general.bipolar_quant import binary_quant
    from qonnx.custom_op.general.intquant import int_quant
    from qonnx.custom_op.general.multithreshold import multithreshold
    from qonnx.transformation.infer_shapes import InferShapes

PER_CHANNEL = np.array([0.013, 0.4, 2.3], dtype=np.float32).reshape(1, 3, 1, 1)
MODES = pytest.mark.parametrize("mode", ["parallel", "folded"])
ROUNDING_MODES = ["ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]


def float32(value) -> np.ndarray:
    return np.asarray(value, dtype=np.float32)


def quantised(
    op_type, operands, *, relu=False, domain=DOMAINS[0], shape=("N", 3, 1, 1), opset=20, before="", **attributes
):
    """A model `y = op(x)`, or of Relu(x); `before` are nodes that compute operands."""
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu")] if relu else []
    nodes.append(
        helper.make_node(op_type, ["r" if relu else "x", *operands], ["y"], "quant", domain=domain, **attributes)
    )
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in operands.items() if value is not None]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], initializers)
    if before:
        graph.node.insert(0, helper.make_node(before, ["scale_"], ["scale"]))
        graph.initializer.append(onnx.numpy_helper.from_array(float32(0.1), "scale_"))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.checker.check_model(model)
    return model


def quant(scale, zero=0.0, bits=4, *, signed=0, narrow=0, rounding_mode="ROUND", **options):
    operands = {"scale": float32(scale), "zero": float32(zero), "bits": float32(bits)}
    model = quantised("Quant", operands, signed=signed, narrow=narrow, rounding_mode=rounding_mode, **options)

    def oracle(x):
        x = np.maximum(x, 0) if options.get("relu") else x
        with np.errstate(all="ignore"):
            return int_quant(x, *operands.values(), signed, narrow, rounding_mode)

    return model, oracle


@MODES
@pytest.mark.parametrize("rounding_mode", ROUNDING_MODES)
@pytest.mark.parametrize("scale", [0.25, 0.0237, PER_CHANNEL], ids=["ties", "scalar", "per channel"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_quant_is_converted_in_each_rounding_mode(rounding_mode, scale, domain, mode):
    source, oracle = quant(scale, rounding_mode=rounding_mode, domain=domain)
    assert_converted(source, oracle, mode, levels=15)


@MODES
@pytest.mark.parametrize("bits, narrow, levels", [(1, 0, 1), (2, 0, 3), (2, 1, 2), (3, 0, 7), (8, 0, 255), (8, 1, 254)])
def test_the_bit_width_and_narrow_give_the_levels(bits, narrow, levels, mode):
    source, oracle = quant(0.25, bits=bits, narrow=narrow)
    assert_converted(source, oracle, mode, levels=levels)


@pytest.mark.parametrize("bits, levels", [(12, 4095), (16, 65535)])
def test_many_levels_are_carried_by_digits(bits, levels):
    source, oracle = quant(0.01, bits=bits)
    for mode in ("parallel", "folded"):
        assert assert_converted(source, oracle, mode, levels=levels).steps == bits


@MODES
@pytest.mark.parametrize("zero", [3.0, 4.0, 2.5])
@pytest.mark.parametrize("rounding_mode", ROUNDING_MODES)
def test_a_zero_point_moves_the_ties(zero, rounding_mode, mode):
    """It is added before the rounding: of an odd one halves go the other way."""
    source, oracle = quant(0.25, zero, relu=True, rounding_mode=rounding_mode)
    assert_converted(source, oracle, mode, signed=zero == 2.5)


@MODES
@pytest.mark.parametrize("bits, narrow, levels", [(4, 0, 7), (8, 1, 127)])
def test_signed_codes_after_a_relu_start_at_zero(bits, narrow, levels, mode):
    source, oracle = quant(0.0237, bits=bits, narrow=narrow, signed=1, relu=True)
    assert_converted(source, oracle, mode, levels=levels)


@MODES
@pytest.mark.parametrize("rounding_mode", ROUNDING_MODES)
@pytest.mark.parametrize("narrow, levels", [(0, 15), (1, 14)])
def test_signed_values_are_converted_bit_by_bit(narrow, levels, rounding_mode, mode):
    source, oracle = quant(0.0237, signed=1, narrow=narrow, rounding_mode=rounding_mode)
    assert assert_converted(source, oracle, mode, levels=levels).coding.zero == 8 - narrow


@MODES
@pytest.mark.parametrize("scale", [0.7, PER_CHANNEL], ids=["scalar", "per channel"])
def test_two_values_are_one_level(scale, mode):
    source = quantised("BipolarQuant", {"scale": float32(scale)})
    assert_converted(source, lambda x: binary_quant(x, float32(scale)), mode, levels=1, signed=True)
    assert "its lowest value is not zero" in inspect(source)["activations"][0]["reason"]
    one_bit, oracle = quant(scale, 0.25, 1, signed=1)
    assert_converted(one_bit, oracle, mode, levels=1, signed=True)


def thresholds_of(rows: int, count: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).normal(1, 1, (rows, count)).astype(np.float32), axis=1)


@MODES
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("count", [1, 3, 15, 255])
@pytest.mark.parametrize("out_scale, out_bias", [(1.0, 0.0), (0.3, 0.0), (0.5, -1.5)])
def test_thresholds_of_any_spacing_are_converted(rows, count, out_scale, out_bias, mode):
    table = thresholds_of(rows, count)
    source = quantised(
        "MultiThreshold", {"thresholds": table}, data_layout="NCHW", out_dtype="INT32", out_scale=out_scale,
        out_bias=out_bias,
    )  # fmt: skip

    def oracle(x):
        return multithreshold(x, table, out_scale, out_bias)

    neuron = assert_converted(source, oracle, mode, levels=count, signed=out_bias != 0)
    np.testing.assert_array_equal(neuron.thresholds, table)


@MODES
@pytest.mark.parametrize("layout", ["NHWC", "", "NCHW"])
def test_the_layout_says_where_channels_are(layout, mode):
    table = thresholds_of(3, 15)
    shape = ("N", 5, 7, 3) if layout == "NHWC" else ("N", 3, 5, 7)
    attributes = {"data_layout": layout} if layout else {}
    source = quantised("MultiThreshold", {"thresholds": table}, shape=shape, out_dtype="UINT4", **attributes)
    result = rewrite(source, mode=mode)
    x = np.random.default_rng(1).normal(1, 1, (4, *shape[1:])).astype(np.float32)
    expected = multithreshold(x, table, channels_last=layout == "NHWC")
    np.testing.assert_array_equal(session(result.model).run(None, {"x": x})[0], expected)
    assert verify(source, result.model, {"x": x}).passed


def test_many_thresholds_are_compiled_in_time():
    table = np.sort(np.random.default_rng(0).normal(0, 1, (3, 20000)).astype(np.float32))
    source = quantised("MultiThreshold", {"thresholds": table})
    (neuron,) = rewrite(source, mode="folded").plan.neurons.values()
    np.testing.assert_array_equal(neuron.thresholds, table)


@pytest.mark.parametrize("shape", [("N",), ("N", 3)])
def test_a_layout_of_more_axes_than_there_are_is_told_or_does_not_matter(shape):
    table = thresholds_of(3, 3)
    (row,) = inspect(quantised("MultiThreshold", {"t": table}, shape=shape, data_layout="NHWC"))["activations"]
    assert "have no such channels on axis 3" in row["reason"]
    source = quantised("MultiThreshold", {"t": table[:1]}, shape=shape, data_layout="NHWC")
    assert verify(source, rewrite(source).model).passed


def test_equal_thresholds_are_not_evenly_spaced():
    source = quantised("MultiThreshold", {"thresholds": np.ones((1, 3), dtype=np.float32)})
    (row,) = inspect(source)["activations"]
    assert (row["status"], row["rms_error"]) == ("converted", None)
    assert verify(source, rewrite(source).model).passed


def test_evenly_spaced_thresholds_may_have_other_steps():
    even = (np.arange(15, dtype=np.float32) + 0.5)[np.newaxis] / 4
    (row,) = rewrite(quantised("MultiThreshold", {"thresholds": even}), steps=5).summary()["activations"]
    assert (row["levels"], row["steps"], row["rms_error"] > 0) == (15, 5, True)
    uneven = quantised("MultiThreshold", {"thresholds": thresholds_of(1, 15)})
    with pytest.raises(Exception, match="its thresholds are not evenly spaced"):
        rewrite(uneven, steps=5)


REFUSED = {
    "scale zero": (quant(0.0)[0], "'scale', the scale of 'quant', is not positive"),
    "scale negative": (quant(-1.0)[0], "'scale', the scale of 'quant', is not positive"),
    "one scale negative": (quant(PER_CHANNEL * [[[[1]], [[-1]], [[1]]]])[0], "the scale of 'quant', is not positive"),
    "scale infinite": (quant(np.inf)[0], "'scale', an operand of 'quant', is not finite"),
    "scale NaN": (quant(np.nan)[0], "'scale', an operand of 'quant', is not finite"),
    "zero-point NaN": (quant(0.1, np.nan)[0], "'zero', an operand of 'quant', is not finite"),
    "scale of another shape": (quant(np.ones(2))[0], "'scale' holds 2 values along axis 3, where the activation has 1"),
    "a scale for each row": (quant(np.full((2, 1, 1, 1), 0.1))[0], "'scale' runs along axis 0"),
    "levels overflow": (quant(3e38)[0], "its levels are not finite and ascending"),
    "levels underflow": (quant(1e-45, bits=24)[0], "it has 1.67772e+07 levels; 1 to 65535 are possible"),
    "bits of a fraction": (quant(0.1, bits=3.5)[0], "its bit width is 3.5; a whole number from 1 to 32 is needed"),
    "bits for each channel": (quant(0.1, bits=[[4], [4]])[0], "its bit width is not one constant"),
    "no such rounding": (quant(0.1, rounding_mode="SOMEHOW")[0], "its rounding_mode 'SOMEHOW' is not one of ROUND, "),
    "unequal channels": (quant(0.1, float32([0, 1, 2]).reshape(3, 1, 1), relu=True)[0], "channels have from 13 to 15"),
    "computed scale": (
        quantised("Quant", {"scale": None, "zero": float32(0), "bits": float32(4)}, before="Exp", signed=0, narrow=0),
        "'scale', an operand of 'quant', is computed; a constant is needed",
    ),
    "thresholds that fall": (
        quantised("MultiThreshold", {"t": float32([[1, 3, 2]])}), "'t', the thresholds of 'quant', do not ascend",
    ),
    "thresholds of NaN": (quantised("MultiThreshold", {"t": float32([[1, np.nan]])}), "of 'quant', do not ascend"),
    "thresholds of one axis": (quantised("MultiThreshold", {"t": float32([1, 2])}), "have shape [2]; [channels or 1"),
    "thresholds for others": (quantised("MultiThreshold", {"t": thresholds_of(4, 3)}), "have 4 rows, and the data of"),
    "falling values": (quantised("MultiThreshold", {"t": thresholds_of(1, 3)}, out_scale=-1.0), "and ascending"),
    "bits that are no number": (
        quantised("Quant", {"scale": float32(1), "zero": float32(0), "bits": np.array("four", object)}),
        "its bit width is not one constant",
    ),
    "a complex scale": (
        quantised("Quant", {"scale": np.complex64(1), "zero": float32(0), "bits": float32(4)}, signed=0),
        "'scale', an operand of 'quant', is computed",
    ),
    "no operands": (quantised("Quant", {}), "its bit width is not one constant"),
    "no scale": (quantised("BipolarQuant", {}), "'quant' has 1 inputs"),
    "no thresholds": (quantised("MultiThreshold", {}), "'quant' has 1 inputs"),
    "values that are no number": (
        quantised("MultiThreshold", {"t": thresholds_of(1, 3)}, out_scale=[1.0]), "its out_scale is not a number",
    ),
    "a sign that is no number": (quant(0.1, signed="no")[0], "its signed is not a number"),
    "truncation": (
        quantised("Trunc", dict.fromkeys("szb", float32(1)) | {"t": float32(1)}),
        "there is no neuron for Trunc; export its quantiser as Quant",
    ),
    "floats": (
        quantised("FloatQuant", dict.fromkeys("semb", float32(1)) | {"v": float32(1)}),
        "there is no neuron for FloatQuant; export its quantiser as Quant",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_quantisers_are_refused_with_the_reason(case):
    source, reason = REFUSED[case]
    (activation,) = (found for found in recognise(load(source)) if found.encoding == "qonnx")
    assert activation.status == "refused"
    assert reason in activation.reason


def custom(nodes: str, outputs: str, weights, *, opset: int = 20) -> onnx.ModelProto:
    """A model of the given nodes, in which `Q` stands for the domain of QONNX."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}, "{DOMAINS[0]}" : 1]>
        test (float[N, 3, 8, 8] x) => ({outputs}) {{ {nodes.replace("Q.", f"{DOMAINS[0]}.")} }}"""
    model = onnx.parser.parse_model(text)
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    return model


def executed(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What qonnx's own execution gives for its one input; it wants every shape as a number."""
    constants = {tensor.name for tensor in model.graph.initializer}
    (start,), (end,) = ([info for info in model.graph.input if info.name not in constants], model.graph.output)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # What it writes for onnxruntime node by node has onnx's newest otherwise, which an older onnxruntime refuses.
        patch.setattr(onnx, "IR_VERSION", model.ir_version)
        wrapper = ModelWrapper(model, make_deepcopy=True)
        wrapper.set_tensor_shape(start.name, list(x.shape))
        return execute_onnx(wrapper.transform(InferShapes()), {start.name: x})[end.name]


PARAMETERS = {"s": float32(0.1), "z": float32(0), "b": float32(4), "u": float32(0.05)}


@MODES
@pytest.mark.parametrize("rounding_mode", ROUNDING_MODES)
def test_what_is_not_converted_runs_all_the_same(rounding_mode, mode):
    """Weights, signed values, a computed scale, one bit, thresholds: onnxruntime has operators for none of these."""
    nodes = f"""
        wq = Q.Quant <signed = 1, narrow = 1, rounding_mode = "{rounding_mode}"> (w, u, z, b)
        a = Conv <pads = [1, 1, 1, 1]> (x, wq)
        r = Relu (a)
        q = Q.Quant <signed = 0, narrow = 0> (r, s, z, b)
        c = Conv (q, v)
        t = Exp (s)
        d = Q.Quant <signed = 1, narrow = 0, rounding_mode = "{rounding_mode}"> (c, t, z, b)
        e = Q.BipolarQuant (d, s)
        f = Q.MultiThreshold <out_bias = -1.0, out_scale = 0.7> (e, thresholds)
        y = Add (d, f)
    """
    weights = {"w": weight(4, 3, 3, 3), "v": 4 * weight(5, 4, 1, 1), "thresholds": thresholds_of(5, 3) / 5}
    source = custom(nodes, "float[N, 5, 8, 8] y", PARAMETERS | weights)
    result = rewrite(source, mode=mode)
    rows = {row["name"]: (row["status"], row["reason"][:30]) for row in result.summary()["activations"]}
    assert rows["r"] == ("converted", "")
    assert rows["d"] == ("refused", "'t', an operand of 'd', is com")
    assert rows["e"][0] == rows["f"][0] == "refused"
    assert len(rows) == 4
    assert not any(node.domain in DOMAINS for node in result.model.graph.node)
    assert not any(entry.domain in DOMAINS for entry in result.model.opset_import)
    x = np.random.default_rng(0).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    expected = executed(source, x)
    found = session(result.model).run(["y"], {"x": x})[0]
    # Convolutions of qonnx and of this session need not round alike; codes are far enough apart to tell.
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.99
    assert verify(source, result.model, {"x": x}).passed


def brevitas_network(act, *, conv=None) -> torch.nn.Module:
    """A small network around an activation, in which it has met data."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        conv or torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        act,
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 5),
    )
    for _ in range(4):
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


CHANNELS = {
    "scaling_per_output_channel": True,
    "per_channel_broadcastable_shape": (1, 4, 1, 1),
    "scaling_stats_permute_dims": (1, 0, 2, 3),
}
BREVITAS = {
    "2 bits": (lambda: qnn.QuantReLU(bit_width=2), 3),
    "4 bits": (lambda: qnn.QuantReLU(bit_width=4), 15),
    "8 bits": (lambda: qnn.QuantReLU(bit_width=8), 255),
    "per channel": (lambda: qnn.QuantReLU(bit_width=4, **CHANNELS), 15),
    "fixed point": (lambda: qnn.QuantReLU(act_quant=brevitas.quant.Uint8ActPerTensorFixedPoint, bit_width=4), 15),
    "rounded down": (lambda: qnn.QuantReLU(bit_width=4, float_to_int_impl_type="FLOOR"), 15),
    "signed": (lambda: qnn.QuantIdentity(bit_width=4), 15),
    "two values": (lambda: qnn.QuantIdentity(act_quant=brevitas.quant.SignedBinaryActPerTensorConst), 1),
    "after Tanh": (lambda: qnn.QuantTanh(bit_width=4), 15),
}


@pytest.mark.parametrize("case", BREVITAS)
@pytest.mark.filterwarnings("ignore")
def test_an_export_of_brevitas_is_converted(case, tmp_path):
    activation, levels = BREVITAS[case]
    conv = qnn.QuantConv2d(3, 4, 3, padding=1, weight_bit_width=4)
    model = brevitas_network(activation(), conv=conv)
    x = torch.randn(8, 3, 8, 8)
    export_qonnx(model, x, export_path=str(tmp_path / "qonnx.onnx"))
    with torch.no_grad():
        expected = model(x).numpy()
    for mode in ("parallel", "folded"):
        result = rewrite(tmp_path / "qonnx.onnx", mode=mode, signed=True)
        (row,) = (row for row in result.summary()["activations"] if row["encoding"] == "qonnx")
        assert (row["status"], row["levels"]) == ("converted", levels)
        feed = {result.model.graph.input[0].name: x.numpy()}
        verification = verify(tmp_path / "qonnx.onnx", result.model, feed)
        assert verification.differences == []
        assert [layer.mismatches for layer in verification.layers] == [0]
        found = session(result.model).run(None, feed)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@MODES
@pytest.mark.parametrize("name", ["nn_resize", "subpixel"])
def test_networks_that_qonnx_is_shipped_with_are_converted(name, mode):
    """Super-resolution at opset 11, in the domain of earlier versions: weights and activations of up to 8 bits."""
    source = onnx.load(importlib.resources.files("qonnx") / f"data/onnx/bsd300x3-espcn/{name}/quant_model.onnx")
    constants = {tensor.name for tensor in source.graph.initializer}
    (start,) = (info for info in source.graph.input if info.name not in constants)
    # A smaller image than the 128 x 128 that it was exported for: 255 time-steps of it are many.
    del source.graph.value_info[:]
    for info in (start, source.graph.output[0]):
        for axis in (2, 3):
            info.type.tensor_type.shape.dim[axis].dim_value //= 8
    with noted("uses opset 11; what is written uses opset 17"):
        result = rewrite(source, mode=mode)
    counts = result.summary()["counts"]
    assert (counts["converted"], counts["refused"]) == ({"nn_resize": 5, "subpixel": 4}[name], 0)
    x = np.random.default_rng(0).random((1, 3, 16, 16)).astype(np.float32)
    assert verify(source, result.model, {start.name: x}).passed
    expected, found = executed(source, x), session(result.model).run(None, {start.name: x})[0]
    # Sums of convolutions round differently, and then a code may be another.
    assert np.abs(found - expected).max() < 1 / 64
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.9


def test_parameters_may_be_given_in_any_way():
    """As numbers of Constant nodes, computed from constants; and thresholds of weights."""
    nodes = """
        s = Constant <value_float = 0.1> () z = Constant <value_floats = [0.0]> () n = Constant <value_int = 4> ()
        b = Cast <to = 1> (n) h = Identity (s)
        v = Q.MultiThreshold (w, t)
        c = Conv (x, v)
        q = Q.Quant <signed = 1> (c, s, z, b)
        y = Q.Quant <signed = 0> (q, h, z, b)
    """
    source = custom(nodes, "float[N, 4, 6, 6] y", {"w": weight(4, 3, 3, 3), "t": thresholds_of(3, 2) / 5})
    result = rewrite(source)
    assert [row["status"] for row in result.summary()["activations"]] == ["converted", "converted"]
    assert verify(source, result.model).passed


@pytest.mark.filterwarnings("ignore:.*uses opset")
@pytest.mark.parametrize("opset", [9, 12])
def test_old_opsets_verify(opset):
    nodes = """
        a = Q.Quant <signed = 1> (x, s, z, b)
        t = Q.MultiThreshold <out_bias = -1.0> (a, thresholds)
        y = Q.Quant <signed = 0> (t, s, z, b)
    """
    source = custom(nodes, "float[N, 3, 8, 8] y", PARAMETERS | {"thresholds": thresholds_of(3, 2)}, opset=opset)
    assert verify(source, rewrite(source).model).passed


def test_what_is_written_out_has_names_of_its_own():
    nodes = "a = Q.Quant <signed = 1> (x, s, z, b) y = Q.Quant <signed = 0> (a, s, z, b)"
    source = custom(nodes, "float[N, 3, 8, 8] y", PARAMETERS | {"a/Div": float32(0)})
    assert verify(source, rewrite(source).model).passed


@pytest.mark.parametrize("imports", [0, 1])
@pytest.mark.parametrize("signed", [False, True])
def test_quantisers_in_branches_are_converted_as_others_are(imports, signed):
    nodes = """
        q = Q.Quant <signed = 0> (x, s, z, b)
        y = If (k) <then_branch = a () => (float[N, 3, 8, 8] t) { t = Q.Quant (q, s, z, b) },
                    else_branch = c () => (float[N, 3, 8, 8] e) { e = Q.Quant (q, s, z, b) }>
    """
    source = custom(nodes, "float[N, 3, 8, 8] y", PARAMETERS | {"k": np.array(True)})
    del source.opset_import[1 + imports :]
    result = rewrite(source, signed=signed)
    assert {row["name"]: row["status"] for row in result.summary()["activations"]} == dict.fromkeys("qte", "converted")
    onnx.checker.check_model(result.model)
    assert verify(source, result.model).differences == []


def test_a_quantiser_without_data_or_value_is_passed_over():
    nodes = "n = Neg (x) q = Q.Quant <signed = 0> (n, s, z, b) y = Identity (q)"
    source = custom(nodes, "float[N, 3, 8, 8] y", PARAMETERS)
    source.graph.node.append(helper.make_node("Quant", [], ["nothing"], domain=DOMAINS[0]))
    source.graph.node.append(helper.make_node("Quant", ["x", "s", "z", "b"], [], domain=DOMAINS[0]))
    (row,) = rewrite(source).summary()["activations"]
    assert (row["name"], row["status"]) == ("q", "converted")


def test_a_domain_that_is_not_imported_is_that_of_version_1():
    """QONNX and FINN write such files, and read them."""
    with importlib.resources.as_file(importlib.resources.files("qonnx") / "data/onnx") as folder:
        path = folder / "eltwise_chanlast_testcase.onnx"
        assert not any(entry.domain in DOMAINS for entry in onnx.load(path).opset_import)
        relu, row = inspect(path)["activations"]
        assert (row["encoding"], row["op_types"], row["status"]) == ("qonnx", ["Quant"], "converted")
        source = onnx.load(path)
        kept = source.SerializeToString()
        assert inspect(source)["activations"] == [relu, row]
        assert source.SerializeToString() == kept
