"""Models of an older opset, brought to one that the operators' function bodies can be written in."""

from __future__ import annotations

from dataclasses import replace

from onnx import version_converter

from pconv_onnx.errors import PconvError
from pconv_onnx.graph.network import Network


def upgraded(network: Network, opset: int) -> Network:
    """The network at that opset if its own is older, by onnx's version converter; names stay as they are.

    Raises:
        PconvError: onnx cannot convert it.
    """
    if network.opset >= opset:
        return network
    try:
        model = version_converter.convert_version(network.proto, opset)
    except Exception as error:  # onnx raises what its C++ code does
        reason = str(error).splitlines()[0]
        raise PconvError(
            f"{network.name} uses opset {network.opset}, which onnx cannot convert to {opset}: {reason}",
            f"export it with opset {opset} or later",
        ) from error
    return replace(network, proto=model)
