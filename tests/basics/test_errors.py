"""Faults that a user can mend, in one line whatever they quote."""

from __future__ import annotations

import pytest

from pconv_onnx import PconvError


@pytest.mark.parametrize(
    ("message", "hint", "told"),
    [
        ("it is wrong", "mend it", "it is wrong; mend it"),
        ("it is wrong", "", "it is wrong"),
        ("it says:\n\n  no.\n", "mend\nit.", "it says: no; mend it"),
        ("it says: ", "", "it says"),
    ],
)
def test_an_error_is_one_line_without_empty_parts(message, hint, told):
    error = PconvError(message, hint)
    assert str(error) == told
    assert "; ".join(filter(None, [error.message, error.hint])) == told
