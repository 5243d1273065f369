"""A network kept in the metadata of another: whole again, or told."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import onnx
import pytest
from networks import network, weight
from onnx import numpy_helper

from pconv_onnx.graph import sketch as module
from pconv_onnx.graph.sketch import redrawn, sketch

NODES = "a = Conv (x, w) b = Conv (a, v) c = Add (b, k) y = If (yes) <then_branch = t () => (float[N, 3, 8, 8] p) " \
    "{ p = Add (c, k) }, else_branch = e () => (float[N, 3, 8, 8] q) { q = Neg (c) }>"  # fmt: skip
W, V, K = weight(3, 3, 1, 1), weight(3, 3, 1, 1, seed=1), np.float32(0.3)


def of(**weights) -> onnx.ModelProto:
    return network(NODES, weights={"w": W, "v": V, "k": K, "yes": np.array(True)} | weights)


def values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_network_is_drawn_again_from_what_others_hold():
    source, made = of(), of(v=2 * V, k=np.float32(7))
    own = of(v=2 * V, k=np.float32(1))
    model, changed = redrawn(sketch(made, source, own), source, own)
    assert model.graph.node == made.graph.node and changed == []
    # `k` is of neither as it was: with the one that keeps the sketch it goes along.
    assert values(model).keys() == values(made).keys()
    for name, value in values(made).items():
        np.testing.assert_array_equal(values(model)[name], value if name != "k" else np.float32(1))


def test_what_others_hold_takes_no_room():
    source, own = of(), of(v=2 * V)
    large = weight(64, 3, 64, 64)
    big = network("y = Conv (x, w)", weights={"w": large}, outputs="float y")
    assert len(sketch(big, big, own)) < 2000 < len(sketch(big, source, own))


def test_a_tensor_that_has_changed_since_is_told():
    source, made = of(), of(v=2 * V)
    text = sketch(made, source, made)
    assert redrawn(text, source, of(v=3 * V))[1] == ["v"]
    assert redrawn(text, source, made)[1] == []


def test_a_narrower_network_has_what_it_holds():
    source, made, own = of(), of(v=2 * V), of(v=(2 * V).astype(np.float16))
    model, changed = redrawn(sketch(made, source, own), source, own)
    assert changed == []
    np.testing.assert_array_equal(values(model)["v"], (2 * V).astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("text", ["", "%", "QUJD", base64.b64encode(zlib.compress(b"\xff" * 9)).decode()])
def test_what_is_no_sketch_is_told(text):
    with pytest.raises(ValueError, match=r"."):
        redrawn(text, of(), of())


def test_a_sketch_that_needs_what_is_not_there_is_told():
    made = of(v=2 * V)
    text = sketch(made, of(), made)
    for other in (network("y = Relu (x)"), of(v=weight(3, 3, 3, 3))):
        with pytest.raises(ValueError, match="the tensor 'v' is not there"):
            redrawn(text, of(), other)


def test_a_sketch_does_not_expand_without_end(monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 1 << 20)
    bomb = base64.b64encode(zlib.compress(bytes(1 << 24), 9)).decode()
    assert len(bomb) < 1 << 16
    with pytest.raises(ValueError, match="would expand to too much"):
        redrawn(bomb, of(), of())
