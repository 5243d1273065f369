"""What a refusal says, for every function that refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pconv_onnx.basics.errors import PconvError


def refusal_of(function: Callable, *arguments, **options) -> str:
    """The message of a call that must be refused: one line, with no empty end."""
    with pytest.raises(PconvError) as raised:
        function(*arguments, **options)
    told = str(raised.value)
    assert len(told.splitlines()) == 1
    assert not told.endswith((":", ";", " "))
    return told
