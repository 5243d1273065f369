"""Codes for the network's inputs, from a given range or from data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.samples import Data
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.integer.reading import InputCodes

# Samples that are read at a time.
_AT_ONCE = 64


def codes_of_inputs(
    network: Network, bits: int, given: tuple[float, float] | None, data: Data | None
) -> list[InputCodes]:
    """The codes of all float inputs.

    Args:
        network: the source.
        bits: bits of a code.
        given: the range of values, for all of them.
        data: samples whose lowest and highest values are the range, if none is given.

    Raises:
        PconvError: the network has no such input, there is neither range nor data, or the range is wrong.
    """
    held = initializer_names(network.proto.graph)
    names = [
        info.name
        for info in network.proto.graph.input
        if info.name not in held and network.dtypes.get(info.name) in (np.float32, np.float64)
    ]
    if not names:
        raise PconvError(f"{network.name} has no input of floats to quantise", "leave `input_bits=` out")
    ranges = dict.fromkeys(names, given) if given is not None else {}
    if given is None and data is not None:
        ranges |= dict(zip(names, _ranges(names, data), strict=True))
    if None in ranges.values() or not ranges:
        raise PconvError(
            "the range of the inputs is not known",
            "pass `input_range=(LOW, HIGH)`, or data that have it as `calibration=`",
        )
    return [input_codes(name, *found, bits) for name, found in ranges.items() if found is not None]


def _ranges(names: Sequence[str], data: Data) -> list[tuple[float, float]]:
    least, most = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    for start in range(0, len(data), _AT_ONCE):
        arrays = data.part(slice(start, min(start + _AT_ONCE, len(data)))).arrays
        for name in names:
            least[name] = min(least[name], float(arrays[name].min(initial=math.inf)))
            most[name] = max(most[name], float(arrays[name].max(initial=-math.inf)))
    return [(least[name], most[name]) for name in names]


def input_codes(name: str, low: float, high: float, bits: int) -> InputCodes:
    """Codes for values of an input from `low` to `high`; zero has a code.

    Raises:
        PconvError: they are not a range, or it has no such codes in float32.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PconvError(
            f"{low:g} to {high:g} is no range of values for input '{name}'", "give two finite numbers, the lower first"
        )
    low, high = min(low, 0.0), max(high, 0.0)
    most = (1 << bits) - 1
    with np.errstate(over="ignore"):
        step = float(np.float32((high - low) / most))
    if not (math.isfinite(step) and step > float(np.finfo(np.float32).tiny)):
        raise PconvError(
            f"{low:g} to {high:g} has no {bits}-bit codes in float32 for input '{name}'", "give another `input_range=`"
        )
    lowest = round(low / step)
    return InputCodes(name, step, lowest, lowest + most)
