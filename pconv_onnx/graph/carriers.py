"""A network of integers, as the same network with the integers in floats: there layers are not fused."""

from __future__ import annotations

from dataclasses import replace

import onnx

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.sketch import redrawn


def in_carriers(network: Network) -> tuple[Network, list[str]]:
    """The network in floats, its record, and those of its tensors that have been changed since it was written.

    A network without layers of integers is returned as it is.

    Raises:
        ValueError: it has no record.
        PconvError: its record does not have it in floats.
    """
    record = Record.read(network.proto)
    if record.carriers is None:
        return network, []
    try:
        model, changed = redrawn(record.carriers, onnx.ModelProto(), network.proto)
    except ValueError as error:
        raise PconvError(
            f"the record of {network.name} does not have it in floats: {error}", "rewrite the model again"
        ) from error
    replace(record, carriers=None).write(model)
    return replace(network, proto=model, hints={}), changed
