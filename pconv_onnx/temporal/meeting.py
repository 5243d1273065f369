"""Trains of different time-steps at one operator: the number of steps they get, and which of them are recoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pconv_onnx.basics.choices import ENERGY_AC, ENERGY_MAC
from pconv_onnx.neuron.coding import Coding, Radix
from pconv_onnx.temporal.kinds import Current, Kind, Spikes
from pconv_onnx.temporal.site import Site

# A decoded value costs its readers one multiply-accumulate; binary digits cost an accumulate for half of the steps on
# average. With more steps than this, decoding costs less.
_DEAREST = int(2 * ENERGY_MAC / ENERGY_AC)


def meeting(site: Site) -> tuple[int, Mapping[int, Coding]] | None:
    """The number of time-steps for all inputs in time, and the new codings of those that need one.

    Returns:
        None if there is no such number, spikes must not have weights, or decoding costs less.
    """
    kinds = {index: site.kinds[index] for index in site.varying}
    steps = {kind.steps for kind in kinds.values()}
    if len(steps) == 1:
        return steps.pop(), {}
    # Only the mean of a current has meaning, so no neuron encodes it without loss.
    fixed = {kind.steps for kind in kinds.values() if isinstance(kind, Current)}
    if len(fixed) > 1 or not site.weights:
        return None
    for wanted in sorted(count for count in fixed or steps if count <= _DEAREST):
        others = {index: _in_steps(kind, wanted) for index, kind in kinds.items() if kind.steps != wanted}
        found = {index: coding for index, coding in others.items() if coding is not None}
        if len(found) == len(others):
            return wanted, found
    return None


def _in_steps(kind: Kind, steps: int) -> Coding | None:
    """The coding in which this number of steps carries the trains' levels; None if there is none."""
    if not isinstance(kind, Spikes):
        return None
    coding = Radix(steps, kind.coding.zero)
    try:
        return None if replace(kind, coding=coding).encoder().why_not_carried else coding
    except ValueError:
        return None
