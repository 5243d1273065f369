"""Activations of which maxima alone are read.

A staircase ascends, so the maximum of what it gives in a window is what it gives for the maximum there. In front of
max-pooling it may be fitted to maxima: levels for what is never the largest would serve nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

from pconv_onnx.calibration.segments import Segment
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import captured
from pconv_onnx.recognise import Activation

# The axis of channels that pooling leaves alone.
CHANNELS = 1
_POOLS = ("GlobalMaxPool", "MaxPool")


def maxima_of(network: Network, activations: Sequence[Activation]) -> dict[str, Segment]:
    """By the outputs of activations what alone reads them: max-pooling, perhaps of channels that a Concat joins.

    Each segment is a copy of the pooling that reads the activation itself, and leads to a tensor of its own. Where
    several poolings read an activation, they have the same windows, or it is not here.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in network.proto.graph.node:
        for name in {*node.input, *captured(node)}:
            readers.setdefault(name, []).append(node)
    outputs = {info.name for info in network.proto.graph.output}
    found = {}
    for activation in activations:
        name = activation.output.name
        pools = _pools(network, name, readers, outputs)
        if pools and all(_windows(pool) == _windows(pools[0]) for pool in pools):
            alone = onnx.NodeProto()
            alone.CopyFrom(pools[0])
            alone.input[0], alone.output[0] = name, f"{name}/maxima"
            found[name] = Segment(None, alone.output[0], (alone,), (name,), None)
    return found


def _pools(
    network: Network, name: str, readers: Mapping[str, Sequence[onnx.NodeProto]], outputs: Collection[str]
) -> list[onnx.NodeProto]:
    """All that reads a tensor, where that is max-pooling alone; otherwise nothing."""
    if name in outputs:
        return []
    found = []
    for node in readers.get(name, ()):
        if is_standard(node) and node.op_type in _POOLS and not any(node.output[1:]):
            found.append(node)
            continue
        behind = _pools(network, node.output[0], readers, outputs) if _joins_channels(network, node) else []
        if not behind:
            return []
        found += behind
    return found


def _joins_channels(network: Network, node: onnx.NodeProto) -> bool:
    if not is_standard(node) or node.op_type != "Concat":
        return False
    (axis,) = (attribute.i for attribute in node.attribute if attribute.name == "axis")
    return axis == CHANNELS or axis + len(network.shapes.get(node.input[0], ())) == CHANNELS


def _windows(pool: onnx.NodeProto) -> tuple[str, list[bytes]]:
    return pool.op_type, sorted(attribute.SerializeToString(deterministic=True) for attribute in pool.attribute)
