"""Rules of operators that take a maximum or minimum, which sorted trains have."""

from __future__ import annotations

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.temporal.elementwise import add
from pconv_onnx.temporal.kinds import Kind, Spikes
from pconv_onnx.temporal.site import Site, channels_moved, reduced


def max_pool(site: Site) -> Kind | None:
    """Sorted trains of one amplitude: the maximum of trains is the train of the maximum.

    A window of nothing but padding, which only dilation makes, has a value that no train has.
    """
    kind = site.kinds[0]
    dilated = any(step != 1 for step in site.attribute("dilations", ()))
    if len(site.node.outputs) > 1 or not isinstance(kind, Spikes) or dilated:
        return None
    return kind if kind.channel_axis in (None, 1) else None


def relu(site: Site) -> Kind | None:
    """The identity on spikes that are not negative."""
    return _within(site, np.zeros(1), None)


def clip(site: Site) -> Kind | None:
    """The identity on spikes within its bounds."""
    if any(site.given(index) and site.constant(index) is None for index in (1, 2)):
        return None
    return _within(site, site.constant(1), site.constant(2))


def _within(site: Site, low: Array | None, high: Array | None) -> Kind | None:
    kind = site.kinds[0]
    if not isinstance(kind, Spikes):
        return None
    above = low is None or (kind.levels[:, 0] >= low).all()
    return kind if above and (high is None or (kind.levels[:, -1] <= high).all()) else None


def extremum(site: Site) -> Kind | None:
    """As max pooling, over constant axes other than the first; the minimum of sorted trains is that of the minimum."""
    kind, axes, rank = site.kinds[0], reduced(site), site.rank(0)
    if not isinstance(kind, Spikes) or axes is None or rank is None or kind.channel_axis in axes:
        return None
    keeps = site.attribute("keepdims", 1)
    return channels_moved(kind, [axis for axis in range(rank) if keeps or axis not in axes])


def extremes(site: Site) -> Kind | None:
    """Max, Min of trains that have the same levels everywhere."""
    first, *others = site.kinds
    if not isinstance(first, Spikes) or not first.uniform or len({site.rank(i) for i in range(len(site.kinds))}) > 1:
        return None
    same = all(isinstance(kind, Spikes) and np.array_equal(kind.levels, first.levels) for kind in others)
    return first if same and add(site) is not None else None
