"""Graphs of as many nodes as are asked for: chains, a fan, one node that takes all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# An operator and the constants that it takes behind what flows through it.
Step = tuple[str, ...]

QCFS: tuple[Step, ...] = (
    ("Div", "theta"), ("Mul", "count"), ("Add", "half"), ("Floor",), ("Div", "count"), ("Clip", "zero", "one"),
    ("Mul", "theta"),
)  # fmt: skip
_SHAPE = ["N", 4, 2, 2]
_CONSTANTS = {
    "theta": np.float32(2),
    "count": np.float32(8),
    "half": np.float32(0.5),
    "zero": np.float32(0),
    "one": np.float32(1),
    "scale": np.float32(0.25),
    "code": np.uint8(0),
    "w": np.full((4, 4, 1, 1), 0.25, np.float32),
}


def chain(steps: Sequence[Step], nodes: int) -> onnx.ModelProto:
    """The same steps over and over, up to a number of nodes; constants are shared, as exporters share them."""
    made, tensor = [], "x"
    for index in range(nodes):
        op_type, *constants = steps[index % len(steps)]
        made.append(helper.make_node(op_type, [tensor, *constants], [f"t{index}"], name=f"node_{index}"))
        tensor = f"t{index}"
    return _model(made, [tensor])


def fan(nodes: int) -> onnx.ModelProto:
    """A QCFS that as many nodes read, each its own output; the last of them is added to what a second QCFS gives."""
    made, tensor = _qcfs("x", "a")
    made += [helper.make_node("Add", [tensor, "half"], [f"t{index}"], name=f"node_{index}") for index in range(nodes)]
    return _model(made, [f"t{index}" for index in range(nodes)])


def gathering(nodes: int) -> onnx.ModelProto:
    """As many nodes that read a QCFS, all of which one Concat takes."""
    made, tensor = _qcfs("x", "a")
    names = [f"t{index}" for index in range(nodes)]
    made += [helper.make_node("Add", [tensor, "half"], [name], name=f"node_{name}") for name in names]
    made.append(helper.make_node("Concat", names, ["all"], name="gather", axis=1))
    return _model(made, ["all"], shape=["N", None, 2, 2])


def with_initializers(nodes: int) -> onnx.ModelProto:
    """A chain of as many additions, each of a constant of its own, behind a QCFS."""
    made, tensor = _qcfs("x", "a")
    more = []
    for index in range(nodes):
        more.append(numpy_helper.from_array(np.full((4, 1, 1), index, np.float32), f"c{index}"))
        made.append(helper.make_node("Add", [tensor, f"c{index}"], [f"t{index}"], name=f"node_{index}"))
        tensor = f"t{index}"
    return _model(made, [tensor], more)


def _qcfs(tensor: str, prefix: str) -> tuple[list[onnx.NodeProto], str]:
    made = []
    for index, (op_type, *constants) in enumerate((("Conv", "w"), *QCFS)):
        made.append(helper.make_node(op_type, [tensor, *constants], [f"{prefix}{index}"], name=f"{prefix}_{index}"))
        tensor = f"{prefix}{index}"
    return made, tensor


def _model(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str],
    initializers: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | str | None] = _SHAPE,
) -> onnx.ModelProto:
    taken = {name for node in nodes for name in node.input}
    constants = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in _CONSTANTS.items() if name in taken
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, _SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        [*constants, *initializers],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


SHAPES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "Conv and QCFS": lambda nodes: chain((("Conv", "w"), *QCFS), nodes),
    "Add and Relu": lambda nodes: chain((("Add", "half"), ("Relu",)), nodes),
    "Add alone": lambda nodes: chain((("Add", "half"),), nodes),
    "Identity": lambda nodes: chain((("Identity",),), nodes),
    "Q and DQ": lambda nodes: chain(
        (("QuantizeLinear", "scale", "code"), ("DequantizeLinear", "scale", "code")), nodes
    ),
    "fan": fan,
    "Concat": gathering,
    "initializers": with_initializers,
}
