"""Activations that nothing multiplies any more stay, and the layer in front of them is corrected all the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from harness import onnxruntime_of
from networks import network, qcfs, weight

from pconv_onnx import PconvError, calibrate, inspect, rewrite, verify
from pconv_onnx.calibration import sweep
from pconv_onnx.recognise.calibratable import READOUT

WEIGHTS = {"w": weight(16, 3, 3, 3), "v": weight(16, 16, 3, 3, seed=1), "m": weight(16, 4)}
CONSTANTS = {"scale": np.float32(3), "high": np.float32(1), "zero": np.float32(0)}
OUTPUT = "float[N, c, i, j] y"
# From q, which a layer computes, to the output: none of what activations give is multiplied.
READOUTS = {
    "Relu": "y = Relu (q)",
    "Relu of an average": "r = Relu (q) y = GlobalAveragePool (r)",
    "Clip": "y = Clip (q, zero, high)",
    "Sigmoid": "y = Sigmoid (q)",
    "scaled Sigmoid": "r = Sigmoid (q) s = Mul (r, scale) y = Add (s, high)",
    "HardSwish": "y = HardSwish (q)",
    "Sigmoid of an Add": "r = Add (q, a) y = Sigmoid (r)",
    "beside a residual": "r = Tanh (q) y = Add (r, a)",
}
# What is multiplied in the end.
READ = {
    "by a layer": "r = Relu (q) y = Conv (r, v)",
    "behind an average": (
        "r = Relu (q) g = GlobalAveragePool (r) f = Flatten (g) n = Gemm (f, m) y = Unsqueeze (n, axes)"
    ),
    "by a gate": "r = Sigmoid (q) y = Mul (r, a)",
    "in a body": (
        "r = Relu (q) y = If (yes) <then_branch = g () => (float[N, c, i, j] o) { o = Conv (r, v) }, "
        "else_branch = h () => (float[N, c, i, j] e) { e = Conv (a, v) }>"
    ),
}  # fmt: skip


def model_of(end: str, front: str = "a = Relu (p)") -> onnx.ModelProto:
    """Two layers, the activation between them, and what follows q."""
    nodes = f"p = Conv <pads = [1, 1, 1, 1]> (x, w) {front} q = Conv <pads = [1, 1, 1, 1]> (a, v) {end}"
    more = {"axes": np.array([2, 3]), "yes": np.array(True), **CONSTANTS}
    weights = {name: value for name, value in (WEIGHTS | more).items() if f"{name})" in nodes or f"{name}," in nodes}
    return network(nodes, outputs=OUTPUT, weights=weights)


def told(ann: onnx.ModelProto) -> list[tuple[str, bool]]:
    """What is said of each activation: its status, and whether it is one that stays as a readout."""
    rows = inspect(ann)["activations"]
    return [(row["status"], row["reason"] == READOUT) for row in rows]


def samples(count: int = 64) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("method", ["refit", "fit", "max"])
@pytest.mark.parametrize("case", READOUTS)
def test_what_only_outputs_read_stays(case, method):
    ann = model_of(READOUTS[case])
    found = calibrate(ann, {"x": samples()}, steps=4, method=method)
    assert [reason for _, reason in found.left] == [READOUT]
    assert [entry.activation.output.name for entry in found.found.activations] == ["a"]
    result = rewrite(found.model, steps=4)
    assert [activation.status for activation in result.plan.activations] == ["converted", "refused"]
    assert verify(found.model, result.model, samples(8)).verdict != "different"


@pytest.mark.parametrize("case", READOUTS)
def test_it_is_told_before_a_calibration(case):
    assert told(model_of(READOUTS[case])) == [("needs-calibration", False), ("refused", True)]


@pytest.mark.parametrize("case", READ)
def test_what_is_multiplied_in_the_end_does_not(case):
    """Nor does the activation that it is multiplied with."""
    assert not any(stays for _, stays in told(model_of(READ[case])))


def test_nor_does_what_an_operator_of_another_domain_reads():
    """It may multiply."""
    ann = model_of("r = Relu (q) y = Softplus (r)")
    assert [stays for _, stays in told(ann)] == [False, True, True]
    ann.opset_import.add(domain="com.example", version=1)
    ann.graph.node[-1].domain = "com.example"
    assert [stays for _, stays in told(ann)] == [False, False]


@pytest.mark.parametrize("case", READOUTS)
def test_it_gets_levels_where_that_is_asked_for(case):
    found = calibrate(model_of(READOUTS[case]), {"x": samples()}, steps=4, readouts="spiking")
    assert not found.left and len(found.found.activations) == 2
    assert found.summary()["readouts"] == "spiking"


def test_what_its_neuron_encodes_stays_for_that_reason():
    found = calibrate(model_of("y = Gelu (q)"), {"x": samples()}, steps=4, readouts="spiking")
    _, analog, neuron = inspect(found.model)["activations"]
    assert analog["reason"].endswith("the neuron behind it encodes its output") and neuron["status"] == "converted"


@pytest.mark.parametrize(
    "options",
    [{"mode": "serial"}, {"mode": "integer"}, {"weights": "int8"}, {"per_step_outputs": True}, {"strict": True}],
    ids=str,
)
def test_it_gets_levels_where_what_is_rewritten_needs_them(options):
    ann, data = model_of("y = Relu (q)"), {"x": samples()}
    result = rewrite(ann, steps=4, calibration=data, **options)
    assert [activation.status for activation in result.plan.activations] == ["converted", "converted"]
    assert [activation.status for activation in rewrite(ann, steps=4, calibration=data).plan.activations] == [
        "converted",
        "refused",
    ]


def test_what_needs_levels_names_the_option():
    found = calibrate(model_of("y = Relu (q)"), {"x": samples()}, steps=4)
    with pytest.raises(PconvError, match="'y' needs the temporal mean of 'q'.*`readouts='spiking'`"):
        rewrite(found.model, steps=4, mode="serial")
    with pytest.raises(PconvError, match="there are no readouts 'silent'; choose analog or spiking"):
        calibrate(found.model, {"x": samples()}, steps=4, readouts="silent")


def test_where_nothing_is_multiplied_all_are_calibrated():
    ann = network("q = Conv (x, w) a = Relu (q) y = Sigmoid (a)", outputs=OUTPUT, weights={"w": WEIGHTS["w"]})
    found = calibrate(ann, {"x": samples()}, steps=4)
    assert not found.left and len(found.found.activations) == 2


def test_where_all_others_have_levels_it_is_calibrated():
    ann = model_of("y = Sigmoid (q)", qcfs("p", "a"))
    found = calibrate(ann, {"x": samples()}, steps=4)
    assert not found.left and [entry.activation.output.name for entry in found.found.activations] == ["y"]


def test_one_with_levels_of_its_own_is_converted():
    assert told(model_of(qcfs("q", "y"))) == [("needs-calibration", False), ("converted", False)]


def test_those_before_it_may_have_levels_of_their_own():
    assert told(model_of("y = Sigmoid (q)", qcfs("p", "a"))) == [("converted", False), ("refused", True)]


@pytest.mark.parametrize("case", READOUTS)
def test_the_layer_in_front_of_it_is_corrected(case, monkeypatch):
    """It makes up for part of what the quantisation of the activation before it takes away."""
    ann, data = model_of(READOUTS[case]), {"x": samples(600)}
    found = calibrate(ann, data, steps=2)
    assert found.found.corrections.keys() == {"p", "q"}
    monkeypatch.setattr(sweep, "readouts", lambda *_: [])
    without = calibrate(ann, data, steps=2)
    assert without.found.corrections.keys() == {"p"}
    x = samples(800)[600:]
    wanted, corrected, uncorrected = (onnxruntime_of(model, "y")(x) for model in (ann, found.model, without.model))
    assert np.square(corrected - wanted).mean() < np.square(uncorrected - wanted).mean()
