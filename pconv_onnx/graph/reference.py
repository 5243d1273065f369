"""Single nodes by the reference implementation of ONNX, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.graph.network import Network


def reference_of(network: Network, node: onnx.NodeProto) -> Callable[[Sequence[Any]], list[Any]]:
    """A node of a network, in its operator sets: from its inputs to its outputs; None is one that is left out."""
    inputs, outputs = ([name for name in dict.fromkeys(names) if name] for names in (node.input, node.output))
    function = helper.make_function("", "node", inputs, outputs, [node], list(network.proto.opset_import))
    evaluator = ReferenceEvaluator(function, functions=list(network.proto.functions) or None)

    def run(values: Sequence[Any]) -> list[Any]:
        arrays = {name: value for name, value in zip(node.input, values, strict=True) if name}
        # A function has attributes, if none.
        found = iter(evaluator.run(None, arrays, attributes={}))
        return [next(found) if name else None for name in node.output]

    return run
