"""Adds outputs to a network for the means of trains and the shapes of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.data.samples import Samples
from pconv_onnx.graph import Network
from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import every_graph
from pconv_onnx.graph.windows import Shape
from pconv_onnx.neuron.parallel import train_decoder
from pconv_onnx.operators.domain import OP_TYPE, version_of
from pconv_onnx.operators.parallel_spike import attributes
from pconv_onnx.runtime.side_by_side import run_session
from pconv_onnx.temporal.kinds import Spikes

# What one batch may hand out, in bytes.
_HANDED_OUT = 1 << 27


class Taps:
    """The network with means of trains and shapes of tensors as further outputs.

    Attributes:
        model: the network.
    """

    def __init__(self, network: Network, trains: Mapping[str, Spikes], in_time: bool, shapes: Iterable[str]) -> None:
        """Of trains, which flow in the network, or whose means do, and of shapes of the main graph's tensors."""
        self.model = onnx.ModelProto()
        self.model.CopyFrom(network.proto)
        self._prefix = "tap"
        while any(name.startswith(self._prefix) for name in network.names):
            self._prefix += "_"
        self._count, self._version = count(), version_of(self.model)
        graphs = {name: graph for graph in every_graph(self.model.graph) for node in graph.node for name in node.output}
        means = {name: self._decoded(graphs[name], name, kind) if in_time else name for name, kind in trains.items()}
        main = self.model.graph
        measured = {name: self._node(main, "Shape", [name]) for name in sorted(shapes)}
        elements = {means[name]: helper.np_dtype_to_tensor_dtype(kind.levels.dtype) for name, kind in trains.items()}
        elements |= dict.fromkeys(measured.values(), TensorProto.INT64)
        outputs = expose(main, elements, set(network.names))
        self._means = {name: outputs[mean] for name, mean in means.items()}
        self._shapes = {name: outputs[shape] for name, shape in measured.items()}

    def run(self, runner: Any, feed: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Shape]]:
        """Means `[B, …]` (of branches that were not entered `[0]`) and shapes of one batch, by name of the tensor."""
        values = iter(run_session(runner, feed, [*self._means.values(), *self._shapes.values()]))
        means = {name: next(values) for name in self._means}
        return means, {name: tuple(next(values).tolist()) for name in self._shapes}

    def _decoded(self, graph: onnx.GraphProto, name: str, kind: Spikes) -> str:
        decoder = train_decoder(kind.levels, kind.channel_axis)
        tables = [self._table(graph, decoder.thresholds), self._table(graph, decoder.levels)]
        options = attributes(decoder, input_steps=kind.steps, spikes=False, version=self._version)
        return self._node(graph, OP_TYPE, [name, *tables], domain=DOMAIN, **options)

    def _node(self, graph: onnx.GraphProto, op_type: str, inputs: list[str], **options: Any) -> str:
        output = f"{self._prefix}/{next(self._count)}"
        graph.node.append(helper.make_node(op_type, inputs, [output], output, **options))
        return output

    def _table(self, graph: onnx.GraphProto, values: Array) -> str:
        name = f"{self._prefix}/table/{next(self._count)}"
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def largest_batch(taps: Taps, runner: Any, samples: Samples) -> int:
    """Of how many samples the means fit in memory, as one batch shows."""
    part, feed = next(samples.batches(1))
    means, _ = taps.run(runner, feed)
    return _HANDED_OUT * (part.stop - part.start) // max(sum(mean.nbytes for mean in means.values()), 1)
