"""Names of nodes: that of the PyTorch module they come from, which both of torch's exporters record."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping

from pconv_onnx.graph.view import Node, node_name

# In the metadata of a node, by torch's newer exporter: paths from the root to the module, then the FX node itself.
_SCOPES = "pkg.torch.onnx.name_scopes"
# The prefix that it gives names, and how onnxscript calls nodes of its functions.
_PREFIX, _OF_A_FUNCTION = "node_", "n"
_COUNTER = "_0123456789"
# How PyTorch modules call the parameter that is a product's second operand; tools append more.
_WEIGHT = ".weight"


def recorded(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """Path of the module (empty for the root) and FX node, from a node's metadata; None if they are not there."""
    with contextlib.suppress(ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError):
        *_, path, traced = ast.literal_eval(metadata[_SCOPES])
        return str(path), str(traced)
    return None


def path_in(name: str) -> str:
    """The path in a name that torch's older exporter gave: `layer1.0.act` of `/layer1/layer1.0/act/Floor`."""
    path = ""
    # Modules in a container repeat its name.
    for part in name.split("/")[1:-1]:
        path = part if part.startswith(f"{path}.") or not path else f"{path}.{part}"
    return path


def name_of(node: Node, metadata: Mapping[str, str]) -> str:
    """A node's own name or, if that says nothing, the module that owns its weight or that it was recorded in.

    The weight's module goes first: a convolution with a folded normalisation is recorded as the normalisation.
    """
    path, traced = recorded(metadata) or ("", "")
    if not path or not says_nothing(node.name, node.op, traced):
        return node_name(node)
    owners = (tensor.name.partition(_WEIGHT) for tensor in node.inputs[1:2])
    return next((str(owner) for owner, weight, _ in owners if owner and weight), path)


def says_nothing(name: str, *operators: str) -> bool:
    """Whether a name is empty, or an operator's with an exporter's counter: 'node_relu_3', 'Relu_12', 'n4'."""
    known = {_bare(operator) for operator in operators}
    return _bare(name.removeprefix(_PREFIX)) in {"", _OF_A_FUNCTION, *known}


def _bare(name: str) -> str:
    return name.rstrip(_COUNTER).lower()
