"""Models of an older opset, brought to one that the operators' function bodies can be written in."""

from __future__ import annotations

from dataclasses import replace

from onnx import version_converter

from pconv_onnx.errors import PconvError
from pconv_onnx.graph.network import Network

# Later than need be: onnx infers computed shapes from 14 on, and has converters of every operator up to here.
_OPSET = 17


def upgraded(network: Network, oldest: int) -> Network:
    """The network at a later opset where its own is before `oldest`, by onnx's version converter; names stay.

    Raises:
        PconvError: onnx cannot convert it.
    """
    if network.opset >= oldest:
        return network
    try:
        model = version_converter.convert_version(network.proto, _OPSET)
    except Exception as error:  # onnx raises what its C++ code does
        reason = str(error).splitlines()[0]
        raise PconvError(
            f"{network.name} uses opset {network.opset}, which onnx cannot convert to {_OPSET}: {reason}",
            f"export it with opset {_OPSET} or later",
        ) from error
    return replace(network, proto=model)
