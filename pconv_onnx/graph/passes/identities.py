"""Replaces nodes by Identities of equal tensors, so that names stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx

from pconv_onnx.graph.nesting import drop_unread, every_node
from pconv_onnx.graph.network import Network


def with_identities(network: Network, same: Mapping[str, str]) -> Network:
    """The network in which each of these tensors is an Identity of another; unread nodes are removed.

    Args:
        network: any network; it is returned itself if `same` is empty.
        same: first outputs of nodes, each with the tensor that it equals.
    """
    if not same:
        return network
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    for node in every_node(model.graph):
        if node.output and node.output[0] in same:
            name = node.output[0]
            identity = onnx.helper.make_node("Identity", [same[name]], [name], node.name)
            identity.metadata_props.extend(node.metadata_props)
            node.CopyFrom(identity)
    drop_unread(model.graph, network.proto.graph)
    return replace(network, proto=model)
