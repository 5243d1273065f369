"""Spike counts of layers of integers, as these are deployed, against those of the network that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.measure.layer_check import LayerCheck
from pconv_onnx.operators.domain import attribute, is_integer, is_operator, is_spiking
from pconv_onnx.operators.integer_spike import MOST, counts_of


@dataclass(frozen=True)
class _Counts:
    """Counts that a network gives.

    Attributes:
        output: by which it hands them out.
        activation: the tensor that they are the values of.
        lowest: what the count 0 stands for.
        unit: how much more the next does.
        train: attributes of trains that they are handed out as.
        highest: the largest that layers take.
    """

    output: str
    activation: str
    lowest: int
    unit: int
    train: Mapping[str, int]
    highest: int


class CountCheck:
    """A network of integers that hands out its counts; any other network is as it is.

    Attributes:
        model: it.
    """

    def __init__(self, network: Network, checks: Sequence[LayerCheck]) -> None:
        """Of the network as it is deployed, and what is known of its neurons."""
        neurons = {check.converted.node: check for check in checks}
        layers = [node for node in network.proto.graph.node if is_spiking(node) and node.name in neurons]
        self.model = network.proto
        self._counts: list[_Counts] = []
        there = {node.name for node in every_node(network.proto.graph) if is_operator(node) or is_spiking(node)}
        for name in neurons.keys() - there:
            raise PconvError(
                f"neuron '{neurons[name].converted.name}' of {network.name} is not there any more as rewrite wrote it",
                "compare before other tools edit the spiking network",
            )
        # The largest count that any layer takes of a tensor.
        highest: dict[str, int] = {}
        for node in filter(is_integer, network.proto.graph.node):
            if any(entry.name == "highest" for entry in node.attribute):
                told = attribute(node, "highest")
                highest[node.input[0]] = min(highest.get(node.input[0], told), told)
        if layers:
            self.model = onnx.ModelProto()
            self.model.CopyFrom(network.proto)
            given = {node.output[0]: TensorProto.UINT8 for node in layers}
            outputs = expose(self.model.graph, given, set(network.names))
            for node in layers:
                check = neurons[node.name]
                lowest, second = (int(level) for level in check.neuron.levels[0, :2])
                train = {name: attribute(node, name) for name in ("steps", "coding", "silent")}
                output, activation = outputs[node.output[0]], check.converted.output
                most = highest.get(node.output[0], MOST)
                self._counts.append(_Counts(output, activation, lowest, second - lowest, train, most))

    @property
    def outputs(self) -> list[str]:
        """What is handed out besides."""
        return [entry.output for entry in self._counts]

    def differing(self, found: Sequence[Array], values: Mapping[str, Array]) -> Iterator[tuple[int, int]]:
        """Of each layer how many counts were compared, and how many of these are others.

        Args:
            found: the counts, in the order of `outputs`.
            values: of activations, by name.
        """
        for entry, counts in zip(self._counts, found, strict=True):
            expected = values[entry.activation]
            decoded = counts_of(counts, **entry.train).astype(expected.dtype)
            given = [decoded * expected.dtype.type(entry.unit) + expected.dtype.type(entry.lowest)]
            # Layers have channels last, which come second elsewhere; signals are images one row high there.
            moved = np.moveaxis(given[0], -1, 1)
            given += [moved, moved.reshape(expected.shape)] if moved.size == expected.size else [moved]
            alike = [array for array in given if array.shape == expected.shape]
            wrong = min((int((array != expected).sum()) for array in alike), default=expected.size)
            wrong = max(wrong, int((counts > entry.highest).sum()))
            yield expected.size, wrong
