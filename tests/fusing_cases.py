"""Small networks whose layers become ones of integers, and how they are run."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from networks import network, qcfs, weight

from pconv_onnx import session

INPUTS = {"weights": "int8", "input_bits": 8, "input_range": (-4, 4)}
SAME = "pads = [1, 1, 1, 1]"
WEIGHTS = {
    "w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 3, 3, seed=1), "v2": 2 * weight(4, 4, 3, 3, seed=2),
    "depth": 2 * weight(4, 1, 3, 3, seed=3), "half_w": 2 * weight(6, 2, 3, 3, seed=4), "u": weight(4, 5, seed=5),
    "ut": weight(5, 4, seed=6), "k": weight(1, 5, seed=7)[0], "wide": 2 * weight(4, 8, 1, 1, seed=8),
    "u256": weight(5, 256, seed=9), "pads": np.array([0, 0, 0, 1, 0, 0, 2, 1]), "all_axes": np.array([0, 0, 2, 2]),
    "starts": np.array([0, 1]), "ends": np.array([7, 8]), "axes": np.array([2, 3]), "steps": np.array([2, 1]),
    "more": np.array([0, 1, 0, 0, 0, 1, 0, 0]), "six": 2 * weight(4, 6, 1, 1, seed=10), "third": np.float32(0.4),
    "w1": 4 * weight(4, 3, 3, seed=11), "v1": 2 * weight(4, 4, 3, seed=12), "q_scale": np.float32(0.11),
    "z": np.array(3, np.int8), "first": np.array([0]), "second": np.array([1]), "channel": np.array([1]),
}  # fmt: skip
A = f"c = Conv <{SAME}> (x, w) {qcfs('c', 'a')}"
D = f"{A} d = Conv <{SAME}> (a, v)"
END = qcfs("s", "y")
FLAT = f"{A} f = Flatten (a) g = Gemm <transB = 1> (f, u256, k) y = Relu (g)"
IMAGE, SIGNAL, ROWS = "float[N, C, H, W] y", "float[N, C, L] y", "float[N, M] y"
# Nodes, the type of the output, and how many layers of integers of each kind there are.
CASES: dict[str, tuple[str, str, dict[str, int]]] = {
    "two convolutions": (f"{A} s = Conv <{SAME}> (a, v) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "a residual of counts": (f"{D} s = Add (d, a) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "a residual that is taken away": (f"{D} s = Sub (a, d) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "a residual of sums": (
        f"{D} e = Conv <{SAME}> (a, v2) s = Add (d, e) {END}", IMAGE, {"IntegerConv": 1, "IntegerSpikeConv": 2}
    ),
    "sums that two read": (
        f"{D} {qcfs('d', 'b')} e = Conv <{SAME}> (b, v2) s = Add (d, e) {END}", IMAGE,
        {"IntegerConv": 1, "IntegerSpike": 1, "IntegerSpikeConv": 2},
    ),
    "an output of sums": (f"{D} y = Identity (d)", IMAGE, {"IntegerSpikeConv": 1, "IntegerConv": 1}),
    "depthwise": (f"{A} s = Conv <{SAME}, group = 4> (a, depth) {END}", IMAGE, {"IntegerSpikeConv": 2}),
    "groups, strides and dilations": (
        f"{A} s = Conv <group = 2, strides = [2, 1], dilations = [1, 2], pads = [1, 0, 0, 1]> (a, half_w) {END}",
        IMAGE, {"IntegerSpikeConv": 2},
    ),
    "a Pad of its own": (f"{A} p = Pad (a, pads) s = Conv (p, v) {END}", IMAGE, {"IntegerSpikeConv": 2, "Pad": 0}),
    "a Pad of channels": (
        f"{A} p = Pad (a, more) s = Conv (p, six) {END}", IMAGE, {"IntegerSpikeConv": 2, "Pad": 1}
    ),
    "padding that follows from sizes, more of it behind": (
        f'{A} s = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (a, v) {END}', IMAGE, {"IntegerSpikeConv": 2}
    ),
    "padding that follows from sizes, more of it in front, and a Pad": (
        f'{A} p = Pad (a, pads) s = Conv <auto_pad = "SAME_LOWER", strides = [2, 3]> (p, v) {END}', IMAGE,
        {"IntegerSpikeConv": 2, "Pad": 0},
    ),
    "no padding, by its name": (f'{A} s = Conv <auto_pad = "VALID"> (a, v) {END}', IMAGE, {"IntegerSpikeConv": 2}),
    "Concat": (
        f"{D} {qcfs('d', 'b')} t = Concat <axis = 1> (a, b) s = Conv (t, wide) {END}", IMAGE,
        {"IntegerSpikeConv": 3, "Concat": 1},
    ),
    "MaxPool": (
        f"{A} p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (a) s = Conv (p, v) {END}",
        IMAGE, {"IntegerSpikeConv": 2, "MaxPool": 1},
    ),
    "Slice": (f"{A} p = Slice (a, starts, ends, axes, steps) s = Conv (p, v) {END}", IMAGE,
              {"IntegerSpikeConv": 2, "Slice": 1}),
    "Flatten and Gemm": (f"{A} f = Flatten (a) s = Gemm <transB = 1> (f, u256, k) {END}", ROWS,
                         {"IntegerSpikeConv": 1, "IntegerSpikeGemm": 1}),
    "MatMul of the last axis": (
        f"{A} t = Transpose <perm = [0, 2, 3, 1]> (a) m = MatMul (t, u) s = Add (m, k) {END}", IMAGE,
        {"IntegerSpikeConv": 1, "IntegerSpikeGemm": 1},
    ),
    "a last Gemm": (f"{A} f = Flatten (a) y = Gemm <transB = 1> (f, u256, k)", ROWS,
                    {"IntegerSpikeConv": 1, "IntegerGemm": 1}),
    "signed counts": (
        f"{D} q = QuantizeLinear (d, q_scale, z) b = DequantizeLinear (q, q_scale, z) "
        f"e = Conv <{SAME}> (b, v2) s2 = Add (e, b) {qcfs('s2', 'y')}", IMAGE, {"IntegerSpikeConv": 3},
    ),
}  # fmt: skip


def built(nodes: str, outputs: str, inputs: str = "float[N, 3, 8, 8] x") -> onnx.ModelProto:
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    used = {name: value for name, value in WEIGHTS.items() if name in words}
    return network(nodes, inputs=inputs, outputs=outputs, weights=used)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1.5, shape).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray, *, kernels: bool = True) -> np.ndarray:
    if kernels:
        return session(model).run(None, {"x": x})[0]
    runner = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return runner.run(None, {"x": x})[0]
