"""What networks answer, and how two networks' answers differ."""

from __future__ import annotations

import numpy as np
import pytest
from answers import Agreement, Classification, Embedding, NextToken, Pitch, Score, Text, told
from metrics import wilson


def test_answers_are_compared_with_labels_and_with_the_ann():
    task = Classification(np.array([0, 1, 2, 3]))
    logits = np.eye(6, dtype=np.float32)
    ann, spiking = task.answers(logits[[0, 1, 2, 0]]), task.answers(logits[[0, 1, 0, 0]])
    figures = task.figures(ann, spiking)
    assert (figures["ann_top1"], figures["top1"], figures["agreement"]) == (0.75, 0.5, 0.75)
    assert figures["ann_top5"] == figures["top5"] == 1
    assert (figures["ann_top1_interval"], figures["top1_interval"]) == (list(wilson(3, 4)), list(wilson(2, 4)))
    assert figures["top5_interval"] == list(wilson(4, 4)) and figures["agreement_interval"] == list(wilson(3, 4))
    assert figures["top1_change_error"] == pytest.approx(np.std([0, 0, -1, 0]) / 2)
    assert told(figures) == "top-1 50.0% (-25.0 ± 21.7), agreement 75.0%"


def test_without_labels_answers_are_compared_with_the_ann_alone():
    task, logits = Agreement(), np.eye(6, dtype=np.float32)
    figures = task.figures(task.answers(logits[[0, 5, 2, 0]]), task.answers(logits[[0, 5, 0, 0]]))
    agreement = {"agreement": 0.75, "agreement_interval": list(wilson(3, 4)), "agreement_error": np.sqrt(3) / 8}
    assert figures == {"samples": 4, "ann_classes": 3, **agreement}
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


def test_scores_are_compared_with_those_of_the_ann():
    task = Score()
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.98, 0.02], [0.45, 0.55]])
    others = np.array([[0.86, 0.14], [0.6, 0.4], [0.98, 0.02], [0.43, 0.57]])
    figures = task.figures(task.answers(scores), task.answers(others))
    assert (figures["ann_positive"], figures["agreement"], figures["score_near"]) == (2, 0.75, 0.75)
    assert figures["score_difference"] == pytest.approx(0.26 / 4)
    assert figures["score_difference_error"] == pytest.approx(np.std([0.04, 0.2, 0, 0.02]) / 2)
    assert told(figures).startswith("score off by 0.0650 ± 0.0")


def test_texts_are_compared_with_the_truth_and_with_the_ann_s():
    task = Text(["abcd", "ef", "of a line that is not read"], list)
    figures = task.figures(task.answers(["abcd", "eg"]), task.answers(["abd", "eg"]))
    assert (figures["samples"], figures["characters"]) == (2, 6)
    assert figures["ann_character_error_rate"] == pytest.approx(1 / 6)
    assert figures["character_error_rate"] == pytest.approx(2 / 6)
    assert figures["character_difference"] == pytest.approx(1 / 6)
    # Of 4 and 2 characters one edit each: off the ratio by 1/3 and 1/3.
    assert figures["character_error_rate_error"] == pytest.approx(np.sqrt(2) / 3 / 6)
    assert (figures["same_text"], figures["same_text_interval"]) == (0.5, list(wilson(1, 2)))
    assert told(figures).startswith("character errors 33.3% ± 7.9 (ANN 16.7% ± ")


def test_an_ann_that_reads_nothing_has_no_text():
    task = Text(["a"], list)
    assert told(task.figures([""], ["a"])) == "there is no text"


def test_pitches_are_right_within_half_a_semitone():
    task = Pitch(np.array([440.0, 440, 440, 1]), np.asarray)
    figures = task.figures(task.answers([440, 452, 460]), task.answers([428, 440, 460]))
    # In cents 0, 46, 77, and -48, 0, 77; between them -48, -46, 0.
    assert (figures["ann_pitch_accuracy"], figures["pitch_accuracy"]) == (2 / 3, 2 / 3)
    assert figures["same_pitch"] == 1 and figures["median_cents"] == pytest.approx(1200 * np.log2(452 / 440))
    assert told(figures) == "pitch 66.7% (ANN 66.7%), same pitch 100.0%"
