"""Converts a float32 model to float16, except inputs and outputs, by onnxruntime's converter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.graph.checking import check
from pconv_onnx.graph.nesting import subgraphs
from pconv_onnx.graph.order import sort

_LARGEST = float(np.finfo(np.float16).max)


def in_float16(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with weights and operators in float16, between Casts at inputs and outputs of float32.

    Operators without a float16 form stay in float32 between Casts of their own; tensors that are float16 already
    stay so.

    Args:
        model: the model; changed in place.
        name: how to call it in messages.

    Raises:
        PconvError: onnxruntime is missing, a constant is beyond the range of float16, or the result is no valid model.
    """
    try:
        from onnxruntime.transformers import float16
    except ImportError as error:
        raise PconvError(
            f"float16 needs onnxruntime's converter, which cannot be imported: {error}", "pip install 'pconv-onnx[cpu]'"
        ) from error
    hint = "leave this network in float32"
    if model.graph.sparse_initializer:
        raise PconvError(f"{name} has sparse weights, which cannot be written in float16", hint)
    exact = {}
    for key, tensor in _constants(model.graph):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        largest = np.abs(value[np.isfinite(value)]).max(initial=0)
        if largest > _LARGEST:
            raise PconvError(f"'{key}' of {name} holds {largest:.6g}; float16 ends at {_LARGEST:.0f}", hint)
        exact[key] = value.astype(np.float16)
    # Shapes cannot be inferred here: neurons are float16 already, the tensors around them are not yet.
    model = float16.convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, "EyeLike"],
    )
    # The converter appends its Casts at the end.
    sort(model.graph.node)
    # The converter enlarges values close to zero; rounding does not.
    for key, tensor in _constants(model.graph):
        if key in exact and tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(exact[key], tensor.name))
    try:
        check(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:  # of two types, without a common base
        raise PconvError(f"{name} cannot be written in float16: {reason_of(error)}", hint) from error
    return model


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Initializers and tensors of Constant nodes, in bodies too, with the name of their value."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield node.output[0], attribute.t
        for body in subgraphs(node):
            yield from _constants(body)
