"""Models of an older opset, brought to one that the operators' function bodies can be written in."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import version_converter

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.checking import check
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.tensors import references

# Later than need be: onnx infers computed shapes from 14 on, and has converters of every operator up to here.
_OPSET = 17


def upgraded(network: Network, oldest: int) -> Network:
    """The network at a later opset where its own is before `oldest`, by onnx's version converter; names stay.

    Args:
        network: a network without model-local functions, which the converter would lose.
        oldest: the first opset that needs no conversion.

    Raises:
        PconvError: onnx cannot convert it.
    """
    if network.opset >= oldest:
        return network
    if references(network.proto):
        raise PconvError(
            f"{network.name} uses opset {network.opset}, and is too large for onnx to convert",
            f"export it with opset {_OPSET} or later",
        )
    try:
        model = version_converter.convert_version(network.proto, _OPSET)
        check(model)
    except Exception as error:  # onnx raises what its C++ code does
        reason = str(error).splitlines()[0]
        raise PconvError(
            f"{network.name} uses opset {network.opset}, which onnx cannot convert to {_OPSET}: {reason}",
            f"export it with opset {_OPSET} or later",
        ) from error
    _keep_annotations(network.proto.graph, model.graph)
    return replace(network, proto=model)


def _keep_annotations(source: onnx.GraphProto, graph: onnx.GraphProto) -> None:
    """Bring back what the converter forgets."""
    of_node = {node.output[0]: node.metadata_props for node in source.node if node.output}
    for node in graph.node:
        if node.output and not node.metadata_props:
            node.metadata_props.extend(of_node.get(node.output[0], ()))
    if not graph.quantization_annotation:
        graph.quantization_annotation.extend(source.quantization_annotation)
