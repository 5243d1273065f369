"""Nodes and tensors of the view through which a network is read.

Other packages import these types from here, so only this package depends on the library behind the view.
"""

from __future__ import annotations

from typing import TypeAlias

import onnx
import onnx_graphsurgeon as gs

from pconv_onnx.basics.errors import cut

Node: TypeAlias = gs.Node
Tensor: TypeAlias = gs.Tensor
Constant = gs.Constant
Variable = gs.Variable


def node_name(node: Node) -> str:
    """A name for a node, also if it has none of its own."""
    return str(node.name or node.outputs[0].name)


def key_of(node: Node | onnx.NodeProto) -> str:
    """A key that identifies a node in its model and in copies of it: the name of its first output.

    Empty if the node has no output.
    """
    names = node.output if isinstance(node, onnx.NodeProto) else [tensor.name for tensor in node.outputs]
    for name in names:
        if name:
            return str(name)
    return ""


def called(node: Node | onnx.NodeProto) -> str:
    """A node for messages: its operator and its name or, without one, its first output."""
    operator = node.op_type if isinstance(node, onnx.NodeProto) else node.op
    name = node.name or key_of(node)
    return f"{cut(operator)} '{cut(name)}'" if name else cut(str(operator))
