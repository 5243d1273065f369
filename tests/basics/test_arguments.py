"""One of something, several, or none."""

import numpy as np
import pytest

from pconv_onnx.basics.arguments import each, each_number


@pytest.mark.parametrize(
    ("given", "found"), [("relu*", ("relu*",)), (["a", "b"], ("a", "b")), ((), ()), (None, ()), (3, (3,))]
)
def test_one_alone_is_one_and_none_is_none(given, found):
    assert each(given) == found


@pytest.mark.parametrize("given", [4, np.int64(4), np.array(4), np.array([4, 4]), [4, 4], range(4, 5), {4}])
def test_numbers_are_python_s_and_told_once(given):
    assert each_number(given) == (4,)
    assert type(each_number(given)[0]) is int


def test_there_may_be_no_number():
    assert each_number(None) == each_number([]) == ()
