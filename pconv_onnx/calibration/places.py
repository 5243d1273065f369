"""Neurons in front of products: where they are put, so that products read spikes that no activation gives them.

A place is a tensor that products read as it is. An Identity is put between the two, and is calibrated as activations
are; what else reads the tensor still does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import helper

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.fan_out import zeros_around
from pconv_onnx.graph.nesting import unused
from pconv_onnx.graph.passes.late_normalisation import is_normalised, normaliser_of
from pconv_onnx.graph.products import Product
from pconv_onnx.graph.view import Node, Tensor, key_of, node_name
from pconv_onnx.plan.spike_driven import off_spikes
from pconv_onnx.recognise import Activation
from pconv_onnx.recognise.base import PRODUCT
from pconv_onnx.temporal.holding import row_size
from pconv_onnx.temporal.kinds import Kind, Spikes

# What is told of a place, and of one behind Softmax where its sum cannot be moved behind the product.
_WITHOUT = "what it is in front of reads no spikes; pass `calibration='data.npz', steps=T` to have a neuron there"
NORMALISED = "it encodes weights that Softmax has normalised, of which few levels serve rows of many small ones ill"
# What reads spikes beside a product whose result it divides.
_SUM = "ReduceSum"


@dataclass(frozen=True)
class Place:
    """A tensor with those that are to read it through a neuron.

    Attributes:
        tensor: its name.
        name: what the neuron is called.
        also_called: the same by the own name of the node behind it, where that is another; else empty.
        readers: by `key_of`, each with the index of the input.
    """

    tensor: str
    name: str
    also_called: str
    readers: tuple[tuple[str, int], ...]


def places_of(network: Network, kinds: Mapping[str, Kind], placed: Mapping[str, Place], *, behind: bool) -> list[Place]:
    """Where neurons would have products read spikes that do not, though they read more than the network's inputs.

    Args:
        network: the source.
        kinds: of its tensors in time, as the neurons leave them that there are already.
        placed: places that there are already, by what their Identity gives: more would not help.
        behind: whether a neuron stands right in front of each product, also where that reads a Concat, or what has
            zeros around it.
    """
    chosen = [(product.node, _to_spike(network, product)) for product in off_spikes(network, kinds)]
    chosen = [(node, index) for node, index in chosen if node.inputs[index].name not in placed]
    ends = {(key_of(node), index) for node, index in chosen}
    found: dict[str, list[tuple[Node, int]]] = {}
    for node, index in chosen:
        for reader, place in [(node, index)] if behind else _branches(network, node, index, kinds, ends):
            entry = found.setdefault(reader.inputs[place].name, [])
            # What is divided by the sum of its weights is divided by that of the same levels.
            total = normaliser_of(reader) if place == 0 and reader is node else None
            for end in [(reader, place), *([(total, 0)] if total is not None else ())]:
                if not any(end[0] is other and end[1] == at for other, at in entry):
                    entry.append(end)
    return [_place(network, tensor, readers) for tensor, readers in found.items()]


def _place(network: Network, tensor: str, readers: Sequence[tuple[Node, int]]) -> Place:
    first = readers[0][0]
    name, own = f"{network.name_of(first)}.input", f"{node_name(first)}.input"
    return Place(tensor, name, own if own != name else "", tuple((key_of(node), index) for node, index in readers))


def _to_spike(network: Network, product: Product) -> int:
    """Which operand gets a neuron: attention weights, or the larger one, since the other is held at each step."""
    if 0 in product.operands and (
        normaliser_of(product.node) is not None or is_normalised(network, product.node.inputs[0])
    ):
        return 0
    return max(product.operands, key=lambda index: row_size(network.shape(product.node.inputs[index])))


def _branches(
    network: Network, node: Node, index: int, kinds: Mapping[str, Kind], ends: Collection[tuple[str, int]]
) -> Iterator[tuple[Node, int]]:
    """What is to read spikes for an input of a node to have them.

    Of a Concat that nothing else reads, its inputs; and what zeros are put around, of which none is then encoded.
    """
    tensor = node.inputs[index]
    maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    places = _handed_on(network, maker) if maker is not None and _only_for(network, tensor, ends) else ()
    if maker is None or not places:
        yield node, index
        return
    for place in places:
        name = maker.inputs[place].name
        if name in network.computed_from_inputs and not isinstance(kinds.get(name), Spikes):
            yield from _branches(network, maker, place, kinds, {*ends, (key_of(maker), place)})


def _handed_on(network: Network, node: Node) -> Sequence[int]:
    """Which inputs of an operator it hands on as they are, zeros and each other beside them; none of others."""
    if not is_standard(node):
        return ()
    if node.op == "Concat":
        return range(len(node.inputs))
    shape = network.shape(node.inputs[0]) if node.inputs else None
    return (0,) if shape and zeros_around(node, len(shape)) is not None else ()


def _only_for(network: Network, tensor: Tensor, ends: Collection[tuple[str, int]]) -> bool:
    """Whether all that reads a tensor is to read spikes."""
    readers = [(key_of(node), index) for node in tensor.outputs for index, of in enumerate(node.inputs) if of is tensor]
    return not network.is_output(tensor) and all(reader in ends for reader in readers)


def with_places(network: Network, places: Sequence[Place]) -> tuple[Network, dict[str, Place]]:
    """The network with an Identity in each place, and these by what the Identity gives."""
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    names = set(network.names)
    placed: dict[str, Place] = {}
    given: dict[tuple[str, int], str] = {}
    for place in places:
        output = unused(f"{place.tensor}/quantised", names)
        placed[output] = replace(place, name=unused(place.name, names))
        given |= dict.fromkeys(place.readers, output)
    nodes: list[onnx.NodeProto] = []
    waiting = dict(placed)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            output = given.get((key_of(node), index), name)
            node.input[index] = output
            if output in waiting:
                place = waiting.pop(output)
                nodes.append(helper.make_node("Identity", [place.tensor], [output], place.name))
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return replace(network, proto=model), placed


def products_at(identity: Node) -> list[Node]:
    """The operators that a place is for: not the sum of attention weights, which reads the same spikes."""
    return [node for node in identity.outputs[0].outputs if node.op != _SUM]


def activations(network: Network, placed: Mapping[str, Place]) -> list[Activation]:
    """What is calibrated in the places of a network."""
    makers = {key_of(node): node for node in network.nodes}
    found = []
    for output, place in placed.items():
        identity = makers[output]
        reason = f"{_WITHOUT}; {NORMALISED}" if is_normalised(network, identity.inputs[0]) else _WITHOUT
        ends = identity.inputs[0], identity.outputs[0]
        one = Activation(place.name, PRODUCT, (identity,), *ends, "needs-calibration", reason)
        found.append(replace(one, also_called=place.also_called))
    return found
