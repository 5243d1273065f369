"""A loaded model, with its types, shapes and names as recognisers and rules need them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.external_data_helper import uses_external_data
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger.logger import G_LOGGER, LoggerSuppress

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.external import values
from pconv_onnx.graph.naming import name_of, path_in, recorded
from pconv_onnx.graph.nesting import captured, every_graph, tensor_names
from pconv_onnx.graph.qonnx import standardised
from pconv_onnx.graph.record import ACTIVATION, ALSO_CALLED
from pconv_onnx.graph.stand_ins import inferred, with_stand_ins
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.graph.view import Node, Tensor, called

Dimension = int | str | None


@dataclass(frozen=True, eq=False)
class Graph:
    """The main graph of a network, or the body of an If, Loop or Scan.

    Attributes:
        proto: the graph.
        nodes: its nodes, in the order of `proto`.
        place: its name in messages; empty for the main graph.
        repeated_by: the name, in messages, of the Loop or Scan that runs it more than once; empty if there is none.
    """

    proto: onnx.GraphProto
    nodes: list[Node]
    place: str = ""
    repeated_by: str = ""

    def pairs(self) -> Iterator[tuple[Node, onnx.NodeProto]]:
        """Its nodes, each with its counterpart in `proto`."""
        return zip(self.nodes, self.proto.node, strict=True)


@dataclass(eq=False)
class Network:
    """A checked model, with a GraphSurgeon view of it for reading.

    The view is for navigation only. Results are written by editing a copy of `proto`, so that whatever this project
    does not know (annotations, metadata of nodes, types without a NumPy counterpart) comes through untouched.
    A name means one tensor, in bodies as well.

    Attributes:
        proto: the model.
        name: how to call it in messages.
        sha256: digest of its file, and of the tensors that it keeps in others.
        folder: where these others lie; None of a model that was in memory.
        hints: types and shapes, by tensor name, that inference does not find by itself, as far as
            `passes.folding.fold` does.
        graph: the main graph.
        shapes: shape by tensor name, declared or inferred; tensors of unknown rank are not there.
        dtypes: element type by tensor name, likewise.
        sizes: entries of computed integer scalars and vectors (numbers, names of dimensions, None) by tensor name, as
            far as `passes.folding.fold` finds them.
    """

    proto: onnx.ModelProto
    name: str
    sha256: str
    folder: Path | None = None
    hints: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    graph: Graph = field(init=False)
    shapes: dict[str, tuple[Dimension, ...]] = field(init=False)
    dtypes: dict[str, np.dtype] = field(init=False)
    sizes: dict[str, Array] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Import the graph and infer the shapes and types of its tensors."""
        # GraphSurgeon's warnings are about values that nothing here reads, and they go to stdout.
        with LoggerSuppress(G_LOGGER, G_LOGGER.ERROR):
            graph = gs.import_onnx(self.proto)
        self._graphs: dict[int, Graph] = {}
        self._bodies: dict[int, list[Graph]] = {}
        self._metadata: dict[int, Sequence[onnx.StringStringEntryProto]] = {}
        self.graph = self._enter(Graph(self.proto.graph, list(graph.nodes)))
        graphs = list(every_graph(self.proto.graph))
        self._outputs = {info.name for graph in graphs for info in graph.output}
        self.shapes, self.dtypes = {}, {}
        for tensor in (tensor for graph in graphs for tensor in graph.initializer):
            self.shapes[tensor.name] = tuple(tensor.dims)
            self.dtypes[tensor.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        for sparse in (sparse for graph in graphs for sparse in graph.sparse_initializer):
            self.shapes[sparse.values.name] = tuple(sparse.dims)
            self.dtypes[sparse.values.name] = onnx.helper.tensor_dtype_to_np_dtype(sparse.values.data_type)
        known = every_graph(inferred(self._with_hints(), data_prop=True).graph)
        for info in (info for graph in known for info in (*graph.input, *graph.value_info, *graph.output)):
            tensor_type = info.type.tensor_type
            if tensor_type.elem_type:
                self.dtypes[info.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
            if tensor_type.HasField("shape"):
                self.shapes[info.name] = _dimensions(info)
        for name, info in self.hints.items():
            # Inference keeps what a graph declares for its outputs.
            hint = _dimensions(info)
            found = zip(hint, self.shapes.get(name, hint), strict=True)
            self.shapes[name] = tuple(old if new is None else new for new, old in found)

    def __reduce__(self) -> tuple[type[Network], tuple[Any, ...], dict[str, Any]]:
        """Pickled without the view, whose nodes refer to each other in long chains; it is built again."""
        return Network, (self.proto, self.name, self.sha256, self.folder, self.hints), {"sizes": self.sizes}

    def __eq__(self, other: object) -> bool:
        """Whether another network is the same model with the same name; the rest follows from that."""
        return isinstance(other, Network) and self.__reduce__()[1] == other.__reduce__()[1]

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def __repr__(self) -> str:
        """Short: a model may have gigabytes."""
        return f"<{self.name}: {len(self.proto.graph.node)} nodes, opset {self.opset}>"

    def _with_hints(self) -> onnx.ModelProto:
        model = standardised(self.proto)
        if not self.hints:
            return with_stand_ins(model)
        hinted = onnx.ModelProto()
        hinted.CopyFrom(model)
        for graph in every_graph(hinted.graph):
            declared = [info for info in graph.value_info if info.name not in self.hints]
            made = {name for node in graph.node for name in node.output} - self._outputs
            del graph.value_info[:]
            graph.value_info.extend(declared)
            graph.value_info.extend(info for name, info in self.hints.items() if name in made)
        return with_stand_ins(hinted)

    def _enter(self, graph: Graph) -> Graph:
        for node, proto in graph.pairs():
            self._read_lazily(node)
            self._graphs[id(node)] = graph
            self._metadata[id(node)] = proto.metadata_props
            once = node.op == "If" and is_standard(node)
            repeated_by = graph.repeated_by or ("" if once else called(node))
            self._bodies[id(node)] = [
                self._enter(Graph(body_proto, list(body.nodes), f"the body of {called(node)}", repeated_by))
                for body, body_proto in _bodies(node, proto)
            ]
        return graph

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the main graph."""
        return self.graph.nodes

    def graph_of(self, node: Node) -> Graph:
        """The graph that a node is in."""
        return self._graphs[id(node)]

    def bodies(self, node: Node) -> list[Graph]:
        """The bodies of an If, Loop or Scan; none of other nodes."""
        return self._bodies[id(node)]

    def graphs(self) -> Iterator[Graph]:
        """The main graph and all bodies, outer ones first."""
        waiting = deque([self.graph])
        while waiting:
            graph = waiting.popleft()
            yield graph
            waiting.extend(body for node in graph.nodes for body in self.bodies(node))

    def every_node(self, graph: Graph | None = None) -> Iterator[Node]:
        """The nodes of a graph (the main one) and of its bodies, those of a body before its own node."""
        for node in (graph or self.graph).nodes:
            for body in self.bodies(node):
                yield from self.every_node(body)
            yield node

    def _read_lazily(self, node: Node) -> None:
        """Read the constants of a node that GraphSurgeon cannot read, when they are needed."""
        for tensor in (*node.inputs, *node.attrs.values()):
            if isinstance(tensor, gs.Constant) and isinstance(tensor._values, LazyValues):
                proto = tensor._values.tensor
                if isinstance(proto, onnx.SparseTensorProto) or uses_external_data(proto):
                    tensor.values = _Lazy(proto, self.folder)

    def place(self, node: Node) -> str:
        """The body that a node is in; empty for the main graph."""
        return self.graph_of(node).place

    @property
    def opset(self) -> int:
        """Version of the default operator domain."""
        return next(entry.version for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx"))

    @cached_property
    def names(self) -> set[str]:
        """Every tensor and node name in use, subgraphs included."""
        named = {node.name for graph in every_graph(self.proto.graph) for node in graph.node}
        return named | tensor_names(self.proto.graph)

    @cached_property
    def computed_from_inputs(self) -> set[str]:
        """Names of the tensors that depend on the network's inputs; all tensors if it has no inputs."""
        found = {info.name for info in self.proto.graph.input} - initializer_names(self.proto.graph)
        self._follow(self.graph, found, not found)
        return found

    def _follow(self, graph: Graph, found: set[str], no_inputs: bool) -> None:
        for node, proto in graph.pairs():
            for body in self.bodies(node):
                found.update(info.name for info in body.proto.input)
                self._follow(body, found, no_inputs)
            if no_inputs or not found.isdisjoint(proto.input) or not found.isdisjoint(captured(proto)):
                found.update(proto.output)

    def shape(self, tensor: Tensor) -> tuple[Dimension, ...] | None:
        """Shape of a tensor; None if not even its rank is known."""
        return self.shapes.get(tensor.name)

    def dtype(self, tensor: Tensor) -> np.dtype | None:
        """Element type of a tensor, None where unknown."""
        return self.dtypes.get(tensor.name)

    def module(self, node: Node) -> str:
        """Path of the PyTorch module that a node comes from, as both exporters of torch record it; empty if unknown.

        For nodes that `calibrate` made, the name of the activation that they stand for.
        """
        metadata = self._metadata_of(node)
        if ACTIVATION in metadata:
            return metadata[ACTIVATION]
        found = recorded(metadata)
        return path_in(node.name) if found is None else found[0]

    def also_called(self, node: Node) -> str:
        """A further name of the activation that a node stands for, as `calibrate` writes it; empty if there is none."""
        return self._metadata_of(node).get(ALSO_CALLED, "")

    def name_of(self, node: Node) -> str:
        """The name of a node in reports, by `naming.name_of`; several nodes may have the same."""
        return name_of(node, self._metadata_of(node))

    def _metadata_of(self, node: Node) -> dict[str, str]:
        return {entry.key: entry.value for entry in self._metadata.get(id(node), ())}

    def is_output(self, tensor: Tensor) -> bool:
        """Whether the tensor is an output of the model, or of the body that it is in."""
        return tensor.name in self._outputs


def _bodies(node: Node, proto: onnx.NodeProto) -> Iterator[tuple[gs.Graph, onnx.GraphProto]]:
    for attribute in proto.attribute:
        if attribute.HasField("g"):
            yield node.attrs[attribute.name], attribute.g
        else:
            yield from zip(node.attrs[attribute.name] if attribute.graphs else (), attribute.graphs, strict=True)


class _Lazy(LazyValues):
    """Values in another file, which stays there, or of a sparse tensor."""

    def __init__(self, tensor: onnx.TensorProto | onnx.SparseTensorProto, folder: Path | None) -> None:
        super().__init__(tensor)
        self._folder = folder

    def load(self) -> Array:
        return values(self.tensor, self._folder)


def _dimensions(info: onnx.ValueInfoProto) -> tuple[Dimension, ...]:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims)
