"""Rules for operators that take a maximum or minimum: exact on trains whose digits do not fall as the count rises.

Other trains are decoded first; since the result has their levels, it is encoded again.
"""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.temporal.elementwise import add
from pconv_onnx.temporal.kinds import Current, Kind, Passage, Spikes
from pconv_onnx.temporal.site import Site, channels_moved, reduced


def max_pool(site: Site) -> Passage | None:
    """Max pooling of ascending trains with the same levels: the maximum of trains is the train of the maximum.

    A window of padding only, which needs dilation, has a value that no train has.
    """
    kind = site.kinds[0]
    dilated = any(step != 1 for step in site.attribute("dilations", ()))
    if len(site.node.outputs) > 1 or not isinstance(kind, Spikes) or dilated:
        return None
    return _ascending(kind) if kind.channel_axis in (None, 1) else None


def _ascending(kind: Kind) -> Passage:
    """The maximum or minimum of trains with the same levels, which is one of these levels."""
    return Passage((kind,), encodes=isinstance(kind, Spikes) and not kind.coding.ascending)


def relu(site: Site) -> Passage | None:
    """Relu is the identity if no level is negative, and stays a Relu on signed trains."""
    return _within(site, np.zeros(1), None)


def clip(site: Site) -> Passage | None:
    """Clip is the identity if all levels are within its bounds; on signed trains a Clip from zero is a Relu."""
    if any(site.given(index) and site.constant(index) is None for index in (1, 2)):
        return None
    return _within(site, site.constant(1), site.constant(2))


def _within(site: Site, low: Array | None, high: Array | None) -> Passage | None:
    """How a node with these bounds runs. The bounds apply to levels, since a single spike may be worth more."""
    kind = site.kinds[0]
    if not isinstance(kind, Spikes) or not (high is None or (kind.levels[:, -1] <= high).all()):
        return None
    if low is None or (kind.levels[:, 0] >= low).all():
        return Passage((kind,), runs_as="Identity")
    # All digits of a train have one sign.
    return Passage((kind,), runs_as="Relu") if kind.coding.signed and not low.any() else None


def leaky_relu(site: Site) -> Kind | Passage | None:
    """LeakyRelu is the identity if no level is negative, and linear on each sign; a train has only one."""
    kind = site.kinds[0]
    if not isinstance(kind, Spikes) or not np.isfinite(site.attribute("alpha", 0.01)):
        return None
    return Current(kind.steps) if kind.coding.signed else _within(site, np.zeros(1), None)


def extremum(site: Site) -> Passage | None:
    """ReduceMax and ReduceMin, as max pooling, over constant axes other than the first."""
    kind, axes, rank = site.kinds[0], reduced(site), site.rank(0)
    if not isinstance(kind, Spikes) or axes is None or rank is None or kind.channel_axis in axes:
        return None
    keeps = site.attribute("keepdims", 1)
    return _ascending(channels_moved(kind, [axis for axis in range(rank) if keeps or axis not in axes]))


def extremes(site: Site) -> Passage | None:
    """Max and Min of trains that have the same levels everywhere, and the same coding."""
    first, *others = site.kinds
    if not isinstance(first, Spikes) or not first.uniform or len({site.rank(i) for i in range(len(site.kinds))}) > 1:
        return None
    same = all(
        isinstance(kind, Spikes) and kind.coding == first.coding and np.array_equal(kind.levels, first.levels)
        for kind in others
    )
    return _ascending(first) if same and add(site) is not None else None
