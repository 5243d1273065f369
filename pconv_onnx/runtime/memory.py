"""How many samples fit in memory at once: what the activations of a run take, as far as shapes tell."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import captured

# What activations may take unless another number is given.
BUDGET = 1 << 30
_LEAST = 1 << 20


def require_budget(memory: int) -> None:
    """Raise where a number of bytes is no budget that a network could be run in.

    Raises:
        PconvError: it is below 1 MiB.
    """
    if memory < _LEAST:
        raise PconvError(f"{memory} bytes are too few for activations", "choose 1 MiB or more")


def sample_bytes(network: Network, name: str, steps: Mapping[str, int]) -> int:
    """What one sample takes in a tensor: its rows for each of its time-steps; 0 of a shape that is not known."""
    shape, dtype = network.shapes.get(name, ()), network.dtypes.get(name)
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if dtype is None or len(sizes) < len(shape) - 1:
        return 0
    return math.prod(sizes) * dtype.itemsize * steps.get(name, 1)


def alive_at_once(network: Network, steps: Mapping[str, int]) -> int:
    """The most bytes of one sample that are needed at once where operators run one after another.

    Args:
        network: a network; weights are not counted.
        steps: of tensors with a time axis the number of time-steps, by name.
    """
    nodes = list(network.proto.graph.node)
    last = {name: index for index, node in enumerate(nodes) for name in (*node.input, *captured(node))}
    last |= dict.fromkeys((output.name for output in network.proto.graph.output), len(nodes))
    alive = {info.name for info in network.proto.graph.input}
    taken = most = sum(sample_bytes(network, name, steps) for name in alive)
    ending: dict[int, list[str]] = {}
    for index, node in enumerate(nodes):
        made = [name for name in node.output if name in last]
        taken += sum(sample_bytes(network, name, steps) for name in made)
        for name in made:
            ending.setdefault(last[name], []).append(name)
        most = max(most, taken)
        taken -= sum(sample_bytes(network, name, steps) for name in ending.pop(index, ()))
    return most


def samples_within(memory: int, taken: int) -> int:
    """How many samples fit, each of which takes so many bytes: one at least."""
    return max(1, memory // max(taken, 1))
