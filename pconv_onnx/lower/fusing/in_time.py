"""Layers of integers in time: neurons give trains of digits, one byte each, and layers sum over the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.nesting import captured, unused
from pconv_onnx.lower.fusing.moves import MOVES
from pconv_onnx.neuron.coding import Coding
from pconv_onnx.operators.domain import INTEGER_OP_TYPES, INTEGER_SPIKE, SPIKE_COUNT, is_integer, is_spiking
from pconv_onnx.operators.integer_spike import functions


@dataclass(frozen=True)
class Train:
    """How a tensor of trains carries its counts.

    Attributes:
        coding: the coding, with its time-steps and the count of a silent neuron.
        highest: the largest count.
    """

    coding: Coding
    highest: int

    @property
    def zero(self) -> int:
        """The digit of a silent neuron."""
        return int(self.coding.zero > 0)

    @property
    def attributes(self) -> dict[str, int]:
        """The attributes of nodes that give such trains, or decode them."""
        return {"steps": self.coding.steps, "coding": self.coding.number, "silent": self.coding.zero}


def in_time(model: onnx.ModelProto, codings: Mapping[str, Coding], used: set[str]) -> onnx.ModelProto:
    """Turn a network of counts into one of trains.

    Args:
        model: a network as `fused` makes it.
        codings: the codings of its neurons, by the names of their nodes.
        used: names in use.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    _InTime(found, codings, used).write()
    return found


class _InTime:
    """The nodes written so far."""

    def __init__(self, model: onnx.ModelProto, codings: Mapping[str, Coding], used: set[str]) -> None:
        self.model, self.graph, self.codings, self.used = model, model.graph, codings, used
        self.tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.trains: dict[str, Train] = {}
        self.counts: dict[str, str] = {}

    def write(self) -> None:
        """Write the network."""
        for node in list(self.graph.node):
            if is_integer(node):
                self._layer(node)
            elif not (node.input and node.input[0] in self.trains and self._moved(node)):
                self._counted(node)
                self.nodes.append(node)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        kept = [function for function in self.model.functions if function.name not in INTEGER_OP_TYPES]
        del self.model.functions[:]
        written = {node.op_type for node in self.graph.node if node.domain == DOMAIN}
        opset = next(entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))
        self.model.functions.extend(kept)
        self.model.functions.extend(f for f in functions(opset, None) if f.name in written)

    def _layer(self, node: onnx.NodeProto) -> None:
        """Write a layer of integers, or neurons alone."""
        if node.op_type != INTEGER_SPIKE:
            given, added = node.input[0], node.input[4]
            train = self.trains.get(given)
            if train is not None:
                of_input = {"zero": train.zero, "highest": 1 + train.zero, "input_steps": train.coding.steps}
                self._set(node, **of_input, input_coding=train.coding.number)
            other = self.trains.get(added)
            if other is not None and train is not None and self._reads_alike(train, other):
                self._set(node, residual_zero=other.zero, residual_steps=other.coding.steps)
            else:
                node.input[4] = self._count(added)
        if node.name in self.codings and is_spiking(node):
            coding = self.codings[node.name]
            train = Train(coding, self.tables[node.input[-2]].shape[1])
            self._set(node, **train.attributes)
            self.trains[node.output[0]] = train
        self.nodes.append(node)

    @staticmethod
    def _reads_alike(train: Train, other: Train) -> bool:
        return (train.coding.number, train.coding.steps) == (other.coding.number, other.coding.steps)

    def _moved(self, node: onnx.NodeProto) -> bool:
        """Write a node that moves, picks or repeats counts so that it gives trains; whether it is such a node.

        If it does not treat the digits of every step alike, it runs on counts, which are encoded again.
        """
        data = list(node.input) if node.op_type == "Concat" else list(node.input[:1])
        trains = {self.trains.get(name) for name in data}
        if node.op_type not in MOVES or len(trains) > 1 or len(node.output) > 1:
            return False
        train = trains.pop()
        if train is None:
            return False
        if _commutes(node, train, self.tables) and (node.op_type != "Pad" or self._pads_with_silence(node, train)):
            self.nodes.append(node)
            self.trains[node.output[0]] = train
            return True
        self._counted(node)
        self.nodes.append(node)
        self._encode(node, train)
        return True

    def _pads_with_silence(self, node: onnx.NodeProto, train: Train) -> bool:
        """Make a Pad write the digit of a silent neuron; whether it pads with silence."""
        value = self.tables[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros((), np.uint8)
        if int(value) != train.coding.zero:
            return False
        del node.input[2:]
        node.input.append(self._constant("silence", np.array(train.zero, np.uint8)))
        return True

    def _encode(self, node: onnx.NodeProto, train: Train) -> None:
        """Encode the counts that a node gives as trains, under the name of the counts."""
        name = node.output[0]
        counts, wide = (unused(f"{name}/{what}", self.used) for what in ("decoded", "wide"))
        node.output[0], self.counts[name], self.trains[name] = counts, counts, train
        thresholds = self._constant(f"{name}/thresholds", np.arange(1, train.highest + 1, dtype=np.int32)[np.newaxis])
        line = self._constant(f"{name}/line", np.array([[0, 1]], np.float32))
        self._node("Cast", [counts], wide, to=TensorProto.INT32)
        self._node(INTEGER_SPIKE, [wide, thresholds, line], name, domain=DOMAIN, **train.attributes)

    def _counted(self, node: onnx.NodeProto) -> None:
        """Make a node read counts."""
        node.input[:] = [self._count(name) for name in node.input]
        for name in captured(node):
            assert name not in self.trains, "bodies read tensors of floats"

    def _count(self, name: str) -> str:
        """A tensor as counts; it is decoded once."""
        if name not in self.trains:
            return name
        if name not in self.counts:
            self.counts[name] = unused(f"{name}/decoded", self.used)
            self._node(SPIKE_COUNT, [name], self.counts[name], domain=DOMAIN, **self.trains[name].attributes)
        return self.counts[name]

    def _node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = unused(f"{output}/{op_type}", self.used)
        self.nodes.append(helper.make_node(op_type, inputs, [output], name, **attributes))

    def _constant(self, name: str, value: Array) -> str:
        name = unused(name, self.used)
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.tables[name] = value
        return name

    @staticmethod
    def _set(node: onnx.NodeProto, **values: int) -> None:
        kept = [entry for entry in node.attribute if entry.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in values.items())])


Tables = Mapping[str, Array]


def _commutes(node: onnx.NodeProto, train: Train, tables: Tables) -> bool:
    """Whether an operator, run on the rows of all steps, gives the trains of the counts that it would give."""
    if node.op_type == "MaxPool":
        return train.coding.ascending
    return node.op_type == "Identity" or (node.op_type in _RULES and _RULES[node.op_type](node, tables))


def _keeps_rows(node: onnx.NodeProto, tables: Tables) -> bool:
    """Whether a Transpose or a Concat leaves the first axis where it is, and as it is."""
    values = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    return bool(values["perm"][0] == 0) if "perm" in values else values.get("axis", 1) != 0


def _names_axes(node: onnx.NodeProto, tables: Tables) -> bool:
    """Whether the axes given to an operator do not include the first."""
    index = 3 if node.op_type == "Slice" else 1
    axes = tables.get(node.input[index]) if len(node.input) > index else None
    return axes is not None and bool((axes > 0).all())


def _pads(node: onnx.NodeProto, tables: Tables) -> bool:
    pads = tables.get(node.input[1])
    return pads is not None and not pads.reshape(2, -1)[:, 0].any()


def _reshapes(node: onnx.NodeProto, tables: Tables) -> bool:
    """Whether a Reshape takes the first axis from its input, or leaves it open."""
    shape = tables.get(node.input[1])
    return shape is not None and len(shape) > 1 and shape[0] in (-1, 0) and bool((shape[1:] > 0).all())


_RULES: Mapping[str, Callable[[onnx.NodeProto, Tables], bool]] = {
    "Concat": _keeps_rows,
    "Flatten": _keeps_rows,
    "Pad": _pads,
    "Reshape": _reshapes,
    "Slice": _names_axes,
    "Squeeze": _names_axes,
    "Transpose": _keeps_rows,
    "Unsqueeze": _names_axes,
}
