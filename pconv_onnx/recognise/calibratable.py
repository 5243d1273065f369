"""Which activations without levels can be calibrated, and all nodes that they consist of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.products import leading_to_products
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.recognise.analog import DEPTH, ELEMENTWISE
from pconv_onnx.recognise.base import Activation

# Why a readout stays.
READOUT = (
    "no product reads it, only outputs: its spikes would save nothing, and its levels would cost accuracy; calibrate "
    "with `readouts='spiking'` to have a neuron there"
)


def why_not_calibrated(network: Network, activation: Activation) -> str:
    """Why an activation cannot be calibrated; empty if it can."""
    node = activation.nodes[0]
    if activation.status != "needs-calibration":
        return activation.reason
    if network.place(node):
        return f"it is in {network.place(node)}, where nothing is calibrated"
    nodes = nodes_of(activation)
    dtype = network.dtype(activation.input)
    if dtype is not None and dtype != np.float32:
        remedy = "export it in float32"
        if dtype == np.float16:
            remedy = "calibrate the network in float32, and rewrite it with `precision='float16'`"
        return f"it computes in {dtype}, and float32 is calibrated: {remedy}"
    rank = len(network.shape(activation.input) or ())
    if not rank:
        return "how many axes its input has is not known, or it is a scalar; declare its shape in the export"
    own = {id(node.outputs[0]) for node in nodes} | {id(activation.input)}
    for tensor in (tensor for node in nodes for tensor in node.inputs if tensor.name and id(tensor) not in own):
        value = constant(tensor)
        if value is None:
            return f"it depends on '{tensor.name}' as well, which is computed; a constant can be calibrated"
        if any(size > 1 for size in value.shape[: max(value.ndim - rank + 1, 0)]):
            return f"its constant '{tensor.name}' of shape {list(value.shape)} is not the same for all samples"
    return ""


def readouts(network: Network, activations: Sequence[Activation]) -> list[Activation]:
    """The activations that could be calibrated but stay, since nothing multiplies what they give, up to the outputs.

    Nor does what has levels read them: a neuron encodes what leads there. None where nothing multiplies what any
    activation gives: then there are no others to calibrate.
    """
    leading = leading_to_products(network, [one.input.name for one in activations if one.spec is not None])
    possible = [one for one in activations if one.spec is not None or not why_not_calibrated(network, one)]
    if all(one.output.name not in leading for one in possible):
        return []
    return [one for one in possible if one.spec is None and one.output.name not in leading]


def nodes_of(activation: Activation) -> list[Node]:
    """All nodes of an activation. `nodes` has only one path, and a function such as x + x³ is computed on two."""
    if len(activation.nodes) == 1:
        return list(activation.nodes)
    found = {id(node): node for node in activation.nodes}
    for tensor in (tensor for node in activation.nodes for tensor in node.inputs):
        if not any(id(node) in found for node in tensor.inputs):
            found |= {id(node): node for node in _between(activation.input, tensor, DEPTH) or ()}
    return list(found.values())


def _between(start: Tensor, end: Tensor, depth: int) -> list[Node] | None:
    """The nodes that compute one tensor from another alone, element by element; None if it is not so computed."""
    if end is start or constant(end) is not None:
        return []
    if not depth or len(end.inputs) != 1 or end.inputs[0].op not in ELEMENTWISE or not is_standard(end.inputs[0]):
        return None
    parts = [_between(start, tensor, depth - 1) for tensor in end.inputs[0].inputs]
    return None if None in parts else [end.inputs[0], *(node for part in parts for node in part or ())]
