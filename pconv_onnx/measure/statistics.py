"""How often do the neurons of a spiking network fire, and what operations does that leave of its ANN's?

A train is sorted, so it is its spike count, and the count follows from its temporal mean: both modes are read in the
same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import ENERGY_AC, ENERGY_MAC, MODES
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import track
from pconv_onnx.data.reading import load_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, DataSource, Samples, to_first
from pconv_onnx.graph import ModelSource, Network, load
from pconv_onnx.graph.channels import behind_matrix_product
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import captured, every_graph, every_node, subgraphs
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.record import parsed, recorded
from pconv_onnx.graph.windows import Shape
from pconv_onnx.measure.fan_out import LINEAR, UNCOUNTED, fan_out, total
from pconv_onnx.neuron.parallel import ParallelNeuron, train_decoder
from pconv_onnx.operators.contents import steps_in_flight
from pconv_onnx.operators.domain import OP_TYPE, is_layer
from pconv_onnx.operators.parallel_spike import attributes, neuron_of
from pconv_onnx.runtime.side_by_side import axes_told_by_runs, batches, open_session, run_session
from pconv_onnx.temporal.kinds import STATIC, Current, Kind, Spikes, Static
from pconv_onnx.temporal.rules import transfer
from pconv_onnx.temporal.site import Site

# Farther than any hardware goes, and near enough for sums and ratios to be finite.
_LEAST_ENERGY, _MOST_ENERGY = 1e-12, 1e12

_EXAMPLES = 32
# What one batch may hand out, in bytes.
_HANDED_OUT = 1 << 27


@dataclass(eq=False)
class SpikingLayer:
    """The spike counts of one layer of neurons, added up batch by batch.

    Attributes:
        name: name of the activation that it was.
        kind: the trains that it emits.
        channels_last: whether channels are the last axis, not the one behind the samples; a channel axis of the trains
            is what counts.
        samples: samples counted on; fewer than there are where it is in a branch that not all get to.
        histogram: `[T+1]`, how often a neuron has each count.
        fewest: `[C]`, the lowest count of each channel (`[0]` before the first batch).
        most: `[C]`, the highest.
        example_neurons: indices of up to 32 neurons, evenly chosen from all of a sample, row by row.
        example_counts: their counts in the first sample that got to the layer.
    """

    name: str
    kind: Spikes = field(repr=False)
    channels_last: bool = False
    samples: int = field(init=False, default=0)
    histogram: Array = field(init=False, repr=False)
    fewest: Array = field(init=False, repr=False)
    most: Array = field(init=False, repr=False)
    example_neurons: list[int] = field(init=False, repr=False, default_factory=list)
    example_counts: list[int] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        """Nothing is counted yet."""
        self.histogram = np.zeros(self.steps + 1, np.int64)
        self.fewest, self.most = np.empty((2, 0), np.int64)

    @property
    def steps(self) -> int:
        """T."""
        return self.kind.steps

    @property
    def spikes(self) -> int:
        """How many there are."""
        return int(self.histogram @ np.arange(self.steps + 1))

    @property
    def sites(self) -> int:
        """How many there could be: one for each neuron, step and sample."""
        return int(self.histogram.sum()) * self.steps

    def add(self, counts: Array, samples: int, sample_axis: int | None) -> None:
        """Take in the counts of one batch of that many samples, which lie along that axis; None: all are of one."""
        self.histogram += np.bincount(counts.reshape(-1), minlength=self.steps + 1)
        counts = to_first(counts, sample_axis)
        if counts.ndim == 1:
            counts = counts[:, np.newaxis]
        channel_axis = counts.ndim - 1 if self.channels_last else 1
        if self.kind.channel_axis is not None:
            channel_axis = self.kind.channel_axis + (sample_axis is None or self.kind.channel_axis < sample_axis)
        others = tuple(axis for axis in range(counts.ndim) if axis != channel_axis)
        fewest, most = counts.min(axis=others, initial=self.steps), counts.max(axis=others, initial=0)
        self.fewest = np.minimum(self.fewest, fewest) if self.samples else fewest
        self.most = np.maximum(self.most, most) if self.samples else most
        self.samples += samples
        if not self.example_neurons:
            first = counts.reshape(-1)[: counts.size // samples]
            chosen = np.unique(np.linspace(0, first.size - 1, _EXAMPLES).astype(int))[: first.size]
            self.example_neurons, self.example_counts = chosen.tolist(), first[chosen].tolist()

    def summary(self) -> dict[str, Any]:
        """Its row in the JSON document."""
        return {
            "name": self.name,
            "channels": len(self.most),
            "neurons": int(self.histogram.sum()) // max(self.samples, 1),
            "steps": self.steps,
            "firing_rate": _ratio(self.spikes, self.sites),
            "spike_counts": self.histogram.tolist(),
            "silent_channels": int((self.most == 0).sum()),
            "saturated_channels": int((self.fewest == self.steps).sum()),
            "example_neurons": self.example_neurons,
            "example_counts": self.example_counts,
        }


@dataclass(eq=False)
class LinearOperator:
    """The operations of one linear operator, added up batch by batch.

    Attributes:
        name: name of its node.
        op_type: its ONNX operator.
        kind: what its input is in time.
        counted: whether its operations can be counted; those of bodies and a few operators cannot.
        macs: multiply-accumulates of the ANN.
        synaptic_operations: non-zero input values of all steps, each times its fan-out; 0 where no spikes come in.
    """

    name: str
    op_type: str
    kind: Kind = field(repr=False)
    counted: bool = True
    macs: int = 0
    synaptic_operations: int = 0

    @property
    def multiply_accumulates(self) -> int:
        """Those that remain: none on spikes, the ANN's at each step on a current, and once on what is static."""
        return 0 if isinstance(self.kind, Spikes) else self.kind.steps * self.macs

    def add(self, fan: Array, shape: Shape, counts: Array | None) -> None:
        """Take in one batch: the fan-out of its input, which has that shape without time, and its spike counts."""
        self.macs += total(fan, shape)
        if counts is not None and isinstance(self.kind, Spikes) and fan.size:
            values = _not_zero(counts, self.kind)
            self.synaptic_operations += int((values.reshape(-1, *fan.shape).sum(axis=0) * fan).sum())

    def summary(self, samples: int) -> dict[str, Any]:
        """Its row in the JSON document."""
        operations = {key: getattr(self, key) for key in ("macs", "synaptic_operations", "multiply_accumulates")}
        return {
            "name": self.name,
            "op_type": self.op_type,
            "input": type(self.kind).__name__.lower(),
            **{key: _each(value, samples) if self.counted else None for key, value in operations.items()},
        }


@dataclass(eq=False)
class Stats:
    """What `stats` found.

    Attributes:
        samples: samples counted on.
        random_inputs: whether they were drawn, since no data was given.
        mode: `parallel` or `folded`.
        layers: one a layer of neurons.
        operators: one a linear operator.
        energy_mac: of a multiply-accumulate, in pJ.
        energy_ac: of an accumulate, in pJ.
    """

    samples: int
    random_inputs: bool
    mode: str
    layers: Sequence[SpikingLayer] = field(repr=False)
    operators: Sequence[LinearOperator] = field(repr=False)
    energy_mac: float
    energy_ac: float

    @property
    def steps(self) -> int | None:
        """T where all neurons have the same, else None."""
        steps = {layer.steps for layer in self.layers}
        return steps.pop() if len(steps) == 1 else None

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx stats`; operations and energies are those of one sample."""
        counted = [entry for entry in self.operators if entry.counted]
        macs = sum(entry.macs for entry in counted)
        accumulates = sum(entry.synaptic_operations for entry in counted)
        remaining = sum(entry.multiply_accumulates for entry in counted)
        ann, snn = self.energy_mac * macs, self.energy_mac * remaining + self.energy_ac * accumulates
        return {
            "samples": self.samples,
            "random_inputs": self.random_inputs,
            "steps": self.steps,
            "mode": self.mode,
            "layers": [layer.summary() for layer in self.layers],
            "operators": [entry.summary(self.samples) for entry in self.operators],
            "totals": {
                "ann_macs": _each(macs, self.samples),
                "synaptic_operations": _each(accumulates, self.samples),
                "multiply_accumulates": _each(remaining, self.samples),
                "firing_rate": _ratio(sum(layer.spikes for layer in self.layers), sum(x.sites for x in self.layers)),
            },
            "energy": {
                "mac_pj": self.energy_mac,
                "ac_pj": self.energy_ac,
                "ann_nj": ann / self.samples / 1000,
                "snn_nj": snn / self.samples / 1000,
                "ratio": _ratio(snn, ann),
                "assumptions": list(self._assumptions()),
            },
        }

    def _assumptions(self) -> Iterator[str]:
        yield (
            f"digital hardware on which a multiply-accumulate takes {self.energy_mac:g} pJ and an accumulate "
            f"{self.energy_ac:g} pJ (by default those of 32-bit floats in 45 nm CMOS)"
        )
        yield "the ANN multiplies every input value, zeros too, but nothing in the padding"
        yield (
            "a value of a spike train that is not zero takes an accumulate for each output element that it has a part "
            "in, at each step; amplitudes are in the weights"
        )
        yield "memory traffic, updates of neurons, biases, normalisation, pooling and elementwise work take nothing"
        if self.mode == "folded":
            yield (
                "mode folded computes temporal means and emits no spikes: counted is the network in mode parallel that "
                "it stands for"
            )
        if not all(entry.counted for entry in self.operators):
            yield "operators that could not be counted take nothing"


def stats(
    model: ModelSource,
    data: DataSource | None = None,
    *,
    batch_axis: BatchAxis = 0,
    energy_mac: float = ENERGY_MAC,
    energy_ac: float = ENERGY_AC,
) -> Stats:
    """Spike statistics of a network, and the operations and the energy that they stand for.

    Args:
        model: a network that `rewrite` wrote, in mode `parallel` or `folded`.
        data: samples as `load_samples` takes them; by default seeded random inputs.
        batch_axis: along which axis of the inputs samples lie in the model, as `load_samples` takes it.
        energy_mac: energy of a multiply-accumulate, in pJ.
        energy_ac: energy of an accumulate, in pJ.

    Raises:
        PconvError: the model cannot be read or run, `rewrite` did not write it, the data do not fit, or an energy is
            neither 0 nor from 1e-12 to 1e12 pJ.
    """
    for energy in (energy_mac, energy_ac):
        if energy != 0 and not _LEAST_ENERGY <= energy <= _MOST_ENERGY:
            told = f"choose 0, or {_LEAST_ENERGY:g} to {_MOST_ENERGY:g} pJ"
            raise PconvError(f"{energy} is not an energy of an operation", told)
    network = load(model)
    mode, names = _recorded(network)
    try:
        emitted = _emitted(network, mode)
        layers = _layers(network, names, emitted)
        readings = _readings(network, mode, _kinds(network, mode, emitted))
    except (KeyError, ValueError) as error:
        raise _edited(network) from error
    if names:
        raise _edited(network)
    trains = {output: layer.kind for output, layer in layers.items()}
    trains |= {reading.input: kind for reading in readings if isinstance(kind := reading.result.kind, Spikes)}
    counted = [reading for reading in readings if reading.result.counted]
    taps = _Taps(network, mode, trains, {name for reading in counted for name in reading.operands})
    runner = open_session(taps.model, network.name, folder=network.folder)
    if data is not None:
        samples = load_samples(data, runner, batch_axis)
    else:
        samples = random_samples(runner, batch_axis=batch_axis)
    axes = _sample_axes(taps, runner, samples, layers)
    operators = [reading.result for reading in readings]
    result = Stats(len(samples), data is None, mode, list(layers.values()), operators, energy_mac, energy_ac)
    parts = batches(samples, steps_in_flight(network.proto), _largest_batch(taps, runner, samples))
    for part, feed in track(parts, "counting", len(parts)):
        means, shapes = taps.run(runner, feed)
        # Those of a branch that was not entered are empty.
        counts = {name: _spike_counts(means[name], kind) for name, kind in trains.items() if means[name].size}
        for output, layer in layers.items():
            if output in counts:
                layer.add(counts[output], part.stop - part.start, _axis(layer, axes[output]))
        for reading in counted:
            reading.add(shapes, counts)
    return result


def _sample_axes(
    taps: _Taps, runner: Any, samples: Samples, layers: Mapping[str, SpikingLayer]
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
            "rewrite the network without this activation (--exclude)",
        )
    return next(iter(axes))


def _recorded(network: Network) -> tuple[str, dict[str, str]]:
    """The mode of a spiking network, and the activation that each neuron was, by the name of its node.

    Raises:
        PconvError: `rewrite` did not write it.
    """
    entries = recorded(network.proto)
    if entries.get("mode") == "serial":
        raise PconvError(
            f"{network.name} is a serial network, which spikes in one time-step at a time",
            "pass what mode 'parallel' or 'folded' gives",
        )
    with contextlib.suppress(KeyError, TypeError, ValueError):
        names = {row["node"]: row["name"] for row in parsed(entries["activations"]) if row["node"]}
        if entries["mode"] in MODES:
            return entries["mode"], names
    raise PconvError(f"{network.name} was not rewritten", "pass what pconv-onnx rewrite wrote")


def _edited(network: Network) -> PconvError:
    return PconvError(
        f"the neurons of {network.name} are not there any more as rewrite wrote them",
        "count before other tools edit the spiking network",
    )


def _emitted(network: Network, mode: str) -> list[tuple[onnx.NodeProto, Spikes]]:
    """The neurons and what they emit; in mode folded the trains whose means they emit.

    Raises:
        KeyError: they are not as `rewrite` wrote them.
        ValueError: likewise.
    """
    tables = {tensor.name: tensor for graph in every_graph(network.proto.graph) for tensor in graph.initializer}
    emitted = []
    for node in every_node(network.proto.graph):
        if is_layer(node, mode):
            neuron = neuron_of(node, tables)
            # A mean is searched among them.
            if not (np.diff(neuron.levels.astype(np.float32)) >= 0).all():
                raise ValueError(f"the levels of '{node.name}' do not ascend")
            emitted.append((node, Spikes(neuron.steps, neuron.levels, neuron.channel_axis)))
    return emitted


def _layers(
    network: Network, names: dict[str, str], emitted: Iterable[tuple[onnx.NodeProto, Spikes]]
) -> dict[str, SpikingLayer]:
    """The neurons as layers by the tensor that they give; their names are taken from those recorded.

    Raises:
        KeyError: no name is recorded.
    """
    # Neurons and what decodes them end the stretch in which a layer's channels are looked for.
    nodes = every_node(network.proto.graph)
    makers = {node.output[0]: node for node in nodes if node.output and node.domain != DOMAIN}
    return {
        node.output[0]: SpikingLayer(names.pop(node.name), kind, behind_matrix_product(node.input[0], makers))
        for node, kind in emitted
    }


def _kinds(network: Network, mode: str, emitted: Iterable[tuple[onnx.NodeProto, Spikes]]) -> dict[str, Kind]:
    """Kind in time of each tensor that has one; in mode folded, the kind that it has in mode parallel."""
    kinds: dict[str, Kind] = {node.output[0]: kind for node, kind in emitted}
    network = _with_rows_told(network)
    for node, proto in zip(network.nodes, network.proto.graph.node, strict=True):
        # What decodes gives tensors without time.
        if proto.domain == DOMAIN:
            continue
        site = Site(network, node, [kinds.get(tensor.name, STATIC) for tensor in node.inputs])
        for tensor, kind in zip(node.outputs, transfer(site).kinds, strict=True):
            if mode == "parallel" and site.varying and isinstance(kind, Static):
                # What has no form in time was given decoded tensors, so this has one, whatever is known of it here.
                kind = Current(site.kinds[site.varying[0]].steps)
            if not isinstance(kind, Static):
                kinds[tensor.name] = kind
    return kinds


def _with_rows_told(network: Network) -> Network:
    """The network with one number, or name, of rows where files leave it open: rules compare them."""
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    infos = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    first = {info.name: info.type.tensor_type.shape.dim[0] for info in infos if info.type.tensor_type.shape.dim}
    batch, *others = {first[info.name].dim_value for info in proto.graph.input if info.name in first} or {0}
    for dim in first.values():
        if not dim.HasField("dim_value"):
            dim.dim_param = "rows"
            if batch and not others:
                dim.dim_value = batch
    return fold(replace(network, proto=proto))


@dataclass(frozen=True, eq=False)
class _Reading:
    """A linear operator with what has to be read of it at each batch.

    Attributes:
        node: its node.
        operands: the names of its first two inputs.
        index: which of them is its input.
        repeats: the time-steps that the rows of its input hold.
        result: what is counted.
    """

    node: gs.Node
    operands: tuple[str, ...]
    index: int
    repeats: int
    result: LinearOperator

    @property
    def input(self) -> str:
        return self.operands[self.index]

    def add(self, shapes: Mapping[str, Shape], counts: Mapping[str, Array]) -> None:
        """Take in one batch: shapes of tensors, and spike counts of trains."""
        own = [shapes[name] for name in self.operands]
        own[self.index] = (own[self.index][0] // self.repeats, *own[self.index][1:])
        self.result.add(fan_out(self.node, self.index, own), own[self.index], counts.get(self.input))


def _readings(network: Network, mode: str, kinds: Mapping[str, Kind]) -> list[_Reading]:
    """The linear operators that depend on the inputs of the network, in topological order."""
    readings = []
    for node, proto in zip(network.nodes, network.proto.graph.node, strict=True):
        counted = is_standard(node) and node.op in LINEAR
        listed = counted or (is_standard(node) and node.op in UNCOUNTED) or _linear_inside(proto)
        if not listed or network.computed_from_inputs.isdisjoint({*proto.input, *captured(proto)}):
            continue
        operands = tuple(proto.input[:2])
        in_time = proto.output[0] in kinds
        depends = kinds if in_time else network.computed_from_inputs
        # Of the others it is the first.
        index = 1 if node.op == "MatMul" and operands[0] not in depends else 0
        kind = kinds[operands[index]] if in_time else STATIC
        result = LinearOperator(node.name or proto.output[0], node.op, kind, counted)
        readings.append(_Reading(node, operands, index, kind.steps if mode == "parallel" else 1, result))
    return readings


def _linear_inside(node: onnx.NodeProto) -> bool:
    """Whether a linear operator is in the bodies of a node."""
    inner = (child for body in subgraphs(node) for child in every_node(body))
    return any(child.op_type in LINEAR or child.op_type in UNCOUNTED for child in inner)


class _Taps:
    """The network with means of trains and shapes of tensors as further outputs.

    Attributes:
        model: the network.
    """

    def __init__(self, network: Network, mode: str, trains: Mapping[str, Spikes], shapes: Iterable[str]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(network.proto)
        self._prefix = "tap"
        while any(name.startswith(self._prefix) for name in network.names):
            self._prefix += "_"
        self._count = count()
        self._used = set(network.names)
        graphs = {name: graph for graph in every_graph(self.model.graph) for node in graph.node for name in node.output}
        self._means = {}
        for name, kind in trains.items():
            mean = name if mode == "folded" else self._decoded(graphs[name], name, kind)
            self._means[name] = self._hand_out(mean, helper.np_dtype_to_tensor_dtype(kind.levels.dtype))
        main = self.model.graph
        self._shapes = {
            name: self._hand_out(self._node(main, "Shape", [name]), TensorProto.INT64) for name in sorted(shapes)
        }

    def run(self, runner: Any, feed: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Shape]]:
        """Means `[B, …]` (of branches that were not entered `[0]`) and shapes of one batch, by name of the tensor."""
        values = iter(run_session(runner, feed, [*self._means.values(), *self._shapes.values()]))
        means = {name: next(values) for name in self._means}
        return means, {name: tuple(next(values).tolist()) for name in self._shapes}

    def _decoded(self, graph: onnx.GraphProto, name: str, kind: Spikes) -> str:
        decoder = train_decoder(kind.levels, kind.channel_axis)
        tables = [self._table(graph, decoder.thresholds), self._table(graph, decoder.levels)]
        options = attributes(decoder, input_steps=kind.steps, spikes=False)
        return self._node(graph, OP_TYPE, [name, *tables], domain=DOMAIN, **options)

    def _node(self, graph: onnx.GraphProto, op_type: str, inputs: list[str], **options: Any) -> str:
        output = f"{self._prefix}/{next(self._count)}"
        graph.node.append(helper.make_node(op_type, inputs, [output], output, **options))
        return output

    def _table(self, graph: onnx.GraphProto, values: Array) -> str:
        name = f"{self._prefix}/table/{next(self._count)}"
        graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _hand_out(self, name: str, element: int) -> str:
        return expose(self.model.graph, name, element, self._used)


def _largest_batch(taps: _Taps, runner: Any, samples: Samples) -> int:
    """Of how many samples the means fit in memory, as one batch shows."""
    part, feed = next(samples.batches(1))
    means, _ = taps.run(runner, feed)
    return _HANDED_OUT * (part.stop - part.start) // max(sum(mean.nbytes for mean in means.values()), 1)


def _spike_counts(means: Array, kind: Spikes) -> Array:
    """The spike count of each neuron, from the means `[B, …]` of their trains: which of the levels each is."""
    # NumPy searches no bfloat16; float32 holds each type exactly.
    levels, means = kind.levels.astype(np.float32), means.astype(np.float32)
    if kind.channel_axis is None:
        return np.searchsorted(levels[0], means)
    counts = np.empty(means.shape, np.int64)
    for channel, row in enumerate(levels):
        where = (slice(None),) * kind.channel_axis + (channel,)
        counts[where] = np.searchsorted(row, means[where])
    return counts


def _not_zero(counts: Array, kind: Spikes) -> Array:
    """How many of the T values of each train are not zero: all of them where a silent neuron emits something."""
    neuron = ParallelNeuron(kind.levels[:, 1:], kind.levels, kind.channel_axis)
    silent, firing = (neuron.along_channels(kind.levels[:, [k]] != 0, counts.ndim)[0] for k in (0, -1))
    return np.asarray(counts * firing + (kind.steps - counts) * silent)


def _each(value: int, samples: int) -> int | float:
    """The share of one sample."""
    return value / samples if value % samples else value // samples


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
