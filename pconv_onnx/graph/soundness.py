"""Checks of what onnx's checker accepts but later readers do not expect."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import AttributeProto, TensorProto, helper
from onnx.external_data_helper import uses_external_data

from pconv_onnx.graph.external import PACKED, nbytes
from pconv_onnx.graph.nesting import every_graph, nodes_within
from pconv_onnx.graph.tensors import every_tensor, sparse_tensors

_TYPES = frozenset(helper.get_all_tensor_dtypes())
# The most elements of a sparse tensor, which onnxruntime makes dense.
_MOST_SPREAD = 1 << 31
# More elements than any memory holds; some shape inferences do not end on such sizes.
_MOST_ELEMENTS = 1 << 60
# Bits of the types that onnx packs several to a number.
_SEVERAL_IN_AN_ENTRY = (2, 4)
# The fields that hold the value of attributes of these types.
_FIELDS = {
    AttributeProto.TENSOR: "t",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.GRAPH: "g",
    AttributeProto.TYPE_PROTO: "tp",
}


# What is wrong, and what to do about it: message and hint.
Fault = tuple[str, str]

_AGAIN = "export or copy it again"


def flaw_of(model: onnx.ModelProto) -> Fault | None:
    """Message and hint if a model that the checker accepts is unsound; None if it is not.

    Tensors must have exactly the data of their type and shape, so that no more is read than the file holds, whatever
    its shapes say. Sparse tensors must be small enough to be made dense. Attributes must have a value; within functions
    they may refer to an attribute of the function. An output must be listed once, an input declared like its
    initializer. Metadata must be text, and declared shapes must fit some memory.
    """
    for name, uses in Counter(output.name for output in model.graph.output).items():
        if uses > 1:
            return f"output '{name}' is listed twice", "list it once, or give a copy of it (Identity) another name"
    if flaw := next(filter(None, map(_flaw_of_inputs, every_graph(model.graph))), ""):
        return flaw, "declare the input as its initializer is, or leave it out of the inputs"
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
        if math.prod(sizes) > _MOST_ELEMENTS:
            return f"'{value.name}' has the sizes {sizes}, which no memory holds", "declare the sizes that it has"
    if not _is_of_text(model.metadata_props):
        return "its metadata are not text", _AGAIN
    for nodes, in_function in ((model.graph.node, False), *((function.node, True) for function in model.functions)):
        for node in nodes_within(nodes):
            if not _is_of_text(node.metadata_props):
                return "the metadata of a node are not text", _AGAIN
            if flaw := _flaw_of_attributes(node, in_function):
                return flaw, "give it a value, or leave it out"
    for sparse in sparse_tensors(model):
        if math.prod(sparse.dims) > _MOST_SPREAD:
            told = f"sparse tensor '{sparse.values.name}' of shape {list(sparse.dims)} is too large to be made dense"
            return told, "gather from a smaller one"
    return next(((flaw, _AGAIN) for tensor in every_tensor(model) if (flaw := flaw_of_tensor(tensor))), None)


def _flaw_of_inputs(graph: onnx.GraphProto) -> str:
    """Message for an input that is declared differently from the initializer that is its default."""
    defaults = {tensor.name: tensor for tensor in graph.initializer}
    for info in graph.input:
        tensor, declared = defaults.get(info.name), info.type.tensor_type
        if tensor is not None and not fits(tensor, declared):
            sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
            return (
                f"the input '{info.name}' is declared as {_type_name(declared.elem_type)} {sizes}, "
                f"and its initializer is {_type_name(tensor.data_type)} {list(tensor.dims)}"
            )
    return ""


def fits(tensor: TensorProto, declared: onnx.TypeProto.Tensor) -> bool:
    """Whether a tensor has the declared type and shape; open sizes fit any size."""
    if declared.elem_type != tensor.data_type:
        return False
    sizes = declared.shape.dim
    return not declared.HasField("shape") or (
        len(sizes) == len(tensor.dims)
        and all(
            not dim.HasField("dim_value") or dim.dim_value == size for dim, size in zip(sizes, tensor.dims, strict=True)
        )
    )


def _type_name(element: int) -> str:
    return str(TensorProto.DataType.Name(element)).lower() if element in _TYPES else f"the unknown type {element}"


def _flaw_of_attributes(node: onnx.NodeProto, in_function: bool) -> str:
    for attribute in node.attribute:
        if attribute.ref_attr_name and not in_function:
            return f"attribute '{attribute.name}' refers to one of a function, and is in none"
        field = _FIELDS.get(attribute.type)
        if field is not None and not attribute.ref_attr_name and not attribute.HasField(field):
            return f"attribute '{attribute.name}' has no value"
    return ""


def _is_of_text(metadata: Iterable[onnx.StringStringEntryProto]) -> bool:
    return all(isinstance(text, str) for entry in metadata for text in (entry.key, entry.value))


def flaw_of_tensor(tensor: TensorProto) -> str:
    """Message and hint if a tensor's type, shape or amount of data is wrong; else None."""
    name = f"tensor '{tensor.name}'"
    if tensor.data_type not in _TYPES:
        return f"{name} is of the unknown type {tensor.data_type}"
    if any(size < 0 for size in tensor.dims):
        return f"{name} has the shape {list(tensor.dims)}, with a size below zero"
    if uses_external_data(tensor):
        return ""
    if tensor.HasField("segment"):
        return f"{name} is in segments"
    strings = tensor.data_type == TensorProto.STRING
    if tensor.HasField("raw_data"):
        if strings:
            return f"{name} has strings without their ends"
        held, taken, unit = len(tensor.raw_data), nbytes(tensor), "bytes"
    else:
        entries = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
        held, taken, unit = len(entries), _entries(tensor), "values"
        if strings and not all(map(_is_text, entries)):
            return f"{name} has a string that is not text"
    return "" if held == taken else f"{name} has {held} {unit}, and its shape {list(tensor.dims)} takes {taken}"


def _entries(tensor: TensorProto) -> int:
    """How many numbers or strings a tensor's values are, if they are not stored as bytes."""
    if PACKED.get(TensorProto.DataType.Name(tensor.data_type)) in _SEVERAL_IN_AN_ENTRY:
        return nbytes(tensor)
    pairs = tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return math.prod(tensor.dims) * (2 if pairs else 1)


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
