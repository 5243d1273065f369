"""The tensors of a network that do not depend on its inputs, as they are when it runs."""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.external import values
from pconv_onnx.runtime.computed import computed_constants


def constants(network: Network) -> dict[str, Array]:
    """Initializers, and what nodes compute of them that other nodes read.

    Raises:
        PconvError: onnxruntime cannot compute it, or a file of weights cannot be read.
    """
    graph = network.proto.graph
    held = [*graph.initializer, *(tensor.values for tensor in graph.sparse_initializer)]
    found = {tensor.name: np.asarray(values(tensor, network.folder)) for tensor in held}
    return found | computed_constants(network)
