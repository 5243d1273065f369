"""Quantised operators on integers: each is refused with what to export instead, and nothing else gets lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from refusals import refusal_of

from pconv_onnx import inspect, rewrite, verify
from pconv_onnx.cli.main import main
from pconv_onnx.graph import load
from pconv_onnx.recognise import recognise

FUSED = "its integers are fused into the operator; export with quant_format=QuantFormat.QDQ"
DYNAMIC = "its scale is computed at run time; quantise statically, with quant_format=QuantFormat.QDQ"


class Images(CalibrationDataReader):
    """Calibration data for onnxruntime's quantiser."""

    def __init__(self) -> None:
        self.batches = iter(np.random.default_rng(1).normal(0, 1, (4, 8, 3, 8, 8)).astype(np.float32))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.fixture
def ann(tmp_path) -> Path:
    """Two quantisable convolutions with a Sigmoid between them, an Add and a Gemm."""
    nodes = """
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w) r = Relu (a) s = Sigmoid (r)
        b = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (s, v) t = Add (b, r)
        g = GlobalAveragePool (t) f = Flatten (g) y = Gemm (f, u)
    """
    weights = {"w": 2 * weight(8, 3, 3, 3), "v": 2 * weight(8, 8, 3, 3, seed=1), "u": weight(8, 5, seed=2)}
    path = tmp_path / "float.onnx"
    onnx.save(network(nodes, outputs="float[N, 5] y", weights=weights, opset=17), path)
    return path


def rows(path: Path, reason: str) -> list[list[str]]:
    """Operators of each activation that is listed, all for that reason."""
    found = inspect(path)["activations"]
    assert {(row["encoding"], row["status"], row["reason"]) for row in found} == {("fused", "refused", reason)}
    return [row["op_types"] for row in found]


def test_fused_operators_are_refused_one_by_one(ann, tmp_path):
    path = tmp_path / "quantised.onnx"
    quantize_static(ann, path, Images(), quant_format=QuantFormat.QOperator)
    expected = [node.op_type for node in onnx.load(path).graph.node if node.op_type.startswith(("QLinear", "QGemm"))]
    assert {"QLinearConv", "QLinearSigmoid", "QLinearAdd", "QGemm"} <= set(expected)
    assert sorted(rows(path, FUSED)) == sorted([name] for name in expected)


def test_scales_computed_at_run_time_are_refused_with_what_reads_them(ann, tmp_path):
    path = tmp_path / "quantised.onnx"
    quantize_dynamic(ann, path)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    found = inspect(path)["activations"]
    dynamic = [row for row in found if row["reason"] == DYNAMIC]
    assert len(dynamic) == operators.count("DynamicQuantizeLinear") > 0
    assert all(len(row["op_types"]) == 2 and row["op_types"][1].endswith("Integer") for row in dynamic)
    assert [row["op_types"] for row in found if row not in dynamic] == [["Relu"], ["Sigmoid"]]


def test_nothing_to_convert_says_why(ann, tmp_path, capsys):
    path = tmp_path / "quantised.onnx"
    quantize_static(ann, path, Images(), quant_format=QuantFormat.QOperator)
    told = refusal_of(rewrite, path)
    count = len(inspect(path)["activations"])
    assert told == f"nothing to convert in '{path}': {count} activations ('a_quantized' first): {FUSED}"
    assert main(["rewrite", str(path), "-o", str(tmp_path / "snn.onnx")]) == 1
    assert not (tmp_path / "snn.onnx").exists()
    capsys.readouterr()
    assert main(["inspect", str(path), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["refused"] > 0 and counts["converted"] == counts["needs_calibration"] == 0


def test_what_is_not_fused_is_converted_all_the_same():
    """A quantised activation beside operators on integers."""
    nodes = f"""{qcfs("x", "a")}
        q, s, z = DynamicQuantizeLinear (a)
        i = ConvInteger (q, w, z)
        c = Cast <to = 1> (i) y = Mul (c, s)
    """
    ann = network(nodes, weights={"w": np.ones((3, 3, 1, 1), np.uint8)})
    result = rewrite(ann)
    assert [(row.encoding, row.status) for row in result.plan.activations] == [
        ("qcfs", "converted"),
        ("fused", "refused"),
    ]
    assert verify(ann, result.model).passed


@pytest.mark.parametrize(("op_type", "reason"), [
    ("QLinearLeakyRelu", FUSED), ("QLinearGlobalAveragePool", FUSED), ("QLinearConcat", FUSED), ("QGemm", FUSED),
    ("QAttention", FUSED), ("QOrderedMatMul", FUSED), ("DynamicQuantizeMatMul", DYNAMIC),
    ("MatMulIntegerToFloat", DYNAMIC), ("DynamicQuantizeLSTM", DYNAMIC),
])  # fmt: skip
def test_operators_of_onnxruntime_are_refused_in_its_domain_alone(op_type, reason):
    model = network("y = Identity (x)")
    model.graph.node[0].CopyFrom(helper.make_node(op_type, ["x"], ["y"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (activation,) = recognise(load(model))
    assert (activation.op_types, activation.status, activation.reason) == ([op_type], "refused", reason)
    model.graph.node[0].domain = model.opset_import[1].domain = "somebody.else"
    assert recognise(load(model)) == []


@pytest.mark.parametrize("op_type, inputs", [("MatMulInteger", "x, w"), ("ConvInteger", "x, w")])
def test_products_of_integers_that_are_given_are_refused(op_type, inputs):
    model = network(
        f"i = {op_type} ({inputs}) y = Cast <to = 1> (i)",
        inputs="uint8[N, 3, 8, 8] x",
        weights={"w": np.ones((3, 3, 8, 8), np.uint8)},
    )
    ((operators, reason),) = [(a.op_types, a.reason) for a in recognise(load(model))]
    assert (operators, reason) == ([op_type], FUSED)


@pytest.mark.parametrize("op_type", ["FusedConv", "FusedGemm", "NhwcFusedConv"])
def test_an_activation_that_onnxruntime_fused_is_listed(op_type):
    model = network("y = Conv (x, w)", outputs="float[N, 4, 8, 8] y", weights={"w": weight(4, 3, 1, 1)})
    node = model.graph.node[0]
    node.op_type, node.domain = op_type, "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    assert inspect(model)["activations"] == []
    node.attribute.append(helper.make_attribute("activation", "Relu"))
    (row,) = inspect(model)["activations"]
    told = "its Relu is fused into the operator; save the model without onnxruntime's optimisations"
    assert (row["encoding"], row["status"], row["reason"]) == ("fused", "refused", told)


def test_codes_that_are_moved_to_fused_operators_are_those_operators_affair():
    nodes = """q = QuantizeLinear (x, s, z) t = Transpose <perm = [0, 1, 3, 2]> (q)
        c = QLinearConv (t, s, z, w, s, z, s, z) y = DequantizeLinear (c, s, z)"""
    weights = {"s": 0.1, "z": np.array(0, np.uint8), "w": np.ones((3, 3, 1, 1), np.uint8)}
    assert [row["op_types"] for row in inspect(network(nodes, weights=weights))["activations"]] == [["QLinearConv"]]
