"""Where a tensor has its channels, as far as the operators that compute it tell."""

from __future__ import annotations

from collections.abc import Mapping

import onnx


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
