"""The quantised network in standard operators: QCFS in place of activations, and corrected weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.segments import with_weights
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.graph import Network
from pconv_onnx.graph.checking import check
from pconv_onnx.graph.nesting import drop_unread_constants, unused
from pconv_onnx.graph.record import name_activation
from pconv_onnx.graph.tensors import INITIALIZERS_IR_VERSION
from pconv_onnx.recognise import Activation
from pconv_onnx.recognise.base import PRODUCT


@dataclass(frozen=True, eq=False)
class Quantised:
    """An activation and what takes its place.

    Attributes:
        activation: of the source.
        staircase: per channel.
        channels: of the activation; there is one staircase for all where they run along no axis.
        offset: `[C]`, the output of a channel that does not fire, where the staircase is of the activation's output;
            None where the staircase takes its place.
        thresholds: `[C, T]`, inputs of the activation from which on its output reaches each step of that staircase;
            None where it does not ascend, so that the activation itself stays.
    """

    activation: Activation
    staircase: Staircase
    channels: Channels
    offset: Array | None = None
    thresholds: Array | None = None

    @property
    def activation_stays(self) -> bool:
        """Whether the activation gives its output to the staircase."""
        return self.offset is not None and self.thresholds is None and self.activation.encoding != PRODUCT


@dataclass(frozen=True, eq=False)
class Correction:
    """New weights of one layer.

    Attributes:
        output: name of the layer's output.
        weights: in the layout of its own.
        bias: `[C]`.
    """

    output: str
    weights: Array
    bias: Array


def quantised_model(
    network: Network, activations: Sequence[Quantised], corrections: Mapping[str, Correction]
) -> onnx.ModelProto:
    """The network with each activation as `a/T · clip(⌊(x + ψ)·T/θ + 1/2⌋, 0, T)`; all else stays as it is.

    An activation that stays gives its output to that, and an offset is added; one that ascends becomes
    `a/T · #{t : τ_t ≤ x}` and an offset.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    ended = {id(entry.activation.nodes[-1]): entry for entry in activations}
    names = set(network.names)
    # Its own name is that of what encodes its output: of the two, that is the one to convert.
    analog = {
        id(entry.activation.nodes[0]): unused(f"{entry.activation.name}/analog", names)
        for entry in activations
        if entry.activation_stays
    }
    gone = {id(node) for entry in activations if not entry.activation_stays for node in entry.activation.nodes}
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: Array) -> str:
        name = unused(name, names)
        constants.append(numpy_helper.from_array(value, name))
        return name

    for node, proto in zip(network.nodes, model.graph.node, strict=True):
        proto.name = analog.get(id(node), proto.name)
        if id(node) in ended:
            entry = ended[id(node)]
            value = entry.activation.input.name
            if entry.activation_stays:
                value = proto.output[0] = analog[id(entry.activation.nodes[0])]
                nodes.append(proto)
            operands = {
                key: constant(f"{entry.activation.name}.{key}", array) for key, array in _constants(entry).items()
            }
            nodes += _nodes(entry, value, operands, names)
        elif id(node) not in gone:
            correction = corrections.get(proto.output[0]) if proto.output else None
            if correction is None:
                nodes.append(proto)
                continue
            weights = constant(f"{proto.input[1]}.corrected", correction.weights)
            bias = constant(f"{proto.name or proto.output[0]}.bias.corrected", correction.bias)
            nodes += with_weights(proto, weights, bias, unused(f"{proto.output[0]}/product", names))
    model.ir_version = max(model.ir_version, INITIALIZERS_IR_VERSION)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(constants)
    drop_unread_constants(model.graph, network.proto.graph)
    check(model)
    return model


# Operators of each form, with the constants that they take after their data, and their attributes.
_Chain = tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]
_STAIRCASE: _Chain = (
    ("Add", ("shift",), {}),
    ("Div", ("step",), {}),
    ("Add", ("half",), {}),
    ("Floor", (), {}),
    ("Clip", ("zero", "steps"), {}),
    ("Mul", ("amplitude",), {}),
)
_THRESHOLDS: _Chain = (
    ("Unsqueeze", ("last",), {}),
    ("GreaterOrEqual", ("thresholds",), {}),
    ("Cast", (), {"to": onnx.TensorProto.FLOAT}),
    ("ReduceSum", ("last",), {"keepdims": 0}),
    ("Mul", ("amplitude",), {}),
)


def _chain(entry: Quantised) -> _Chain:
    if entry.offset is None:
        return _STAIRCASE
    steps = _STAIRCASE if entry.thresholds is None else _THRESHOLDS
    return (*steps, ("Add", ("offset",), {})) if entry.offset.any() else steps


def _constants(entry: Quantised) -> dict[str, Array]:
    shift, step, level = (entry.channels.along(value) for value in entry.staircase.constants())
    number = np.float32
    values = {
        "shift": shift,
        "step": step,
        "half": np.array(0.5, number),
        "zero": np.array(0, number),
        "steps": np.array(entry.staircase.steps, number),
        "amplitude": level,
    }
    if entry.offset is not None:
        values["offset"] = entry.channels.along(entry.offset.astype(number))
    if entry.thresholds is not None:
        values["last"] = np.array([-1])
        values["thresholds"] = entry.thresholds.reshape(*level.shape, -1)
    used = {key for _, keys, _ in _chain(entry) for key in keys}
    return {key: value for key, value in values.items() if key in used}


def _nodes(entry: Quantised, value: str, operands: Mapping[str, str], names: set[str]) -> Iterator[onnx.NodeProto]:
    chain = _chain(entry)
    for index, (op_type, keys, attributes) in enumerate(chain):
        last = index == len(chain) - 1
        output = entry.activation.output.name if last else unused(f"{entry.activation.name}/{op_type}", names)
        inputs = [value, *(operands[key] for key in keys)]
        name = unused(f"{entry.activation.name}/{op_type}_{index}", names)
        node = helper.make_node(op_type, inputs, [output], name, **attributes)
        name_activation(node, entry.activation.name, entry.activation.also_called)
        yield node
        value = output
