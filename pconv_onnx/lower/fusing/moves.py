"""Operators that move, pick or repeat integers, or take the largest, and so can run on counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.view import Node
from pconv_onnx.lower.fusing.forms import Codes, Forms

# Where an axis of `[N, C, H, W]` and `[N, C, L]` is with channels last.
_AXES: Mapping[int, Mapping[int, int]] = {4: {0: 0, 1: 3, 2: 1, 3: 2}, 3: {0: 0, 1: 3, 2: 2}}


class Move:
    """A node that reads counts.

    Attributes:
        node: in the view of the network.
        proto: the same.
        forms: the tensors that it reads and writes.
    """

    def __init__(self, network: Network, node: Node, proto: onnx.NodeProto, forms: Forms) -> None:
        """Begin with nothing written."""
        self.network, self.node, self.proto, self.forms = network, node, proto, forms
        self.read([tensor.name for tensor in (node.inputs if node.op == "Concat" else node.inputs[:1])])

    def read(self, data: list[str]) -> None:
        """Take these tensors as its data."""
        self.data = data
        self.last = all(map(self.forms.is_last, data))

    @property
    def codes(self) -> Codes:
        """The integers that it gives."""
        found = [self.forms.codes[name] for name in self.data]
        return Codes(min(one.lowest for one in found), max(one.highest for one in found), found[0].unit)

    def axis(self, axis: int) -> int:
        """The position of an axis of its data in the layout that it runs in."""
        rank = self.forms.ranks[self.data[0]]
        own = axis % rank
        return _AXES[rank][own] if self.last else own

    def write(self, *, last: bool, inputs: list[str] | None = None, **attributes: object) -> None:
        """Write it in a layout, with the further inputs and attributes that it has there."""
        node = onnx.NodeProto()
        node.CopyFrom(self.proto)
        data = [self.forms.counts(name, last=last) for name in self.data]
        node.input[:] = [*data, *(list(self.proto.input[len(data) :]) if inputs is None else inputs)]
        for key, value in attributes.items():
            kept = [entry for entry in node.attribute if entry.name != key]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(key, value)])
        for index, name in enumerate(self.proto.output):
            node.output[index] = self.forms.named_counts(name)
        self.forms.nodes.append(node)
        for name, tensor in zip(self.proto.output, node.output, strict=True):
            self.forms.given_counts(name, tensor, self.codes, last=last)


def move(network: Network, node: Node, proto: onnx.NodeProto, forms: Forms) -> bool:
    """Write a node on counts, if its data can be counts; whether that was possible."""
    if not is_standard(node) or node.op not in _RULES or not node.inputs or (node.op == "MaxPool" and node.outputs[1:]):
        return False
    moved = Move(network, node, proto, forms)
    if not all(name in forms.codes for name in moved.data):
        return False
    meanings = {(forms.codes[name].zero, forms.codes[name].unit) for name in moved.data}
    return len(meanings) == 1 and all(tensor.name in forms.ranks for tensor in node.outputs) and _RULES[node.op](moved)


def _as_it_is(move: Move) -> bool:
    move.write(last=False)
    return True


def _concat(move: Move) -> bool:
    move.write(last=move.last, axis=move.axis(int(move.node.attrs["axis"])))
    return True


def _identity(move: Move) -> bool:
    move.write(last=move.last)
    return True


def _slice(move: Move) -> bool:
    """Merge two Slices that follow each other into one; exporters write one for each axis."""
    own, given = _slices(move.node), move.node.inputs[0]
    if own is None:
        return _as_it_is(move)
    rank = move.forms.ranks[given.name]
    before = given.inputs[0] if len(given.inputs) == 1 else None
    if before is not None and before.op == "Slice" and is_standard(before):
        source, first = before.inputs[0].name, _slices(before)
        if source in move.forms.codes and first is not None and not set(first[2] % rank) & set(own[2] % rank):
            move.read([source])
            own = [np.concatenate(pair) for pair in zip(first, own, strict=True)]
    own[2] = np.array([move.axis(int(axis)) for axis in own[2]])
    inputs = [move.forms.constant(f"{move.proto.name}/slice", table.astype(np.int64)) for table in own]
    move.write(last=move.last, inputs=inputs)
    return True


def _slices(node: Node) -> list[Array] | None:
    """Starts, ends, axes and steps; None if they are computed, or axes are missing."""
    tables = [constant(tensor) for tensor in node.inputs[1:]]
    if len(tables) < 3 or any(table is None for table in tables):
        return None
    found = [np.atleast_1d(table) for table in tables if table is not None]
    return found if len(found) == 4 else [*found, np.ones(len(found[2]), np.int64)]


def _pad(move: Move) -> bool:
    given = move.node.inputs
    pads = constant(given[1]) if len(given) > 1 else None
    value = constant(given[2]) if len(given) > 2 and given[2].name else np.zeros(())
    rank = move.forms.ranks[move.data[0]]
    if pads is None or value is None or pads.size != 2 * rank or len(given) > 3:
        return False
    codes = move.codes
    code = float(value.reshape(())) / codes.unit + codes.zero
    if code != int(code) or not 0 <= code <= codes.largest:
        return False
    begins, ends = pads[:rank], pads[rank:]
    size = 4 if move.last else rank
    inputs = np.zeros(2 * size, np.int64)
    for axis in range(rank):
        inputs[move.axis(axis)], inputs[size + move.axis(axis)] = begins[axis], ends[axis]
    constants: list[tuple[str, Array]] = [("pads", inputs), ("value", np.array(int(code), np.uint8))]
    move.write(last=move.last, inputs=[move.forms.constant(f"{move.proto.name}/{n}", v) for n, v in constants])
    return True


_RULES: Mapping[str, Callable[[Move], bool]] = {
    "Concat": _concat,
    "Expand": _as_it_is,
    "Flatten": _as_it_is,
    "Gather": _as_it_is,
    "Identity": _identity,
    "MaxPool": _as_it_is,
    "Pad": _pad,
    "Reshape": _as_it_is,
    "Slice": _slice,
    "Split": _as_it_is,
    "Squeeze": _as_it_is,
    "Tile": _as_it_is,
    "Transpose": _as_it_is,
    "Unsqueeze": _as_it_is,
}
# The operators that may run on counts.
MOVES = frozenset(_RULES)
