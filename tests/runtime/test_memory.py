"""How many samples are run together: as many as their activations leave room for."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from batches import batch_sizes
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import rewrite, stats, verify
from pconv_onnx.graph import load
from pconv_onnx.measure import layer_check
from pconv_onnx.runtime.memory import alive_at_once, sample_bytes, samples_within

ROW = 3 * 8 * 8 * 4  # bytes of a sample of [N, 3, 8, 8]


def test_a_tensor_takes_its_rows_at_each_of_its_time_steps():
    found = load(network("y = Relu (x)"))
    assert sample_bytes(found, "x", {}) == sample_bytes(found, "y", {}) == ROW
    assert sample_bytes(found, "y", {"y": 5}) == 5 * ROW
    assert sample_bytes(found, "nothing of that name", {}) == 0
    assert (
        sample_bytes(
            load(network("y = Relu (x)", inputs="float[N, 3, H, W] x", outputs="float[N, 3, H, W] y")), "x", {}
        )
        == 0
    )


@pytest.mark.parametrize(
    ("nodes", "rows"),
    [
        ("y = Relu (x)", 2),
        ("a = Relu (x) b = Relu (a) c = Relu (b) y = Relu (c)", 2),
        ("a = Relu (x) b = Relu (a) c = Add (a, b) y = Relu (c)", 3),
        ("a = Relu (x) b = Relu (x) c = Relu (x) d = Sum (a, b, c) y = Relu (d)", 4),
    ],
)
def test_what_is_alive_is_what_somebody_still_reads(nodes, rows):
    # The input is the caller's, and stays.
    found = load(network(nodes))
    assert alive_at_once(found.proto.graph, partial(sample_bytes, found, steps={})) in (rows * ROW, (rows + 1) * ROW)


def test_time_steps_count():
    found = load(network("a = Relu (x) b = Relu (a) y = Relu (b)"))
    size = partial(sample_bytes, found, steps={"a": 10, "b": 10})
    assert alive_at_once(found.proto.graph, size) == (1 + 20) * ROW


@pytest.mark.parametrize(("memory", "taken", "count"), [(100, 10, 10), (100, 30, 3), (100, 1000, 1), (100, 0, 100)])
def test_one_sample_is_run_whatever_it_takes(memory, taken, count):
    assert samples_within(memory, taken) == count


@pytest.fixture
def wide():
    """Of large tensors, so that few samples fit in little memory."""
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = Conv (a, v)"
    weights = {"w": weight(8, 3, 1, 1), "v": weight(2, 8, 1, 1)}
    return network(nodes, inputs="float[N, 3, 64, 64] x", outputs="float[N, 2, 64, 64] y", weights=weights), {
        "x": np.random.default_rng(0).normal(size=(12, 3, 64, 64)).astype(np.float32)
    }


# A folded network has no time axis: of it more samples fit.
@pytest.mark.parametrize(("mode", "largest"), [("parallel", 2), ("folded", 6)])
def test_answers_do_not_depend_on_memory(wide, mode, largest, monkeypatch):
    ann, data = wide
    snn = rewrite(ann, mode=mode).model
    sizes = batch_sizes(monkeypatch, layer_check)
    expected = verify(ann, snn, data)
    together = max(sizes)
    sizes.clear()
    found = verify(ann, snn, data, memory=8 << 20)
    assert max(sizes) == largest < together == 12
    assert [(layer.mismatches, layer.elements) for layer in found.layers] == [
        (layer.mismatches, layer.elements) for layer in expected.layers
    ]
    assert found.passed and found.samples == 12
    assert stats(snn, data, memory=8 << 20).summary() == stats(snn, data).summary()


def test_too_little_is_told(wide):
    ann, data = wide
    snn = rewrite(ann).model
    for function, models in ((verify, (ann, snn)), (stats, (snn,))):
        told = refusal_of(function, *models, data, memory=1000)
        assert told == "1000 bytes are too few for activations; choose 1 MiB or more"
