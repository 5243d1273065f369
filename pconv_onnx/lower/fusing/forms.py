"""The forms of a tensor that holds integers, and the nodes that turn one form into another.

Its own form is floats. Counts are uint8 and sums int32, each in the tensor's own layout or with channels last, as
layers of integers read and give them: images `[N, H, W, C]` and signals `[N, 1, L, C]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.nesting import unused
from pconv_onnx.operators.integer_spike import MOST

# The permutations from channels second to channels last, and back, by rank.
_TO_LAST: Mapping[int, Sequence[int]] = {3: (0, 2, 1), 4: (0, 2, 3, 1)}
_TO_OWN: Mapping[int, Sequence[int]] = {3: (0, 2, 1), 4: (0, 3, 1, 2)}


@dataclass(frozen=True)
class Codes:
    """The integers that a tensor may hold.

    Attributes:
        lowest: the lowest, in units, at most 0.
        highest: the highest, in units, at least 0, at most `lowest` + 255.
        unit: the integer that one unit stands for.
    """

    lowest: int
    highest: int
    unit: int = 1

    @property
    def zero(self) -> int:
        """The count that stands for 0."""
        return -self.lowest

    @property
    def largest(self) -> int:
        """The largest count."""
        return self.highest - self.lowest


class Forms:
    """The tensors written so far, and methods that write more.

    Attributes:
        nodes: nodes of the new network.
        constants: its new initializers.
        made: names of tensors that nodes on floats make.
        codes: the integers of tensors that hold few, by name in the network of floats.
        rounded: for those that are a tensor divided by a step, rounded and clipped: the names of both.
    """

    def __init__(self, used: set[str], ranks: Mapping[str, int]) -> None:
        """Begin with nothing written; `used` are the names in use, `ranks` the ranks of tensors by name."""
        self.used, self.ranks = used, ranks
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.made: set[str] = set()
        self.codes: dict[str, Codes] = {}
        self.rounded: dict[str, tuple[str, str]] = {}
        self._counts: dict[tuple[str, bool], str] = {}
        self._sums: dict[tuple[str, bool], str] = {}
        self._values: dict[str, str] = {}
        self._shared: dict[tuple[str, bytes], str] = {}

    # What is there

    def has_counts(self, name: str) -> bool:
        """Whether a tensor is written as counts, in either layout."""
        return self._is(self._counts, name)

    def has_sums(self, name: str) -> bool:
        """Whether it is written as sums."""
        return self._is(self._sums, name)

    def is_last(self, name: str) -> bool:
        """Whether its counts are written with channels last."""
        return (name, True) in self._counts

    def given_counts(self, name: str, tensor: str, codes: Codes, *, last: bool) -> None:
        """Note that a tensor has been written as counts."""
        self._counts[name, last], self.codes[name] = tensor, codes

    def given_sums(self, name: str, tensor: str, *, last: bool) -> None:
        """Note that a tensor has been written as sums."""
        self._sums[name, last] = tensor

    @staticmethod
    def _is(forms: Mapping[tuple[str, bool], str], name: str) -> bool:
        return (name, False) in forms or (name, True) in forms

    def named_counts(self, name: str) -> str:
        """A name for a tensor as counts."""
        return unused(f"{name}/counts", self.used)

    # What is asked for

    def value(self, name: str) -> str:
        """The name of a tensor's own form."""
        if name not in self._values:
            if self.has_sums(name):
                sums = self._in_layout(self._sums, name, last=False)
                self._values[name] = self.node("Cast", [sums], f"{name}/value", to=TensorProto.FLOAT)
            elif name not in self.made and self.has_counts(name):
                self._decoded(name)
                self._values[name] = name
            else:
                return name
        return self._values[name]

    def counts(self, name: str, *, last: bool) -> str:
        """The name of a tensor as counts, in the given layout."""
        if not self.has_counts(name):
            self._counts[name, False] = self._encoded(name)
        return self._in_layout(self._counts, name, last=last)

    def _encoded(self, name: str) -> str:
        codes = self.codes[name]
        if name in self.rounded and codes.largest == MOST:  # it cuts off what a byte does not hold
            source, step = self.rounded[name]
            zero = self.constant(f"{name}/zero", np.array(codes.zero, np.uint8))
            return self.node("QuantizeLinear", [source, step, zero], f"{name}/counts")
        code = name
        if codes.unit > 1:
            code = self.node(
                "Div", [code, self.constant(f"{name}/unit", np.array(codes.unit, np.float32))], f"{name}/code"
            )
        if codes.zero:
            zero = self.constant(f"{name}/zero", np.array(codes.zero, np.float32))
            code = self.node("Add", [code, zero], f"{name}/code")
        return self.node("Cast", [code], f"{name}/counts", to=TensorProto.UINT8)

    def sums(self, name: str, *, last: bool) -> str:
        """The name of a tensor as sums, which must have been written, in the given layout."""
        return self._in_layout(self._sums, name, last=last)

    def wide_counts(self, name: str, *, last: bool) -> str:
        """The name of a tensor as int32 counts minus the count that stands for zero."""
        codes = self.codes[name]
        wide = self.node("Cast", [self.counts(name, last=last)], f"{name}/wide", to=TensorProto.INT32)
        if not codes.zero:
            return wide
        return self.node("Sub", [wide, self.constant(f"{name}/zero", np.array(codes.zero, np.int32))], f"{name}/wide")

    def _decoded(self, name: str) -> None:
        """Write a tensor that exists as counts in its own form, under its own name, which may be an output's."""
        codes = self.codes[name]
        code = self.node("Cast", [self.counts(name, last=False)], f"{name}/code", to=TensorProto.FLOAT)
        steps = [("Sub", codes.zero)] * (codes.zero != 0) + [("Mul", codes.unit)] * (codes.unit > 1)
        for op_type, number in steps:
            operand = self.constant(f"{name}/{op_type}", np.array(number, np.float32))
            code = self.node(op_type, [code, operand], f"{name}/{op_type}")
        self.nodes[-1].output[0] = name

    def _in_layout(self, forms: dict[tuple[str, bool], str], name: str, *, last: bool) -> str:
        if (name, last) not in forms:
            rank, given = self.ranks[name], forms[name, not last]
            if rank == 3:
                axes = self.constant("axes", np.array([1]))
            if rank == 3 and not last:
                given = self.node("Squeeze", [given, axes], f"{given}/squeezed")
            order = (_TO_LAST if last else _TO_OWN)[rank]
            found = self.node("Transpose", [given], f"{given}/{'last' if last else 'first'}", perm=order)
            if rank == 3 and last:
                found = self.node("Unsqueeze", [found, axes], f"{found}/image")
            forms[name, last] = found
        return forms[name, last]

    # What is written

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Write a node and return the name of its output."""
        output = unused(output, self.used)
        self.nodes.append(helper.make_node(op_type, inputs, [output], unused(output, self.used), **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Write a constant, or find an equal one, and return its name."""
        key = f"{value.dtype} {value.shape}", value.tobytes()
        if key not in self._shared:
            self._shared[key] = unused(name, self.used)
            self.constants[self._shared[key]] = numpy_helper.from_array(value, self._shared[key])
        return self._shared[key]
