"""Which axis of a tensor counts channels, as far as the operators that compute it show."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.view import Node


def behind_matrix_product(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a tensor's channels are its last axis: a matrix product, or a sum that begins with one, computes it.

    Args:
        name: of the tensor.
        makers: nodes by their first output; the search ends at a node that is missing here.
    """
    node = makers.get(name)
    while node is not None and node.op_type in ("Add", "Identity", "Sub"):
        node = next((makers[name] for name in node.input if name in makers), None)
    return node is not None and node.op_type in ("Gemm", "LayerNormalization", "MatMul", "SimplifiedLayerNormalization")


def contracted(node: Node) -> int | None:
    """The axis of a product's first input that it sums over, channel by channel; None if it has no weights."""
    if len(node.inputs) < 2 or constant(node.inputs[1]) is None or node.attrs.get("transA", 0):
        return None
    return {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}.get(node.op)
