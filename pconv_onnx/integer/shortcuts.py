"""Residual shortcuts: a neuron emits spikes in the unit of the sum to which they are added.

The unit of a residual sum is finer than a spike, so a spike is a multiple of it. If all readers of a neuron agree, the
neuron emits that multiple itself, which saves multiplying every spike at every time-step. Sums of layers that read the
neuron too, and the thresholds behind them, become larger by the same factor. Multiples are powers of two, so floats
hold the larger sums just as exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx

from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.network import Network
from pconv_onnx.integer.reading import Added, Copied, Moved, Quantised, Reading, Step, Summed
from pconv_onnx.integer.units import Layer


def multiples(network: Network, reading: Reading) -> Mapping[str, int]:
    """The factor by which each tensor's integers are multiplied when written, if it is not 1."""
    shortcuts = _Shortcuts(network, reading)
    found: dict[str, int] = {}
    for step in reading.steps:
        if isinstance(step, Quantised):
            found |= shortcuts.of_neuron(step.activation.output)
    return found


class _Shortcuts:
    """The readers of each tensor."""

    def __init__(self, network: Network, reading: Reading) -> None:
        self.whole = reading.whole
        self.outputs = {info.name for info in network.proto.graph.output}
        self.readers: dict[str, list[Step]] = defaultdict(list)
        protos = dict(zip(map(id, network.nodes), network.proto.graph.node, strict=True))
        for step in reading.steps:
            for name in _read(step, protos):
                self.readers[name].append(step)

    def of_neuron(self, output: str) -> Mapping[str, int]:
        """Those of what a neuron gives, of what is moved of it, and of sums over it."""
        moved, sums, wanted = [output], list[str](), set[int]()
        for name in moved:
            for step in self.readers[name]:
                if isinstance(step, Added):
                    wanted.add(self._multiplier(name, step.output))
                elif isinstance(step, Layer) and self._is_for_neurons(step):
                    sums.append(step.output)
                elif isinstance(step, Moved) and self._keeps(step):
                    moved += [tensor.name for tensor in step.node.outputs if tensor.name]
                else:
                    return {}
        if len(wanted) != 1 or not self.outputs.isdisjoint(moved):
            return {}
        multiple = wanted.pop()
        return dict.fromkeys((*moved, *sums), multiple) if multiple > 1 else {}

    def _multiplier(self, name: str, total: str) -> int:
        """How many units of a sum one unit of a tensor is; 1 if channels differ, or it is not a power of two."""
        found = np.unique(np.rint(self.whole[name].unit.values() / self.whole[total].unit.values()))
        multiplier = int(found[0])
        return multiplier if len(found) == 1 and multiplier & (multiplier - 1) == 0 else 1

    def _keeps(self, step: Moved) -> bool:
        """Whether it moves one tensor, whatever its numbers are."""
        return step.node.op != "Cast" and sum(tensor.name in self.whole for tensor in step.node.inputs) == 1

    def _is_for_neurons(self, layer: Layer) -> bool:
        """Whether only neurons read a layer's output, and nothing is added to it."""
        readers, one = self.readers[layer.output], layer.accumulator.root
        alone = len(one.layers) == 1 and not one.added and layer.output not in self.outputs
        axes = None, self.whole[layer.output].axis
        return alone and all(isinstance(step, Quantised) and step.codes.axis in axes for step in readers)


def _read(step: Step, protos: Mapping[int, onnx.NodeProto]) -> set[str]:
    """Names of the tensors that it reads."""
    if isinstance(step, Copied | Moved):
        proto = protos[id(step.node)]
        return {*proto.input, *captured(proto)}
    if isinstance(step, Added):
        return {name for name, _ in step.operands}
    if isinstance(step, Quantised):
        return {step.activation.input}
    if isinstance(step, Layer | Summed):
        return {step.node.inputs[0].name}
    return {step.name}
