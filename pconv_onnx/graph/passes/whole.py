"""An operator that is to be taken apart, what is known of it, and the operators written in its place so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.nesting import unused
from pconv_onnx.graph.network import Dimension, Network
from pconv_onnx.graph.view import Constant, Node


class StaysWhole(Exception):
    """Raised if an operator cannot be taken apart, or too little is known of it."""


class Whole:
    """A node that is to be taken apart.

    Attributes:
        nodes: what is written in its place, in topological order.
    """

    def __init__(self, network: Network, node: Node, proto: onnx.NodeProto, names: set[str]) -> None:
        """Take a node of a network; new names are added to the names in use."""
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self._node, self._proto, self._names = node, proto, names
        self._name = node.name or proto.output[0]

    def __getitem__(self, index: int) -> str:
        """Name of an input; empty if it is left out."""
        return self._proto.input[index] if index < len(self._proto.input) else ""

    def read(self, index: int) -> bool:
        """Whether anything reads an output."""
        if index >= len(self._proto.output) or not self._proto.output[index]:
            return False
        tensor = self._node.outputs[index]
        return bool(tensor.outputs) or self.network.is_output(tensor)

    def attribute(self, name: str, otherwise: Any = None) -> Any:
        """Value of an attribute.

        Raises:
            StaysWhole: it is a tensor, which no attribute of these operators is.
        """
        value = self._node.attrs.get(name, otherwise)
        require(not isinstance(value, Constant))
        return value

    def flag(self, name: str) -> bool:
        """Value of an attribute that is 0 or 1; 0 if it is left out.

        Raises:
            StaysWhole: it has another value.
        """
        value = self.attribute(name, 0)
        require(value in (0, 1))
        return bool(value)

    def value(self, index: int) -> Array | None:
        """Value of an input; None if it is computed, or left out."""
        return constant(self._node.inputs[index]) if self[index] else None

    def shape(self, index: int) -> tuple[Dimension, ...]:
        """Shape of an input.

        Raises:
            StaysWhole: not even its rank is known.
        """
        shape = self.network.shapes.get(self[index])
        if shape is None:
            raise StaysWhole
        return shape

    def size(self, index: int, axis: int) -> int:
        """A dimension of an input.

        Raises:
            StaysWhole: it is not known, or there is no such dimension.
        """
        size = self.shape(index)[axis]
        require(isinstance(size, int) and size > 0)
        return int(size)  # type: ignore[arg-type]

    def dtype(self, index: int) -> np.dtype[Any]:
        """Element type of an input.

        Raises:
            StaysWhole: it is not known, or is that of strings.
        """
        dtype = self.network.dtypes.get(self[index])
        if dtype is None or dtype.kind == "O":
            raise StaysWhole
        return dtype

    @property
    def floats(self) -> np.dtype[Any]:
        """Element type of the inputs that are floats; all have the same.

        Raises:
            StaysWhole: no input's type is known.
        """
        known = (self.network.dtypes.get(name) for name in self._proto.input)
        found = next((dtype for dtype in known if dtype is not None and dtype.kind in "fV"), None)
        if found is None:
            raise StaysWhole
        return found

    def write(self, op_type: str, *inputs: str, what: str = "", gives: int | None = None, **attributes: Any) -> str:
        """Write an operator, and return the name of its output.

        Args:
            op_type: the operator.
            inputs: names of its inputs.
            what: what its output is, for its name; by default the operator.
            gives: which output of the whole operator it makes; None if it makes none.
            attributes: those of the operator, and its `domain`.
        """
        if gives is None:
            name = output = unused(f"{self._name}_{what or op_type}", self._names)
        else:
            output = self._proto.output[gives]
            name = self._node.name if gives == 0 else unused(f"{self._name}_{what or op_type}", self._names)
        made = helper.make_node(op_type, inputs, [output], name, **attributes)
        made.metadata_props.extend(self._proto.metadata_props)
        self.nodes.append(made)
        return output

    def constant(self, value: Any, dtype: Any = np.int64, what: str = "") -> str:
        """Write a constant, and return its name."""
        return self.write("Constant", what=what, value=numpy_helper.from_array(np.asarray(value, dtype)))

    def number(self, value: float, what: str = "") -> str:
        """Write a constant in the element type of the inputs that are floats, and return its name."""
        return self.constant(value, self.floats, what)

    def reshape(self, x: str, *sizes: int, what: str = "", gives: int | None = None) -> str:
        """Write a Reshape to constant sizes; 0 keeps a size."""
        return self.write("Reshape", x, self.constant(sizes), what=what, gives=gives)

    def transpose(self, x: str, *axes: int, what: str = "", gives: int | None = None) -> str:
        """Write a Transpose, unless all axes stay where they are."""
        if gives is None and list(axes) == sorted(axes):
            return x
        return self.write("Transpose", x, what=what, gives=gives, perm=axes)

    def slice(self, x: str, start: int, end: int, *, axis: int, step: int = 1, what: str = "") -> str:
        """Write a Slice along one axis."""
        bounds = (self.constant([bound]) for bound in (start, end, axis, step))
        return self.write("Slice", x, *bounds, what=what)

    def length(self, x: str, axis: int) -> str:
        """Write nodes that compute the size of an axis."""
        return self.write("Gather", self.write("Shape", x), self.constant(axis))


def require(condition: bool) -> None:
    """Leave the operator whole if a condition does not hold.

    Raises:
        StaysWhole: it does not.
    """
    if not condition:
        raise StaysWhole
