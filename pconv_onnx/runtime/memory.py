"""How many samples fit in memory at once, by the sizes of activations, as far as shapes are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import captured

_LEAST = 1 << 20


def require_budget(memory: int) -> None:
    """Raise if a number of bytes is too small to run any network.

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


def alive_at_once(graph: onnx.GraphProto, size: Callable[[str], int]) -> int:
    """The most bytes of one sample that are needed at once where operators run one after another.

    Args:
        graph: a graph; weights are not counted.
        size: what one sample takes in a tensor, by name.
    """
    nodes = list(graph.node)
    last = {name: index for index, node in enumerate(nodes) for name in (*node.input, *captured(node))}
    last |= dict.fromkeys((output.name for output in graph.output), len(nodes))
    taken = most = sum(size(info.name) for info in graph.input)
    ending: dict[int, list[str]] = {}
    for index, node in enumerate(nodes):
        made = [name for name in node.output if name in last]
        taken += sum(map(size, made))
        for name in made:
            ending.setdefault(last[name], []).append(name)
        most = max(most, taken)
        taken -= sum(map(size, ending.pop(index, ())))
    return most


def samples_within(memory: int, taken: int) -> int:
    """How many samples fit, each of which takes so many bytes: one at least."""
    return max(1, memory // max(taken, 1))
