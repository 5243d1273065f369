"""From a plan to a graph: writes the rewritten model, and decides nothing.

A Static tensor keeps its name, so that a name of the source means the source's value. Its form in time, if
it has one, is called `<name>/steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.nesting import captured, every_node, subgraphs, unused
from pconv_onnx.graph.network import Graph
from pconv_onnx.graph.passes.float16 import in_float16
from pconv_onnx.graph.qonnx import standardised
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.graph.view import Node, key_of
from pconv_onnx.neuron.coding import Coding
from pconv_onnx.neuron.parallel import ParallelNeuron, train_decoder
from pconv_onnx.operators.domain import MEAN_OP_TYPE, OP_TYPE, RUNNING_MEAN_OP_TYPE
from pconv_onnx.operators.means import running_mean
from pconv_onnx.operators.parallel_spike import attributes, functions, version_for
from pconv_onnx.plan.plan import Plan, Planned
from pconv_onnx.temporal.kinds import STATIC, Kind, Passage, RecordedLevels, Spikes, Static

# Model-local functions came with this version of the file format.
_FUNCTIONS_IR_VERSION = 8


class Lowering:
    """The state of one lowering: names in use, and further inputs and outputs.

    This class writes `ParallelSpike` nodes, which give trains or means. Other operators have a class of their own,
    which overrides how neurons are written, and the functions for them.
    """

    def __init__(self, plan: Plan) -> None:
        """Nothing is written yet."""
        self.plan = plan
        self.names = plan.network.names | set(plan.per_step_outputs.values())
        nodes = every_node(plan.network.proto.graph)
        self.node_names = {node.name for node in nodes if key_of(node) not in plan.replaced}
        self.neuron_names = {name: unused(name, self.node_names) for name in plan.neurons}
        self.planned = {activation.name: activation for activation in plan.activations}
        self.outputs: list[onnx.ValueInfoProto] = []
        self.in_time: dict[str, str] = {}
        self.recoded_kinds: dict[str, Spikes] = {}
        emitted = [kind.coding for kind in plan.kinds_in_time.values() if isinstance(kind, Spikes)]
        recoded = (coding for passage in plan.passages.values() for coding in passage.recoded.values())
        self.version = version_for((*emitted, *recoded))

    def model(self, calibration: Mapping[str, Any] | None) -> onnx.ModelProto:
        """The rewritten model, its record included."""
        plan, source = self.plan, self.plan.network.proto
        model = onnx.ModelProto()
        model.CopyFrom(source)
        GraphLowering(self, plan.network.graph).write(model.graph)
        model.graph.output.extend(self.outputs)
        self.add_ends(model.graph)
        model.ir_version = max(model.ir_version, _FUNCTIONS_IR_VERSION)
        # onnxruntime declares all its domains in models that it saves.
        _replace(model.opset_import, [entry for entry in model.opset_import if entry.domain != DOMAIN])
        model.opset_import.append(helper.make_opsetid(DOMAIN, self.version))
        model.functions.extend(self.functions())
        if self.outputs:
            model.functions.append(running_mean(plan.network.opset, plan.dtype))
        model = standardised(model)
        ends: dict[str, str] = {}
        if plan.dtype != plan.source_dtype:
            model = in_float16(model, plan.network.name)
            # Outputs keep their type: what has the name of one is cast from what was computed.
            outputs = {output.name for output in model.graph.output}
            casts = (node for node in model.graph.node if node.op_type == "Cast" and node.output[0] in outputs)
            ends = {node.output[0]: node.input[0] for node in casts}
        self._record(model, ends, calibration).write(model)
        return model

    def neuron(self, graph: GraphLowering, activation: Planned) -> None:
        """Write the neuron of an activation."""
        neuron = self.plan.neurons[activation.name]
        assert isinstance(neuron, ParallelNeuron)
        graph.parallel_neuron(self.neuron_names[activation.name], neuron, activation.input, activation.output)

    def functions(self) -> list[onnx.FunctionProto]:
        """The function bodies of the operators that were written."""
        # Trains side by side may have more levels than either of them.
        trains = [kind for kind in self.plan.kinds.values() if isinstance(kind, Spikes)]
        highest = max(table.levels.shape[1] - 1 for table in (*self.plan.neurons.values(), *trains))
        return functions(self.plan.network.opset, self.plan.dtype, highest, self.version)

    def add_ends(self, graph: onnx.GraphProto) -> None:
        """Add the inputs and outputs that the source does not have."""

    @property
    def potentials(self) -> Mapping[str, str]:
        """Membrane potentials: for each input, the output that the next time-step takes there."""
        return {}

    def _record(self, model: onnx.ModelProto, ends: Mapping[str, str], calibration: Mapping[str, Any] | None) -> Record:
        """The file's record. Some outputs that it names are renamed copies of other tensors."""
        plan, summary = self.plan, self.plan.summary()
        rows = [
            {
                **row,
                "input": self.planned[row["name"]].input,
                "output": self.planned[row["name"]].output,
                "node": self.neuron_names.get(row["name"]),
            }
            for row in summary["activations"]
        ]
        if plan.mode.keeps_time:
            written = self.in_time
        else:
            written = {name: ends.get(name, name) for node in every_node(model.graph) for name in node.output}
        levels = RecordedLevels({self.neuron_names[name]: neuron.levels for name, neuron in plan.neurons.items()})
        kinds = {written[name]: kind for name, kind in plan.kinds.items() if name in written} | self.recoded_kinds
        return Record(
            source_sha256=plan.network.sha256,
            mode=plan.mode.name,
            steps=summary["steps"],
            activations=rows,
            per_step_outputs=summary["per_step_outputs"],
            hybrid=summary["hybrid"],
            potentials=self.potentials,
            calibration=calibration,
            kinds={name: levels.write(kind) for name, kind in kinds.items()},
        )


class GraphLowering:
    """The main graph or a body: the nodes and initializers written so far."""

    def __init__(self, lowering: Lowering, graph: Graph) -> None:
        """Nothing is written yet."""
        self.lowering, self.plan, self.graph = lowering, lowering.plan, graph
        self.names, self.node_names = lowering.names, lowering.node_names
        kinds = self.plan.kinds_in_time
        # A body sees the Static form of outer tensors.
        self.kinds = {name: kinds[name] for node in graph.proto.node for name in node.output if name in kinds}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.in_time = lowering.in_time
        self.repeated: dict[tuple[str, int], str] = {}
        self.recoded: dict[tuple[str, Coding], str] = {}
        self.decoded: set[str] = set()

    def write(self, target: onnx.GraphProto) -> None:
        """Rewrite a copy of the graph."""
        plan, source = self.plan, self.graph.proto
        for node, proto in self.graph.pairs():
            key = key_of(proto)
            if key not in plan.replaced:
                self._copy(node, proto, plan.passages.get(key))
                continue
            ended = plan.replaced[key]
            if ended is not None:
                self.lowering.neuron(self, self.lowering.planned[ended])
        for output in source.output:
            self._decode(output.name)
        if self.graph is plan.network.graph:
            per_step = [output for output in source.output if output.name in plan.per_step_outputs]
            self.lowering.outputs.extend(map(self._step_by_step, per_step))
        _replace(target.node, self.nodes)
        target.initializer.extend(self.initializers)
        target.value_info.extend(self._known_shapes())
        _drop_what_the_activations_left(target, source)

    def _copy(self, source: Node, proto: onnx.NodeProto, passage: Passage | None) -> None:
        """Copy a node of the source: in time if its outputs are, else on decoded inputs."""
        node = onnx.NodeProto()
        node.CopyFrom(proto)
        for body, target in zip(self.plan.network.bodies(source), subgraphs(node), strict=True):
            GraphLowering(self.lowering, body).write(target)
        if passage is None or passage.encodes:
            for name in (*proto.input, *sorted(captured(node))):
                self._decode(name)
        else:
            steps = next(kind.steps for kind in passage.kinds if not isinstance(kind, Static))
            _replace(node.input, self._inputs_in_time(proto, passage, steps))
            _replace(node.output, [self._steps_name(name) if self._varies(name) else name for name in proto.output])
            if passage.runs_as:
                node.op_type = passage.runs_as
                _replace(node.input, node.input[:1])
                node.ClearField("attribute")
        self.nodes.append(node)
        if passage is not None and passage.encodes:
            for name in proto.output:
                self._encode(name)

    def _inputs_in_time(self, proto: onnx.NodeProto, passage: Passage, steps: int) -> list[str]:
        names = []
        for index, name in enumerate(proto.input):
            if index in passage.constants:
                value = passage.constants[index]
                names.append(
                    "" if value is None else self.initializer(f"{proto.name or proto.output[0]}/{index}", value)
                )
            elif index in passage.recoded:
                names.append(self._recoded(name, passage.recoded[index]))
            elif self._varies(name) and index not in passage.held:
                names.append(self._steps_name(name))
            else:
                self._decode(name)
                names.append(self._at_each_step(name, steps) if index in passage.lifted else name)
        while names and not names[-1]:
            names.pop()
        return names

    def _at_each_step(self, name: str, steps: int) -> str:
        """A Static tensor `[B, …]` repeated to `[T·B, …]`; it is written once."""
        if (name, steps) not in self.repeated:
            shape = self.plan.network.shapes[name]
            repeats = self.initializer(f"{name}/repeats", np.array([steps] + [1] * (len(shape) - 1)))
            self.repeated[name, steps] = unused(f"{name}/each_step", self.names)
            node_name = unused(f"{name}/repeat", self.node_names)
            self.nodes.append(helper.make_node("Tile", [name, repeats], [self.repeated[name, steps]], node_name))
        return self.repeated[name, steps]

    def _recoded(self, name: str, coding: Coding) -> str:
        """The trains of a tensor in another coding; they are written once."""
        if (name, coding) not in self.recoded:
            kind = self._kind(name)
            assert isinstance(kind, Spikes)
            target = unused(f"{name}/{coding.name}_{coding.steps}", self.names)
            node_name = unused(f"{name}/recode", self.node_names)
            source, recoder = self._steps_name(name), kind.recoder(coding)
            self._operator(node_name, recoder, source, target, input_steps=kind.steps, spikes=True)
            self.recoded[name, coding] = target
            self.lowering.recoded_kinds[target] = replace(kind, coding=coding)
        return self.recoded[name, coding]

    def _encode(self, name: str) -> None:
        """The trains of a tensor whose Static form has been written."""
        kind = self._kind(name)
        if isinstance(kind, Spikes):
            self.decoded.add(name)
            node_name = unused(f"{name}/encode", self.node_names)
            self._operator(node_name, kind.encoder(), name, self._steps_name(name), input_steps=1, spikes=True)

    def parallel_neuron(self, name: str, neuron: ParallelNeuron, source: str, target: str) -> None:
        """Write a `ParallelSpike` between two tensors of the source; it gives trains in time, else means."""
        input_steps = self._kind(source).steps
        if self._varies(source):
            source = self._steps_name(source)
        spikes = self._varies(target)
        target = self._steps_name(target) if spikes else target
        self._operator(name, neuron, source, target, input_steps=input_steps, spikes=spikes)

    def _operator(
        self, name: str, neuron: ParallelNeuron, source: str, target: str, *, input_steps: int, spikes: bool
    ) -> None:
        tables = [self.initializer(f"{name}/thresholds", neuron.thresholds)]
        tables.append(self.initializer(f"{name}/levels", neuron.levels))
        node = helper.make_node(OP_TYPE, [source, *tables], [target], name=name, domain=DOMAIN)
        version = self.lowering.version
        for key, value in attributes(neuron, input_steps=input_steps, spikes=spikes, version=version).items():
            node.attribute.append(helper.make_attribute(key, value))
        self.nodes.append(node)

    def _decode(self, name: str) -> None:
        """Decode a tensor in time: write its Static form under its own name, once."""
        if not self._varies(name) or name in self.decoded:
            return
        self.decoded.add(name)
        kind = self._kind(name)
        node_name = unused(f"{name}/decode", self.node_names)
        if isinstance(kind, Spikes):
            decoder = train_decoder(kind.levels, kind.channel_axis)
            self._operator(node_name, decoder, self._steps_name(name), name, input_steps=kind.steps, spikes=False)
        else:
            self.nodes.append(
                helper.make_node(
                    MEAN_OP_TYPE,
                    [self._steps_name(name)],
                    [name],
                    name=node_name,
                    domain=DOMAIN,
                    steps=kind.steps,
                )  # fmt: skip
            )

    def _step_by_step(self, output: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        """Add an output `[T, B, …]` for an output that is in time."""
        kind, node_name = self._kind(output.name), unused(f"{output.name}/running_mean", self.node_names)
        name = self.plan.per_step_outputs[output.name]
        source = self._steps_name(output.name)
        self.nodes.append(
            helper.make_node(RUNNING_MEAN_OP_TYPE, [source], [name], node_name, domain=DOMAIN, steps=kind.steps)
        )
        info = onnx.ValueInfoProto()
        info.CopyFrom(output)
        info.name = name
        dims = info.type.tensor_type.shape.dim
        if dims:
            dims.insert(0, onnx.TensorShapeProto.Dimension(dim_value=kind.steps))
        return info

    def _known_shapes(self) -> Iterator[onnx.ValueInfoProto]:
        """Shapes that the source does not declare: of tensors in time, and of others as far as inference finds them.

        Shape inference stops at neurons, so these are written. The number of rows is left open, since a source may be
        wrong about the name of its batch, and onnxruntime lets tensors that claim the same size share a buffer.
        """
        network = self.plan.network
        declared = {info.name for info in (*self.graph.proto.value_info, *self.graph.proto.output)}
        own = {name: self.in_time[name] for name in self.kinds if name in self.in_time}
        names = [(name, name) for node in self.nodes for name in node.output if name in network.shapes]
        recoded = [(name, target) for (name, _), target in self.recoded.items()]
        for name, written in (*names, *own.items(), *recoded):
            shape = network.shapes.get(name)
            if shape and name in network.dtypes and (written != name or name not in declared):
                element = helper.np_dtype_to_tensor_dtype(network.dtypes[name])
                sizes = [None, *(size if isinstance(size, int) else None for size in shape[1:])]
                yield helper.make_tensor_value_info(written, element, sizes)

    def _kind(self, name: str) -> Kind:
        return self.kinds.get(name, STATIC)

    def _varies(self, name: str) -> bool:
        return not isinstance(self._kind(name), Static)

    def _steps_name(self, name: str) -> str:
        if name not in self.in_time:
            self.in_time[name] = unused(f"{name}/steps", self.names)
        return self.in_time[name]

    def initializer(self, name: str, value: Array) -> str:
        """Write a constant and return its name."""
        name = unused(name, self.names)
        self.initializers.append(numpy_helper.from_array(value, name))
        return name


def _replace(field, values) -> None:  # type: ignore[no-untyped-def]  # a protobuf container, repeated of anything
    del field[:]
    field.extend(values)


def _uses(graph: onnx.GraphProto) -> set[str]:
    used = {output.name for output in graph.output}
    for node in graph.node:
        used.update(node.input)
        used |= captured(node)
    return used


def _drop_what_the_activations_left(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Remove constants that only the replaced nodes used, and shapes of tensors that are no more.

    A stale shape is worse than none: onnxruntime plans its memory by it. Nor may an initializer stay an input that a
    run can override: what was decided from its value would then be wrong.
    """
    constants = initializer_names(graph)
    _replace(graph.input, [info for info in graph.input if info.name not in constants])
    unused = _uses(source) - _uses(graph)
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in unused])
    _replace(graph.sparse_initializer, [t for t in graph.sparse_initializer if t.values.name not in unused])
    alive = {info.name for info in graph.input} | initializer_names(graph)
    alive |= {name for node in graph.node for name in node.output}
    _replace(graph.value_info, [info for info in graph.value_info if info.name in alive])
    _replace(graph.quantization_annotation, [a for a in graph.quantization_annotation if a.tensor_name in alive])
