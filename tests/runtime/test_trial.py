"""What a network is run on to see what it does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network
from refusals import refusal_of

from pconv_onnx import inspect
from pconv_onnx.graph import load
from pconv_onnx.runtime import trial
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


def _endless(opset: int, domain: str) -> onnx.ModelProto:
    """A Loop of 10^12 iterations, before a product that is onnxruntime's own, or one of an old opset."""
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["c"], ["d"]), onnx.helper.make_node("Neg", ["v"], ["n"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, ["N", 4]),
        ],
        [
            onnx.helper.make_tensor_value_info("d", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("n", onnx.TensorProto.FLOAT, ["N", 4]),
        ],
    )
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Loop", ["count", "true", "x"], ["z"], body=body),
            onnx.helper.make_node("FusedMatMul" if domain else "MatMul", ["z", "w"], ["u"], domain=domain),
            onnx.helper.make_node("Relu", ["u"], ["y"]),
        ],
        "endless",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [
            onnx.numpy_helper.from_array(np.array(10**12), "count"),
            onnx.numpy_helper.from_array(np.array(True), "true"),
            onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"),
        ],
    )
    imports = [onnx.helper.make_opsetid(*entry) for entry in (("", opset), ("com.microsoft", 1))]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_a_run_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    told = "the shapes of 'u' in the model are not known, since a run on random inputs does not end within 0.5 s"
    with pytest.warns(UserWarning, match=f"^{told}; declare them in the export$"):
        (activation,) = inspect(_endless(20, "com.microsoft"))["activations"]
    assert activation["reason"].startswith("how many axes its input has is not known")


def test_a_conversion_that_cannot_be_run_to_its_end_is_told_to_be_unchecked(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.5)
    with pytest.warns(UserWarning, match="not checked, since a run on random inputs does not end within 0.5 s"):
        assert len(inspect(_endless(11, ""))["activations"]) == 1


def test_a_conversion_that_is_too_large_to_be_run_is_told_to_be_unchecked():
    nodes = "t = ConstantOfShape (s) m = ReduceMax <keepdims = 0> (t) a = Add (x, m) y = Relu (a)"
    made = network(nodes, weights={"s": np.array([1 << 20, 1 << 10])}, opset=11)
    with pytest.warns(UserWarning, match="not checked, since 't' has 1,073,741,824 elements, too many for a run"):
        inspect(made)


def test_a_tensor_that_is_too_large_for_a_trial_is_not_made():
    made = network("t = ConstantOfShape (s) y = Add (x, t)", weights={"s": np.array([1 << 20, 1 << 10])})
    given = load(made)
    told = refusal_of(lambda: feed(given, sizes(given, 0, 1)))
    assert told == "'t' has 1,073,741,824 elements, too many for a run on random inputs"
