"""Walks through a network whose floats hold integers, and writes layers of integers from neuron to neuron."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.nesting import captured, drop_unread, drop_unread_constants, names_read
from pconv_onnx.graph.network import Dimension, Network
from pconv_onnx.graph.record import PREFIX
from pconv_onnx.graph.view import Node, Tensor
from pconv_onnx.lower.fusing.forms import Codes, Forms
from pconv_onnx.lower.fusing.lines import lines
from pconv_onnx.lower.fusing.moves import move
from pconv_onnx.lower.fusing.totals import Product, Total, along, total_of
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.operators.domain import (
    INTEGER_CONV,
    INTEGER_GEMM,
    INTEGER_SPIKE,
    INTEGER_SPIKE_CONV,
    INTEGER_SPIKE_GEMM,
    attribute,
    is_operator,
    is_spiking,
)
from pconv_onnx.operators.integer_spike import MOST, functions
from pconv_onnx.operators.parallel_spike import neuron_of

# The key in a neuron's metadata for the reason why it stays on floats.
ON_FLOATS = f"{PREFIX}on_floats"
# float32 holds every integer below this.
_HELD = 1 << 24
# The largest int32, which no sum reaches, so that thresholds may be cut off there.
_NEVER = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class _Sum:
    """A total with one number for each channel, `[M]`.

    Attributes:
        layers: products, each with its factor.
        added: names of tensors, each with its multiplier, of counts where there are such.
        offset: what is added besides.
        last: whether channels come second, so that layers have them in another place.
        rank: of the tensors that are read and given.
    """

    layers: Sequence[tuple[Product, Array]]
    added: Sequence[tuple[str, Array]]
    offset: Array
    last: bool
    rank: int

    @property
    def terms(self) -> list[Array]:
        """All numbers of the sum."""
        return [*(factor for _, factor in self.layers), *(multiplier for _, multiplier in self.added), self.offset]

    @property
    def fits(self) -> bool:
        """Whether int32 holds all of them."""
        return max(int(np.abs(term).max(initial=0)) for term in self.terms) < _NEVER

    def in_lowest_terms(self) -> tuple[_Sum, int]:
        """The sum divided by the greatest common divisor of its terms, and that divisor."""
        divisor = max(int(np.gcd.reduce(np.concatenate(self.terms))), 1)
        layers = [(product, factor // divisor) for product, factor in self.layers]
        added = [(name, multiplier // divisor) for name, multiplier in self.added]
        return replace(self, layers=layers, added=added, offset=self.offset // divisor), divisor


@dataclass(frozen=True, eq=False)
class _Neurons:
    """Neurons that read a sum.

    Attributes:
        proto: their node.
        thresholds: `[M, S]` or `[1, S]`, int32.
        channel_axis: that rows run along; None of one.
        codes: the integers that they give.
    """

    proto: onnx.NodeProto
    thresholds: Array
    channel_axis: int | None
    codes: Codes


@dataclass(frozen=True)
class Fused:
    """A network in integers.

    Attributes:
        model: the network in integers.
        carriers: the same network in floats, with thresholds rounded to integers, which changes no count.
        left: why neurons stay on floats, by the names of their nodes.
    """

    model: onnx.ModelProto
    carriers: onnx.ModelProto
    left: Mapping[str, str]


def fused(carriers: onnx.ModelProto) -> Fused:
    """Replace floats that hold integers by integers, and move neurons into the layers before them.

    Args:
        carriers: a network in mode `folded`, without external data.
    """
    return _Fusing(carriers).fused()


class _Fusing:
    """The nodes written so far."""

    def __init__(self, carriers: onnx.ModelProto) -> None:
        self.network = network = Network(carriers, "the network", "")
        self.ranks = {name: len(shape) for name, shape in network.shapes.items()}
        self.forms = Forms(set(network.names), self.ranks)
        self.tables = {tensor.name: tensor for tensor in carriers.graph.initializer}
        self.readers = Counter(name for node in carriers.graph.node for name in (*node.input, *captured(node)))
        self.readers.update(info.name for info in carriers.graph.output)
        self.whole_thresholds: dict[str, Array] = {}
        self.meant: dict[str, str] = {}
        self.left: dict[str, str] = {}
        # Totals of the tensors that are written as sums.
        self.reach: dict[str, Array] = {}

    def fused(self) -> Fused:
        """Walk."""
        for node, proto in self.network.graph.pairs():
            self._note_codes(node, proto)
            if is_operator(proto):
                reason = self._why_no_counts(proto) or self._neuron(node, proto)
                if not reason:
                    continue
                self.left[proto.name] = reason
                proto.metadata_props.add(key=ON_FLOATS, value=reason)
            elif self._whole_sums(node, proto) or move(self.network, node, proto, self.forms):
                continue
            self._copy(proto)
        for info in self.network.proto.graph.output:
            if info.name not in self.forms.made:
                self.forms.value(info.name)
        return Fused(self._model(), self._carriers(), self.left)

    def _note_codes(self, node: Node, proto: onnx.NodeProto) -> None:
        """Note the integers that a node gives, if they are few: a neuron, or a Clip that rounds inputs."""
        if is_operator(proto):
            neuron = self._neuron_of(proto)
            codes = None if neuron is None else _codes_of(neuron)
        else:
            codes = _codes_of_input(node)
        if codes is not None and codes.lowest <= 0 <= codes.highest and codes.largest <= MOST:
            self.forms.codes[node.outputs[0].name] = codes
            if not is_operator(proto) and (source := _divided(node)) is not None:
                self.forms.rounded[proto.output[0]] = source

    def _neuron_of(self, proto: onnx.NodeProto) -> ParallelNeuron | None:
        try:
            return None if attribute(proto, "spikes") else neuron_of(proto, self.tables)
        except (KeyError, ValueError):  # tables that another node computes
            return None

    def _why_no_counts(self, proto: onnx.NodeProto) -> str:
        """Why a neuron's outputs cannot be counts; empty if they can."""
        neuron = self._neuron_of(proto)
        if neuron is None or attribute(proto, "input_steps") != 1:
            return "its tables are computed"
        if proto.output[0] in self.forms.codes:
            return ""
        codes = _codes_of(neuron)
        if codes is not None and codes.largest > MOST:
            return f"it has {codes.largest} levels above its lowest, and uint8 holds {MOST}"
        return "its levels are not the same integers in all channels, next to each other and with zero among them"

    # Sums

    def _is_term(self, tensor: Tensor) -> bool:
        """Whether a sum takes a tensor as one term: it is counts, or others read it too."""
        return tensor.name in self.forms.codes or (self.readers[tensor.name] > 1 and self._sums(tensor))

    def _sums(self, tensor: Tensor) -> bool:
        """Write a tensor as sums; whether it is a sum."""
        name = tensor.name
        if self.forms.has_sums(name):
            return True
        total = total_of(tensor, self._is_term, self.network.shapes)
        found = None if total is None or not total.products else self._by_channel(total, name, None)
        if found is None or not self._fits(found):
            return False
        self.reach[name] = self._reach(found)
        self.forms.given_sums(name, self._layers(found, name), last=found.last)
        return True

    def _whole_sums(self, node: Node, proto: onnx.NodeProto) -> bool:
        """Give a sum as int32 where it is cast to int32, without floats in between; whether that was possible."""
        is_cast = is_standard(node) and node.op == "Cast"
        if not is_cast or proto.attribute[0].i != TensorProto.INT32 or not self._sums(node.inputs[0]):
            return False
        given = self.forms.sums(node.inputs[0].name, last=False)
        self.forms.nodes.append(helper.make_node("Identity", [given], list(proto.output), proto.name))
        return True

    def _neuron(self, node: Node, proto: onnx.NodeProto) -> str:
        """Write neurons with the layer before them; the reason if that is not possible, else empty."""
        current, neuron = node.inputs[0], self._neuron_of(proto)
        assert neuron is not None
        is_term = self._is_term(current)
        total = (
            Total(added=[(current.name, _ONE)]) if is_term else total_of(current, self._is_term, self.network.shapes)
        )
        found = None if total is None else self._by_channel(total, current.name, neuron.channel_axis)
        if found is None:
            return "its input is not a sum of counts times int8 weights"
        divisor = 1
        if not self._fits(found, _HELD):
            found, divisor = found.in_lowest_terms()
        if not self._fits(found):
            return "its sums are larger than int32 holds"
        thresholds = np.nan_to_num(np.ceil(neuron.thresholds.astype(np.float64) / divisor), nan=_NEVER)
        table = np.clip(thresholds, -_NEVER, _NEVER).astype(np.int32)
        self.whole_thresholds[proto.input[1]] = table.astype(np.float64) * divisor
        codes = self.forms.codes[proto.output[0]]
        self._layers(found, current.name, _Neurons(proto, table, neuron.channel_axis, codes))
        return ""

    def _by_channel(self, total: Total, name: str, channel_axis: int | None) -> _Sum | None:
        """A total as a sum with numbers for each channel that layers can have; None if it is not one.

        Args:
            total: of the tensor.
            name: of it.
            channel_axis: of the neurons that read it.
        """
        rank, shape, forms = self.ranks.get(name), self.network.shapes.get(name), self.forms
        if rank is None or shape is None or not (total.products or total.added):
            return None
        kinds = {product.is_convolution for product in total.products}
        if len(kinds) > 1:
            return None
        last = kinds.pop() if kinds else rank > 2 and (channel_axis == 1 or forms.is_last(total.added[0][0]))
        axis = 1 if last else rank - 1
        sizes: set[Any] = {len(product.weights) for product in total.products} or {shape[axis]}
        channels = sizes.pop()
        if channel_axis not in (None, axis) or sizes or not isinstance(channels, int):
            return None
        if not all(product.input in forms.codes for product in total.products):
            return None
        terms = [*(product.node.outputs[0].name for product in total.products), *(one for one, _ in total.added)]
        if not all(_is_alike(self.network.shapes.get(term), shape) for term in terms):
            return None
        numbers = [*(p.factor for p in total.products), *(m for _, m in total.added), total.offset]
        tables = [table for each in numbers if (table := along(each, axis, rank, channels)) is not None]
        if len(tables) < len(numbers):
            return None
        layers = [
            (product, table * forms.codes[product.input].unit)
            for product, table in zip(total.products, tables, strict=False)
        ]
        added = [
            (one, table * (forms.codes[one].unit if one in forms.codes else 1))
            for (one, _), table in zip(total.added, tables[len(layers) :], strict=False)
        ]
        found = _Sum(layers, added, tables[-1], last, rank)
        return found if all(self._is_carried(*one) for one in added) else None

    def _is_carried(self, name: str, multiplier: Array) -> bool:
        """Whether float32 holds the products of a tensor with its multipliers exactly."""
        largest = int(np.abs(multiplier).max(initial=0))
        if name not in self.forms.codes:
            return largest <= 1
        return largest * self.forms.codes[name].largest < _HELD * self.forms.codes[name].unit

    def _layers(self, found: _Sum, name: str, neurons: _Neurons | None = None) -> str:
        """Write a sum, with neurons behind it, and return its name.

        A layer adds one tensor, so there is a chain of layers if more are added.
        """
        forms, (tensor, zero, multiplier) = self.forms, self._residual(found, name)
        reach = self._reach(found)
        offset = found.offset
        for index, (product, factor) in enumerate(found.layers, 1):
            codes = forms.codes[product.input]
            inputs = [
                forms.counts(product.input, last=found.last),
                self._meant(product.name, product.weights),
                forms.constant(f"{name}/bias", offset.astype(np.int32)),
                forms.constant(f"{name}/factor", factor.astype(np.int32)),
                tensor,
                forms.constant(f"{name}/multiplier", multiplier.astype(np.int32)),
            ]
            attributes: dict[str, Any] = {"zero": codes.zero, "highest": codes.largest, "residual_zero": zero}
            attributes |= {"input_steps": 1, "residual_steps": 1, "input_coding": 0}
            attributes |= _window(product) if found.last else {}
            if neurons is not None and index == len(found.layers):
                return self._spiking(_SPIKING[found.last], inputs, neurons, reach, last=found.last, **attributes)
            tensor = forms.node(_SUMMING[found.last], inputs, f"{name}/sums", domain=DOMAIN, **attributes)
            zero, multiplier, offset = 0, np.ones_like(factor), np.zeros_like(offset)
        if neurons is None:
            return tensor
        return self._spiking(INTEGER_SPIKE, [tensor], neurons, reach, last=found.last)

    def _residual(self, found: _Sum, name: str) -> tuple[str, int, Array]:
        """What the first layer adds: a tensor, its count for zero, and its multiplier."""
        forms = self.forms
        if not found.added:
            nothing = np.zeros((1,) * (4 if found.last else found.rank), np.uint8)
            return forms.constant("nothing", nothing), 0, np.ones_like(found.offset)
        (one, multiplier), *more = found.added
        if found.layers and not more:
            if one not in forms.codes:
                return forms.sums(one, last=found.last), 0, multiplier
            return forms.counts(one, last=found.last), forms.codes[one].zero, multiplier
        terms = [self._multiple(one, multiplier, last=found.last) for one, multiplier in found.added]
        if not found.layers and found.offset.any():
            terms.append(forms.constant(f"{name}/bias", found.offset.astype(np.int32)))
        while len(terms) > 1:
            terms[:2] = [forms.node("Add", terms[:2], f"{name}/added")]
        return terms[0], 0, np.ones_like(found.offset)

    def _multiple(self, name: str, multiplier: Array, *, last: bool) -> str:
        """A tensor as int32 times numbers along its last axis, the channels."""
        forms = self.forms
        given = forms.wide_counts(name, last=last) if name in forms.codes else forms.sums(name, last=last)
        if (multiplier == 1).all():
            return given
        numbers = forms.constant(f"{name}/multiplier", multiplier.astype(np.int32))
        return forms.node("Mul", [given, numbers], f"{name}/multiple")

    def _fits(self, found: _Sum, most: int = _NEVER) -> bool:
        """Whether a sum and all its numbers stay below a limit."""
        return found.fits and int(np.abs(self._reach(found)).max(initial=0)) < most

    def _reach(self, found: _Sum) -> Array:
        """The lowest and the highest sum of each channel, `[M, 2]`."""
        low = high = found.offset.astype(np.int64)
        for product, factor in found.layers:
            codes, weights = self.forms.codes[product.input], product.weights.astype(np.int64).reshape(len(factor), -1)
            ends = np.sort([weights * codes.lowest, weights * codes.highest], axis=0).sum(axis=2) * factor
            low, high = low + ends.min(axis=0), high + ends.max(axis=0)
        for name, multiplier in found.added:
            if name in self.forms.codes:
                codes = self.forms.codes[name]
                least, most = codes.lowest, codes.highest
            else:  # its channels may lie along another axis
                least, most = int(self.reach[name].min()), int(self.reach[name].max())
            ends = np.sort([multiplier * least, multiplier * most], axis=0)
            low, high = low + ends[0], high + ends[1]
        return np.stack([low, high], axis=1)

    def _spiking(
        self, op_type: str, inputs: list[str], neurons: _Neurons, reach: Array, *, last: bool, **attributes: Any
    ) -> str:
        """Write neurons behind sums of this range, and return the name of their counts."""
        if len(neurons.thresholds) == 1:
            reach = np.stack([reach[:, 0].min(keepdims=True), reach[:, 1].max(keepdims=True)], axis=1)
        proto, forms = neurons.proto, self.forms
        thresholds = self._meant(proto.input[1], neurons.thresholds)
        line = forms.constant(f"{proto.name}/line", lines(neurons.thresholds, reach))
        output = forms.named_counts(proto.output[0])
        attributes |= {"steps": 0, "coding": 0, "silent": 0}
        node = helper.make_node(
            op_type, [*inputs, thresholds, line], [output], name=proto.name, domain=DOMAIN, **attributes
        )  # fmt: skip
        forms.nodes.append(node)
        forms.given_counts(proto.output[0], output, neurons.codes, last=last)
        return output

    def _meant(self, name: str, value: Array) -> str:
        """Write a constant that gets the name of the one that it replaces, once nothing reads that."""
        found = self.forms.constant(f"{name}/{value.dtype}", value)
        self.meant.setdefault(found, name)
        return found

    # What is left

    def _copy(self, proto: onnx.NodeProto) -> None:
        """Copy a node on floats; its inputs are converted from integers where need be."""
        node = onnx.NodeProto()
        node.CopyFrom(proto)
        node.input[:] = [self.forms.value(name) for name in proto.input]
        for name in captured(node):
            self.forms.value(name)
        self.forms.nodes.append(node)
        self.forms.made.update(node.output)

    def _model(self) -> onnx.ModelProto:
        """The network as written, without nodes that nothing reads."""
        before = self.network.proto
        model = onnx.ModelProto()
        model.CopyFrom(before)
        graph = model.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.forms.nodes)
        drop_unread(graph, before.graph)
        drop_unread_constants(graph, before.graph)
        read = names_read(graph)
        graph.initializer.extend(tensor for name, tensor in self.forms.constants.items() if name in read)
        self._rename(graph)
        there = {function.name for function in model.functions}
        opset = self.network.opset
        used = {node.op_type for node in graph.node if node.domain == DOMAIN}
        tables = {tensor.name: tensor.dims for tensor in graph.initializer}
        highest = max((tables[node.input[-2]][1] for node in graph.node if is_spiking(node)), default=1)
        model.functions.extend(f for f in functions(opset, highest) if f.name in used and f.name not in there)
        return model

    def _rename(self, graph: onnx.GraphProto) -> None:
        """Give constants the names of those that they replaced."""
        taken = {tensor.name for tensor in graph.initializer}
        names = {old: new for old, new in self.meant.items() if old in taken and new not in taken}
        # Two may have replaced one.
        names = {old: new for old, new in names.items() if list(names.values()).count(new) == 1}
        for tensor in graph.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]

    def _carriers(self) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self.network.proto)
        for tensor in model.graph.initializer:
            if tensor.name in self.whole_thresholds:
                whole = self.whole_thresholds[tensor.name].astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name))
        return model


def _is_alike(shape: Sequence[Dimension] | None, other: Sequence[Dimension]) -> bool:
    """Whether two tensors have the same size, so that adding them repeats neither."""
    if shape is None or len(shape) != len(other):
        return False
    known = [pair for pair in zip(shape, other, strict=True) if any(isinstance(size, int) for size in pair)]
    return all(size == expected for size, expected in known)


_ONE = np.ones(())
# By whether they are convolutions.
_SPIKING = {False: INTEGER_SPIKE_GEMM, True: INTEGER_SPIKE_CONV}
_SUMMING = {False: INTEGER_GEMM, True: INTEGER_CONV}


def _window(product: Product) -> dict[str, Any]:
    """Attributes of a convolution; one of signals becomes one of images of height 1."""
    attributes, pads = product.node.attrs, list(product.pads)
    size = len(pads) // 2
    ones = [1] * size
    found = {
        "strides": list(attributes.get("strides", ones)),
        "dilations": list(attributes.get("dilations", ones)),
        "pads": pads,
    }
    if size == 1:
        found = {
            "strides": [1, *found["strides"]],
            "dilations": [1, *found["dilations"]],
            "pads": [0, pads[0], 0, pads[1]],
        }
    return {"group": int(attributes.get("group", 1)), **found}


def _codes_of(neuron: ParallelNeuron | None) -> Codes | None:
    """The codes of levels that are consecutive multiples of one integer, the same in all channels; else None."""
    if neuron is None:
        return None
    levels = neuron.levels.astype(np.float64)
    first, unit = levels[0, 0], levels[0, 1] - levels[0, 0]
    expected = first + unit * np.arange(levels.shape[1])
    if unit < 1 or unit != np.rint(unit) or first % unit or not (levels == expected).all():
        return None
    return Codes(int(first / unit), int(expected[-1] / unit), int(unit))


def _codes_of_input(node: Node) -> Codes | None:
    """The integers that a Clip leaves."""
    if not (is_standard(node) and node.op == "Clip" and len(node.inputs) == 3 and len(node.inputs[0].inputs) == 1):
        return None
    ends = [constant(tensor) for tensor in node.inputs[1:]]
    before = node.inputs[0].inputs[0]
    if before.op not in ("Round", "Floor") or not is_standard(before) or any(end is None for end in ends):
        return None
    low, high = (float(end.reshape(())) for end in ends if end is not None)
    return Codes(int(low), int(high)) if low == int(low) and high == int(high) else None


def _divided(clip: Node) -> tuple[str, str] | None:
    """If a Clip reads a tensor divided by a number and rounded to the nearest, the names of both."""
    rounding = clip.inputs[0].inputs[0]
    before = rounding.inputs[0].inputs[0] if len(rounding.inputs[0].inputs) == 1 else None
    if rounding.op != "Round" or before is None or before.op != "Div" or not is_standard(before):
        return None
    source, step = before.inputs
    value = constant(step)
    is_one = value is not None and value.ndim == 0 and value.dtype == np.float32 and value > 0
    return (source.name, step.name) if is_one else None
