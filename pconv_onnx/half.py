"""A float32 model in float16, its inputs and outputs left as they are: thin over onnxruntime's converter."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pconv_onnx.errors import PconvError
from pconv_onnx.graph.network import captured

_LARGEST = float(np.finfo(np.float16).max)


def in_float16(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with weights and operators in float16, between Casts at inputs and outputs of float32.

    Operators that have no float16 form stay in float32 between Casts of their own; tensors that are float16 already
    stay so.

    Args:
        model: the model; changed in place.
        name: how to call it in messages.

    Raises:
        PconvError: onnxruntime is missing, or a weight is beyond the range of float16.
    """
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise PconvError(
            f"float16 needs onnxruntime's converter, which cannot be imported: {error}", "pip install 'pconv-onnx[cpu]'"
        ) from error
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            largest = np.abs(value[np.isfinite(value)]).max(initial=0)
            if largest > _LARGEST:
                raise PconvError(
                    f"'{tensor.name}' of {name} holds {largest:.6g}; float16 ends at {_LARGEST:.0f}",
                    "leave this network in float32",
                )
    # Nothing more can be inferred: neurons are float16 already, the tensors around them are not yet.
    model = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
    _sort(model.graph)
    return model


def _sort(graph: onnx.GraphProto) -> None:
    """Put nodes in topological order again: the converter appends its Casts at the end."""
    waiting = list(graph.node)
    made = {name for node in waiting for name in node.output}
    done: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    while waiting:
        left = []
        for node in waiting:
            if any(name in made and name not in done for name in (*node.input, *captured(node))):
                left.append(node)
            else:
                nodes.append(node)
                done.update(node.output)
        if len(left) == len(waiting):
            raise AssertionError("the converter made a cycle")
        waiting = left
    sorted_nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(sorted_nodes)
