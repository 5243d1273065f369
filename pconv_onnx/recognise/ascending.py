"""Activations that never fall as their input rises, so that a neuron can replace them."""

from __future__ import annotations

from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.recognise.base import Activation

# Operators that never fall, with the attributes that must be positive for that; their defaults are.
_ASCENDING: dict[str, tuple[str, ...]] = {
    "Celu": ("alpha",),
    "Clip": (),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha",),
    "LeakyRelu": ("alpha",),
    "PRelu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}


def ascends(activation: Activation) -> bool:
    """Whether an activation never falls as its input rises, so that thresholds of its output give some of its input."""
    if activation.unit is not None:
        return True
    node = activation.nodes[0]
    if len(activation.nodes) > 1 or not is_standard(node) or node.op not in _ASCENDING:
        return False
    if node.op == "PRelu":
        slope = constant(node.inputs[1])
        return slope is not None and bool((slope >= 0).all())
    return all(float(node.attrs.get(name, 1.0)) > 0 for name in _ASCENDING[node.op])
