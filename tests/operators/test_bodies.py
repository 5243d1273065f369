"""Function bodies: what viewers of models show of them."""

from __future__ import annotations

import numpy as np

from pconv_onnx.graph.nesting import nodes_within
from pconv_onnx.operators import integer_spike, parallel_spike
from pconv_onnx.operators.means import running_mean
from pconv_onnx.operators.serial_spike import serial_spike

FLOAT32 = np.dtype(np.float32)


def test_functions_say_what_they_are_and_their_nodes_have_names():
    made = [
        *parallel_spike.functions(20, FLOAT32, 8, 2),
        *integer_spike.functions(20, 8),
        serial_spike(20, FLOAT32),
        running_mean(20, FLOAT32),
    ]
    assert len({function.name for function in made}) == len(made) == 10
    for function in made:
        assert "docs/" in function.doc_string
        assert all(node.name == node.output[0] for node in nodes_within(function.node)), function.name
