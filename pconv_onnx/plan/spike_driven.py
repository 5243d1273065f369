"""Which of a network's products have a spike train as an operand, and which don't though they could."""

from __future__ import annotations

from collections.abc import Mapping

from pconv_onnx.graph import Network
from pconv_onnx.graph.products import Product, prepared_inputs, products
from pconv_onnx.temporal.kinds import Kind, Spikes


def off_spikes(network: Network, kinds: Mapping[str, Kind]) -> list[Product]:
    """The products that read neither spikes nor the network's inputs, in topological order.

    Args:
        network: a source, or a spiking network.
        kinds: of its tensors in time, by name.
    """
    inputs = prepared_inputs(network)
    return [
        product for product in products(network) if not reads_spikes(product, kinds) | reads_inputs(product, inputs)
    ]


def reads_spikes(product: Product, kinds: Mapping[str, Kind]) -> bool:
    """Whether one of its operands is a spike train."""
    return any(isinstance(kinds.get(name), Spikes) for name in product.reads)


def reads_inputs(product: Product, inputs: set[str]) -> bool:
    """Whether one of its operands is among the network's inputs, as `prepared_inputs` gives them."""
    return not inputs.isdisjoint(product.reads)
