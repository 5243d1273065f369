"""Products of two tensors in time: the mean of one is *held*, the same at each step as weights are; the other spikes.

The mean of products of trains is not the product of their means, that of spikes by what is held is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pconv_onnx.graph.network import Dimension
from pconv_onnx.temporal.kinds import Kind, Passage, Spikes
from pconv_onnx.temporal.site import Rule, Site


def one_in_time(site: Site, rule: Rule) -> Kind | Passage | None:
    """What a rule of one tensor in time says of a product of one, or of two of which it lets one be held."""
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

    That is spikes: of two currents the means are multiplied once, not at each step. An accumulate takes place for each
    spike, so that fewer of them are less work; what is held may have to be there for each time-step, so the larger
    tensor is not.

    Args:
        kinds: of factors in time, by input.
        sizes: how many values each has in a row.
    """
    found = {index: kind for index, kind in kinds.items() if isinstance(kind, Spikes)}
    return sorted(found, key=lambda index: (_expected(found[index]), -sizes[index], index))


def _expected(kind: Spikes) -> float:
    """How many values of a train are not zero: half of the digits; all where a silent neuron emits something."""
    return kind.steps if kind.silent.any() else kind.steps / 2


def row_size(shape: Sequence[Dimension] | None) -> int:
    """How many values a tensor has in a row, as far as its shape tells."""
    return math.prod(size for size in (shape or ())[1:] if isinstance(size, int))
