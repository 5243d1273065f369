"""What networks answer, and how two networks' answers differ."""

from __future__ import annotations

import numpy as np
import pytest
from answers import Agreement, Classification, Embedding, NextToken, told


def test_answers_are_compared_with_labels_and_with_the_ann():
    task = Classification(np.array([0, 1, 2, 3]))
    logits = np.eye(6, dtype=np.float32)
    ann, spiking = task.answers(logits[[0, 1, 2, 0]]), task.answers(logits[[0, 1, 0, 0]])
    figures = task.figures(ann, spiking)
    assert (figures["ann_top1"], figures["top1"], figures["agreement"]) == (0.75, 0.5, 0.75)
    assert figures["ann_top5"] == figures["top5"] == 1
    assert figures["top1_change_error"] == pytest.approx(np.std([0, 0, -1, 0]) / 2)
    assert told(figures) == "top-1 50.0% (-25.0 ± 21.7), agreement 75.0%"


def test_without_labels_answers_are_compared_with_the_ann_alone():
    task, logits = Agreement(), np.eye(6, dtype=np.float32)
    figures = task.figures(task.answers(logits[[0, 5, 2, 0]]), task.answers(logits[[0, 5, 0, 0]]))
    assert figures == {"samples": 4, "ann_classes": 3, "agreement": 0.75, "agreement_error": np.sqrt(3) / 8}
    assert told(figures) == "agreement 75.0% ± 21.7, of 3 classes"


def test_embeddings_are_compared_by_their_direction():
    ann = np.array([[1, 0], [0, 2], [1, 0]], np.float32)
    spiking = np.array([[5, 0], [0, 0.5], [3, 4]], np.float32)
    figures = Embedding().figures(Embedding().answers(ann), Embedding().answers(spiking))
    assert (figures["samples"], figures["cosine_median"]) == (3, 1)
    # Between the smallest cosine, 0.6, and the next, 1, a tenth of the way.
    assert figures["cosine_quantile_05"] == pytest.approx(0.64)
    assert figures["cosine_mean"] == pytest.approx(2.6 / 3)
    assert figures["cosine_mean_error"] == pytest.approx(np.std([1, 1, 0.6]) / np.sqrt(3))
    assert told(figures) == "cosine 1.0000, 5 % below 0.6400, mean 0.8667"


def logits(*shares: tuple[float, float]) -> np.ndarray:
    """Of one passage, for so many tokens, whose softmax these are; at any height."""
    return (np.log(shares) + 100).astype(np.float32)


def test_perplexity_is_of_all_tokens_and_its_error_of_passages():
    task = NextToken(np.array([[0, 1], [1, 1], [0, 0]]))
    ann = task.answers(np.stack([logits((0.5, 0.5), (0.5, 0.5)), logits((0.25, 0.75), (0.75, 0.25))]))
    spiking = task.answers(np.stack([logits((0.25, 0.75), (0.75, 0.25)), logits((0.25, 0.75), (0.25, 0.75))]))
    figures = task.figures(ann, spiking)
    assert (figures["samples"], figures["tokens"]) == (2, 4)
    # Of the right bytes the ANN's shares are 1/2, 1/2, 3/4, 1/4, and the other's 1/4, 1/4, 3/4, 3/4.
    assert figures["ann_perplexity"] == pytest.approx((64 / 3) ** (1 / 4), rel=1e-4)
    assert figures["perplexity"] == pytest.approx((256 / 9) ** (1 / 4), rel=1e-4)
    assert figures["perplexity_ratio"] == pytest.approx((4 / 3) ** (1 / 4), rel=1e-4)
    # A passage's loss grows by ln 2, and by −ln 3 / 2.
    error = (4 / 3) ** (1 / 4) * np.std([np.log(2), -np.log(3) / 2]) / np.sqrt(2)
    assert figures["perplexity_ratio_error"] == pytest.approx(error, rel=1e-4)
    # Of equal logits the first counts: 1 of 2 tokens agree in both passages.
    assert (figures["token_agreement"], figures["token_agreement_error"]) == (0.5, 0)
    assert told(figures) == "perplexity 2.31 of 2.15 (1.075 ± 0.472 ×), agreement 50.0% ± 0.0"
