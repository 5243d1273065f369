"""Finds where a model breaks ONNX's definition, and names the node or tensor.

onnx's checker says that a model does, but often not where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

import onnx
from onnx import AttributeProto, SparseTensorProto, TensorProto
from onnx.checker import ValidationError
from onnx.defs import OpSchema
from onnx.external_data_helper import uses_external_data

from pconv_onnx.graph.nesting import nodes_within, subgraphs
from pconv_onnx.graph.soundness import Fault, flaw_of
from pconv_onnx.graph.tensors import every_tensor, sparse_tensors
from pconv_onnx.graph.view import called

Name = TypeVar("Name", bound=Hashable)

_UNKNOWN = "onnx's checker refuses it, for a reason not known here", "onnx.checker.check_model says more"
_DECLARE = "declare it (onnx.helper.make_tensor_value_info)"
_ONCE = "list it once"
_MAKE = "write it with onnx.helper.make_attribute"
_WRITE = "import the opset that the node was written for, or write it as its operator is here"
# Whose operators onnx defines.
_DEFINED = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")
# Operators that onnxruntime has in the standard domain and onnx does not have, in some opsets or in all.
_OF_ONNXRUNTIME = frozenset({
    "Affine", "Crop", "DisentangledAttention_TRT", "DynamicSlice", "EfficientNMS_TRT", "GRUUnit", "GivenTensorFill",
    "ImageScaler", "LayerNormalization", "MeanVarianceNormalization", "MemcpyFromHost", "MemcpyToHost",
    "MultilevelCropAndResize_TRT", "ParametricSoftplus", "PyramidROIAlign_TRT", "Scale", "ScaledTanh",
    "SimplifiedLayerNormalization", "ThresholdedRelu",
})  # fmt: skip
# The number of inputs or outputs of an operator that takes any number.
_UNBOUNDED = 1 << 30
# The largest version of a domain that onnx can look up.
_LAST = (1 << 31) - 1
# The field that holds the value of an attribute, by type; lists may be empty.
_FIELDS = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
}


def is_of_onnxruntime(node: onnx.NodeProto, opset: int) -> bool:
    """Whether onnxruntime has an operator of the standard domain in that opset, and onnx does not have it."""
    return not node.domain and node.op_type in _OF_ONNXRUNTIME and not onnx.defs.has(node.op_type, opset)


def fault_of(model: onnx.ModelProto) -> Fault:
    """What is wrong with a model that onnx's checker refuses, and what to do about it."""
    return next(_faults(model), None) or flaw_of(model) or next(_faulty_tensors(model), _UNKNOWN)


def _faults(model: onnx.ModelProto) -> Iterator[Fault]:
    if model.ir_version < 1:
        yield f"its ir_version is {model.ir_version}, and the first is 1", "set the one that it was exported with"
    for entry in (*model.opset_import, *(entry for function in model.functions for entry in function.opset_import)):
        if entry.version < 1:
            told = f"its opset_import has version {entry.version} of {entry.domain or 'ai.onnx'}, and the first is 1"
            yield told, "set the one that it was exported with"
        elif entry.version > _LAST:
            told = f"its opset_import has version {entry.version} of {entry.domain or 'ai.onnx'}, which does not exist"
            yield told, "set the one that it was exported with"
    for kind, infos in (("input", model.graph.input), ("output", model.graph.output)):
        yield from _of_values(kind, infos)
    yield from _made_twice(model.graph, set())
    yield from faults_of_functions(model.functions)
    own = {_key(function) for function in model.functions}
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for node in nodes_within(model.graph.node):
        yield from _of_node(node, opsets, own)
    for function in model.functions:
        yield from _of_function(function, opsets, own)


def _repeated(names: Iterable[Name]) -> list[Name]:
    return [name for name, uses in Counter(names).items() if uses > 1]


def _of_values(kind: str, infos: Iterable[onnx.ValueInfoProto]) -> Iterator[Fault]:
    for info in infos:
        if not info.name:
            yield f"an {kind} has no name", "give it the name that the nodes use, or leave it out"
        elif not info.type.WhichOneof("value") and kind == "input":
            yield f"the input '{info.name}' has no type", _DECLARE
        elif info.type.HasField("tensor_type") and not info.type.tensor_type.elem_type:
            yield f"the {kind} '{info.name}' has no element type", _DECLARE
    yield from ((f"the {kind} '{name}' is listed twice", _ONCE) for name in _repeated(info.name for info in infos))


def _made_twice(graph: onnx.GraphProto, around: set[str]) -> Iterator[Fault]:
    """Errors for tensors whose name is taken already, in the graph or around it."""
    taken = {*around, *(info.name for info in graph.input), *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        for body in subgraphs(node):
            yield from _made_twice(body, taken)
        for name in filter(None, node.output):
            if name in taken:
                yield f"{called(node)} makes '{name}', which is there already", "give one of the two another name"
            taken.add(name)


def _key(function: onnx.FunctionProto) -> tuple[str, str]:
    """The domain and name by which nodes call a function."""
    return function.domain, function.name


def faults_of_functions(functions: Sequence[onnx.FunctionProto]) -> Iterator[Fault]:
    """What is wrong with functions as such: one calls itself, or there are two of one name."""
    names = [(*_key(function), function.overload) for function in functions]
    within = ({(node.domain, node.op_type, node.overload) for node in nodes_within(entry.node)} for entry in functions)
    calls = dict(zip(names, within, strict=True))
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        first = next(name for name in names if name in error.args[1])
        yield f"the function '{first[1]}' calls itself", "write what it repeats as a Loop"
    for _, name, _ in _repeated(names):
        yield f"the function '{name}' is defined twice", "leave one out, or give it another name"


def _of_function(function: onnx.FunctionProto, around: dict[str, int], own: set[tuple[str, str]]) -> Iterator[Fault]:
    if not function.name:
        yield "a function has no name", "give it the name that nodes call it by, or leave it out"
    for kind, names in (("input", function.input), ("output", function.output)):
        for name in _repeated(names):
            yield f"the {kind} '{name}' of the function '{function.name}' is listed twice", _ONCE
    opsets = {entry.domain: entry.version for entry in function.opset_import}
    for node in nodes_within(function.node):
        yield from _of_node(node, opsets, own)
        here, there = (versions.get(node.domain, 1) for versions in (opsets, around))
        if node.domain in _DEFINED and _definition(node, here) != _definition(node, there):
            yield (
                f"{called(node)} of the function '{function.name}' is of opset {here}, the model of {there}, and the "
                "operator differs between them",
                "write the function in the opset of the model, or inline it in the export",
            )


def _definition(node: onnx.NodeProto, opset: int) -> int | None:
    """The opset in which an operator got the definition that it has in this opset; None if it does not exist."""
    known = onnx.defs.has(node.op_type, opset, node.domain)
    return onnx.defs.get_schema(node.op_type, opset, node.domain).since_version if known else None


def _of_node(node: onnx.NodeProto, opsets: dict[str, int], own: set[tuple[str, str]]) -> Iterator[Fault]:
    operator: str | bytes = node.op_type  # bytes where it is not text
    if isinstance(operator, bytes):
        yield f"an operator has the name {operator!r}, which is not text", "export or copy it again"
    elif not node.op_type:
        yield f"the node {called(node).strip()} has no operator", "give it the op_type that is meant, or leave it out"
    elif not node.input and not node.output:
        yield f"{called(node)} takes nothing and makes nothing", "leave it out"
    else:
        yield from _of_attributes(node)
        opset = opsets.get(node.domain, 1)
        if node.domain in _DEFINED and (node.domain, node.op_type) not in own and not is_of_onnxruntime(node, opset):
            yield from _misfit(node, opset)


def _of_attributes(node: onnx.NodeProto) -> Iterator[Fault]:
    for attribute in node.attribute:
        told = f"the attribute '{attribute.name}' of {called(node)}"
        given = [field for field in _FIELDS.values() if attribute.HasField(field)]
        if not attribute.name:
            yield f"an attribute of {called(node)} has no name", _MAKE
        elif not attribute.type:
            yield f"{told} has no type", _MAKE
        elif {*given} - {_FIELDS.get(attribute.type)}:
            kind = AttributeProto.AttributeType.Name(attribute.type)
            yield f"{told} has a value that is not of its type {kind}", _MAKE
    for name in _repeated(attribute.name for attribute in node.attribute):
        yield f"{called(node)} has the attribute '{name}' twice", "leave one out"


def _misfit(node: onnx.NodeProto, opset: int) -> Iterator[Fault]:
    """How a node does not fit the definition of its operator."""
    told = f"{called(node)}: {node.domain or 'opset'} {opset} has no such operator"
    if not onnx.defs.has(node.op_type, opset, node.domain):
        if since := _first(node):
            yield f"{told}, only later ones have", f"export it with version {since} or later"
        else:
            yield told, "import the domain that has it, or write it as operators of this one"
        return
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    if schema.deprecated:
        yield f"{told} any more", "export it with the opset that it was written for, or with what took its place"
    yield from _misfit_of_count(node, "input", len(node.input), schema.min_input, schema.max_input)
    yield from _misfit_of_count(node, "output", len(node.output), schema.min_output, schema.max_output)
    for parameter, name in zip(schema.inputs, node.input, strict=False):
        if not name and parameter.option == OpSchema.FormalParameterOption.Single:
            yield f"{called(node)} lacks its input '{parameter.name}'", _WRITE
    yield from _misfit_of_attributes(node, schema)


def _first(node: onnx.NodeProto) -> int:
    """The first opset that has a node's operator; 0 if none has it."""
    newest = onnx.defs.onnx_opset_version()
    versions = (version for version in range(1, newest + 1) if onnx.defs.has(node.op_type, version, node.domain))
    return next(versions, 0)


def _misfit_of_count(node: onnx.NodeProto, kind: str, count: int, least: int, most: int) -> Iterator[Fault]:
    if not least <= count <= most:
        takes = f"{least}" if least == most else f"{least} to {most}" if most < _UNBOUNDED else f"{least} or more"
        yield f"{called(node)} has {count} {kind}{'s' if count != 1 else ''}, and its operator {takes}", _WRITE


def _misfit_of_attributes(node: onnx.NodeProto, schema: OpSchema) -> Iterator[Fault]:
    for attribute in node.attribute:
        expected = schema.attributes.get(attribute.name)
        if expected is None:
            yield f"{called(node)} has the attribute '{attribute.name}', which its operator does not have", _WRITE
        elif _type_of(expected) != attribute.type:
            given, wanted = (AttributeProto.AttributeType.Name(kind) for kind in (attribute.type, _type_of(expected)))
            yield f"the attribute '{attribute.name}' of {called(node)} is of type {given}, not {wanted}", _MAKE
    given_names = {attribute.name for attribute in node.attribute}
    for name, expected in schema.attributes.items():
        if expected.required and name not in given_names:
            yield f"{called(node)} lacks the attribute '{name}'", _WRITE


def _type_of(attribute: OpSchema.Attribute) -> AttributeProto.AttributeType:
    return AttributeProto.AttributeType.Value(str(attribute.type).rpartition(".")[2])


def _faulty_tensors(model: onnx.ModelProto) -> Iterator[Fault]:
    for sparse in sparse_tensors(model):
        if _refused(onnx.checker.check_sparse_tensor, sparse):
            told = f"the sparse tensor '{sparse.values.name}' does not fit its indices or its shape {list(sparse.dims)}"
            yield told, "export or copy it again"
    for tensor in every_tensor(model):
        if not uses_external_data(tensor) and _refused(onnx.checker.check_tensor, tensor):
            told = f"the tensor '{tensor.name}' has values of another type than it says, or none"
            yield told, "export or copy it again"


def _refused(check: Callable[[Any], None], part: TensorProto | SparseTensorProto) -> bool:
    try:
        check(part)
    except (ValidationError, ValueError):
        return True
    return False
