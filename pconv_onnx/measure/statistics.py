"""`stats`: how often do the neurons of a spiking network fire, and which operations does that leave?

A train follows from its spike count, and the count from its temporal mean, so modes are read in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx

from pconv_onnx.answers.lines import stats_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import ENERGY_AC, ENERGY_MAC, MEMORY
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import Progress, shows_progress, track
from pconv_onnx.data.reading import load_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, DataSource, Samples
from pconv_onnx.graph import ModelSource, Network, load
from pconv_onnx.graph.carriers import in_carriers
from pconv_onnx.graph.channels import behind_matrix_product
from pconv_onnx.graph.nesting import every_graph, every_node
from pconv_onnx.graph.products import Product
from pconv_onnx.graph.record import Converted, Record
from pconv_onnx.measure.energies import FLOAT32, INT8, Prices, energy, in_floats
from pconv_onnx.measure.operations import LinearOperator, readings
from pconv_onnx.measure.spike_counts import SpikingLayer, ratio, spike_counts
from pconv_onnx.measure.taps import Taps, largest_batch
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.operators.contents import contents_of
from pconv_onnx.operators.domain import is_layer
from pconv_onnx.operators.parallel_spike import neuron_of
from pconv_onnx.plan.modes import FOLDED, INTEGER, INTEGER_PARALLEL, MODES
from pconv_onnx.plan.spike_driven import SpikeDriven, per_sample, spike_driven
from pconv_onnx.runtime.axes import axes_told_by_runs
from pconv_onnx.runtime.memory import alive_at_once, require_budget, sample_bytes, samples_within
from pconv_onnx.runtime.side_by_side import batches, open_session
from pconv_onnx.temporal.kinds import Kind, RecordedLevels, Spikes

# Farther than any hardware goes, and near enough for sums and ratios to be finite.
_LEAST_ENERGY, _MOST_ENERGY = 1e-12, 1e12


@dataclass(eq=False)
class Stats(Printed):
    """What `stats` found.

    Attributes:
        samples: samples counted on.
        random_inputs: whether samples were drawn at random, since no data were given.
        mode: the mode of the network.
        layers: spike counts of each layer of neurons.
        operators: operations of each product.
        energy_mac: energy of a multiply-accumulate, in pJ.
        energy_ac: energy of an accumulate, in pJ.
        spike_driven: which multiply-accumulates of all samples have a spike train as an operand.
        weights: `int8` or `int4` if weights are integers; None if they are floats.
        in_floats: the operators that compute in floats although weights are integers.
    """

    samples: int
    random_inputs: bool
    mode: str
    layers: Sequence[SpikingLayer] = field(repr=False)
    operators: Sequence[LinearOperator] = field(repr=False)
    energy_mac: float
    energy_ac: float
    spike_driven: SpikeDriven
    weights: str | None
    in_floats: Sequence[LinearOperator] = field(repr=False)

    @property
    def steps(self) -> int | None:
        """T if all neurons have the same, else None."""
        steps = {layer.steps for layer in self.layers}
        return steps.pop() if len(steps) == 1 else None

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx stats`; operations and energies are those of one sample."""
        counted = [entry for entry in self.operators if entry.counted]
        macs = sum(entry.macs for entry in counted)
        accumulates = sum(entry.synaptic_operations for entry in counted)
        remaining = sum(entry.multiply_accumulates for entry in counted)
        integers, floats = (
            [entry for entry in counted if (entry in self.in_floats) is computes] for computes in (False, True)
        )
        prices = Prices(self.energy_mac, self.energy_ac)
        return {
            "samples": self.samples,
            "random_inputs": self.random_inputs,
            "steps": self.steps,
            "mode": self.mode,
            "layers": [layer.summary() for layer in self.layers],
            "operators": [entry.summary(self.samples) for entry in self.operators],
            "totals": {
                "ann_macs": per_sample(macs, self.samples),
                "synaptic_operations": per_sample(accumulates, self.samples),
                "multiply_accumulates": per_sample(remaining, self.samples),
                "firing_rate": ratio(sum(layer.spikes for layer in self.layers), sum(x.sites for x in self.layers)),
            },
            "energy": {
                **energy(prices, counted, self.samples),
                "assumptions": [
                    f"digital hardware on which {prices} (by default those of 32-bit floats in 45 nm CMOS)",
                    *self._assumptions(),
                ],
            },
            "energy_int8": {
                **energy(INT8, integers, self.samples, floats),
                "weights": self.weights,
                "float_operators": [entry.name for entry in floats],
                "assumptions": [*self._assumptions_of_integers(), *self._assumptions()],
            },
            "spike_driven": self.spike_driven.summary(self.samples),
        }

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return stats_lines(document)

    def _assumptions_of_integers(self) -> Iterator[str]:
        yield (
            f"digital hardware in 45 nm CMOS that multiplies integers of 8 bits and adds up in 32, on which {INT8} "
            "(M. Horowitz, ISSCC 2014), with weights of 4 bits as well"
        )
        yield "what a multiply-accumulate reads has 8 bits, a current too; an accumulate adds a weight"
        if self.weights is None:
            yield "its weights are floats: this is what it would take if they, inputs and counts were integers"
        if self.in_floats:
            yield f"of operators in floats {FLOAT32}, in the ANN as well"

    def _assumptions(self) -> Iterator[str]:
        yield "the ANN multiplies every input value, zeros too, but nothing in the padding"
        yield (
            "a value of a spike train that is not zero takes an accumulate for each output element that it has a part "
            "in, at each step; amplitudes are in the weights"
        )
        yield (
            "memory traffic, updates of neurons, biases, normalisation, pooling and elementwise work by constants take "
            "nothing"
        )
        if not MODES[self.mode].keeps_time:
            yield f"mode {self.mode} {_FLOWS[self.mode]}: counted is the network in mode parallel that it stands for"
        if not all(entry.counted for entry in self.operators):
            yield "operators that could not be counted take nothing"


# What flows in the modes whose files are not counted as they are.
_FLOWS = {
    FOLDED.name: "computes temporal means and emits no spikes",
    INTEGER.name: "computes spike counts and emits no spikes",
    INTEGER_PARALLEL.name: "has trains of integers between layers, and adds up their digits first",
}


@shows_progress
def stats(
    model: ModelSource,
    data: DataSource | None = None,
    *,
    batch_axis: BatchAxis = 0,
    energy_mac: float = ENERGY_MAC,
    energy_ac: float = ENERGY_AC,
    memory: int = MEMORY,
    progress: Progress = None,
) -> Stats:
    """Count the spikes of a network, and estimate its operations and energy compared with its ANN's.

    Args:
        model: a network that `rewrite` wrote, in any mode but `serial`: path of an ONNX file, or a model in memory.
        data: samples as `calibrate` takes them; by default seeded random inputs.
        batch_axis: the axis of the model's inputs that counts samples, as `calibrate` takes it.
        energy_mac: energy of a multiply-accumulate, in pJ.
        energy_ac: energy of an accumulate, in pJ.
        memory: bytes that activations may take, as `verify` takes it.
        progress: as `calibrate` takes it.

    Raises:
        PconvError: the model cannot be read or run, `rewrite` did not write it, the data do not fit, or an energy is
            neither 0 nor from 1e-12 to 1e12 pJ.
    """
    require_budget(memory)
    for price in (energy_mac, energy_ac):
        if price != 0 and not _LEAST_ENERGY <= price <= _MOST_ENERGY:
            told = f"choose 0, or {_LEAST_ENERGY:g} to {_MOST_ENERGY:g} pJ"
            raise PconvError(f"{price} is not an energy of an operation", told)
    given = load(model)
    record, converted = _recorded(given)
    network, _ = in_carriers(given)
    mode = MODES[record.mode]
    in_time = mode.keeps_time
    try:
        neurons = _neurons(network, in_time, {entry.node for entry in converted})
        kinds = _kinds(network, record, neurons)
        layers = _layers(network, converted, neurons, kinds)
        read = readings(network, kinds, in_time)
    except (KeyError, ValueError) as error:
        raise _edited(network) from error
    trains = {output: layer.kind for output, layer in layers.items()}
    trains |= {reading.input: kind for reading in read if isinstance(kind := reading.result.kind, Spikes)}
    counted = [reading for reading in read if reading.result.counted]
    taps = Taps(network, trains, in_time, {name for reading in counted for name in reading.operands})
    runner = open_session(taps.model, network.name, folder=network.folder, keeps_memory=False)
    if data is not None:
        samples = load_samples(data, runner, batch_axis)
    else:
        samples = random_samples(runner, batch_axis=batch_axis)
    axes = _sample_axes(taps, runner, samples, layers)
    steps = mode.time_steps(kinds)
    # What decodes trains may run at the end, and all of them be there until then.
    size = partial(sample_bytes, network, steps=steps)
    taken = alive_at_once(network.proto.graph, size) + sum(map(size, trains))
    most = min(largest_batch(taps, runner, samples), samples_within(memory, taken))
    parts = batches(samples, contents_of(network.proto).steps_in_flight, most)
    for part, feed in track(parts, "counting", len(parts)):
        means, shapes = taps.run(runner, feed)
        if not all(_fits(means[name], kind) for name, kind in trains.items()):
            raise _edited(network)
        # Those of a branch that was not entered are empty.
        counts = {name: spike_counts(means[name], kind) for name, kind in trains.items() if means[name].size}
        for output, layer in layers.items():
            if output in counts:
                layer.add(counts[output], part.stop - part.start, _axis(layer, axes[output]))
        for reading in counted:
            reading.add(shapes, counts)
    macs: dict[Product, int | None] = {reading.product: reading.result.macs for reading in counted}
    analog = {str(row.get("output")): str(row.get("name")) for row in record.activations if not row.get("node")}
    return Stats(
        len(samples),
        data is None,
        record.mode,
        list(layers.values()),
        [reading.result for reading in read],
        energy_mac,
        energy_ac,
        spike_driven(network, kinds, macs, analog),
        record.integer["weights"] if record.integer is not None else None,
        in_floats(network, read, record.integer),
    )


def _sample_axes(
    taps: Taps, runner: Any, samples: Samples, layers: Mapping[str, SpikingLayer]
) -> Mapping[str, set[int | None]]:
    """Along which axes of the means of each layer samples may lie; None where all of it is of one."""
    if samples.first_everywhere or samples.one_by_one:
        return dict.fromkeys(layers, {None if samples.one_by_one else 0})

    def run(feed: dict[str, Array]) -> list[tuple[int, ...]]:
        means, _ = taps.run(runner, feed)
        return [means[output].shape for output in layers]

    return dict(zip(layers, map(set[int | None], axes_told_by_runs(run, samples)), strict=True))


def _axis(layer: SpikingLayer, axes: set[int | None]) -> int | None:
    """The one of these axes.

    Raises:
        PconvError: it is not one, so that neither channels nor single samples are known.
    """
    if len(axes) != 1:
        # Two runs on the first sample may not enter the branch that the layer is in.
        told = f"may run along axis {' or '.join(map(str, axes))}" if axes else "run along no axis that can be told"
        raise PconvError(
            f"samples {told} of layer '{layer.name}', so that its neurons cannot be counted",
            "rewrite the network without this activation (`exclude=`)",
        )
    return next(iter(axes))


def _edited(network: Network) -> PconvError:
    return PconvError(
        f"the neurons of {network.name} are not there any more as rewrite wrote them",
        "count before other tools edit the spiking network",
    )


def _recorded(network: Network) -> tuple[Record, list[Converted]]:
    """What a spiking network says of itself, and the activations that it converted.

    Raises:
        PconvError: `rewrite` did not write it, or gave it no trains to count.
    """
    try:
        record = Record.read(network.proto)
        converted = record.converted
    except ValueError as error:
        raise PconvError(f"{network.name} was not rewritten", "pass what pconv-onnx rewrite wrote") from error
    if MODES[record.mode].one_step:
        raise PconvError(
            f"{network.name} is a serial network, which spikes in one time-step at a time",
            "pass what mode 'parallel' or 'folded' gives",
        )
    if record.kinds is None:
        raise PconvError(
            f"{network.name} is of an earlier pconv-onnx ({record.version}), which did not record what is in time",
            "rewrite its source again",
        )
    return record, converted


# By the tensor that it gives, a neuron's node, and what it is.
_Neurons = dict[str, tuple[onnx.NodeProto, ParallelNeuron]]


def _neurons(network: Network, trains: bool, names: Set[str]) -> _Neurons:
    """The neurons of those names, which give trains or their means; others encode again what was decoded.

    Raises:
        KeyError: they are not as `rewrite` wrote them.
        ValueError: likewise.
    """
    tables = {tensor.name: tensor for graph in every_graph(network.proto.graph) for tensor in graph.initializer}
    found: _Neurons = {}
    for node in every_node(network.proto.graph):
        if is_layer(node, trains) and node.name in names:
            neuron = neuron_of(node, tables)
            # A mean is searched among them.
            if not (np.diff(neuron.levels.astype(np.float32)) >= 0).all():
                raise ValueError(f"the levels of '{node.name}' do not ascend")
            found[node.output[0]] = node, neuron
    return found


def _kinds(network: Network, record: Record, neurons: _Neurons) -> dict[str, Kind]:
    """What is in time, by name of the tensor: trains of neurons as these emit them, all others as they are recorded.

    Raises:
        KeyError: a tensor that is recorded is not there, or its neuron is not.
        ValueError: it is not recorded as `rewrite` writes it.
    """
    there = {name for node in every_node(network.proto.graph) for name in node.output}
    levels = RecordedLevels({node.name: neuron.levels for node, neuron in neurons.values()})
    kinds: dict[str, Kind] = {}
    for name, entry in (record.kinds or {}).items():
        if name not in there:
            raise KeyError(name)
        kinds[name] = levels.read(entry)
    for name, (_, neuron) in neurons.items():
        coding, recorded = neuron.coding, kinds.get(name)
        # What gives means has no trains of its own to tell the coding of.
        if isinstance(recorded, Spikes) and not MODES[record.mode].keeps_time:
            coding = recorded.coding
        kinds[name] = Spikes(coding, neuron.levels, neuron.channel_axis)
    return kinds


def _layers(
    network: Network, converted: Sequence[Converted], neurons: _Neurons, kinds: Mapping[str, Kind]
) -> dict[str, SpikingLayer]:
    """The neurons as layers by the tensor that they give.

    Raises:
        KeyError: what one gives is not recorded.
        ValueError: they are not those that are recorded.
    """
    names = {entry.node: entry.name for entry in converted}
    if names.keys() != {node.name for node, _ in neurons.values()}:
        raise ValueError("the neurons are not those that are recorded")
    # Neurons and what decodes them end the stretch in which a layer's channels are looked for.
    makers = {node.output[0]: node for node in every_node(network.proto.graph) if node.output and node.domain != DOMAIN}
    layers = {}
    for output, (node, _) in neurons.items():
        kind = kinds[output]
        if not isinstance(kind, Spikes):
            raise ValueError(f"what '{node.name}' gives is recorded as no spikes")
        layers[output] = SpikingLayer(names[node.name], kind, behind_matrix_product(node.input[0], makers))
    return layers


def _fits(means: Array, kind: Spikes) -> bool:
    """Whether means have the channels that their trains have levels for; those of branches not entered are empty."""
    axis = kind.channel_axis
    return not means.size or axis is None or (axis < means.ndim and means.shape[axis] == len(kind.levels))
