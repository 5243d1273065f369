"""What a network is run on to see what it does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network
from refusals import refusal_of

from pconv_onnx.graph import load
from pconv_onnx.runtime.trial import feed, sizes

TWO = load(network("y = Add (x, z)", inputs="float[N, 3, L, M] x, float[N, 3, L, M] z", outputs="float[a, b, c, d] y"))


def test_dimensions_of_a_name_have_a_size_and_others_another():
    assert sizes(TWO, 0, 1) == {"N": 2, "L": 5, "M": 11}
    assert sizes(TWO, 1, 1) == {"N": 3, "L": 11, "M": 7}
    assert sizes(TWO, 0, 32) == {"N": 2, "L": 160, "M": 352}


def test_values_are_of_both_signs():
    found = feed(TWO, sizes(TWO, 0, 1))
    assert {name: value.shape for name, value in found.items()} == {"x": (2, 3, 5, 11), "z": (2, 3, 5, 11)}
    assert all(value.dtype == np.float32 and value.min() < -1 and value.max() > 1 for value in found.values())
    assert not np.array_equal(found["x"], found["z"])


def test_integers_are_in_every_range():
    tokens = load(network("y = Cast <to = 1> (x)", inputs="int64[N, S] x", outputs="float[N, S] y"))
    (values,) = feed(tokens, sizes(tokens, 1, 32)).values()
    assert values.shape == (3, 11 * 32)
    assert set(values.flat) == {0, 1}


def test_an_initializer_is_no_input():
    model = network("y = Add (x, w)", weights={"w": np.ones(8, np.float32)})
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [8]))
    given = load(model)
    assert list(feed(given, sizes(given, 0, 1))) == ["x"]


@pytest.mark.parametrize("kind", ["string[N, 8]", "float[9000, 9000, 9]", "float[0, 2]"])
def test_what_is_not_drawn_is_told(kind):
    given = load(network("y = Shape (x)", inputs=f"{kind} x", outputs="int64[r] y"))
    assert "input 'x'" in refusal_of(feed, given, sizes(given, 0, 1))
