"""Attention in both exporters' spellings: every product reads spikes, and the answers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from attention import CASES  # noqa: E402

from pconv_onnx import calibrate, rewrite, session, verify  # noqa: E402

NAMES = ("x", "more")


def exported(case, folder, *, dynamo):
    torch.manual_seed(0)
    make, inputs = CASES[case]
    path, names = folder / "model.onnx", [*NAMES[: len(inputs)]]
    options = {"dynamo": dynamo, "input_names": names, "output_names": ["y"], "external_data": False}
    if dynamo:
        batch = {0: torch.export.Dim("batch")}
        options["dynamic_shapes"] = (batch, (batch,)) if len(inputs) > 1 else (batch,)
    else:
        options |= {"opset_version": 17, "dynamic_axes": {name: {0: "batch"} for name in (*names, "y")}}
    torch.onnx.export(make().eval(), inputs, path, **options)
    return onnx.load(path), {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}


def samples(feed, count=24):
    rng = np.random.default_rng(1)
    return {
        name: rng.normal(size=(count, *value.shape[1:])).astype(np.float32) if value.ndim == 3 else
        np.resize(value, (count, *value.shape[1:]))
        for name, value in feed.items()
    }  # fmt: skip


# What dynamo spells in its own way; with `--full` it exports all of them, which takes seconds each.
OF_DYNAMO = ("masked", "grouped queries", "nn.TransformerEncoderLayer")


def pytest_generate_tests(metafunc):
    of_dynamo = CASES if metafunc.config.getoption("full") else OF_DYNAMO
    pairs = [*((case, False) for case in CASES), *((case, True) for case in of_dynamo)]
    ids = [f"{case}-{'dynamo' if dynamo else 'torchscript'}" for case, dynamo in pairs]
    metafunc.parametrize("case, dynamo", pairs, ids=ids)


def test_every_product_of_attention_reads_spikes(case, dynamo, tmp_path):
    model, feed = exported(case, tmp_path, dynamo=dynamo)
    data = samples(feed)
    found = calibrate(model, data, steps=8, coding="radix", neurons="products", method="max")
    summary = found.summary()
    assert summary["spike_driven"]["share"] == 1 and summary["spike_driven"]["not_on_spikes"] == []
    operators = [node.op_type for node in found.model.graph.node]
    assert operators.count("Softmax") == operators.count("ReduceMax") == 1
    spiking = rewrite(found.model, coding="radix").model
    checked = verify(found.model, spiking, data).summary()
    assert checked["verdict"] == "equal", checked["not_compared"]
    expected, answers = (session(one).run(None, data)[0] for one in (model, spiking))
    assert np.square(answers - expected).mean() < 2e-3 * np.square(expected).mean()
