"""Nodes and tensors of the view that a network is read by.

Everyone has their types from here, so that the library behind the view is an affair of this room alone.
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
    """How to call a node: not all have names."""
    return str(node.name or node.outputs[0].name)


def key_of(node: Node | onnx.NodeProto) -> str:
    """What tells a node from all others, in its model and in a copy: the first tensor that it gives, by name.

    Empty of a node that gives none.
    """
    names = node.output if isinstance(node, onnx.NodeProto) else [tensor.name for tensor in node.outputs]
    for name in names:
        if name:
            return str(name)
    return ""


def called(node: Node | onnx.NodeProto) -> str:
    """How to call a node in messages: its operator and its name, or the first tensor that it gives."""
    operator = node.op_type if isinstance(node, onnx.NodeProto) else node.op
    name = node.name or key_of(node)
    return f"{cut(operator)} '{cut(name)}'" if name else cut(str(operator))
