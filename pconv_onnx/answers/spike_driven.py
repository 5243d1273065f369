"""The share of multiply-accumulates that read spikes, in sentences; if it is zero, a network is not called spiking."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pconv_onnx.answers.tables import Style
from pconv_onnx.basics.errors import cut
from pconv_onnx.basics.reasons import of_one_kind


def told_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """The share in a benchmark's document: as counted, or else as planned."""
    counted: dict[str, Any] | None = (document.get("statistics") or {}).get("spike_driven")
    return counted or document["spike_driven"]


def kind_of_network(part: dict[str, Any] | None) -> str:
    """What to call a network with this share: not spiking, unless something is known to read spikes."""
    if part is None:
        return "rewritten"
    return "spiking" if part["share"] or (part["share"] is None and not part["reasons"]) else "rewritten"


def sentence(part: dict[str, Any], style: Style) -> str:
    """The share, with its numbers; without a full stop."""
    if part["macs"] is None and part["share"] == 1:
        return "spike-driven: every product reads spikes but those of the network's inputs; sizes are open"
    if part["macs"] is None:
        return "how many multiply-accumulates read spikes is not known: sizes are open, or operators cannot be counted"
    if part["share"] is None:
        return "no multiply-accumulate reads anything but the network's inputs"
    left, on_spikes = (style.count(number) for number in (part["macs"] - part["on_inputs"], part["on_spikes"]))
    besides = f"; {style.count(part['on_inputs'])} more read the network's inputs" if part["on_inputs"] else ""
    if part["share"] == 0:
        return f"this is no spiking network: none of {left} multiply-accumulates reads spikes{besides}"
    told = f"{on_spikes} of {left} multiply-accumulates ({_percent(part['share'], style)}) read spikes{besides}"
    return f"spike-driven: {told}" if part["share"] == 1 else told


def why_not(part: dict[str, Any]) -> Iterator[str]:
    """The products that read no spikes, and why; those with the same reason share a line."""
    for group in of_one_kind(part["reasons"].items()):
        (name, reason), more = group[0], len(group) - 1
        yield f"{cut(name)}{f' and {more} more' if more else ''}: {reason}"


def on_means(part: dict[str, Any]) -> Iterator[str]:
    """The operators that take values instead of spikes, in one line."""
    counted = part.get("on_means")
    if counted:
        yield "on temporal means: " + ", ".join(f"{count} {op_type}" for op_type, count in counted.items())


def remedy(part: dict[str, Any], neurons: str) -> Iterator[str]:
    """What would let more products read spikes, if the user has not asked for it."""
    if neurons != "products" and any(reason.startswith("it reads") for reason in part["reasons"].values()):
        yield "`neurons='products'` with `calibration=` puts a neuron in front of these products"


def _percent(share: float, style: Style) -> str:
    """A percentage that is not rounded to all or nothing."""
    hundredths = math.floor(share * 10_000)
    return f"less than 0.01{style.space}%" if share and not hundredths else style.percent(hundredths / 10_000)
