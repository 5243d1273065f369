"""Plan → graph: writes the rewritten model, deciding nothing.

A tensor keeps its name where it is Static, so that a name of the source means the source's value. Its form in time, if
it has one, is called `<name>/steps`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.graph.nesting import captured, subgraphs, unused
from pconv_onnx.graph.network import Graph
from pconv_onnx.graph.passes.float16 import in_float16
from pconv_onnx.graph.qonnx import standardised
from pconv_onnx.graph.record import METADATA_PREFIX
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.neuron.parallel import ParallelNeuron, train_decoder
from pconv_onnx.neuron.quantiser import Neuron
from pconv_onnx.neuron.serial import SerialNeuron
from pconv_onnx.operators.domain import MEAN_OP_TYPE, OP_TYPE, RUNNING_MEAN_OP_TYPE, SERIAL_OP_TYPE
from pconv_onnx.operators.means import running_mean
from pconv_onnx.operators.parallel_spike import attributes, functions
from pconv_onnx.operators.serial_spike import serial_spike
from pconv_onnx.plan.planning import Plan
from pconv_onnx.recognise import Activation
from pconv_onnx.temporal.kinds import STATIC, Kind, Passage, Spikes, Static

# Model-local functions came with this version of the file format.
_FUNCTIONS_IR_VERSION = 8


def lower(plan: Plan) -> onnx.ModelProto:
    """The rewritten model. Inputs and outputs have the source's names, types and shapes.

    In mode `serial` there are further ones behind them, the membrane potentials of each neuron before and after the
    time-step.
    """
    return _Lowering(plan).model()


class _Lowering:
    """State of one lowering: the names in use so far, and what is added to the inputs and outputs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names = plan.network.names | set(plan.per_step_outputs.values())
        self.node_names = {node.name for node in plan.network.every_node() if id(node) not in plan.replaced}
        self.neuron_names = {name: unused(name, self.node_names) for name in plan.neurons}
        self.potentials: dict[str, str] = {}
        self.potential_infos: dict[str, onnx.ValueInfoProto] = {}
        self.outputs: list[onnx.ValueInfoProto] = []

    def model(self) -> onnx.ModelProto:
        plan, source = self.plan, self.plan.network.proto
        model = onnx.ModelProto()
        model.CopyFrom(source)
        _GraphLowering(self, plan.network.graph).write(model.graph)
        model.graph.output.extend(self.outputs)
        for before, after in self.potentials.items():
            model.graph.input.append(self.potential_infos[before])
            model.graph.output.append(self.potential_infos[after])
        model.ir_version = max(model.ir_version, _FUNCTIONS_IR_VERSION)
        # onnxruntime declares every domain that it knows in the models that it saves.
        _replace(model.opset_import, [entry for entry in model.opset_import if entry.domain != DOMAIN])
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
        if plan.mode == "serial":
            model.functions.append(serial_spike(plan.network.opset, plan.dtype))
        else:
            max_steps = max(neuron.steps for neuron in plan.neurons.values())
            model.functions.extend(functions(plan.network.opset, plan.dtype, max_steps))
        if self.outputs:
            model.functions.append(running_mean(plan.network.opset, plan.dtype))
        _write_provenance(model, plan, self.neuron_names, self.potentials)
        model = standardised(model)
        return model if plan.dtype == plan.source_dtype else in_float16(model, plan.network.name)


class _GraphLowering:
    """The main graph or a body: the nodes and initializers written so far."""

    def __init__(self, lowering: _Lowering, graph: Graph) -> None:
        self.lowering, self.plan, self.graph = lowering, lowering.plan, graph
        self.names, self.node_names = lowering.names, lowering.node_names
        own = {name for node in graph.proto.node for name in node.output}
        # A body sees the Static form of what is around it.
        self.kinds = {name: kind for name, kind in self.plan.kinds.items() if name in own}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.in_time: dict[str, str] = {}
        self.repeated: dict[tuple[str, int], str] = {}
        self.decoded: set[str] = set()

    def write(self, target: onnx.GraphProto) -> None:
        """Rewrite a copy of the graph."""
        plan, source = self.plan, self.graph.proto
        for node, proto in self.graph.pairs():
            if id(node) not in plan.replaced:
                self._copy(node, proto, plan.passages.get(id(node)))
                continue
            ended = plan.replaced[id(node)]
            if ended is not None:
                self._neuron(ended, plan.neurons[ended.name])
        for output in source.output:
            self._decode(output.name)
        if self.graph is plan.network.graph:
            per_step = [output for output in source.output if output.name in plan.per_step_outputs]
            self.lowering.outputs.extend(map(self._step_by_step, per_step))
        _replace(target.node, self.nodes)
        target.initializer.extend(self.initializers)
        target.value_info.extend(self._known_shapes())
        _drop_what_the_activations_left(target, source)

    def _copy(self, source: gs.Node, proto: onnx.NodeProto, passage: Passage | None) -> None:
        """A node of the source, in time if its outputs are, else on decoded inputs."""
        node = onnx.NodeProto()
        node.CopyFrom(proto)
        for body, target in zip(self.plan.network.bodies(source), subgraphs(node), strict=True):
            _GraphLowering(self.lowering, body).write(target)
        if passage is None:
            for name in (*proto.input, *sorted(captured(node))):
                self._decode(name)
        else:
            steps = next(kind.steps for kind in passage.kinds if not isinstance(kind, Static))
            _replace(node.input, self._inputs_in_time(proto, passage, steps))
            _replace(node.output, [self._steps_name(name) if self._varies(name) else name for name in proto.output])
        self.nodes.append(node)

    def _inputs_in_time(self, proto: onnx.NodeProto, passage: Passage, steps: int) -> list[str]:
        names = []
        for index, name in enumerate(proto.input):
            if index in passage.constants:
                value = passage.constants[index]
                names.append(
                    "" if value is None else self._initializer(f"{proto.name or proto.output[0]}/{index}", value)
                )
            elif self._varies(name):
                names.append(self._steps_name(name))
            else:
                names.append(self._at_each_step(name, steps) if index in passage.lifted else name)
        while names and not names[-1]:
            names.pop()
        return names

    def _at_each_step(self, name: str, steps: int) -> str:
        """A Static tensor `[B, …]` as `[T·B, …]`, written once."""
        if (name, steps) not in self.repeated:
            shape = self.plan.network.shapes[name]
            repeats = self._initializer(f"{name}/repeats", np.array([steps] + [1] * (len(shape) - 1)))
            self.repeated[name, steps] = unused(f"{name}/each_step", self.names)
            node_name = unused(f"{name}/repeat", self.node_names)
            self.nodes.append(helper.make_node("Tile", [name, repeats], [self.repeated[name, steps]], node_name))
        return self.repeated[name, steps]

    def _neuron(self, activation: Activation, neuron: Neuron) -> None:
        source, target = activation.input.name, activation.output.name
        if isinstance(neuron, SerialNeuron):
            self._serial_neuron(self.lowering.neuron_names[activation.name], neuron, source, target)
            return
        input_steps = self._kind(source).steps
        if self._varies(source):
            source = self._steps_name(source)
        spikes = self._varies(target)
        target = self._steps_name(target) if spikes else target
        name = self.lowering.neuron_names[activation.name]
        self._operator(name, neuron, source, target, input_steps=input_steps, spikes=spikes)

    def _operator(
        self, name: str, neuron: ParallelNeuron, source: str, target: str, *, input_steps: int, spikes: bool
    ) -> None:
        tables = [self._initializer(f"{name}/thresholds", neuron.thresholds)]
        tables.append(self._initializer(f"{name}/levels", neuron.levels))
        node = helper.make_node(OP_TYPE, [source, *tables], [target], name=name, domain=DOMAIN)
        for key, value in attributes(neuron, input_steps=input_steps, spikes=spikes).items():
            node.attribute.append(helper.make_attribute(key, value))
        self.nodes.append(node)

    def _serial_neuron(self, name: str, neuron: SerialNeuron, source: str, target: str) -> None:
        tables = [
            self._initializer(f"{name}/{table}", getattr(neuron, table))
            for table in ("bias", "threshold", "reset", "levels")
        ]
        before, after = (unused(f"{name}/{which}", self.names) for which in ("potential", "new_potential"))
        element = helper.np_dtype_to_tensor_dtype(neuron.levels.dtype)
        self.lowering.potentials[before] = after
        for potential in (before, after):
            self.lowering.potential_infos[potential] = helper.make_tensor_value_info(
                potential, element, self.plan.network.shapes.get(source)
            )
        node = helper.make_node(
            SERIAL_OP_TYPE,
            [source, before, *tables],
            [target, after],
            name=name,
            domain=DOMAIN,
            channel_axis=1 if neuron.channel_axis is None else neuron.channel_axis,
        )
        self.nodes.append(node)

    def _decode(self, name: str) -> None:
        """Write the Static form of a tensor in time, once, under its own name."""
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
        """A further output `[T, B, …]` beside one that is in time."""
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
        """Shapes that the source does not declare: of tensors in time, and what inference tells of the others.

        Operators do not hand shapes on through the neurons. The number of rows is left open: a source may be wrong
        about the name of its batch, and onnxruntime gives tensors that claim one size one buffer.
        """
        network = self.plan.network
        declared = {info.name for info in (*self.graph.proto.value_info, *self.graph.proto.output)}
        names = [(name, name) for node in self.nodes for name in node.output if name in network.shapes]
        for name, written in (*names, *self.in_time.items()):
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

    def _initializer(self, name: str, value: Array) -> str:
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


def _write_provenance(
    model: onnx.ModelProto, plan: Plan, neuron_names: dict[str, str], potentials: dict[str, str]
) -> None:
    summary = plan.summary()
    by_name = {activation.name: activation for activation in plan.activations}
    for row in summary["activations"]:
        activation = by_name[row["name"]]
        row["input"], row["output"] = activation.input.name, activation.output.name
        row["node"] = neuron_names.get(row["name"])
    entries = {
        "version": version("pconv-onnx"),
        "source_sha256": plan.network.sha256,
        "mode": plan.mode,
        "steps": json.dumps(summary["steps"]),
        "activations": json.dumps(summary["activations"]),
        "per_step_outputs": json.dumps(summary["per_step_outputs"]),
        "hybrid": json.dumps(summary["hybrid"]),
    }
    if potentials:
        # The outputs that a next time-step takes as these inputs; the first takes zeros.
        entries["potentials"] = json.dumps(potentials)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith(METADATA_PREFIX)]
    _replace(model.metadata_props, kept)
    for key, value in entries.items():
        model.metadata_props.add(key=METADATA_PREFIX + key, value=value)
