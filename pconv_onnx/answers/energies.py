"""The energy of networks with integer weights, in a sentence that follows the one on floats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pconv_onnx.basics.choices import ENERGY_AC, ENERGY_MAC


def in_integers(part: dict[str, Any], network: str, value: Callable[[float], str]) -> Iterator[str]:
    """One line where weights are integers, else none; without a full stop.

    Args:
        part: `energy_int8` of the document.
        network: what kind of network it is.
        value: an energy with its unit, of nJ.
    """
    if part["weights"] is None:
        return
    told = f", {part['ratio']:.3g} times the energy" if part["ratio"] is not None else ""
    yield (
        f"energy of a sample in 8-bit weights and counts ({part['mac_pj']:g} pJ a multiply-accumulate, "
        f"{part['ac_pj']:g} pJ an accumulate: M. Horowitz, ISSCC 2014): {part['weights']} ANN {value(part['ann_nj'])}, "
        f"{network} network {value(part['snn_nj'])}{told}{_floats(len(part['float_operators']))}"
    )


def _floats(count: int) -> str:
    if not count:
        return ""
    return f"; {count} operator{'s' if count > 1 else ''} in floats, at {ENERGY_MAC:g} pJ and {ENERGY_AC:g} pJ"
