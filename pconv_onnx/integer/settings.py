"""Checks of the arguments for integer weights."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

from pconv_onnx.basics.choices import INPUT_BITS, WEIGHTS
from pconv_onnx.basics.errors import PconvError, WrongArguments


def require_integers(
    weights: str | None, input_bits: int | None, input_range: tuple[float, float] | None, excluded: Mapping[str, bool]
) -> None:
    """Raise for arguments that are invalid or do not go together.

    Args:
        weights: one of `WEIGHTS`, or None.
        input_bits: one of `INPUT_BITS`, or None.
        input_range: two numbers, or None.
        excluded: settings that exclude integer weights, and whether they are given.

    Raises:
        PconvError: a value is not one of the choices.
        WrongArguments: one argument needs another, or excludes it.
    """
    if weights not in (None, *WEIGHTS):
        raise PconvError(f"there are no weights '{weights}'", f"choose {' or '.join(WEIGHTS)}")
    if input_bits is not None and not (isinstance(input_bits, int) and input_bits in INPUT_BITS):
        raise PconvError(f"inputs cannot have {input_bits} bits", f"choose {' or '.join(map(str, INPUT_BITS))}")
    if input_range is not None and not _is_range(input_range):
        raise PconvError(f"{input_range!r} is no range of inputs", "give two numbers, the lower first")
    if input_bits is not None and weights is None:
        raise WrongArguments("quantised inputs are for integer weights", "pass `weights='int8'` as well")
    if input_range is not None and input_bits is None:
        raise WrongArguments("a range of inputs is for quantised ones", "pass `input_bits=8` as well")
    if weights is not None:
        for what, asked_for in excluded.items():
            if asked_for:
                raise WrongArguments(f"integer weights and {what} exclude each other", "leave one of them out")


def _is_range(given: object) -> bool:
    return isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(end, numbers.Real) for end in given)
