"""A node as rules look at it, and what rules have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import constant
from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.view import Node
from pconv_onnx.temporal.kinds import STATIC, Current, Kind, Passage, Spikes, Static


class Site:
    """A node with the kinds of its inputs, as a rule looks at it."""

    def __init__(self, network: Network, node: Node, kinds: Sequence[Kind], *, weights: bool = True) -> None:
        """Bind them. `kinds` has an entry for each input; with `weights` spikes may be worth different amounts."""
        self.network, self.node, self.kinds, self.weights = network, node, kinds, weights

    def holding(self, index: int) -> Site:
        """The same site with an input decoded."""
        kinds = [STATIC if given == index else kind for given, kind in enumerate(self.kinds)]
        return Site(self.network, self.node, kinds, weights=self.weights)

    def varies(self, index: int) -> bool:
        """Whether an input is there and has a time axis."""
        return index < len(self.kinds) and not isinstance(self.kinds[index], Static)

    @property
    def varying(self) -> list[int]:
        """Indices of the inputs that have a time axis."""
        return [index for index in range(len(self.kinds)) if self.varies(index)]

    @property
    def only_first_varies(self) -> bool:
        """Whether only the first input has a time axis."""
        return self.varying == [0]

    def shape(self, index: int) -> tuple[Dimension, ...] | None:
        """Shape of an input in the source network."""
        return self.network.shape(self.node.inputs[index])

    def rank(self, index: int) -> int | None:
        """Rank of an input."""
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def output_shape(self, index: int) -> tuple[Dimension, ...] | None:
        """Shape of an output in the source network."""
        return self.network.shape(self.node.outputs[index])

    def given(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def constant(self, index: int) -> Array | None:
        """Value of a constant input; None if it is absent or computed."""
        return constant(self.node.inputs[index]) if self.given(index) else None

    def first_size(self, index: int) -> Dimension:
        """The first entry of an input that holds sizes: a number or the name of a dimension; None if unknown."""
        value = self.constant(index)
        if value is not None:
            return int(value.reshape(-1)[0]) if value.size else None
        sizes = self.network.sizes.get(self.node.inputs[index].name)
        return None if sizes is None or not sizes.size else sizes.reshape(-1)[0]

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute."""
        return self.node.attrs.get(name, default)

    def axes(self, values: Iterable[int], rank: int) -> set[int]:
        """Axes counted from the front."""
        return {int(axis) % rank for axis in values}


# None: the inputs have to be decoded first. One kind stands for all outputs.
Rule = Callable[[Site], Kind | Passage | None]


def current(kind: Kind) -> Current:
    """A current with the same time-steps."""
    return Current(kind.steps)


def same_where_uniform(kind: Kind) -> Kind:
    """The kind after a change of layout that may mix channels: spikes stay spikes if all have the same levels."""
    return kind if isinstance(kind, Spikes) and kind.uniform else current(kind)


def channels_moved(kind: Kind, axes: Sequence[int | None]) -> Kind:
    """The kind after a change of axes: axis `axes[i]` of the input is axis i now."""
    if not isinstance(kind, Spikes) or kind.channel_axis is None:
        return kind
    if kind.channel_axis not in axes:
        return current(kind)
    return replace(kind, channel_axis=axes.index(kind.channel_axis))


def lifted_inputs(site: Site) -> tuple[int, ...] | None:
    """The inputs of an element-wise operator without a time axis whose rows match rows in time.

    Returns:
        None if that is not known, or if they would add rows.
    """
    in_time = site.shape(site.varying[0])
    if not in_time or in_time[0] is None:
        return None
    lifted = []
    for index in range(len(site.kinds)):
        shape = site.shape(index)
        if shape is None or len(shape) > len(in_time):
            return None
        if index in site.varying or len(shape) < len(in_time) or shape[0] == 1:
            continue
        if shape[0] != in_time[0]:
            return None
        lifted.append(index)
    return tuple(lifted)


def reduced(site: Site) -> set[int] | None:
    """The axes that an operator reduces; None unless they are constant and do not include the first."""
    rank = site.rank(0)
    axes = site.constant(1) if site.given(1) else site.attribute("axes", None)
    if rank is None or axes is None or not len(axes) or 0 in site.axes(axes, rank):
        return None
    return site.axes(axes, rank)
