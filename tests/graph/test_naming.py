"""Names of activations and products: the path of a module where the node's own name says nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from networks import network, weight
from refusals import refusal_of

from pconv_onnx import calibrate, inspect, rewrite, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.naming import says_nothing
from pconv_onnx.graph.record import Record

# Node, FX node and path, as torch's newer exporter writes them: a normalisation is folded into the convolution, one
# module is called twice, a function is called in a block, and another in the root.
NODES = {
    "c": ("node_Conv_73", "_native_batch_norm", "layer1.bn1"),
    "r": ("node_relu", "relu", "layer1.relu"),
    "s": ("node_relu_1", "relu_1", "layer1.relu"),
    "t": ("", "relu_2", "layer2"),
    "u": ("node_relu_3", "relu_3", ""),
    "y": ("encoder/gate", "relu_4", "layer3"),
}


@pytest.fixture
def exported() -> onnx.ModelProto:
    nodes = "c = Conv (x, layer1_w) r = Relu (c)"
    for before, after in pairwise("rstuy"):
        nodes += f" {after}_in = Conv ({before}, layer1_w) {after} = Relu ({after}_in)"
    model = network(nodes, weights={"layer1_w": weight(3, 3, 1, 1)})
    for node in model.graph.node:
        node.input[:] = ["layer1.conv1.weight" if name == "layer1_w" else name for name in node.input]
        if node.output[0] not in NODES:
            continue
        node.name, traced, path = NODES[node.output[0]]
        parts = path.split(".")
        scopes = ["", *(".".join(parts[: n + 1]) for n in range(len(parts)) if path), traced]
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(scopes))
    (kernel,) = model.graph.initializer
    kernel.name = "layer1.conv1.weight"
    return model


def test_activations_are_called_by_their_modules_where_their_own_names_say_nothing(exported):
    rows = inspect(exported)["activations"]
    assert {row["name"]: row["also_called"] for row in rows} == {
        "layer1.relu:r": "node_relu",
        "layer1.relu:s": "node_relu_1",
        "layer2": "t",
        "node_relu_3": None,
        "encoder/gate": None,
    }


def test_a_product_is_called_after_the_module_of_its_weight(exported):
    found = load(exported)
    assert found.name_of(found.nodes[0]) == "layer1.conv1"


@pytest.mark.parametrize(("name", "silent"), [
    ("", True), ("n4", True), ("n4_2", True), ("Relu_12", True), ("node_relu", True), ("node_Relu_469", True),
    ("node_clamp_3", True), ("/layer1/layer1.0/relu/Relu", False), ("layer1.relu", False), ("stem_relu", False),
    ("relu_QuantizeLinear", False), ("node_gate", False),
])  # fmt: skip
def test_a_counter_behind_an_operator_says_nothing(name, silent):
    assert says_nothing(name, "Relu", "clamp_1") is silent


SAMPLES = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("pattern", "left"), [
    ("layer1.*", {"layer1.relu:r", "layer1.relu:s"}), ("node_relu_1", {"layer1.relu:s"}),
    ("node_relu*", {"layer1.relu:r", "layer1.relu:s", "node_relu_3"}), ("t", {"layer2"}),
])  # fmt: skip
def test_patterns_mean_either_name(pattern, left, exported):
    done = rewrite(exported, calibration=SAMPLES, steps=4, exclude=pattern)
    rows = done.summary()["activations"]
    assert {row["name"] for row in rows if row["reason"] == "excluded"} == left


@pytest.mark.parametrize("weights", [None, "int8"])
def test_patterns_mean_either_name_in_the_file_that_calibrate_writes(weights, exported, tmp_path):
    calibrate(exported, SAMPLES, tmp_path / "quantised.onnx", steps=4)
    done = rewrite(tmp_path / "quantised.onnx", exclude="node_relu*", weights=weights)
    rows = done.summary()["activations"]
    left = {row["name"] for row in rows if row["reason"] == "excluded"}
    assert left == {"layer1.relu:r", "layer1.relu:s", "node_relu_3"}
    assert {row["name"]: row["also_called"] for row in rows}["layer2"] == "t"


def test_a_pattern_of_neither_name_is_refused(exported):
    told = refusal_of(rewrite, exported, calibration=SAMPLES, steps=4, exclude="node_relu_7")
    assert "'node_relu_7' matches no activation" in told


def test_a_file_is_compared_whatever_its_record_calls_activations(exported):
    older = onnx.ModelProto()
    older.CopyFrom(exported)
    for node in older.graph.node:
        del node.metadata_props[:]
    models = [rewrite(model, calibration=SAMPLES, steps=4).model for model in (exported, older)]
    for model in models:
        for entry in model.metadata_props:
            if entry.key == "pconv_onnx.source_sha256":
                entry.value = load(exported).sha256
        verdict = verify(exported, model, SAMPLES)
        assert verdict.passed is not False
    names = [[entry.name for entry in Record.read(model).converted] for model in models]
    assert names[0][0] == "layer1.relu:r" and names[1][0] == "node_relu"
