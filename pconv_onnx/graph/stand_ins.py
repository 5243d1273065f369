"""Stand-ins, during shape inference, for what onnx does not know, so that inference goes on behind it."""

from __future__ import annotations

import onnx
from onnx import helper

from pconv_onnx.graph.nesting import every_graph, every_node

# Operators of onnxruntime whose first output has the shape of their first input, with the input whose type it has.
# It has some in the standard domain that onnx does not have, or only since a later opset.
OF_ITS_INPUT_SHAPE = {
    "com.microsoft": {"BiasGelu": 0, "DequantizeLinear": 1, "FastGelu": 0, "Gelu": 0, "QuantizeLinear": 2,
                      "QuickGelu": 0, "SkipLayerNormalization": 0},
    "": dict.fromkeys(
        ("Affine", "ImageScaler", "LayerNormalization", "MeanVarianceNormalization", "ParametricSoftplus", "Scale",
         "ScaledTanh", "SimplifiedLayerNormalization", "ThresholdedRelu"), 0
    ),
}  # fmt: skip


def with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in which such operators, if they have the type of their first input, are Identities; itself if none."""
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 1)
    if not any(_is_stood_for(node, opset) for node in every_node(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in every_node(copy.graph):
        if _is_stood_for(node, opset):
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1]))
    return copy


def inferred(model: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto:
    """The model with the types and shapes that onnx infers, also behind sparse initializers."""
    return onnx.shape_inference.infer_shapes(_with_dense_types(model), data_prop=data_prop)


def _with_dense_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in which the types of sparse initializers are declared in place of their values; itself if none.

    onnx 1.19 takes a sparse initializer for the vector of its values, and 1.23 infers nothing behind one.
    """
    if not any(graph.sparse_initializer for graph in every_graph(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in every_graph(copy.graph):
        declared = {info.name for info in (*graph.input, *graph.value_info)}
        graph.value_info.extend(
            helper.make_tensor_value_info(tensor.values.name, tensor.values.data_type, tensor.dims)
            for tensor in graph.sparse_initializer
            if tensor.values.name not in declared
        )
        del graph.sparse_initializer[:]
    return copy


def _is_stood_for(node: onnx.NodeProto, opset: int) -> bool:
    if not node.input or not node.output or OF_ITS_INPUT_SHAPE.get(node.domain, {}).get(node.op_type) != 0:
        return False
    return bool(node.domain) or not onnx.defs.has(node.op_type, opset, "")
