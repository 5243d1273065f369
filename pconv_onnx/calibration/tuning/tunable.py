"""The source and its quantised form side by side in PyTorch, and back from there to what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx
import torch

from pconv_onnx.calibration.functions import function_of, segment_of, thresholds_of
from pconv_onnx.calibration.maxima import maxima_of
from pconv_onnx.calibration.segments import layers_of, with_weights
from pconv_onnx.calibration.sweep import Found
from pconv_onnx.calibration.tuning.parameters import Steps, Weights
from pconv_onnx.calibration.tuning.program import Program, Step, step_of
from pconv_onnx.calibration.writing import Quantised
from pconv_onnx.graph import Network

_FLOAT = onnx.TensorProto.FLOAT


class Tunable:
    """A quantised network with parameters.

    Attributes:
        steps: staircases by the output of their activation.
        compared: by the same, the tensor in which it is compared: its maxima, where these alone are read.
        weights: by the output of their layer.
        outputs: of float32, that are no activations.
    """

    def __init__(self, network: Network, found: Found) -> None:
        """Begin with what a sweep found.

        Raises:
            PconvError: the network has bodies.
        """
        self._network, self._before = network, found
        self.steps = {entry.activation.output.name: Steps(entry) for entry in found.activations}
        layers = {layer.node.output[0]: layer for layer in layers_of(network)}
        self.weights = {name: Weights(layer, found.corrections.get(name)) for name, layer in layers.items()}
        self.outputs = [
            info.name
            for info in network.proto.graph.output
            if info.type.tensor_type.elem_type == _FLOAT and info.name not in self.steps
        ]
        maxima = maxima_of(network, [entry.activation for entry in found.activations])
        self.compared = {name: maxima[name].target if name in maxima else name for name in self.steps}
        wanted = [*self.compared.values(), *self.outputs]
        pooling = [step_of(network, node) for segment in maxima.values() for node in segment.nodes]
        source = [step_of(network, node) for node in network.proto.graph.node]
        self._reference = Program(network, [*source, *pooling], wanted)
        self._quantised = Program(network, [*self._quantised_steps(), *pooling], wanted)

    def _quantised_steps(self) -> Iterator[Step]:
        """Those of the source, but for layers that take other weights, and with staircases."""
        ended = {id(one.entry.activation.nodes[-1]): one for one in self.steps.values()}
        for node, proto in zip(self._network.nodes, self._network.proto.graph.node, strict=True):
            output = proto.output[0] if proto.output else ""
            one = ended.get(id(node))
            if one is not None and one.entry.offset is None:
                yield Step(_alone(one), (one.entry.activation.input.name,), (output,))
            elif one is not None:
                analog = onnx.NodeProto()
                analog.CopyFrom(proto)
                analog.output[0] = f"{output}/analog"
                yield step_of(self._network, analog)
                yield Step(_alone(one), (analog.output[0],), (output,))
            elif output in self.weights:
                for made in with_weights(proto, *self.weights[output].names, f"{output}/product"):
                    yield step_of(self._network, made)
            else:
                yield step_of(self._network, proto)

    def reference(self, feed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What is read of activations, and outputs, of the source, without gradients."""
        with torch.no_grad():
            return self._reference(feed)

    def quantised(self, feed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Likewise of the quantised network, with gradients."""
        return self._quantised({**feed, **dict(pair for one in self.weights.values() for pair in one.named())})

    def rates(self, rate: float) -> list[dict[str, Any]]:
        """What may change, and how far a step of the optimiser moves it; levels of an activation's own stay."""
        steps = [one for one in self.steps.values() if one.entry.activation.unit is None]
        changing: list[Weights | Steps] = [*self.weights.values(), *steps]
        return [group for one in changing for group in one.rates(rate)]

    def found(self, errors: Sequence[float]) -> Found:
        """What there is now, with the errors of its activations."""
        return replace(
            self._before,
            activations=[self._entry(one) for one in self.steps.values()],
            corrections={name: one.correction() for name, one in self.weights.items()},
            errors=list(errors),
        )

    def _entry(self, one: Steps) -> Quantised:
        """An activation's own, with thresholds where it had such."""
        before = one.entry
        if before.activation.unit is not None:
            return before
        staircase = one.staircase()
        offset = staircase.offset if staircase.zero else before.offset
        if before.thresholds is None:
            return replace(before, staircase=staircase, offset=offset)
        function = function_of(self._network, segment_of(self._network, before.activation))
        thresholds = thresholds_of(function, staircase, before.channels)
        return replace(before, staircase=staircase, offset=offset, thresholds=thresholds)


def _alone(one: Steps) -> Callable[[Sequence[Any]], Sequence[Any]]:
    return lambda inputs: [one(*inputs)]
