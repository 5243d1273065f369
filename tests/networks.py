"""Small networks for the tests, in ONNX text form."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

# The modes in which one run is the whole network.
MODES = ("parallel", "folded")

QCFS = """
    {y}_scaled = Div ({x}, theta)
    {y}_times = Mul ({y}_scaled, count)
    {y}_half = Add ({y}_times, half)
    {y}_code = Floor ({y}_half)
    {y}_share = Div ({y}_code, count)
    {y}_clipped = Clip ({y}_share, zero, one)
    {y} = Mul ({y}_clipped, theta)
"""
CONSTANTS = {"theta": 2.0, "count": 4.0, "half": 0.5, "zero": 0.0, "one": 1.0}


def qcfs(x: str, y: str) -> str:
    """Nodes of a QCFS activation from tensor `x` to tensor `y`, over the constants of `CONSTANTS`."""
    return QCFS.format(x=x, y=y)


def network(
    nodes: str,
    *,
    inputs: str = "float[N, 3, 8, 8] x",
    outputs: str = "float[N, 3, 8, 8] y",
    weights: dict[str, np.ndarray | float] | None = None,
    opset: int = 20,
    ir_version: int = 10,
) -> onnx.ModelProto:
    """A checked model of the given nodes; weights (and `CONSTANTS`, where used) become initializers."""
    text = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> test ({inputs}) => ({outputs}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name, value in (CONSTANTS | (weights or {})).items():
        if name in used or name in (weights or {}):
            array = np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, dtype=np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return model


def weight(*shape: int, seed: int = 0) -> np.ndarray:
    """Random float32 weights of sensible scale."""
    return (np.random.default_rng(seed).normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
