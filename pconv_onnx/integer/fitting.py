"""Weights rounded to the integers that lose least on data, layer by layer.

Two networks run side by side: the quantised one, and the same with the weights that are integers so far. Each layer is
first corrected as in a calibration, so that its outputs stay close to those of the first network although its inputs
have the errors of earlier roundings. Then its weights are rounded one after another; those that are not rounded yet
make up for the error of each rounding (Frantar et al., "GPTQ", ICLR 2023), as far as inputs are correlated.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.progress import track
from pconv_onnx.calibration.faults import axes_of
from pconv_onnx.calibration.functions import Clip, segment_of
from pconv_onnx.calibration.passes import BATCH, QUANTISED, REFERENCE, Levels, Passes
from pconv_onnx.calibration.segments import Segment, cut, with_weights
from pconv_onnx.calibration.statistics import NormalEquations, cross_validated
from pconv_onnx.calibration.sweep import MOST_INPUTS, RIDGES
from pconv_onnx.data.samples import Data
from pconv_onnx.engine.shards import Crew, InProcess, shards_of
from pconv_onnx.graph.nesting import captured, keep
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION
from pconv_onnx.integer.reading import Reading
from pconv_onnx.integer.scales import rounded
from pconv_onnx.integer.units import Layer
from pconv_onnx.integer.writing import native
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.plan.plan import Plan
from pconv_onnx.recognise import Activation, recognise
from pconv_onnx.recognise.base import where_zero
from pconv_onnx.runtime.computed import computed_constants

# The share of the mean square of the inputs that is added to each, so that the covariances can be inverted.
_DAMPING = 0.01
# The share of the mean square of inputs below which covariances count as rounding errors.
_ROUNDING = 1e-3

# For each layer, by `id`, its weights `[C, n]` as integers, and its bias `[C]` in values.
Rounded = Mapping[int, tuple[Array, Array]]


def fitted(plan: Plan, reading: Reading, nearest: Rounded, data: Data, bits: int) -> Rounded:
    """Fit the weights and biases of a network's layers to data.

    Args:
        plan: the plan of the quantised network.
        reading: which of its tensors are integers.
        nearest: weights as the nearest integers, and unchanged biases, for layers that cannot be fitted.
        data: the samples.
        bits: bits of a weight.
    """
    outputs = {activation.output for activation in plan.activations if activation.name in plan.neurons}
    network = _with_constants(plan.network)
    activations = [
        found
        for found in recognise(network, signs=where_zero)
        if found.spec is not None and found.output.name in outputs and not network.place(found.nodes[0])
    ]
    shards = shards_of(len(data), data.fixed_batch or BATCH)
    with InProcess().crew(partial(Passes, network, data), shards) as crew:
        fitting = _Fitting(network, plan, reading, nearest, activations, crew, bits)
        fitting.run(data)
    return fitting.found


def _with_constants(network: Network) -> Network:
    """The network with computed constants, such as weights behind a DequantizeLinear, as initializers."""
    computed = computed_constants(network)
    if not computed:
        return network
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    keep(model.graph.node, [node for node in model.graph.node if computed.keys().isdisjoint(node.output)])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in computed.items())
    model.ir_version = max(model.ir_version, INITIALIZERS_IR_VERSION)
    return replace(network, proto=model)


class _Fitting:
    """The state: which layers are rounded so far."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        reading: Reading,
        nearest: Rounded,
        activations: Sequence[Activation],
        crew: Crew,
        bits: int,
    ) -> None:
        self.network, self.crew, self.bits, self.found = network, crew, bits, dict(nearest)
        self.neurons = {one.output: plan.neurons[one.name] for one in plan.activations if one.name in plan.neurons}
        self.activations = activations
        layers = [step for step in reading.steps if isinstance(step, Layer)]
        # By what their nodes give; they may have taken in what stands behind these.
        self.layers = {layer.node.outputs[0].name: layer for layer in layers if layer.gain.all()}
        self.nodes = {node.output[0]: node for node in self.network.proto.graph.node if node.output}
        self.changed: dict[str, list[onnx.NodeProto]] = {}
        self.weights: dict[str, Array] = {}
        for name, layer in self.layers.items():
            if _plain(self.nodes[name]):
                self._put(layer, *self.found[id(layer)])

    def run(self, data: Data) -> None:
        """Round each layer, in order, with everything before it rounded."""
        segments = cut(self.network, self.activations)
        names = list(dict.fromkeys(segment.target for segment in segments))
        axes = axes_of(self.network, names, data.part(slice(0, 1)))
        axes |= {a.output.name: axes[a.input.name] for a in self.activations}
        self.crew.call("place", axes)
        last_use = {name: index for index, segment in enumerate(segments) for name in segment.inputs}
        done: set[str] = set()
        for index, segment in enumerate(track(segments, "rounding weights", len(segments))):
            self.crew.call("keep_reference", replace(segment, activation=None, layer=None))
            node = segment.layer.node if segment.layer is not None else None
            if node is not None and node.output[0] in self.layers and node.output[0] not in done:
                done.add(node.output[0])
                self._fit(segment, self.layers[node.output[0]])
            self.crew.call("keep_quantised", *self._quantised(segment))
            if segment.activation is not None:
                alone = segment_of(self.network, segment.activation)
                for name in (REFERENCE, QUANTISED):
                    self.crew.call("apply", alone, name)
                self.crew.call("pass_on", segment.activation.output.name)
            self.crew.call("drop", [name for name in segment.inputs if last_use[name] == index])

    def _quantised(self, segment: Segment) -> tuple[Segment, dict[str, Array], Levels]:
        """A segment with the values of its integer weights."""
        nodes = tuple(made for node in segment.nodes for made in self.changed.get(_first(node), [node]))
        used = {name for node in nodes for name in (*node.input, *captured(node))}
        weights = {name: self.weights[name] for name in sorted(used & self.weights.keys())}
        return replace(segment, activation=None, layer=None, nodes=nodes), weights, {}

    def _put(self, layer: Layer, weights: Array, bias: Array) -> None:
        """Replace a layer's weights by the values of its integers."""
        values = weights * layer.accumulator.root.unit.reshape(-1, 1) / layer.input_unit
        self._values(layer, values, bias)

    def _values(self, layer: Layer, weights: Array, bias: Array) -> None:
        output = layer.node.outputs[0].name
        names = (f"{output}/weights", f"{output}/bias")
        self.changed[output] = with_weights(self.nodes[output], *names, f"{output}/product")
        for node in self.changed[output][1:]:
            node.name = ""  # a network that was calibrated has one of that name
        own = native(layer, weights / layer.gain.reshape(-1, 1)), (bias - layer.shift) / layer.gain
        self.weights |= {name: values.astype(np.float32) for name, values in zip(names, own, strict=True)}

    def _fit(self, segment: Segment, layer: Layer) -> None:
        """Correct a layer, and round it."""
        assert segment.layer is not None
        if layer.weights.shape[1] > MOST_INPUTS:
            return
        self._values(layer, layer.weights, layer.bias)
        clip = self._clip(segment.activation)
        folds: Sequence[NormalEquations] = self.crew.call(
            "equations", *self._quantised(segment), segment.layer, clip, True
        )
        if all(np.isfinite(table).all() for fold in folds for table in (fold.gram, fold.moment)):
            change = cross_validated(folds, RIDGES)
            matrices, bias = segment.layer.matrices()
            gain = np.broadcast_to(layer.gain, layer.bias.shape).reshape(bias.shape)
            shift = np.broadcast_to(layer.shift, layer.bias.shape).reshape(bias.shape)
            wanted = (matrices + change[:, :-1].swapaxes(1, 2)) * gain[:, :, np.newaxis]
            bias = (bias + change[:, -1]) * gain + shift
            self.found[id(layer)] = self._rounded(layer, wanted, bias, functools.reduce(operator.add, folds))
        self._put(layer, *self.found[id(layer)])

    def _clip(self, activation: Activation | None) -> Clip:
        """The bounds beyond which an activation does not change, the same for all channels."""
        neuron = self.neurons.get(activation.output.name) if activation is not None else None
        if not isinstance(neuron, ParallelNeuron) or not np.isfinite(neuron.thresholds).all():
            return Clip()
        return Clip(float(neuron.thresholds[:, 0].min()), float(neuron.thresholds[:, -1].max()))

    def _rounded(self, layer: Layer, wanted: Array, bias: Array, sums: NormalEquations) -> tuple[Array, Array]:
        """Integers `[C, n]` for weights `[G, C/G, n]`, and the bias that keeps the mean of the outputs."""
        groups, outputs, inputs = wanted.shape
        unit = np.broadcast_to(layer.input_unit, layer.weights.shape).reshape(groups, outputs, inputs)
        mean = sums.gram[:, :-1, -1] / max(sums.count, 1)
        # Of integers in the place of values; outputs of one group have the same inputs.
        per_unit = unit[:, 0, :, np.newaxis] * unit[:, 0, np.newaxis, :]
        squares = sums.gram[:, :-1, :-1] / max(sums.count, 1) / per_unit
        gram = squares - mean[:, :, np.newaxis] * mean[:, np.newaxis, :] / per_unit
        diagonal = np.arange(inputs)
        # For inputs that never change, only rounding errors of float32 sums are left.
        gram[:, diagonal, diagonal] += _ROUNDING * squares[:, diagonal, diagonal].mean(axis=1, keepdims=True)
        scale = layer.scale.reshape(groups, outputs)
        found = _one_by_one(wanted * unit, scale, gram, self.bits)
        off = wanted - found * scale[:, :, np.newaxis] / unit
        bias = bias + np.einsum("gci,gi->gc", off, mean)
        integers = found.reshape(groups * outputs, inputs) * layer.factor.reshape(-1, 1)
        return integers, bias.reshape(-1)


def _first(node: onnx.NodeProto) -> str:
    return node.output[0] if node.output else ""


def _plain(node: onnx.NodeProto) -> bool:
    """Whether a layer consists of its weights and a bias only."""
    factors = {entry.name: entry.f for entry in node.attribute if entry.name in ("alpha", "beta")}
    return node.op_type in ("Conv", "Gemm", "MatMul") and all(value == 1 for value in factors.values())


def _one_by_one(weights: Array, scale: Array, gram: Array, bits: int) -> Array:
    """Weights `[G, C, n]` as integers of `scale` `[G, C]`, for inputs with the covariances `gram` `[G, n, n]`."""
    inputs = weights.shape[2]
    diagonal = np.arange(inputs)
    level = gram[:, diagonal, diagonal].mean(axis=1, keepdims=True)
    gram = gram.copy()
    gram[:, diagonal, diagonal] += _DAMPING * np.where(level > 0, level, 1)
    upper = np.linalg.cholesky(np.linalg.inv(gram)).swapaxes(1, 2)
    left, found = weights.copy(), np.empty_like(weights)
    for index in range(inputs):
        own = left[:, :, index]
        found[:, :, index] = rounded(own.reshape(-1, 1), scale.reshape(-1), bits).reshape(own.shape)
        off = (own - found[:, :, index] * scale) / upper[:, np.newaxis, index, index]
        left[:, :, index:] -= off[:, :, np.newaxis] * upper[:, np.newaxis, index, index:]
    return found
