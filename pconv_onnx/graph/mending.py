"""Mends models that lack something, or spell it in another form, where only one meaning is possible.

onnxruntime loads such models; onnx's checker, and this package, need them complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from pconv_onnx.basics.domain import MIN_OPSET
from pconv_onnx.basics.errors import listed
from pconv_onnx.graph.checking import InvalidModel
from pconv_onnx.graph.nesting import every_graph, every_node, keep, nodes_within, tensor_names, unused
from pconv_onnx.graph.order import sort, undefined, undefined_of
from pconv_onnx.graph.qonnx import DOMAINS
from pconv_onnx.graph.soundness import fits, flaw_of_tensor
from pconv_onnx.graph.stand_ins import inferred
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION, initializer_names
from pconv_onnx.graph.view import called

# From this IR version on a model imports its operators; before, there was one version of them.
_IMPORTS_IR_VERSION = 3
_INTEGERS = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
             TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)  # fmt: skip


def mended(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model as onnxruntime understands it, in ONNX's spelling, and the changes, for a message.

    The model given is not changed; it is returned itself if nothing needs mending.

    Raises:
        InvalidModel: no node makes a tensor, a tensor depends on itself, or the version of an operator set is unclear.
    """
    if not model.HasField("graph"):
        raise InvalidModel("it has no graph", "export or copy it again")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    done = tuple(told for mend in _MENDS if (told := mend(copy)))
    _require_tensors(copy)
    return (copy, done) if done else (model, ())


def with_output_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with types and shapes of its outputs, as far as onnx infers them; itself if all have them."""
    open_ones = [output.name for output in model.graph.output if not _has_shape(output)]
    if not open_ones:
        return model
    outputs = {info.name: info for info in inferred(model).graph.output}
    found = [name for name in open_ones if _has_shape(outputs[name])]
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in copy.graph.output:
        if output.name in found:
            output.CopyFrom(outputs[output.name])
    return copy


def with_open_sizes(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model without declared sizes of 0 that onnx's inference does not confirm, and the changes, for a message.

    Tools write 0 for a size that they do not know; onnxruntime then lets tensors of any size share one memory.

    Raises:
        onnx.shape_inference.InferenceError: the model is not one that onnx infers shapes of.
    """
    if not any(_empty_axes(info) for graph in every_graph(model.graph) for info in _declared(graph)):
        return model, ()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    opened = [(info, axes) for graph in every_graph(copy.graph) for info in _declared(graph) if (axes := _open(info))]
    found = inferred(copy)
    empty = {
        (info.name, axis)
        for graph in every_graph(found.graph)
        for info in _declared(graph)
        for axis in _empty_axes(info)
    }
    for info, axes in opened:
        for axis in axes:
            if (info.name, axis) in empty:
                info.type.tensor_type.shape.dim[axis].dim_value = 0
    count = sum(any((info.name, axis) not in empty for axis in axes) for info, axes in opened)
    if not count:
        return model, ()
    return copy, (f"the empty shape{'s' if count > 1 else ''} declared for {_count(count, 'tensor')} left open",)


def _declared(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """The tensors that a graph declares and its nodes compute."""
    held = initializer_names(graph) | {info.name for info in graph.input}
    return (info for info in (*graph.value_info, *graph.output) if info.name not in held)


def _empty_axes(info: onnx.ValueInfoProto) -> list[int]:
    sizes = enumerate(info.type.tensor_type.shape.dim)
    return [axis for axis, dim in sizes if dim.HasField("dim_value") and not dim.dim_value]


def _open(info: onnx.ValueInfoProto) -> list[int]:
    """Leave axes of size 0 open, and return which they are."""
    axes = _empty_axes(info)
    for axis in axes:
        info.type.tensor_type.shape.dim[axis].ClearField("dim_value")
    return axes


def _has_shape(info: onnx.ValueInfoProto) -> bool:
    return info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape")


def _spell_the_standard_domain(model: onnx.ModelProto) -> str:
    functions = model.functions
    nodes = (*every_node(model.graph), *(node for function in functions for node in nodes_within(function.node)))
    imports = (*model.opset_import, *(entry for function in functions for entry in function.opset_import))
    spelled = [entry for entry in (*nodes, *imports) if entry.domain == "ai.onnx"]
    for entry in spelled:
        entry.domain = ""
    return "the domain ai.onnx written as the standard one" if spelled else ""


def _leave_negative_sizes_open(model: onnx.ModelProto) -> str:
    """Leave negative sizes open, as onnxruntime does; onnx's inference crashes on some of them."""
    graphs = list(every_graph(model.graph))
    infos = [info for graph in graphs for info in (*graph.input, *graph.value_info, *graph.output)]
    negative = [dim for info in infos for dim in info.type.tensor_type.shape.dim if dim.dim_value < 0]
    for dim in negative:
        dim.ClearField("dim_value")
    return "sizes below 0 left open" if negative else ""


def _import_once(model: onnx.ModelProto) -> str:
    """Drop repeated imports.

    Raises:
        InvalidModel: a domain is imported in two versions.
    """
    once: dict[str, int] = {}
    for entry in model.opset_import:
        if once.setdefault(entry.domain, entry.version) != entry.version:
            versions = f"{once[entry.domain]} and {entry.version}"
            raise InvalidModel(
                f"its opset_import has two versions of {entry.domain or 'ai.onnx'}, {versions}",
                "keep the version that the model was exported with",
            )
    if len(once) == len(model.opset_import):
        return ""
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in once.items())
    return "operators imported once instead of twice"


def _import_what_is_used(model: onnx.ModelProto) -> str:
    """Import the domains that nodes use, and the standard one, in the version that must be meant.

    Raises:
        InvalidModel: nothing says which version of the standard domain is meant.
    """
    used: dict[str, set[str]] = {}
    for node in every_node(model.graph):
        used.setdefault(node.domain, set()).add(node.op_type)
    imported = {entry.domain: entry.version for entry in model.opset_import}
    if "" in used.keys() - imported and (model.ir_version >= _IMPORTS_IR_VERSION or imported):
        raise _without_version(next(node for node in every_node(model.graph) if not node.domain))
    missing = {domain: _version(domain, operators) for domain, operators in used.items() if domain not in imported}
    if "" not in imported:
        missing.setdefault("", _version_of_functions(model))
    model.opset_import.extend(helper.make_opsetid(domain, missing[domain]) for domain in sorted(missing, key=str))
    added = set(missing)
    imported |= missing
    for function in model.functions:
        own = {entry.domain for entry in function.opset_import}
        needed = {node.domain for node in nodes_within(function.node)} - own
        # As in the model around it, where that has it.
        for domain in sorted(needed, key=str):
            function.opset_import.add(domain=domain, version=imported.get(domain, 1))
        added |= needed
    told = listed(sorted(str(domain or "ai.onnx") for domain in added))
    return f"the domain{'s' if len(added) > 1 else ''} {told} imported" if added else ""


def _without_version(node: onnx.NodeProto) -> InvalidModel:
    return InvalidModel(
        f"its opset_import has no version of the standard operators (ai.onnx), which {called(node)} is one of",
        "add the opset that it was exported with",
    )


def _version_of_functions(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the functions of a model have, if the model itself has none.

    If they differ, it is that of the first function called; if no function uses any, it does not matter.

    Raises:
        InvalidModel: a function uses standard operators without a version.
    """
    functions = {(function.domain, function.name): function for function in model.functions}
    calls = ((node.domain, node.op_type) for node in every_node(model.graph))
    in_order = [*(functions[call] for call in calls if call in functions), *model.functions]
    for function in in_order:
        for entry in function.opset_import:
            if not entry.domain:
                return int(entry.version)
    for node in nodes_within(node for function in in_order for node in function.node):
        if not node.domain:
            raise _without_version(node)
    return MIN_OPSET


def _version(domain: str, operators: set[str]) -> int:
    """For onnx's own domains the first version with these operators as they are now; other domains have one."""
    if not domain:
        return 1
    known = [operator for operator in operators if onnx.defs.has(operator, domain)]
    return max((onnx.defs.get_schema(operator, domain=domain).since_version for operator in known), default=1)


def _raise_the_ir_version(model: onnx.ModelProto) -> str:
    least = _IMPORTS_IR_VERSION if model.opset_import else 0
    graphs = every_graph(model.graph)
    if any(initializer_names(graph) - {info.name for info in graph.input} for graph in graphs):
        least = INITIALIZERS_IR_VERSION
    if not 0 < model.ir_version < least:
        return ""
    told = f"the IR version raised from {model.ir_version} to {least}"
    model.ir_version = least
    return told


def _type_inputs(model: onnx.ModelProto) -> str:
    """Give inputs without a type the type of their initializer."""
    told = ""
    for graph in every_graph(model.graph):
        defaults = {tensor.name: tensor for tensor in graph.initializer}
        for info in graph.input:
            if info.name in defaults and not info.type.WhichOneof("value"):
                tensor = defaults[info.name]
                info.CopyFrom(helper.make_tensor_value_info(info.name, tensor.data_type, tensor.dims))
                told = "inputs given the type of their initializers"
    return told


def _declare_initializers(model: onnx.ModelProto) -> str:
    """Correct declarations of initializers in `value_info` and outputs, which onnxruntime ignores."""
    told = ""
    for graph in every_graph(model.graph):
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for info in (*graph.value_info, *graph.output):
            declared = info.type.tensor_type
            if info.name in tensors and declared.elem_type and not fits(tensors[info.name], declared):
                tensor = tensors[info.name]
                info.CopyFrom(helper.make_tensor_value_info(info.name, tensor.data_type, tensor.dims))
                told = "initializers declared as they are"
    return told


def _name_graphs(model: onnx.ModelProto) -> str:
    nameless = [graph for graph in every_graph(model.graph) if not graph.name]
    for graph in nameless:
        graph.name = "graph"
    return "a name given to a graph" if nameless else ""


def _drop_what_has_no_name(model: onnx.ModelProto) -> str:
    dropped = False
    for graph in every_graph(model.graph):
        for entries in (graph.value_info, graph.initializer):
            named = [entry for entry in entries if entry.name]
            dropped |= len(named) < len(entries)
            keep(entries, named)
    return "tensors without a name left out" if dropped else ""


def _say_once(model: onnx.ModelProto) -> str:
    """Drop repeated metadata keys; onnxruntime, too, reads the last."""
    last = {entry.key: entry.value for entry in model.metadata_props}
    if len(last) == len(model.metadata_props):
        return ""
    del model.metadata_props[:]
    for key, value in last.items():
        model.metadata_props.add(key=key, value=value)
    return "repeated metadata keys dropped"


def _initialize_once(model: onnx.ModelProto) -> str:
    """Drop repeated initializers.

    Raises:
        InvalidModel: their values differ.
    """
    repeated = 0
    for graph in every_graph(model.graph):
        if len(graph.initializer) == len({tensor.name for tensor in graph.initializer}):
            continue
        first: dict[str, TensorProto] = {}
        for tensor in reversed(graph.initializer):
            other = first.setdefault(tensor.name, tensor)
            if other is not tensor and not _same(other, tensor):
                raise InvalidModel(
                    f"the initializer '{tensor.name}' is there twice, with different values",
                    "give one of them another name in the export",
                )
        repeated += len(graph.initializer) - len(first)
        keep(graph.initializer, list(first.values())[::-1])
    return "initializers that are there twice left out" if repeated else ""


def _same(first: TensorProto, second: TensorProto) -> bool:
    """Whether tensors have the same values, whichever field holds them."""
    if first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True):
        return True
    if any(uses_external_data(tensor) or flaw_of_tensor(tensor) for tensor in (first, second)):
        return False
    if (first.data_type, first.dims) != (second.data_type, second.dims):
        return False
    one, other = numpy_helper.to_array(first), numpy_helper.to_array(second)
    if first.data_type == TensorProto.STRING:
        return bool((one == other).all())
    return one.tobytes() == other.tobytes()


def _quantise_with_floats(model: onnx.ModelProto) -> str:
    """Cast scales to float: QKeras' converter writes scales of 1 as integers, and QONNX's operators take floats."""
    graphs = list(every_graph(model.graph))
    uses = Counter(name for graph in graphs for node in graph.node for name in node.input)
    uses.update(info.name for graph in graphs for info in (*graph.input, *graph.output))
    names = tensor_names(model.graph)
    cast = 0
    for graph in graphs:
        integers = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in _INTEGERS}
        operands = Counter(node.input[index] for node, index in _operands(graph) if node.input[index] in integers)
        floats = {name: name if uses[name] == count else unused(name, names) for name, count in operands.items()}
        for node, index in _operands(graph):
            node.input[index] = floats.get(node.input[index], node.input[index])
        for name, new in floats.items():
            value = numpy_helper.from_array(numpy_helper.to_array(integers[name]).astype(np.float32), new)
            (integers[name] if new == name else graph.initializer.add()).CopyFrom(value)
        cast += len(floats)
    return f"{_count(cast, 'operand')} of QONNX quantisers cast from integers to float32" if cast else ""


def _operands(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Scales, zero points, bit widths and thresholds of quantisers, bodies included."""
    return (
        (node, index) for node in every_node(graph) if node.domain in DOMAINS for index in range(1, len(node.input))
    )


def _sort(model: onnx.ModelProto) -> str:
    try:
        early = sort(model.graph.node) + sum(sort(function.node) for function in model.functions)
    except ValueError as error:
        raise InvalidModel(str(error), "have it take another tensor, or write the circle as a Loop") from error
    return f"{_count(early, 'node')} brought into order" if early else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


# In this order, since later ones rely on earlier ones.
_MENDS: tuple[Callable[[onnx.ModelProto], str], ...] = (
    _spell_the_standard_domain,
    _import_once,
    _import_what_is_used,
    _type_inputs,
    _declare_initializers,
    _leave_negative_sizes_open,
    _name_graphs,
    _drop_what_has_no_name,
    _say_once,
    _initialize_once,
    _quantise_with_floats,
    _raise_the_ir_version,
    _sort,
)


def _require_tensors(model: onnx.ModelProto) -> None:
    """Raise if a tensor is needed that no node makes.

    Raises:
        InvalidModel: such a tensor is missing.
    """
    fault = undefined(model.graph)
    for function in model.functions:
        known = set(function.input)
        fault = fault or undefined_of(function.node, known)
        missing = next((name for name in function.output if name not in known), None)
        if missing is not None:
            fault = fault or f"no node makes the output '{missing}' of the function '{function.name}'"
    if fault:
        raise InvalidModel(fault, "add the node, input or initializer that is missing, or correct the name")
