"""The whole of it on a pretrained network and real images."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from pconv_onnx import register, session
from pconv_onnx.rewriting import rewrite

MODES = ("parallel", "folded")
DISABLED = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


def logits(runner, images, batch=100) -> np.ndarray:
    parts = [runner.run(None, {"image": images[i : i + batch]})[0] for i in range(0, len(images), batch)]
    return np.concatenate(parts)


def unoptimised() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = DISABLED
    return options


@pytest.fixture(scope="module")
def spiking(qcfs_resnet) -> dict[str, onnx.ModelProto]:
    return {mode: rewrite(qcfs_resnet, mode=mode).model for mode in MODES}


@pytest.fixture(scope="module")
def source(qcfs_resnet):
    return onnxruntime.InferenceSession(qcfs_resnet, unoptimised())


@pytest.fixture(scope="module")
def every_image(every_sample) -> tuple[np.ndarray, np.ndarray]:
    assert len(every_sample["image"]) == 1000
    return every_sample["image"], every_sample["labels"]


def test_folded_has_the_bits_of_the_quantised_network(source, spiking, every_image):
    images, _ = every_image
    folded = session(spiking["folded"], options=unoptimised())
    np.testing.assert_array_equal(logits(folded, images), logits(source, images))


def test_parallel_agrees_with_the_quantised_network(source, spiking, every_image):
    """As a user runs it, against the network's own operators: top-1 on 99.9 %, accuracy within 0.1 point."""
    images, labels = every_image
    expected = logits(source, images).argmax(1)
    found = logits(session(spiking["parallel"]), images).argmax(1)
    assert (found == expected).mean() >= 0.999
    assert abs((found == labels).mean() - (expected == labels).mean()) <= 0.001


def test_all_activations_become_neurons_of_eight_steps(spiking):
    for model in spiking.values():
        types = [node.op_type for node in model.graph.node]
        assert types.count("ParallelSpike") == 19
        assert not {"Floor", "Clip"} & set(types)


def test_spikes_are_zero_or_the_threshold(spiking, every_image):
    """Every neuron of the parallel network emits sorted trains of two values; looked at in the network itself."""
    images, _ = every_image
    model = onnx.ModelProto()
    model.CopyFrom(spiking["parallel"])
    nodes = [node for node in model.graph.node if node.op_type == "ParallelSpike"]
    tables = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    declared = {info.name: info for info in model.graph.value_info}
    for node in nodes:
        model.graph.output.append(declared[node.output[0]])
    runner = onnxruntime.InferenceSession(model.SerializeToString(), register(onnxruntime.SessionOptions()))
    outputs = runner.run([node.output[0] for node in nodes], {"image": images[:4]})
    for node, trains in zip(nodes, outputs, strict=True):
        firing = tables[node.input[2]][0, -1]
        assert set(np.unique(trains)) == {0, firing}
        by_step = trains.reshape(8, 4, -1)
        assert (np.diff(by_step, axis=0) <= 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_without_the_library_it_gives_what_it_gives_with_it(mode, spiking, every_image):
    images = every_image[0][:40]
    content = spiking[mode].SerializeToString()
    alone = onnxruntime.InferenceSession(content, unoptimised())
    library = onnxruntime.InferenceSession(content, register(unoptimised()))
    np.testing.assert_array_equal(logits(alone, images), logits(library, images))


@pytest.mark.parametrize("mode", MODES)
def test_blocked_neurons_give_the_bits_of_an_ordinary_session(mode, spiking, every_image):
    images = every_image[0][:100]
    ordinary = onnxruntime.InferenceSession(spiking[mode].SerializeToString(), register(onnxruntime.SessionOptions()))
    np.testing.assert_array_equal(logits(session(spiking[mode]), images), logits(ordinary, images))


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_other_steps_than_levels_run(qcfs_resnet, steps, every_image):
    """Not lossless, but a network still: better than chance at T = 1, close to its source at T > L."""
    images, labels = every_image[0][:100], every_image[1][:100]
    accuracy = (logits(session(rewrite(qcfs_resnet, steps=steps).model), images).argmax(1) == labels).mean()
    assert accuracy > {1: 0.15, 4: 0.7, 16: 0.75}[steps]
