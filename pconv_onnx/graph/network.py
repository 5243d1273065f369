"""A loaded model and the questions that recognisers and rules ask of its graph."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress

from pconv_onnx.graph.qonnx import standardised
from pconv_onnx.neuron import Array

Dimension = int | str | None


@dataclass
class Network:
    """A checked model, with a GraphSurgeon view of it for reading.

    The view is for navigation only. Results are written by editing a copy of `proto`, so that whatever this project
    does not know (annotations, metadata of nodes, types without a NumPy counterpart) comes through untouched.

    Attributes:
        proto: the model.
        name: how to call it in messages.
        sha256: digest of its file.
        hints: types and shapes, by tensor name, that inference does not find by itself, as far as `folding.fold` does.
        nodes: the nodes of the main graph, in the order of `proto`.
        inner_nodes: the nodes of If, Loop and Scan bodies and of model-local functions.
        shapes: shape by tensor name, declared or inferred; tensors of unknown rank are not there.
        dtypes: element type by tensor name, likewise.
        sizes: entries of computed integer scalars and vectors (numbers, names of dimensions, None) by tensor name, as
            far as `folding.fold` finds them.
    """

    proto: onnx.ModelProto
    name: str
    sha256: str
    hints: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    nodes: list[gs.Node] = field(init=False)
    inner_nodes: list[gs.Node] = field(init=False, default_factory=list)
    shapes: dict[str, tuple[Dimension, ...]] = field(init=False)
    dtypes: dict[str, np.dtype] = field(init=False)
    sizes: dict[str, Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Import the graph and infer the shapes and types of its tensors."""
        # Its warnings are about values that nothing here reads, and they go to stdout.
        with LoggerSuppress(G_LOGGER, G_LOGGER.ERROR):
            graph = gs.import_onnx(self.proto)
        self.nodes = list(graph.nodes)
        self._places = {id(node): "" for node in self.nodes}
        for node in self.nodes:
            self._enter_bodies(node)
        for function in graph.functions:
            self._enter(function.nodes, f"the function '{function.name}'")
        self._metadata = {
            id(node): proto.metadata_props for node, proto in zip(self.nodes, self.proto.graph.node, strict=True)
        }
        self._graph_outputs = {tensor.name for tensor in graph.outputs}
        self.shapes, self.dtypes = {}, {}
        for tensor in self.proto.graph.initializer:
            self.shapes[tensor.name] = tuple(tensor.dims)
            self.dtypes[tensor.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        inferred = onnx.shape_inference.infer_shapes(self._with_hints(), data_prop=True).graph
        for info in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor_type = info.type.tensor_type
            if tensor_type.elem_type:
                self.dtypes[info.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
            if tensor_type.HasField("shape"):
                self.shapes[info.name] = _dimensions(info)
        for name, info in self.hints.items():
            # What a graph declares of its outputs, inference keeps.
            hint = _dimensions(info)
            found = zip(hint, self.shapes.get(name, hint), strict=True)
            self.shapes[name] = tuple(old if new is None else new for new, old in found)

    def __reduce__(self) -> tuple[type[Network], tuple[Any, ...]]:
        """Pickled without the view, whose nodes lead to each other in long chains; it is imported anew."""
        return Network, (self.proto, self.name, self.sha256, self.hints)

    def _with_hints(self) -> onnx.ModelProto:
        model = standardised(self.proto)
        if not self.hints:
            return model
        hinted = onnx.ModelProto()
        hinted.CopyFrom(model)
        del hinted.graph.value_info[:]
        hinted.graph.value_info.extend(info for info in model.graph.value_info if info.name not in self.hints)
        hinted.graph.value_info.extend(info for name, info in self.hints.items() if name not in self._graph_outputs)
        return hinted

    def _enter_bodies(self, node: gs.Node) -> None:
        for value in node.attrs.values():
            for body in value if isinstance(value, list) else [value]:
                if isinstance(body, gs.Graph):
                    self._enter(body.nodes, f"the body of {node.op} '{node.name}'")

    def _enter(self, nodes: Iterable[gs.Node], place: str) -> None:
        for node in nodes:
            self.inner_nodes.append(node)
            # What the caller of a function decides is not known here.
            for key in [key for key, value in node.attrs.items() if isinstance(value, gs.Node.AttributeRef)]:
                del node.attrs[key]
            self._places[id(node)] = place
            self._enter_bodies(node)

    def place(self, node: gs.Node) -> str:
        """The body or function that a node is in; empty for the main graph."""
        return self._places[id(node)]

    @property
    def opset(self) -> int:
        """Version of the default operator domain."""
        return next(entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx"))

    @cached_property
    def names(self) -> set[str]:
        """Every tensor and node name in use, subgraphs included."""
        used: set[str] = set()
        stack = [self.proto.graph]
        while stack:
            graph = stack.pop()
            used.update(info.name for info in (*graph.input, *graph.output, *graph.value_info))
            used.update(tensor.name for tensor in graph.initializer)
            for node in graph.node:
                used.update((node.name, *node.input, *node.output))
                stack.extend(subgraphs(node))
        return used

    @cached_property
    def computed_from_inputs(self) -> set[str]:
        """Names of the tensors of the main graph that depend on its inputs; all of them where it has none."""
        constants = {tensor.name for tensor in self.proto.graph.initializer}
        found = {info.name for info in self.proto.graph.input} - constants
        no_inputs = not found
        for node in self.proto.graph.node:
            if no_inputs or not found.isdisjoint(node.input) or not found.isdisjoint(captured(node)):
                found.update(node.output)
        return found

    def shape(self, tensor: gs.Tensor) -> tuple[Dimension, ...] | None:
        """Shape of a tensor, None where not even its rank is known."""
        return self.shapes.get(tensor.name)

    def dtype(self, tensor: gs.Tensor) -> np.dtype | None:
        """Element type of a tensor, None where unknown."""
        return self.dtypes.get(tensor.name)

    def module(self, node: gs.Node) -> str:
        """Path of the PyTorch module that a node comes from, as both exporters of torch record it; empty if unknown."""
        scopes = next(
            (e.value for e in self._metadata.get(id(node), ()) if e.key == "pkg.torch.onnx.name_scopes"), None
        )
        if scopes is not None:
            with contextlib.suppress(ValueError, SyntaxError, IndexError, TypeError):
                # Paths from the root to the module, then the node itself.
                return str(ast.literal_eval(scopes)[-2])
        path = ""
        # `/layer1/layer1.0/act/Floor`: what a container holds repeats the container's name.
        for part in node.name.split("/")[1:-1]:
            path = part if part.startswith(f"{path}.") or not path else f"{path}.{part}"
        return path

    def is_output(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor is an output of the model."""
        return tensor.name in self._graph_outputs


def _dimensions(info: onnx.ValueInfoProto) -> tuple[Dimension, ...]:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: onnx.NodeProto) -> set[str]:
    """Names of tensors from outside that the bodies of a node use."""
    free: set[str] = set()
    for graph in subgraphs(node):
        inner = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
        for child in graph.node:
            free |= ({name for name in child.input if name} | captured(child)) - inner
            inner.update(child.output)
        free |= {info.name for info in graph.output} - inner
    return free


def unused(name: str, used: set[str]) -> str:
    """The name, longer where it is used, which it then is."""
    while name in used:
        name += "_"
    used.add(name)
    return name
