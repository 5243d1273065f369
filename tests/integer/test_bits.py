"""A pretrained network in integers has the same bits in every form, with any batch, threads and optimisation."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest

from pconv_onnx import Rewriting, rewrite, session

INPUTS = {"input_bits": 8, "input_range": (-2.2, 2.8)}
# SHA-256 over the logits of the first 70 test images, float32.
INT8 = "5c8da548b16f592489646a20bcf67dd833e6ff71b1da74b1d418f853d2f7f76e"
INT4 = "69127a286208cb461e4a9068060ad053f932907ffcf968cad83a5d00992653c0"
FORMS = {
    "rate": {"coding": "rate"},
    "radix": {"coding": "radix", "steps": 4},
    "folded": {"mode": "folded"},
    "integer": {"mode": "integer"},
    "ann": {"mode": "folded"},
}
LEVELS = {"optimised": "ORT_ENABLE_ALL", "not optimised": "ORT_DISABLE_ALL"}


@pytest.fixture(scope="module")
def rewritten(qcfs_resnet) -> dict[str, Rewriting]:
    return {form: rewrite(qcfs_resnet, weights="int8", **INPUTS, **options) for form, options in FORMS.items()}


@pytest.fixture(scope="module")
def models(rewritten) -> dict[str, onnx.ModelProto]:
    return {form: one.integers.model if form == "ann" else one.model for form, one in rewritten.items()}


@pytest.fixture(scope="module")
def images(every_sample) -> np.ndarray:
    return every_sample["image"][:70]


def logits_hash(opened, model: onnx.ModelProto, images: np.ndarray, batch: int, threads: int, level: str) -> str:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    runner = opened(model, options)
    parts = [runner.run(None, {"image": images[at : at + batch]})[0] for at in range(0, len(images), batch)]
    logits = np.concatenate(parts)
    assert logits.shape == (len(images), 10)
    assert logits.dtype == np.float32
    return hashlib.sha256(logits.tobytes()).hexdigest()


def with_library(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return session(model, options=options)


def without_library(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


# Form, how it is run, batch, threads, optimisation; the function bodies of trains are slow.
RUNS = [
    ("rate", with_library, 1, 1, "optimised"),
    ("rate", with_library, 64, 2, "not optimised"),
    ("rate", without_library, 64, 2, "optimised"),
    ("radix", with_library, 7, 2, "optimised"),
    ("radix", with_library, 64, 1, "not optimised"),
    pytest.param("radix", without_library, 7, 2, "not optimised", marks=pytest.mark.slow),
    ("folded", with_library, 7, 1, "not optimised"),
    ("folded", with_library, 1, 2, "optimised"),
    ("folded", without_library, 64, 1, "optimised"),
    ("integer", with_library, 1, 2, "optimised"),
    ("integer", with_library, 7, 1, "not optimised"),
    ("integer", without_library, 64, 2, "optimised"),
    ("integer", without_library, 7, 1, "not optimised"),
    ("ann", without_library, 1, 1, "not optimised"),
    ("ann", without_library, 64, 2, "optimised"),
]


@pytest.mark.parametrize(
    ("form", "opened", "batch", "threads", "level"), RUNS, ids=lambda value: getattr(value, "__name__", None)
)
def test_logits_have_the_same_bits(models, images, library, form, opened, batch, threads, level):
    assert logits_hash(opened, models[form], images, batch, threads, level) == INT8


def test_logits_of_int4_weights_have_the_same_bits(qcfs_resnet, images, library):
    form = rewrite(qcfs_resnet, weights="int4", mode="folded", **INPUTS)
    assert logits_hash(with_library, form.model, images, 64, 2, "optimised") == INT4
    assert logits_hash(without_library, form.integers.model, images, 7, 1, "not optimised") == INT4


@pytest.mark.parametrize("form", FORMS)
def test_every_sum_is_proved_exact(rewritten, form):
    summary = rewritten[form].integers.summary()
    assert summary["exact"]
    assert summary["islands"] == {}
    assert [layer["op_type"] for layer in summary["layers"]] == ["Conv"] * 19 + ["Gemm"]
