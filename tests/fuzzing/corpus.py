"""Small valid models, from which mutants are made: every encoding, opset and kind of file; what `rewrite` writes."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import onnx
from networks import CONSTANTS, network, qcfs, weight
from onnx import helper

from pconv_onnx import rewrite
from pconv_onnx.graph.qonnx import DOMAINS

_X, _Y = "float[N, 2, 4, 4] x", "float[N, 3] y"
_WEIGHTS = {"w": 4 * weight(2, 2, 1, 1), "u": weight(18, 3, seed=1)}
_FIRST_OPSET = 7
# Between a convolution and a classifier, from tensor `c` to tensor `a`.
_ACTIVATIONS = {
    "relu": "a = Relu (c)",
    "qdq": "r = Relu (c) q = QuantizeLinear (r, s, z) a = DequantizeLinear (q, s, z)",
    "qdq-clip": "r = Clip (c, zero, theta) q = QuantizeLinear (r, s, i) a = DequantizeLinear (q, s, i)",
    "qdq-channels": "q = QuantizeLinear <axis = 1> (c, ss, zz) a = DequantizeLinear <axis = 1> (q, ss, zz)",
    "lsq": "d = Div (c, s) b = Clip (d, zero, n) e = Round (b) a = Mul (e, s)",
    "pact": "d = Clip (c, zero, theta) b = Mul (d, g) e = Round (b) a = Div (e, g)",
    "lsq-plus": "d = Sub (c, s) b = Div (d, s) e = Clip (b, zero, n) f = Round (e) h = Mul (f, s) a = Add (h, s)",
    "counted": "v = Unsqueeze (c, last) k = GreaterOrEqual (v, thresholds) b = Cast <to = 1> (k) "
    "e = ReduceSum <keepdims = 0> (b, last) a = Mul (e, s)",
    "computed": "h = Shape (c) j = Reshape (c, h) d = Mul (s, two) b = Div (j, d) e = Clip (b, zero, n) f = Round (e) "
    "a = Mul (f, d)",
    "residual": qcfs("c", "b") + "e = Add (b, c)" + qcfs("e", "a"),
    "if": "yes = Constant <value = bool {1}> () a = If (yes) <then_branch = t () => (float[N, 2, 4, 4] p) "
    f"{{ {qcfs('c', 'p')} }}, else_branch = f () => (float[N, 2, 4, 4] o) {{ o = Relu (c) }}>",
    "loop": qcfs("c", "b") + "yes = Constant <value = bool {1}> () k = Constant <value = int64 {2}> () "
    "a = Loop (k, yes, b) <body = t (int64 turn, bool go, float[N, 2, 4, 4] p) => (bool on, float[N, 2, 4, 4] o) "
    "{ on = Identity (go) o = Relu (p) }>",
}
_CONSTANTS: dict[str, np.ndarray | float] = {
    "s": 0.25,
    "n": 7.0,
    "g": 3.5,
    "two": 2.0,
    "z": np.array(0, np.uint8),
    "i": np.array(0, np.int8),
    "ss": np.array([0.25, 0.5], np.float32),
    "zz": np.array([0, 0], np.uint8),
    "last": np.array([-1]),
    "thresholds": np.array([-0.5, 0.25, 0.5, 2], np.float32),
}


def _model(activation: str, opset: int = 17, pool: str = "MaxPool", **weights: np.ndarray) -> onnx.ModelProto:
    pooled = f"{activation} pooled = {pool} <kernel_shape = [2, 2]> (a)"
    nodes = f"c = Conv (x, w) {pooled} flat = Flatten (pooled) y = MatMul (flat, u)"
    words = set(re.findall(r"\w+", activation))
    used = {name: value for name, value in {**CONSTANTS, **_CONSTANTS}.items() if name in words}
    return network(nodes, inputs=_X, outputs=_Y, weights={**_WEIGHTS, **used, **weights}, opset=opset, ir_version=8)


def _of_opset(opset: int) -> onnx.ModelProto:
    nodes = qcfs("c", "a")
    if opset < 11:
        nodes = nodes.replace("Clip (a_share, zero, one)", "Clip <min = 0.0, max = 1.0> (a_share)")
    return _model(nodes, opset)


def _of_qonnx(op_type: str, operands: dict[str, float | np.ndarray], **attributes: str | int) -> onnx.ModelProto:
    model = _model("a = Identity (c)", **{name: np.asarray(value, np.float32) for name, value in operands.items()})
    (node,) = (node for node in model.graph.node if node.op_type == "Identity")
    node.CopyFrom(helper.make_node(op_type, ["c", *operands], ["a"], "q", domain=DOMAINS[0], **attributes))
    model.opset_import.append(helper.make_opsetid(DOMAINS[0], 1))
    return model


def _with_function() -> onnx.ModelProto:
    model = _model("a = Identity (c)")
    body = (
        f"<opset_import: ['' : 17], domain: 'own'> Act (c, theta, count, half, zero, one) => (a) {{ {qcfs('c', 'a')} }}"
    )
    model.functions.append(onnx.parser.parse_function(body.replace("'", '"')))
    model.opset_import.append(helper.make_opsetid("own", 1))
    (node,) = (node for node in model.graph.node if node.op_type == "Identity")
    constants = _model(qcfs("c", "a")).graph.initializer
    names = ["theta", "count", "half", "zero", "one"]
    model.graph.initializer.extend(tensor for tensor in constants if tensor.name in names)
    node.CopyFrom(helper.make_node("Act", ["c", *names], ["a"], "act", domain="own"))
    return model


def _annotated() -> onnx.ModelProto:
    model = _model(qcfs("c", "a"))
    annotation = model.graph.quantization_annotation.add(tensor_name="c")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="theta")
    for node in model.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'layer.{node.op_type}', 'node']")
    return model


def _of_half_type(element: int) -> onnx.ModelProto:
    model = _model(qcfs("c", "a"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = element
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(element))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model


@cache
def sources() -> dict[str, onnx.ModelProto]:
    """ANNs, by name."""
    found = {name: _model(nodes) for name, nodes in _ACTIVATIONS.items()}
    found |= {
        f"qcfs, opset {opset}": _of_opset(opset) for opset in range(_FIRST_OPSET, onnx.defs.onnx_opset_version() + 1)
    }
    found["quant"] = _of_qonnx(
        "Quant", {"scale": 0.25, "zero": 0, "bits": 3}, signed=0, narrow=0, rounding_mode="ROUND"
    )
    found["bipolar"] = _of_qonnx("BipolarQuant", {"scale": 0.5})
    rows = np.array([[-1, 0, 0.5], [0, 1, 2]], np.float32)
    found["multi-threshold"] = _of_qonnx("MultiThreshold", {"rows": rows}, data_layout="NCHW")
    found |= {"function": _with_function(), "annotated": _annotated()}
    found |= {
        "float16": _of_half_type(onnx.TensorProto.FLOAT16),
        "bfloat16": _of_half_type(onnx.TensorProto.BFLOAT16),
    }
    return found


@cache
def spiking() -> dict[str, tuple[onnx.ModelProto, onnx.ModelProto]]:
    """Spiking networks, by name, each with its source."""
    found = {
        f"{name}, {mode}": (rewrite(sources()[name], mode=mode).model, sources()[name])
        for name in ("qcfs, opset 17", "qdq", "residual", "multi-threshold", "float16")
        for mode in ("parallel", "folded")
    }
    averaged = _model(qcfs("c", "a"), pool="AveragePool")
    found["serial"] = (rewrite(averaged, mode="serial").model, averaged)
    found["per step"] = (rewrite(averaged, precision="float16", per_step_outputs=True).model, averaged)
    return found
