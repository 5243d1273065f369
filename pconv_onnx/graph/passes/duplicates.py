"""Merges equal quantisers and dequantisers of one tensor, which tools write once for each consumer.

Otherwise one activation would have several outputs, or several neurons.
"""

from __future__ import annotations

from collections.abc import Hashable

from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.network import Graph, Network
from pconv_onnx.graph.passes.identities import with_identities
from pconv_onnx.graph.view import Tensor

# A quantiser, and what reads its codes.
_QUANTISER, _READERS = "QuantizeLinear", ("Cast", "Clip", "DequantizeLinear", "Identity")


def without_duplicates(network: Network) -> Network:
    """The network in which a repeated quantiser or dequantiser is an Identity of the first one's output."""
    same: dict[str, str] = {}
    for graph in network.graphs():
        same |= _repeated(network, graph)
    return with_identities(network, same)


def _repeated(network: Network, graph: Graph) -> dict[str, str]:
    """Tensors that repeat an earlier one of a graph, with that tensor."""
    first: dict[Hashable, str] = {}
    same: dict[str, str] = {}
    codes: set[str] = set()
    for node, proto in graph.pairs():
        if not is_standard(node) or not (
            (
                node.op == _QUANTISER
                and node.inputs[0].name in network.computed_from_inputs
                and _are_only_dequantised(network, graph, node.outputs[0])
            )
            or (node.op in _READERS and node.inputs[0].name in codes)
        ):
            continue
        data, output = node.inputs[0].name, node.outputs[0].name
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in proto.attribute)
        operands = [_value(tensor) for tensor in node.inputs[1:]]
        key = (node.op, same.get(data, data), *operands, *attributes)
        if key in first:
            same[output] = first[key]
        first.setdefault(key, output)
        if node.op != "DequantizeLinear":
            codes.add(output)
    return same


def _are_only_dequantised(network: Network, graph: Graph, codes: Tensor) -> bool:
    """Whether codes are only dequantised, and only in their own graph.

    A quantiser whose codes are used otherwise stays, and is not merged with an equal one.
    """
    tensors = [codes]
    while tensors:
        tensor = tensors.pop()
        if network.is_output(tensor):
            return False
        for reader in tensor.outputs:
            if reader.op not in _READERS or not is_standard(reader) or network.graph_of(reader) is not graph:
                return False
            if reader.op != "DequantizeLinear":
                tensors.append(reader.outputs[0])
    return True


def _value(tensor: Tensor) -> Hashable:
    """A key that is equal for equal constants; a computed tensor equals only itself."""
    value = constant(tensor)
    return tensor.name if value is None else (value.dtype, value.shape, value.tobytes())
