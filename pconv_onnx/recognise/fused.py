"""Fused operators with an activation inside: refused, with advice on what to export instead.

1. Integers fused into the operator, as onnxruntime's quantiser writes them with `QuantFormat.QOperator`: QLinearConv,
   QLinearMatMul, and in its own domain QLinearAdd, QGemm and their like.
2. Scales computed at run time, as `quantize_dynamic` writes them: DynamicQuantizeLinear with the operators that read
   its integers, and onnxruntime's fusions of both.
3. A Relu or another activation fused into a Conv or Gemm, as onnxruntime's optimiser saves them.
"""

from __future__ import annotations

from collections.abc import Callable

from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.view import Node
from pconv_onnx.recognise.base import Activation

_FUSED = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_FUSED_BY_ONNXRUNTIME = ("QAttention", "QGemm")
_FAMILIES_OF_ONNXRUNTIME = ("QLinear", "QOrdered")
_DOMAINS_OF_ONNXRUNTIME = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
_ACTIVATED_BY_ONNXRUNTIME = ("Conv", "FusedConv", "FusedGemm", "NhwcFusedConv")
_DYNAMIC = ("DynamicQuantizeLinear",)
_DYNAMIC_OF_ONNXRUNTIME = ("DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")


class Fused:
    """A fused operator with an activation inside, as the module describes."""

    encoding = "fused"

    def pattern(self, node: Node, free: Callable[[Node], bool]) -> Node | None:
        """Any such operator."""
        return node if is_fused(node) or _is_dynamic(node) or _activation_within(node) else None

    def check(self, network: Network, match: Node) -> Activation:
        """Refused, with what to export instead."""
        if _is_dynamic(match):
            reason = "its scale is computed at run time; quantise statically, with quant_format=QuantFormat.QDQ"
        elif _activation_within(match):
            reason = (
                f"its {_activation_within(match)} is fused into the operator; save the model without onnxruntime's "
                "optimisations"
            )
        else:
            reason = "its integers are fused into the operator; export with quant_format=QuantFormat.QDQ"
        readers = match.outputs[0].outputs if match.op in _DYNAMIC else ()
        nodes = (match, *(node for node in readers if is_fused(node)))
        return Activation(
            network.name_of(match), self.encoding, nodes, match.inputs[0], nodes[-1].outputs[0], "refused", reason
        )


def is_fused(node: Node) -> bool:
    """Whether a node computes with integer codes."""
    if node.domain == "com.microsoft":
        return node.op in _FUSED_BY_ONNXRUNTIME or node.op.startswith(_FAMILIES_OF_ONNXRUNTIME)
    return is_standard(node) and node.op in _FUSED


def _is_dynamic(node: Node) -> bool:
    if node.domain == "com.microsoft":
        return node.op in _DYNAMIC_OF_ONNXRUNTIME
    return is_standard(node) and node.op in _DYNAMIC


def _activation_within(node: Node) -> str:
    """The activation that onnxruntime's optimiser fused into a node; empty if there is none."""
    activated = node.domain in _DOMAINS_OF_ONNXRUNTIME and node.op in _ACTIVATED_BY_ONNXRUNTIME
    return str(node.attrs.get("activation", "")) if activated else ""
