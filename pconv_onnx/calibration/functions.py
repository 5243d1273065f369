"""Activations as functions: those that clip, those that ascend and their thresholds, and any by itself on arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.segments import Runner, Segment
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.graph import Network
from pconv_onnx.neuron.thresholds import smallest_float
from pconv_onnx.recognise import Activation
from pconv_onnx.recognise.ascending import ascends
from pconv_onnx.recognise.calibratable import nodes_of

# Levels up to which thresholds take the place of an activation: in standard operators each value meets each of them.
_MOST_THRESHOLDS = 256


@dataclass(frozen=True)
class Clip:
    """An activation of the source: `clip(x, low, high)`, or the identity."""

    low: float = -np.inf
    high: float = np.inf

    @property
    def rectifies(self) -> bool:
        """Whether it is not the identity."""
        return self.low > -np.inf

    def __call__(self, values: Array) -> Array:
        """Of each value."""
        return np.clip(values, np.float32(self.low), np.float32(self.high))

    def nearest(self, reference: Array, values: Array) -> Array:
        """What is nearest to each value and has the same output as the reference."""
        below, above = reference <= self.low, reference >= self.high
        nearest = np.where(below, np.minimum(values, np.float32(self.low)), reference)
        return np.where(above, np.maximum(values, np.float32(self.high)), nearest)


def clip_of(activation: Activation | None) -> Clip:
    """What a Relu or a Clip from zero does; the identity for any other activation."""
    if activation is None or activation.bounds is None or activation.bounds[0] != 0:
        return Clip()
    return Clip(*activation.bounds)


def becomes_thresholds(activation: Activation, steps: int) -> bool:
    """Whether thresholds take the place of an activation, or it stays and a staircase of its output follows."""
    return steps <= _MOST_THRESHOLDS and ascends(activation)


def segment_of(network: Network, activation: Activation) -> Segment:
    """An activation by itself, from its input to its output."""
    maker = {name: node for node in network.proto.graph.node for name in node.output}
    names = {node.outputs[0].name for node in nodes_of(activation)}
    # In topological order, with the constants that only it uses.
    nodes = [node for node in network.proto.graph.node if node.output and node.output[0] in names]
    own = {id(node) for node in nodes}
    for name in sorted({name for node in nodes for name in node.input if name in maker} - {activation.input.name}):
        if id(maker[name]) not in own and maker[name].op_type == "Constant":
            nodes.insert(0, maker[name])
    return Segment(None, activation.output.name, tuple(nodes), (activation.input.name,), None)


def function_of(network: Network, segment: Segment) -> Callable[[Array], Array]:
    """A segment from one tensor to another, on arrays."""
    runner = Runner(network, segment, {})
    (given,) = segment.inputs
    return lambda values: runner({given: np.ascontiguousarray(values)})[segment.target]


def lowest_of(function: Callable[[Array], Array], channels: Channels, count: int) -> Array:
    """`[C]`: what a function that ascends gives for the lowest input, in each of so many channels."""
    lowest = np.full((count, 1), np.finfo(np.float32).min, np.float32)
    return channels.rows(function(channels.spread(lowest)))[:, 0]


def thresholds_of(function: Callable[[Array], Array], staircase: Staircase, channels: Channels) -> Array | None:
    """`[C, T]`: the inputs from which on an ascending function reaches each step of a staircase of its output.

    A step that it never reaches has +∞. None where the function differs within a channel.
    """
    counts = np.tile(np.arange(1, staircase.steps + 1), (len(staircase.threshold), 1))
    if function(channels.spread(counts.astype(np.float32))).shape != channels.spread(counts).shape:
        return None

    def reached(values: Array) -> Array:
        # Softsign has no value at infinity.
        values = np.nan_to_num(values)
        with np.errstate(over="ignore"):
            return staircase.codes(function(channels.spread(values)).reshape(values.T.shape).T) >= counts

    return np.nan_to_num(smallest_float(reached, counts.shape, np.dtype(np.float32)), nan=np.inf, posinf=np.inf)
