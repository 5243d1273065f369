"""ReLU without a quantiser. It has no levels, so it is listed and not converted."""

from __future__ import annotations

from collections.abc import Callable

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.view import Node
from pconv_onnx.recognise.base import CALIBRATE, Activation, bounds_of


class Relu:
    """`Relu(x)`."""

    encoding = "relu"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> Node | None:
        """Any Relu node."""
        return node if node.op == "Relu" and is_standard(node) else None

    def check(self, network: Network, match: Node) -> Activation:
        """Refused, since it has no levels: it needs a calibration."""
        (output,) = match.outputs
        reason = CALIBRATE.format("a ReLU")
        return Activation(
            network.name_of(match),
            self.encoding,
            (match,),
            match.inputs[0],
            output,
            "needs-calibration",
            reason,
            bounds=bounds_of(match),
        )
