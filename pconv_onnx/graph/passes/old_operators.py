"""Rules for operators of old opsets that onnx's version converter gets wrong, or does not know, up to opset 17.

There is a rule for each such operator, found by running networks of every opset from 6 on before and after the
converter. Other operators it converts correctly: with the same bits, or up to the rounding of the new operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from pconv_onnx.basics.domain import MIN_OPSET
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph.constants import constant, is_standard
from pconv_onnx.graph.nesting import unused
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.view import Node

# The opset of the result: later than necessary, since onnx infers computed shapes from 14 on, and has
# converters of every operator up to here.
OPSET = 17


@dataclass(frozen=True)
class Old:
    """A node of an old opset and its surroundings.

    Attributes:
        node: as the source has it.
        network: the source.
        names: every name in use; new ones are added.
        read: names of the tensors that something reads.
    """

    node: Node
    network: Network
    names: set[str]
    read: set[str]

    @property
    def inputs(self) -> list[str]:
        """Names of its inputs, empty where one is left out."""
        return [tensor.name for tensor in self.node.inputs]

    @property
    def output(self) -> str:
        """Name of its first output."""
        return str(self.node.outputs[0].name)

    def attribute(self, name: str, otherwise: Any = None) -> Any:
        """Value of an attribute."""
        return self.node.attrs.get(name, otherwise)

    def rank(self, index: int) -> int | None:
        """Rank of an input, None where unknown."""
        shape = self.network.shape(self.node.inputs[index])
        return None if shape is None else len(shape)

    def new(self, what: str) -> str:
        """The name of a new tensor."""
        return unused(f"{self.output}_{what}", self.names)

    def made(self, op_type: str, inputs: list[str], **attributes: Any) -> onnx.NodeProto:
        """The node that makes its first output, under its name."""
        return helper.make_node(op_type, inputs, [self.output], self.node.name, **attributes)

    def refusal(self, reason: str) -> PconvError:
        """The error for a node that has no counterpart."""
        called = f"{self.node.op} '{self.node.name or self.output}'"
        return PconvError(
            f"{self.network.name} uses opset {self.network.opset}, and its {called} {reason}",
            f"export it for inference, with opset {MIN_OPSET} or later",
        )


# Operators that onnxruntime has in earlier opsets than onnx, with the same meaning.
_SAME_BEFORE = ("LayerNormalization", "ThresholdedRelu")

# Writes a node; raises a PconvError where it has no counterpart.
Rule = Callable[[Old], Iterator[onnx.NodeProto]]


def rule_of(node: Node, opset: int) -> Rule | None:
    """How to write a node of that opset in opset `OPSET`; None if the converter does it.

    Operators that no opset has stay as they are: onnxruntime knows some, and its optimiser writes them.
    """
    if not is_standard(node):
        return None
    before, rule = _RULES.get(node.op, (0, None))
    if opset < before:
        return rule
    return None if defs.has(node.op, opset, "") else _as_it_is


def _constant(name: str, value: Any, dtype: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value, dtype), name))


def _as_it_is(old: Old) -> Iterator[onnx.NodeProto]:
    if old.node.op not in _SAME_BEFORE and defs.has(old.node.op, OPSET, ""):
        raise old.refusal("is an operator of later opsets")
    yield next(proto for node, proto in old.network.graph_of(old.node).pairs() if node is old.node)


def _batch_normalization(old: Old) -> Iterator[onnx.NodeProto]:
    """Per entry of a sample with `spatial = 0`, which no later opset has."""
    if len(old.node.outputs) > 1 or (old.network.opset < 7 and not old.attribute("is_test", 0)):
        raise old.refusal("is in training mode")
    epsilon = old.attribute("epsilon", 1e-5)
    if old.attribute("spatial", 1):
        yield old.made("BatchNormalization", old.inputs, epsilon=epsilon)
        return
    x, scale, bias, mean, variance = old.inputs
    centred, raised, widened, deviation, divided, scaled = (
        old.new(what) for what in ("centred", "epsilon", "widened", "deviation", "divided", "scaled")
    )
    yield helper.make_node("Sub", [x, mean], [centred])
    yield _constant(raised, epsilon, old.network.dtype(old.node.inputs[4]) or np.float32)
    yield helper.make_node("Add", [variance, raised], [widened])
    yield helper.make_node("Sqrt", [widened], [deviation])
    yield helper.make_node("Div", [centred, deviation], [divided])
    yield helper.make_node("Mul", [divided, scale], [scaled])
    yield old.made("Add", [scaled, bias])


def _broadcast(old: Old) -> Iterator[onnx.NodeProto]:
    """The second operand's axes lay along those of the first from `axis` on; without it, at the end."""
    left, right = old.inputs
    axis = old.attribute("axis")
    if old.attribute("broadcast", 0) and axis is not None:
        ranks = old.rank(0), old.rank(1)
        if ranks[0] is None or ranks[1] is None:
            raise old.refusal(f"broadcasts along axis {axis} of a tensor of unknown rank")
        behind = ranks[0] - axis % ranks[0] - ranks[1]
        axes, right = old.new("axes"), old.new("operand")
        yield _constant(axes, np.arange(ranks[1], ranks[1] + behind), np.int64)
        yield helper.make_node("Unsqueeze", [old.inputs[1], axes], [right])
    yield old.made(old.node.op, [left, right])


def _clip(old: Old) -> Iterator[onnx.NodeProto]:
    """Bounds of the type of the data; the converter writes float32."""
    bounds = []
    for bound in ("min", "max"):
        value = old.attribute(bound)
        bounds.append("" if value is None else old.new(bound))
        if value is not None:
            yield _constant(bounds[-1], value, old.network.dtype(old.node.inputs[0]) or np.float32)
    yield old.made("Clip", [*old.inputs, *bounds])


def _dropout(old: Old) -> Iterator[onnx.NodeProto]:
    if old.network.opset < 7 and not old.attribute("is_test", 0):
        raise old.refusal("is in training mode")
    if any(tensor.name in old.read for tensor in old.node.outputs[1:]):
        raise old.refusal("has a mask as output, which later opsets compute differently")
    yield old.made("Dropout", old.inputs)


def _normalised_exponential(old: Old) -> Iterator[onnx.NodeProto]:
    """Over all axes from `axis` on, as one; later opsets take that axis alone."""
    axis, rank = old.attribute("axis", 1), old.rank(0)
    if rank is not None and axis % max(rank, 1) == rank - 1:
        yield old.made(old.node.op, old.inputs, axis=-1)
        return
    shape, flat, result = (old.new(what) for what in ("shape", "flat", "result"))
    yield helper.make_node("Shape", old.inputs, [shape])
    yield helper.make_node("Flatten", old.inputs, [flat], axis=axis)
    yield helper.make_node(old.node.op, [flat], [result], axis=-1)
    yield old.made("Reshape", [result, shape])


def _pad(old: Old) -> Iterator[onnx.NodeProto]:
    """A value of the type of the data; the converter writes float32."""
    pads, value = old.new("pads"), old.new("value")
    yield _constant(pads, old.attribute("pads"), np.int64)
    yield _constant(value, old.attribute("value", 0.0), old.network.dtype(old.node.inputs[0]) or np.float32)
    yield old.made("Pad", [*old.inputs, pads, value], mode=old.attribute("mode", "constant"))


def _prelu(old: Old) -> Iterator[onnx.NodeProto]:
    """A slope for each channel along axis 1; later opsets broadcast it from the end."""
    x, slope = old.inputs
    rank = old.rank(0)
    if rank is None:
        raise old.refusal("has slopes for the channels of a tensor of unknown rank")
    if rank > 2 and old.rank(1) in (1, None):
        axes, slope = old.new("axes"), old.new("slope")
        yield _constant(axes, np.arange(1, rank - 1), np.int64)
        yield helper.make_node("Unsqueeze", [old.inputs[1], axes], [slope])
    yield old.made("PRelu", [x, slope])


def _resize(old: Old) -> Iterator[onnx.NodeProto]:
    """It reads at output index / scale; onnxruntime rounds that down, or up where it shrinks."""
    x, *others = old.inputs
    given = constant(old.node.inputs[1]) if others else old.attribute("scales")
    if not others and given is None:
        given = [1.0, 1.0, old.attribute("height_scale", 1.0), old.attribute("width_scale", 1.0)]
    scales = others[0] if others else old.new("scales")
    if not others:
        yield _constant(scales, given, np.float32)
    known = np.asarray([] if given is None else given)
    mode = str(old.attribute("mode", "nearest")).replace("bilinear", "linear")
    if mode == "nearest" and (known < 1).any() and (known > 1).any():
        raise old.refusal("enlarges one axis and shrinks another")
    yield old.made(
        "Resize",
        [x, "", scales],
        mode=mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="ceil" if (known < 1).any() else "floor",
    )


def _scan(old: Old) -> Iterator[onnx.NodeProto]:
    raise old.refusal("runs over batches of sequences, which later opsets do not")


# The opset before which a rule applies, and the rule.
_RULES: dict[str, tuple[int, Rule]] = {
    "BatchNormalization": (14, _batch_normalization),
    "Clip": (11, _clip),
    "Dropout": (12, _dropout),
    "Pad": (11, _pad),
    "PRelu": (7, _prelu),
    "Resize": (11, _resize),
    "Scan": (9, _scan),
    "Upsample": (10, _resize),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), (13, _normalised_exponential)),
    **dict.fromkeys(
        ("Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"), (7, _broadcast)
    ),
}
