"""The names of the operators, and tests for their nodes."""

from __future__ import annotations

import onnx

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.nesting import every_node

OP_TYPE = "ParallelSpike"
SERIAL_OP_TYPE = "SerialSpike"
# The mean over time, which decodes a current; a function of standard operators, without a kernel.
MEAN_OP_TYPE = "TemporalMean"
# The means over the first 1, 2, … T time-steps, for outputs at each step; likewise.
RUNNING_MEAN_OP_TYPE = "RunningMean"
# Layers of integer weights on spike counts, with neurons at their end or without.
INTEGER_SPIKE_CONV, INTEGER_SPIKE_GEMM = "IntegerSpikeConv", "IntegerSpikeGemm"
INTEGER_CONV, INTEGER_GEMM = "IntegerConv", "IntegerGemm"
# Neurons alone, behind sums of integers.
INTEGER_SPIKE = "IntegerSpike"
# The operator that decodes their trains; a function of standard operators, without a kernel.
SPIKE_COUNT = "SpikeCount"
INTEGER_OP_TYPES = (INTEGER_SPIKE_CONV, INTEGER_SPIKE_GEMM, INTEGER_CONV, INTEGER_GEMM, INTEGER_SPIKE)

# The versions of the domain that introduced codings, and integer operators.
CODED, INTEGER = 2, 3


def attribute(node: onnx.NodeProto, name: str, default: int | None = None) -> int:
    """The value of a node's attribute, or its default if it may be left out.

    Raises:
        KeyError: it is missing.
    """
    found = {entry.name: int(entry.i) for entry in node.attribute}
    return found[name] if default is None else found.get(name, default)


def version_of(model: onnx.ModelProto) -> int:
    """The version of the domain by a model's nodes. What a model declares may be onnxruntime's own version."""
    nodes = filter(is_operator, every_node(model.graph))
    coded = any(entry.name == "coding" for node in nodes for entry in node.attribute)
    if any(map(is_integer, every_node(model.graph))):
        return INTEGER
    return CODED if coded else 1


def is_operator(node: onnx.NodeProto) -> bool:
    """Whether a node is a `ParallelSpike`: a layer of neurons, or a decoder of trains."""
    return bool(node.domain == DOMAIN and node.op_type == OP_TYPE)


def is_layer(node: onnx.NodeProto, trains: bool) -> bool:
    """Whether a node of a network is a layer of neurons; where trains flow, one that gives means is a decoder.

    Raises:
        KeyError: an attribute is missing.
    """
    return is_operator(node) and attribute(node, "spikes") == trains


def is_neuron(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer of spiking neurons, parallel or serial."""
    return is_operator(node) or is_serial(node)


def is_serial(node: onnx.NodeProto) -> bool:
    """Whether a node is a `SerialSpike`."""
    return bool(node.domain == DOMAIN and node.op_type == SERIAL_OP_TYPE)


def is_spiking(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer of integers with neurons at its end, or neurons on sums of integers."""
    return is_integer(node) and node.op_type.startswith(INTEGER_SPIKE)


def is_integer(node: onnx.NodeProto) -> bool:
    """Whether a node is a layer of integers."""
    return bool(node.domain == DOMAIN and node.op_type in INTEGER_OP_TYPES)
