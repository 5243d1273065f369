"""A node as the proof's rules look at it, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.view import Node
from pconv_onnx.integer.proof.values import Float, Span, Value, Whole


@dataclass(frozen=True)
class Known:
    """What is known of a tensor.

    Attributes:
        value: what is known of its values.
        steps: the number of time-steps in its rows; 1 without a time axis.
        islands: the float islands that it depends on.
    """

    value: Value = Float.FIXED
    steps: int = 1
    islands: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum of integers: its result, and the largest partial sum in units of its grain.

    Attributes:
        value: what is known of the result.
        largest: infinite where an operand has no bounds.
        dtype: the type of the sum; None for that of the result.
    """

    value: Value
    largest: float
    dtype: np.dtype[Any] | None = None


@dataclass(frozen=True)
class Island:
    """The bits of a node's floats depend on the order of summation or on a library; the text says why."""

    reason: str


SUMS_FLOATS = Island("it sums floats")


class Site:
    """A node with what is known of its inputs."""

    def __init__(
        self,
        network: Network,
        node: Node,
        proto: onnx.NodeProto,
        operands: Sequence[Known],
        tables: Mapping[str, onnx.TensorProto],
    ) -> None:
        """Bind them; `operands` has one entry an input, `tables` are the network's initializers by name."""
        self.network, self.node, self.proto, self.operands, self.tables = network, node, proto, operands, tables

    @property
    def steps(self) -> int:
        """The time-steps of its inputs."""
        return max((known.steps for known in self.operands), default=1)

    @cached_property
    def wholes(self) -> list[Whole] | None:
        """Its inputs, where all are integers."""
        found = [whole for index in range(len(self.operands)) if (whole := self.whole(index)) is not None]
        return found if len(found) == len(self.operands) else None

    def whole(self, index: int) -> Whole | None:
        """An input of integers; None of others, and where it is absent."""
        value = self.constant(index)
        if value is not None:
            span = Span.of(value)
            return None if span is None else Whole.of(span)
        known = self.operands[index].value if self.given(index) else None
        return known if isinstance(known, Whole) else None

    def by_rows(self, rows: Span) -> Whole:
        """Rows of which an operator made others, that does not commute with the mean."""
        return Whole.of(rows, self.steps)

    def given(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def constant(self, index: int) -> Array | None:
        """Value of a constant input; None where it is absent or computed."""
        return constant(self.node.inputs[index]) if self.given(index) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """Value of an attribute."""
        return self.node.attrs.get(name, default)

    def numbers(self, index: int, name: str) -> Array | None:
        """Numbers that later opsets have as an input, earlier ones as an attribute; None where they are not known."""
        return self.constant(index) if self.given(index) else _array(self.attribute(name))

    def sizes(self, index: int) -> tuple[Any, ...] | None:
        """Shape of an input, None where not even its rank is known."""
        return self.network.shape(self.node.inputs[index])

    def rank(self, index: int) -> int | None:
        """Rank of an input."""
        sizes = self.sizes(index)
        return None if sizes is None else len(sizes)

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Element type of its first output."""
        return self.network.dtype(self.node.outputs[0])

    @property
    def product(self) -> Node | None:
        """The sum of products that an input is, or has been but for what onnxruntime may fold into it."""
        wholes = [known.value for known in self.operands if isinstance(known.value, Whole)]
        return next((whole.product for whole in wholes if whole.product is not None), None)

    @property
    def into(self) -> Node | None:
        """The sum of products that it may be folded into, as its other input is a constant."""
        by_constant = len(self.operands) == 2 and any(self.constant(index) is not None for index in range(2))
        return self.product if by_constant else None


def _array(value: Any) -> Array | None:
    return None if value is None else np.asarray(value)


Finding: TypeAlias = Value | Sum | Island
Rule: TypeAlias = Callable[[Site], Finding]
