"""Compares a layer of neurons with the activation that it replaced, on the same input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import every_graph, every_node, unused
from pconv_onnx.graph.record import Converted, InTime
from pconv_onnx.measure.rounding import FLOATS
from pconv_onnx.neuron.parallel import ParallelNeuron, train_decoder
from pconv_onnx.neuron.quantiser import QuantizerSpec
from pconv_onnx.operators.domain import attribute, is_operator
from pconv_onnx.operators.parallel_spike import neuron_of
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session, run_session
from pconv_onnx.temporal.kinds import Kind, RecordedLevels, Spikes

# Tensors of the size of a current: counts and what they are searched with, of eight bytes each, and one step's values.
_EXPECTED = 10


@dataclass
class Layer:
    """Spike counts of one layer of neurons compared with its source's activation, on the source's pre-activation.

    Attributes:
        name: name of the activation.
        exact: whether the source has a value to be equal to (T = L).
        calibrated: whether that is of what a calibration made of the source, which itself has a ReLU there.
        altered: whether, where it is not exact, its tables are others than its number of time-steps makes of the
            source's activation.
        reached: whether a run got to it; else it is in a branch that was not entered.
        mismatches: elements whose count is not the source's.
        elements: elements compared; none of a layer in a branch that no sample got to.
    """

    name: str
    exact: bool
    calibrated: bool = False
    altered: bool = False
    reached: bool = False
    mismatches: int = 0
    elements: int = 0

    @property
    def count_mismatch_rate(self) -> float | None:
        """Share of elements with another count; None where there is nothing to be equal to, or to compare."""
        return self.mismatches / self.elements if self.exact and self.elements else None


class Written:
    """A network's nodes and initializers, those of bodies as well, so that many can be found in one walk.

    Attributes:
        network: the network.
        nodes: its nodes in topological order.
        initializers: by name.
        sparse: likewise.
        neurons: the first of each name.
        makers: which of the nodes make a tensor; branches may have several of one name.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes = list(every_node(network.proto.graph))
        graphs = list(every_graph(network.proto.graph))
        self.initializers = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
        self.sparse = {tensor.values.name: tensor for graph in graphs for tensor in graph.sparse_initializer}
        self.neurons = {node.name: node for node in reversed(self.nodes) if is_operator(node)}
        self.makers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in filter(None, node.output):
                self.makers.setdefault(name, []).append(index)


class LayerCheck:
    """One neuron of the spiking network and the activation it replaced, each cut out and run by itself."""

    def __init__(
        self,
        converted: Converted,
        calibrated: bool,
        source: Written,
        spiking: Written,
        trains: bool,
        providers: Sequence[Any] | None,
    ) -> None:
        network = spiking.network
        self.converted = converted
        try:
            self.node = node = spiking.neurons[converted.node]
            tables = {name: spiking.initializers[name] for name in node.input[1:]}
            emits_trains, self.input_steps = bool(attribute(node, "spikes")), attribute(node, "input_steps")
            self.spikes = trains
            self.neuron = neuron_of(node, tables)
            types = {self.neuron.levels.dtype, self.neuron.thresholds.dtype}
            steps = self.neuron.steps if trains else converted.steps
            if len(types) > 1 or not types <= set(FLOATS) or steps != converted.steps:
                raise ValueError("tables of other types or sizes")
        except (KeyError, ValueError) as error:
            raise PconvError(
                f"neuron '{converted.name}' of {network.name} is not there any more as rewrite wrote it",
                "compare before other tools edit the spiking network",
            ) from error
        self.layer = Layer(converted.name, self.neuron.highest == converted.levels, calibrated)
        # Thresholds out of order have no specified count, whatever this kernel makes of them (NaN sorts last, where it
        # belongs); and only levels evenly spaced are carried by a number of equal spikes.
        thresholds = self.neuron.thresholds
        in_order = np.array_equal(np.sort(thresholds, axis=1), thresholds, equal_nan=True)
        self.well_formed = in_order and emits_trains == trains and not (trains and self.neuron.why_not_carried)
        if not self.layer.exact:
            return
        element = tables[node.input[1]].data_type
        # Whatever it reads in the network, a table even, here it reads an input.
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        alone.input[0] = unused("current", {*node.input, *node.output})
        graph = helper.make_graph(
            [alone],
            "neuron",
            [helper.make_tensor_value_info(alone.input[0], element, None)],
            [helper.make_tensor_value_info(node.output[0], element, None)],
            list(tables.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=network.proto.opset_import,
            functions=network.proto.functions,
            ir_version=network.proto.ir_version,
        )
        told = f"neuron '{converted.name}' of {network.name}"
        self.session = open_session(model, told, providers=providers, folder=network.folder, keeps_memory=False)
        # In the source's own type the source's own run says what is expected.
        same = self.neuron.levels.dtype == np.float32 == np.dtype(converted.dtype)
        self._activation = None if same else _evaluator(source, converted)

    def compare_tables(self, spec: QuantizerSpec) -> None:
        """Where the layer is not exact, see whether it is what its steps make of the source's activation."""
        try:
            made = [spec.neuron(self.converted.steps, zero=zero) for zero in {0, spec.zero}]
            made = [neuron.astype(self.neuron.levels.dtype) for neuron in made]
        except ValueError:  # there is none
            self.layer.altered = True
            return
        self.layer.altered = not any(same_neuron(neuron, self.neuron) for neuron in made)

    def bytes_at_once(self, current: int) -> int:
        """What `add` takes for a current of so many bytes: it at each step, trains, and what is asked of these.

        Trains are there twice: onnxruntime's own, and what it hands out of them. What is expected of these is there for
        a step at a time, besides counts of eight bytes.
        """
        return current * (2 + self.input_steps + (2 * self.neuron.steps + _EXPECTED) * self.spikes)

    def add(self, current: Array, value: Array) -> Array:
        """Take in one batch of the source's pre-activation, where the layer is exact, and of its activation.

        Returns:
            What the neuron emits of the source's value: trains, or the value; it at each time-step where the neuron has
            not that value, or gives another.
        """
        dtype = self.neuron.levels.dtype
        value = value.astype(dtype)
        if self.layer.exact:
            # What the neuron sees: the pre-activation in its own type.
            current = current.astype(dtype)
            expected = value if self._activation is None else self._activation(current).astype(dtype)
            found, right = self._compared(current, expected)
            if right and (expected is value or np.array_equal(expected, value)):
                return found
        return np.concatenate([value] * self.neuron.steps) if self.spikes else value

    def _compared(self, current: Array, expected: Array) -> tuple[Array, bool]:
        """What the neuron gives, and whether that is right everywhere."""
        self.layer.reached = True
        self.layer.elements += expected.size
        if not self.well_formed:
            self.layer.mismatches += expected.size
            return expected, False
        in_time = np.concatenate([current] * self.input_steps)
        (found,) = run_session(self.session, {self.session.get_inputs()[0].name: in_time})
        if not self.spikes:
            wrong = found != expected
        else:
            trains = found.reshape(self.neuron.steps, *expected.shape)
            # The count that the source's value is the level of, and its train.
            count = replace(self.neuron, thresholds=self.neuron.levels[:, 1:]).search_form(expected)
            wrong = self.neuron.value(count) != expected
            for given, right in zip(trains, self.neuron.emitted_in_turn(count), strict=True):
                wrong |= given != right
        self.layer.mismatches += int(wrong.sum())
        return found, not wrong.any()


def altered_trains(spiking: Written, kinds: Mapping[str, InTime], checks: Sequence[LayerCheck]) -> list[str]:
    """Tensors of a network of trains that are not coded as is recorded, or not decoded, or encoded again, likewise.

    Args:
        spiking: the network.
        kinds: of its tensors in time, as its record has them.
        checks: of its neurons.
    """
    layers = {check.node.output[0]: check.neuron.coding for check in checks}
    recorded = RecordedLevels({check.node.name: check.neuron.levels for check in checks})
    altered = []
    for node in filter(is_operator, spiking.nodes):
        try:
            given, wanted = (
                recorded.read(kinds[name]) if name in kinds else None for name in (node.input[0], node.output[0])
            )
            if node.output[0] in layers:
                right = isinstance(wanted, Spikes) and wanted.coding == layers[node.output[0]]
            else:
                found = neuron_of(node, {name: spiking.initializers[name] for name in node.input[1:]})
                spikes = attribute(node, "spikes")
                expected, steps = _translator(given, wanted, spikes)
                right = attribute(node, "input_steps") == steps and same_neuron(expected, found)
                right &= not spikes or expected.coding == found.coding
        except (KeyError, ValueError):  # it is not as rewrite wrote it
            right = False
        if not right:
            altered.append(node.output[0])
    return altered


def _translator(given: Kind | None, wanted: Kind | None, spikes: int) -> tuple[ParallelNeuron, int]:
    """What decodes trains, gives them another coding, or encodes their levels, and the time-steps that it reads.

    Raises:
        ValueError: there is no such neuron.
    """
    if not spikes and isinstance(given, Spikes):
        return train_decoder(given.levels, given.channel_axis), given.steps
    if not isinstance(wanted, Spikes) or not spikes:
        raise ValueError("neither trains are given nor asked for")
    if isinstance(given, Spikes):
        return given.recoder(wanted.coding), given.steps
    return wanted.encoder(), 1


def same_neuron(one: ParallelNeuron, other: ParallelNeuron) -> bool:
    """Whether two neurons have the same tables along the same axis."""
    return (
        np.array_equal(one.thresholds, other.thresholds, equal_nan=True)
        and np.array_equal(one.levels, other.levels)
        and (len(one.levels) == 1 or one.channel_axis == other.channel_axis)
    )


def _evaluator(source: Written, converted: Converted) -> Callable[[Array], Array]:
    """An activation of the source as a function of its pre-activation.

    onnxruntime runs float32 operator by operator. Half types it computes in float32 over several operators on the CPU;
    the meaning of the operators, each rounded to its type, is that of onnx's reference. What QuantizeLinear does to
    them is onnxruntime's affair: before opset 23 the reference divides in another type.
    """
    dtype = np.dtype(converted.dtype)
    model = _between(source, converted.input, converted.output, helper.np_dtype_to_tensor_dtype(dtype))
    if dtype == np.float32 or any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        session = open_session(
            model,
            f"activation '{converted.name}' of {source.network.name}",
            import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL,
            folder=source.network.folder,
            keeps_memory=False,
        )
        return lambda x: run_session(session, {converted.input: x.astype(dtype)})[0]
    evaluator = ReferenceEvaluator(model)

    def run(x: Array) -> Array:
        with np.errstate(all="ignore"):
            (value,) = evaluator.run(None, {converted.input: x.astype(dtype)})
        return np.asarray(value)

    return run


def _between(source: Written, start: str, end: str, element: int) -> onnx.ModelProto:
    """The part of a network from one tensor of that element type to another."""
    outside = set(source.makers.get(start, ()))
    waiting, needed, found = [end], {end}, set[int]()
    while waiting:
        for index in source.makers.get(waiting.pop(), ()):
            if index not in outside:
                found.add(index)
                waiting += set(source.nodes[index].input) - needed
                needed.update(source.nodes[index].input)
    graph = helper.make_graph(
        [source.nodes[index] for index in sorted(found)],
        "activation",
        [helper.make_tensor_value_info(start, element, None)],
        [helper.make_tensor_value_info(end, element, None)],
        [source.initializers[name] for name in sorted(needed) if name in source.initializers],
        sparse_initializer=[source.sparse[name] for name in sorted(needed) if name in source.sparse],
    )
    proto = source.network.proto
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
