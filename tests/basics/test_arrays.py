"""Data are the same where every bit of their arrays is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from pconv_onnx.basics.arrays import same, same_fields


@dataclass(frozen=True, eq=False)
class Holder:
    values: object


NAN = np.array([np.nan, 1], np.float32)


@pytest.mark.parametrize("value", [1, "a", None, NAN, [NAN, 1], (NAN,), {"a": NAN}, Holder(NAN), Holder({"a": [NAN]})])
def test_equal_to_itself_and_to_a_copy(value):
    assert same(value, value)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 2),
        (1, 1.0),
        ([1], (1,)),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 2}),
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2, np.float32), np.zeros(2)),
        (np.array([0.0]), np.array([-0.0])),
        (Holder(1), Holder(2)),
        (Holder(np.zeros(2)), Holder(np.ones(2))),
    ],
)
def test_others_are_not(left, right):
    assert not same(left, right) and not same(right, left)


def test_fields_of_another_class_are_others():
    @dataclass(frozen=True, eq=False)
    class Other:
        values: object

    assert same_fields(Holder(NAN), Holder(NAN.copy()))
    assert not same_fields(Holder(1), Other(1))
