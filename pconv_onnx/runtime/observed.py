"""Shapes and types behind operators that onnx does not know, such as com.microsoft's, observed in runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
from onnx import defs, helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError, listed, warn
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import tensor_names, unused
from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.passes.pipeline import in_standard_operators
from pconv_onnx.graph.view import Node
from pconv_onnx.operators.contents import contents_of
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session
from pconv_onnx.runtime.trial import FACTORS, RUNS, Open, TooMuch, feed, run_briefly, sizes


def with_observed_shapes(network: Network) -> Network:
    """The network with hints of what such operators give; itself where none is in it, or it does not run.

    Hints are of their outputs alone: onnx infers the rest. A size that follows an open dimension of an input in every
    run has its name; one that is the same in every run is a number.
    """
    names = _unknown(network)
    if not names or contents_of(network.proto).neurons:
        return network
    key = network.sha256, tuple(names)
    if key not in _SHOWN:
        _SHOWN[key] = _hints(network, names)
    hints = _SHOWN[key]
    return fold(replace(network, hints={**network.hints, **hints})) if hints else network


# What was found, by network and tensors: one command may look at a network several times.
_SHOWN: dict[tuple[str, tuple[str, ...]], dict[str, onnx.ValueInfoProto]] = {}


def _unknown(network: Network) -> list[str]:
    """Outputs of unknown rank or type, in the main graph, of operators that onnx does not know."""
    return [
        tensor.name
        for node in network.nodes
        for tensor in node.outputs
        if tensor.name
        and not (tensor.name in network.shapes and tensor.name in network.dtypes)
        and not _is_known(node, network.opset)
    ]


def _is_known(node: Node, opset: int) -> bool:
    return is_standard(node) and bool(defs.has(node.op, opset, ""))


def _hints(network: Network, names: Sequence[str]) -> dict[str, onnx.ValueInfoProto]:
    model = in_standard_operators(network).proto
    for factor in FACTORS:
        try:
            types = _types(model, network, names)
            session = _session(_measuring(model, list(types)), network)
            chosen = [sizes(network, run, factor) for run in range(RUNS)]
            shown = [run_briefly(session, feed(network, chosen[run], run)) for run in range(RUNS)]
        except TooMuch as error:
            tensors = listed([f"'{name}'" for name in names])
            why = f"the shapes of {tensors} in {network.name} are not known, since {error.message}"
            warn(f"{why}; declare them in the export")
            break
        except PconvError:
            continue
        told = {tuple(run[name] for run in chosen): name for name in chosen[0]}
        shapes = {
            name: list(zip(*found, strict=False)) for name, *found in zip(types, *shown, strict=True) if _alike(found)
        }
        return {
            name: helper.make_tensor_value_info(name, types[name], [_size(size, told) for size in shape])
            for name, shape in shapes.items()
        }
    return {}


def _alike(shapes: Sequence[Array]) -> bool:
    return len({len(shape) for shape in shapes}) == 1


def _size(found: tuple[int, ...], told: Mapping[tuple[int, ...], Open]) -> Dimension:
    if len(set(found)) == 1:
        # Of nothing at all it is not known whether it is so always.
        return int(found[0]) or None
    follows = told.get(tuple(map(int, found)))
    return follows if isinstance(follows, str) else None


def _session(model: onnx.ModelProto, network: Network) -> Any:
    level = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(model, network.name, level, folder=network.folder)


def _types(model: onnx.ModelProto, network: Network, names: Sequence[str]) -> dict[str, int]:
    """Element types of those that are tensors, as onnxruntime infers them."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    outputs = {info.name for info in tapped.graph.output}
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    found = {entry.name: entry.type for entry in _session(tapped, network).get_outputs()}
    return {name: _TYPES[found[name]] for name in names if found[name] in _TYPES}


# As onnxruntime calls them.
_TYPES = {
    f"tensor({name})": onnx.TensorProto.DataType.Value(name.upper())
    for name in ("float", "float16", "bfloat16", "double", "bool", "int8", "uint8", "int16", "uint16", "int32", "int64")
}


def _measuring(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with the shapes of these tensors as its outputs: their values may be large."""
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    graph = measuring.graph
    del graph.output[:]
    used = tensor_names(graph)
    for name in names:
        shape = unused(f"{name}/shape", used)
        graph.node.append(helper.make_node("Shape", [name], [shape]))
        graph.output.append(helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, [None]))
    return measuring
