"""Products of two tensors in time: one is *held*, that is, replaced by its mean at each step like weights; one spikes.

The mean of products of two trains is not the product of their means; with one of them held, it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pconv_onnx.graph.network import Dimension
from pconv_onnx.temporal.kinds import Kind, Passage, Spikes
from pconv_onnx.temporal.site import Rule, Site


def one_in_time(site: Site, rule: Rule) -> Kind | Passage | None:
    """Apply a rule for one tensor in time to a product with one, or with two of which it can hold one."""
    if len(site.varying) < 2:
        return rule(site) if site.varying else None
    first, second = site.varying
    kinds = {index: site.kinds[index] for index in (first, second)}
    for stays in spiking(kinds, {index: row_size(site.shape(index)) for index in kinds}):
        held = second if stays == first else first
        found = rule(site.holding(held))
        if found is not None:
            passage = found if isinstance(found, Passage) else Passage((found,))
            return replace(passage, held=(held,))
    return None


def spiking(kinds: Mapping[int, Kind], sizes: Mapping[int, int]) -> list[int]:
    """The factors that may stay in time, the cheapest first.

    Only spikes may: of two currents the means are multiplied once, not at each step. Each spike costs accumulates, so
    the tensor with fewer spikes is cheaper. The held tensor may have to be repeated for each time-step, so it should be
    the smaller one.

    Args:
        kinds: the kinds of the factors in time, by input.
        sizes: the number of values that each has in a row.
    """
    found = {index: kind for index, kind in kinds.items() if isinstance(kind, Spikes)}
    return sorted(found, key=lambda index: (_expected(found[index]), -sizes[index], index))


def _expected(kind: Spikes) -> float:
    """Expected number of non-zero values of a train: half of the digits, or all if a silent neuron emits something."""
    return kind.steps if kind.silent.any() else kind.steps / 2


def row_size(shape: Sequence[Dimension] | None) -> int:
    """The number of values that a tensor has in a row, as far as its shape is known."""
    return math.prod(size for size in (shape or ())[1:] if isinstance(size, int))
