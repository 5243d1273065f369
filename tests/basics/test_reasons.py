"""Reasons are grouped: each kind is told once, with how many have it and whom it is first said of."""

from __future__ import annotations

import pytest

from pconv_onnx.basics.reasons import by_reason

LEVELS = "it has {} levels; mode 'folded' takes it"


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ([], ""),
        ([("a", "excluded")], "'a': excluded"),
        ([("a", "excluded"), ("b", "excluded")], "2 activations ('a' first): excluded"),
        ([("a", "excluded"), ("b", "no bound")], "'a': excluded; 'b': no bound"),
        (
            [("a", "excluded"), ("b", "no bound"), ("c", "no bound"), ("d", "no scale")],
            "2 activations ('b' first): no bound; 'a': excluded; 'd': no scale",
        ),
        (
            [(name, name.upper()) for name in "abbbaacc"],
            "3 activations ('a' first): A; 3 ('b' first): B; 2 ('c' first): C",
        ),
        ([("a", LEVELS.format(1023)), ("b", LEVELS.format(511))], f"2 activations ('a' first): {LEVELS.format(1023)}"),
        (
            [("a", "'q' is of shape [4, 1]"), ("b", "'r' is of shape [3]")],
            "2 activations ('a' first): 'q' is of shape [4, 1]",
        ),
        (
            [(name, name.upper()) for name in "abcd"],
            "'a': A; 'b': B; 'c': C; 'd': D",
        ),
        (
            [(name, name.upper()) for name in "abcdeffee"],
            "3 activations ('e' first): E; 2 ('f' first): F; 'a': A; 'b': B; and 2 more for other reasons; pconv-onnx "
            "inspect lists them",
        ),
    ],
)
def test_each_kind_of_reason_is_told_once(reasons, told):
    assert by_reason(reasons) == told
