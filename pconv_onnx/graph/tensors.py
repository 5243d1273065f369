"""The tensors of a model, wherever they are in it, and those with external data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import SparseTensorProto, TensorProto
from onnx.external_data_helper import uses_external_data

# From this IR version on an initializer need not be an input as well.
INITIALIZERS_IR_VERSION = 4


def every_tensor(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Initializers and tensors in attributes, also in bodies and functions, and both tensors of sparse ones."""
    for tensor in _tensors(model):
        if isinstance(tensor, SparseTensorProto):
            yield from (tensor.values, tensor.indices)
        else:
            yield tensor


def sparse_tensors(model: onnx.ModelProto) -> Iterator[SparseTensorProto]:
    """The sparse tensors among them."""
    return (tensor for tensor in _tensors(model) if isinstance(tensor, SparseTensorProto))


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto | SparseTensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_attributes(function.attribute_proto)
        for node in function.node:
            yield from _of_attributes(node.attribute)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto | SparseTensorProto]:
    yield from graph.initializer
    yield from graph.sparse_initializer
    for node in graph.node:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[TensorProto | SparseTensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g)
        yield from attribute.tensors
        yield from attribute.sparse_tensors
        for graph in attribute.graphs:
            yield from _of_graph(graph)


def initializer_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the initializers of a graph, dense and sparse."""
    sparse = (tensor.values.name for tensor in graph.sparse_initializer)
    return {*(tensor.name for tensor in graph.initializer), *sparse}


def references(model: onnx.ModelProto) -> list[TensorProto]:
    """The tensors with external data, whose values are in other files."""
    return [tensor for tensor in every_tensor(model) if uses_external_data(tensor)]


def without_references(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, or a copy in which such tensors are empty, for onnx's checker, which would look for their files."""
    if not references(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in references(copy):
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))
    return copy
