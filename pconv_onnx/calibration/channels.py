"""Where the channels of a pre-activation are: statistics are of rows, and the network has channels on some axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.calibration.segments import Segment
from pconv_onnx.calibration.streams import MIXED, Axis
from pconv_onnx.graph import Network
from pconv_onnx.graph.channels import behind_matrix_product


@dataclass(frozen=True)
class Channels:
    """Those of a pre-activation `[B, …]`.

    Attributes:
        axis: that they run along; None where all values are of one.
        rank: of the pre-activation.
    """

    axis: int | None
    rank: int

    @classmethod
    def of(cls, network: Network, segment: Segment, sample_axis: Axis = 0, along: int | None = None) -> Channels:
        """Those of what a segment leads to: the last axis behind a matrix product, otherwise the second.

        Args:
            network: the source.
            segment: of it.
            sample_axis: along which samples lie; there are no channels along that, or where they are `MIXED` along any
                that is not known to have channels.
            along: the axis, where it is known, and of which size.
        """
        shape = network.shapes.get(segment.target) or ()
        if len(shape) < 2:
            return cls(None, len(shape))
        makers = {node.output[0]: node for node in segment.nodes if node.output}
        axis = len(shape) - 1 if behind_matrix_product(segment.target, makers) else 1
        axis = axis if along is None else along % len(shape)
        fixed = along is not None or (isinstance(shape[axis], int) and sample_axis != MIXED)
        return cls(axis if fixed and axis != sample_axis else None, len(shape))

    def rows(self, values: Array) -> Array:
        """A pre-activation as `[C, n]`."""
        if self.axis is None:
            return values.reshape(1, -1)
        return np.moveaxis(values, self.axis, 0).reshape(values.shape[self.axis], -1)

    def back(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """Rows in the shape that they come from."""
        if self.axis is None:
            return rows.reshape(shape)
        moved = [shape[self.axis], *(size for axis, size in enumerate(shape) if axis != self.axis)]
        return np.moveaxis(rows.reshape(moved), 0, self.axis)

    def along(self, values: Array) -> Array:
        """`[C]`, or `[1]` for all of them, in a shape that broadcasts against the pre-activation."""
        return values.reshape(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """That in which a table of channels broadcasts against the pre-activation."""
        return () if self.axis is None else (-1, *[1] * (self.rank - self.axis - 1))

    def spread(self, table: Array) -> Array:
        """A table `[C, n]` as n samples of one value a channel."""
        shape = [1] * self.rank
        shape[0] = table.shape[1]
        if self.axis is not None:
            shape[self.axis] = len(table)
        return np.ascontiguousarray(table.T).reshape(shape)
