"""Activations without a quantiser: each is listed once, with what to do, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import network, qcfs
from onnx import helper

from pconv_onnx import inspect, rewrite, session
from pconv_onnx.graph import load
from pconv_onnx.recognise import recognise

CONSTANTS = {"low": np.float32(0), "six": np.float32(6), "minus": np.float32(-1), "tiny": np.float32(1e-12)}
# Neither is a bound, but the checker lets both through.
NO_BOUNDS = {"lows": np.zeros(2, np.float32), "text": np.array("zero", object)}


def listed(nodes: str, opset: int = 20, weights=CONSTANTS, **options) -> list[tuple[str, str]]:
    """Operators and reason of each activation that is listed."""
    found = recognise(load(network(nodes, weights=dict(weights), opset=opset, **options)))
    assert all(activation.status == "needs-calibration" for activation in found)
    return [(" ".join(activation.op_types), activation.reason) for activation in found]


@pytest.mark.parametrize("opset", [20, 22])
@pytest.mark.parametrize("op_type", ["Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Selu",
                                     "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"])  # fmt: skip
def test_operators_without_levels_are_listed(op_type, opset):
    ((operators, reason),) = listed(f"y = {op_type} (x)", opset)
    assert operators == op_type
    if op_type in ("Gelu", "HardSwish", "Mish"):
        assert " has no levels of its own and does not ascend throughout, so it stays analog, on the temporal" in reason
        assert reason.endswith("; pass `calibration='data.npz', steps=T` for a neuron behind it")
    else:
        assert " has no levels of its own, so it runs on the temporal mean; pass `calibration='data.npz'" in reason


def test_prelu_is_listed():
    ((operators, reason),) = listed("y = PRelu (x, slope)", weights={"slope": np.full((3, 1, 1), 0.2, np.float32)})
    assert (operators, reason.split()[0]) == ("PRelu", "PReLU")


@pytest.mark.parametrize("op_type", ["FastGelu", "Gelu", "QuickGelu"])
def test_operators_of_onnxruntime_s_optimiser_are_listed(op_type):
    model = network("y = Identity (x)")
    model.graph.node[0].CopyFrom(helper.make_node(op_type, ["x"], ["y"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (activation,) = recognise(load(model))
    assert activation.op_types == [op_type]
    model.graph.node[0].domain = model.opset_import[1].domain = "somebody.else"
    assert recognise(load(model)) == []


@pytest.mark.parametrize(
    ("bounds", "name"),
    [("low, six", "Clip to [0, 6]"), ("low", "Clip to [0, ∞)"), ("minus, six", "Clip to [-1, 6]")],
)
def test_a_clip_that_is_an_activation_is_listed_by_its_bounds(bounds, name):
    ((_, reason),) = listed(f"y = Clip (x, {bounds})")
    assert reason.startswith(f"{name} has no levels of its own")


@pytest.mark.parametrize("nodes", [
    "y = Clip (x, tiny)",
    "y = Clip (x, , six)",
    "y = Clip (x)",
    "y = Clip (x, lows)",
    "y = Clip (x, text)",
    "i = Cast <to = 7> (x) a = Cast <to = 7> (low) b = Cast <to = 7> (six) j = Clip (i, a, b) y = Cast <to = 1> (j)",
    "y = Erf (x)",
    "y = Softmax (x)",
    "s = Softplus (six) y = Mul (x, s)",
])  # fmt: skip
def test_what_is_no_activation_is_not_listed(nodes):
    assert listed(nodes, weights=CONSTANTS | NO_BOUNDS) == []


@pytest.mark.parametrize("bounds", ["b, six", "low, b", ", b"])
def test_a_clip_with_a_computed_bound_is_refused(bounds):
    (activation,) = recognise(load(network(f"b = ReduceMax (x) y = Clip (x, {bounds})", weights=dict(CONSTANTS))))
    assert activation.status == "refused"
    assert activation.reason == "its bound 'b' is computed; a Clip with constant bounds can be calibrated"


MODULES = {
    "GELU": torch.nn.GELU(),
    "GELU by tanh": torch.nn.GELU(approximate="tanh"),
    "SiLU": torch.nn.SiLU(),
    "HardSwish": torch.nn.Hardswish(),
    "Mish": torch.nn.Mish(),
}


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("case", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_products_are_one_activation(case, dynamo, tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), MODULES[case], torch.nn.Conv2d(3, 3, 1))
    path = tmp_path / "m.onnx"
    options = {"dynamo": True, "opset_version": 18} if dynamo else {"dynamo": False, "opset_version": 13}
    torch.onnx.export(model, (torch.zeros(1, 3, 4, 4),), path, **options)
    (row,) = inspect(path)["activations"]
    assert (row["encoding"], row["status"]) == ("analog", "needs-calibration")
    assert row["reason"].split()[0] == case.split()[0]


@pytest.mark.parametrize("nodes", [
    "h = Mul (x, half) d = Div (x, six) e = Erf (d) s = Add (e, one) y = Mul (h, s)",
    "d = Div (x, six) e = Erf (d) s = Add (one, e) p = Mul (x, s) y = Mul (p, half)",
    "d = Div (x, six) e = Erf (d) s = Add (e, one) h = Mul (s, half) y = Mul (h, x)",
])  # fmt: skip
def test_a_gelu_may_be_halved_anywhere(nodes):
    ((operators, reason),) = listed(nodes)
    assert operators.startswith("Div Erf Add") and reason.startswith("GELU ")


def test_a_gate_of_another_tensor_is_listed_by_itself():
    """As in squeeze-and-excitation."""
    ((operators, reason),) = listed("g = GlobalAveragePool (x) s = Sigmoid (g) y = Mul (x, s)")
    assert operators == "Sigmoid" and reason.startswith("Sigmoid ")


def test_parts_of_a_quantiser_that_is_refused_are_not_listed_again():
    (activation,) = recognise(load(network(qcfs("x", "y"), weights={"theta": -2.0})))
    assert (activation.encoding, activation.status) == ("uniform", "refused")


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize(
    "identity", ["Relu (p)", "Clip (p, low, six)", "Clip (p, low)"], ids=["Relu", "ReLU6", "Clip at zero"]
)
def test_a_relu_on_spikes_is_the_identity_and_not_listed(identity, mode):
    nodes = f"{qcfs('x', 'a')} p = MaxPool <kernel_shape = [1, 1]> (a) r = {identity} y = GlobalAveragePool (r)"
    ann = network(nodes, weights=CONSTANTS, outputs="float[N, 3, 1, 1] y")
    result = rewrite(ann, mode=mode)
    assert [activation.encoding for activation in result.plan.activations] == ["qcfs"]
    x = np.random.default_rng(0).normal(0, 2, (4, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(*(session(m).run(None, {"x": x})[0] for m in (ann, result.model)), rtol=1e-6)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize(
    "nodes", ["p = MaxPool <kernel_shape = [1, 1]> (a) y = Clip (p, low, one)", "n = Neg (a) y = Relu (n)"]
)
def test_a_relu_that_cuts_spikes_is_listed(nodes, mode):
    ann = network(qcfs("x", "a") + nodes, weights=CONSTANTS)
    assert [a.status for a in rewrite(ann, mode=mode).plan.activations] == ["converted", "needs-calibration"]


CLIPS = {
    "trainable clipping": ("r = Relu (x) s = Sub (c, r) t = Relu (s) y = Sub (c, t)", "Clip to [0, 1.5]"),
    "min behind": ("r = Relu (x) y = Min (r, c)", "Clip to [0, 1.5]"),
    "max behind": ("m = Min (c, x) y = Max (m, low)", "Clip to [0, 1.5]"),
    "two clips": ("r = Clip (x, low, six) y = Min (r, c)", "Clip to [0, 1.5]"),
    "a choice": ("k = Greater (x, low) y = Where (k, x, low)", "Clip to [0, ∞)"),
    "a choice, then a bound": ("k = LessOrEqual (x, low) w = Where (k, low, x) y = Min (w, c)", "Clip to [0, 1.5]"),
    "negative": ("n = Neg (x) m = Min (n, low) o = Max (m, less) y = Neg (o)", "Clip to [0, 1.5]"),
}
BOUNDS = {**CONSTANTS, "c": np.float32(1.5), "less": np.float32(-1.5)}


@pytest.mark.parametrize("case", CLIPS)
def test_a_clip_in_several_operators_is_one_activation(case):
    nodes, name = CLIPS[case]
    ((operators, reason),) = listed(nodes, weights=BOUNDS)
    assert len(operators.split()) == nodes.count("=")
    assert reason.startswith(f"{name} has no levels of its own")


@pytest.mark.parametrize("nodes, count", [
    ("r = Relu (x) s = Sub (c, r) t = Relu (s) y = Sub (six, t)", 2),  # other bounds
    ("r = Relu (x) s = Sub (c, r) t = Relu (s) u = Sub (c, t) y = Add (u, r)", 2),  # read elsewhere
    ("r = Relu (x) y = Min (r, wide)", 1),  # another shape
    ("r = Relu (x) y = Identity (r)", 1),  # one operator
])  # fmt: skip
def test_what_is_no_clip_is_listed_by_its_parts(nodes, count):
    weights = {**BOUNDS, "wide": np.ones((1, 1, 1, 1, 1), np.float32)}
    outputs = "float[A, N, 3, 8, 8] y" if "wide" in nodes else "float[N, 3, 8, 8] y"
    found = listed(nodes, weights=weights, outputs=outputs)
    assert [operators for operators, _ in found] == ["Relu"] * count


def test_clips_of_integers_are_no_activations():
    nodes = "i = Cast <to = 7> (x) m = Max (i, zero) n = Min (m, nine) y = Cast <to = 1> (n)"
    assert listed(nodes, weights={"zero": np.array(0), "nine": np.array(9)}) == []
