"""ReLU without a quantiser: found and listed, since it has no levels to convert."""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.recognise.base import CALIBRATE, Activation, called


class Relu:
    """`Relu(x)`."""

    encoding = "relu"

    def pattern(self, node: gs.Node, free: Callable[[gs.Node], bool]) -> gs.Node | None:
        """Any Relu node."""
        return node if node.op == "Relu" and is_standard(node) else None

    def check(self, network: Network, match: gs.Node) -> Activation:
        """It cannot be converted as it stands."""
        (output,) = match.outputs
        reason = CALIBRATE.format("a ReLU")
        return Activation(called(match), self.encoding, (match,), match.inputs[0], output, "needs-calibration", reason)
