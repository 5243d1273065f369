"""Where a tensor has its channels, as far as the operators that compute it tell."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.view import Node


def behind_matrix_product(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether the channels of a tensor are its last axis: a matrix product gives it, or a sum that begins with one.

    Args:
        name: of the tensor.
        makers: nodes by the first of their outputs; where one is missing nobody looks further.
    """
    node = makers.get(name)
    while node is not None and node.op_type in ("Add", "Identity", "Sub"):
        node = next((makers[name] for name in node.input if name in makers), None)
    return node is not None and node.op_type in ("Gemm", "LayerNormalization", "MatMul", "SimplifiedLayerNormalization")


def contracted(node: Node) -> int | None:
    """The axis of its first input that a product sums over, channel by channel of its weights; None without weights."""
    if len(node.inputs) < 2 or constant(node.inputs[1]) is None or node.attrs.get("transA", 0):
        return None
    return {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}.get(node.op)
