"""What onnx's checker lets through and later readers do not expect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, TensorProto, helper
from onnx.external_data_helper import uses_external_data

_TYPES = frozenset(helper.get_all_tensor_dtypes())
# Types of which a byte holds several values.
_BITS = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
_SEVERAL_IN_AN_ENTRY = (2, 4)
# Where attributes of these types have their value.
_FIELDS = {
    AttributeProto.TENSOR: "t",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.GRAPH: "g",
    AttributeProto.TYPE_PROTO: "tp",
}


def flaw_of(model: onnx.ModelProto) -> str:
    """What is wrong with a model that the checker takes, for a message; empty where nothing is.

    Tensors must have the data of their type and shape, so that what is read is no larger than the file, whatever its
    shapes say. Attributes must have a value; within functions they may refer to one of the function.
    """
    domains = [entry.domain.removeprefix("ai.onnx") for entry in model.opset_import]
    if len(domains) != len(set(domains)):
        return "it imports one set of operators twice"
    if not all(isinstance(text, str) for entry in model.metadata_props for text in (entry.key, entry.value)):
        return "its metadata are not text"
    for nodes, in_function in ((model.graph.node, False), *((function.node, True) for function in model.functions)):
        for attribute in _attributes(nodes):
            if attribute.ref_attr_name and not in_function:
                return f"attribute '{attribute.name}' refers to one of a function, and is in none"
            field = _FIELDS.get(attribute.type)
            if field is not None and not attribute.ref_attr_name and not attribute.HasField(field):
                return f"attribute '{attribute.name}' has no value"
    return next((flaw for tensor in tensors(model) if (flaw := _flaw_of_tensor(tensor))), "")


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers and attributes, those of bodies and functions included."""
    yield from model.graph.initializer
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for attribute in _attributes(nodes):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for body in _bodies(attribute):
                yield from body.initializer


def _attributes(nodes: Iterable[onnx.NodeProto]) -> Iterator[AttributeProto]:
    """Every attribute of nodes and of those in their bodies."""
    for node in nodes:
        for attribute in node.attribute:
            yield attribute
            for body in _bodies(attribute):
                yield from _attributes(body.node)


def _bodies(attribute: AttributeProto) -> list[onnx.GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _flaw_of_tensor(tensor: TensorProto) -> str:
    name = f"tensor '{tensor.name}'"
    if tensor.data_type not in _TYPES:
        return f"{name} is of the unknown type {tensor.data_type}"
    if any(size < 0 for size in tensor.dims):
        return f"{name} has the shape {list(tensor.dims)}"
    if uses_external_data(tensor):
        return ""
    if tensor.HasField("segment"):
        return f"{name} is in segments"
    elements = math.prod(tensor.dims)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    bits = _BITS.get(TensorProto.DataType.Name(tensor.data_type), 8 * dtype.itemsize)
    if tensor.HasField("raw_data"):
        held, needed, unit = len(tensor.raw_data), -(-elements * bits // 8), "bytes"
    else:
        entries = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
        held, needed, unit = len(entries), elements * (2 if dtype.kind == "c" else 1), "values"
        if bits in _SEVERAL_IN_AN_ENTRY:
            needed = -(-elements * bits // 8)
        if dtype.kind == "O" and not all(map(_is_text, entries)):
            return f"{name} has a string that is not text"
    return "" if held == needed else f"{name} of shape {list(tensor.dims)} has {held} {unit}, not {needed}"


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
