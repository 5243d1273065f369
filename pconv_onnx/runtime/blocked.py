"""Lets neurons run inside the blocked channel layout of onnxruntime's CPU convolutions, without reorders.

At full optimisation onnxruntime keeps the channels of convolutions in blocks (NCHWc), and brackets every operator that
it does not know with a reorder to NCHW and one back, each of them a pass over all T·B rows. A neuron with the same
thresholds in every channel does not care in which order its elements lie, nor does an Add of two tensors in the same
order; so the optimised graph can leave them blocked. Values are the same in every bit.

An optimised graph belongs to the machine and the onnxruntime that made it, so this is done when a session is made and
never written to a user's file.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from pconv_onnx.graph.nesting import captured
from pconv_onnx.operators.domain import is_neuron, is_operator

_DOMAIN = "com.microsoft.nchwc"
# The widest block that onnxruntime uses. Where channels are not a multiple of it, blocks hold padding.
_WIDEST_BLOCK = 16


def stay_blocked(model: onnx.ModelProto, potentials_stay: bool = False) -> bool:
    """Run neurons and residual Adds of a graph that onnxruntime has optimised in the blocked layout.

    Args:
        model: onnxruntime's optimised model; changed in place.
        potentials_stay: whether membrane potentials, which a graph gets as inputs and gives as outputs, may be blocked
            there too.

    Returns:
        Whether anything was changed.
    """
    walk = _Walk(model.graph, potentials_stay)
    del model.graph.node[:]
    model.graph.node.extend(walk.nodes)
    return walk.changed


class _Walk:
    """One pass in topological order. A tensor is written in plain order only when something reads it so."""

    def __init__(self, graph: onnx.GraphProto, potentials_stay: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.changed = False
        self._blocked: dict[str, str] = {}
        self._channels: dict[str, int] = {}
        self._unwritten: dict[str, onnx.NodeProto] = {}
        self._same_as: dict[str, str] = {}
        inputs = {info.name for info in graph.input}
        # A table that a run may override could have more rows then.
        self._one_row = {tensor.name for tensor in graph.initializer if list(tensor.dims[:1]) == [1]} - inputs
        # Of these no one cares in which order they are, as long as it is the same in and out.
        self._any_order = inputs if potentials_stay else set()
        self._shapes = {info.name: info.type.tensor_type.shape.dim for info in graph.value_info}
        for node in graph.node:
            self._visit(node)
        for output in graph.output:
            self._write_plain(output.name)

    def _visit(self, node: onnx.NodeProto) -> None:
        if _is_reorder(node, "ReorderOutput"):
            self._blocked[node.output[0]] = self._same_as.get(node.input[0], node.input[0])
            self._channels[node.output[0]] = _attribute(node, "channels")
            self._unwritten[node.output[0]] = node
        elif _is_reorder(node, "ReorderInput") and self._fills_blocks(node.input[0]):
            self._same_as[node.output[0]] = self._blocked[node.input[0]]
        elif self._indifferent_to_order(node):
            self._run_blocked(node)
        else:
            for name in (*node.input, *captured(node)):
                self._write_plain(name)
            self.nodes.append(self._renamed(node))

    def _indifferent_to_order(self, node: onnx.NodeProto) -> bool:
        """Whether a node gives the same elements in whatever order it gets them, and gets some of them blocked."""
        data = _data(node)
        if is_operator(node):
            indifferent = all(name in self._one_row for name in node.input[1:])
        elif is_neuron(node):
            indifferent = node.input[1] in self._any_order and all(name in self._one_row for name in node.input[2:])
        else:
            indifferent = node.op_type == "Add" and not node.domain and self._equal_samples(data)
        blocked = [name for name in data if name in self._blocked]
        return indifferent and bool(blocked) and all(map(self._fills_blocks, blocked))

    def _fills_blocks(self, name: str) -> bool:
        """Whether a tensor is there in blocks that hold no padding."""
        return name in self._blocked and self._channels[name] % _WIDEST_BLOCK == 0

    def _equal_samples(self, names: Sequence[str]) -> bool:
        """Whether no dimension but that of the rows, which is outermost in either order, can be broadcast."""
        samples = [[dim.dim_value for dim in self._shapes.get(name, ())][1:] for name in names]
        return all(samples[0]) and all(len(sample) == 3 and sample == samples[0] for sample in samples)

    def _run_blocked(self, node: onnx.NodeProto) -> None:
        data = _data(node)
        channels = next(self._channels[name] for name in data if name in self._blocked)
        plain = node.output[0]
        blocked = f"{plain}/blocked"
        moved = self._renamed(node)
        for index, name in enumerate(data):
            moved.input[index] = self._in_blocks(name, channels)
        moved.output[0] = blocked
        self.nodes.append(moved)
        self._blocked[plain], self._channels[plain] = blocked, channels
        self._unwritten[plain] = _reorder("ReorderOutput", blocked, plain, channels=channels)
        self.changed = True

    def _in_blocks(self, name: str, channels: int) -> str:
        """The blocked form of a tensor; one in plain order is reordered."""
        if name not in self._blocked:
            self._blocked[name], self._channels[name] = f"{name}/blocked", channels
            self.nodes.append(_reorder("ReorderInput", name, self._blocked[name]))
        return self._blocked[name]

    def _write_plain(self, name: str) -> None:
        node = self._unwritten.pop(name, None)
        if node is not None:
            self.nodes.append(self._renamed(node))

    def _renamed(self, node: onnx.NodeProto) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._same_as.get(name, name) for name in node.input]
        return copy


def _data(node: onnx.NodeProto) -> Sequence[str]:
    """The inputs of a node that come in an order; tables do not, and potentials in whichever they are kept."""
    return list(node.input[:1] if is_neuron(node) else node.input)


def _reorder(op_type: str, source: str, target: str, **attributes: int) -> onnx.NodeProto:
    node = helper.make_node(op_type, [source], [target], target, domain=_DOMAIN)
    for name, value in {"channels_last": 0, **attributes}.items():
        node.attribute.append(helper.make_attribute(name, value))
    return node


def _is_reorder(node: onnx.NodeProto, op_type: str) -> bool:
    """Whether a node reorders from or to NCHW; onnxruntime folds a Transpose into one from or to channels last."""
    return node.domain == _DOMAIN and node.op_type == op_type and not _attribute(node, "channels_last")


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)
