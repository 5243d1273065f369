"""Top-1 and perplexity of tokens are what their definitions say; labels that fit no output are told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from refusals import refusal_of

from pconv_onnx.measure.tokens import TokenScore, require_classes, token_output

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(6, 5, 7)).astype(np.float32)
LABELS = np.where(GENERATOR.random((6, 5)) < 0.3, -100, GENERATOR.integers(0, 7, (6, 5)))
INF, NAN = np.inf, np.nan


def test_perplexity_and_top1_are_those_of_tokens_with_labels():
    losses, right = [], []
    for logits, label in zip(LOGITS.reshape(-1, 7).tolist(), LABELS.ravel().tolist(), strict=True):
        if label >= 0:
            losses.append(-math.log(math.exp(logits[label]) / sum(map(math.exp, logits))))
            right.append(max(logits) == logits[label])
    score = TokenScore.of(LOGITS, LABELS)
    assert score.tokens == len(losses) < LABELS.size
    assert score.summary() == {
        "token_top1": sum(right) / len(right),
        "perplexity": pytest.approx(math.exp(sum(losses) / len(losses))),
    }


def test_parts_together_are_the_whole():
    together = TokenScore.of(LOGITS[:2], LABELS[:2]) + TokenScore.of(LOGITS[2:], LABELS[2:])
    whole = TokenScore.of(LOGITS, LABELS)
    assert (together.correct, together.tokens) == (whole.correct, whole.tokens)
    assert together.loss == pytest.approx(whole.loss, rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "label", "top1", "perplexity"),
    [
        ([0, 0, 0, 0], 0, 1, 4),
        ([0, 0, 0, 0], 3, 0, 4),  # of equal ones the first, as in argmax
        ([1e4, 0, 0, 0], 0, 1, 1),
        ([1e4, 0, 0, 0], 1, 0, None),
        ([-1e4, -1e4, -2e4, -2e4], 0, 1, 2),
        ([0, -INF, 0, -INF], 2, 0, 2),
        ([0, -INF, 0, -INF], 1, 0, None),
        ([INF, 0, 0, 0], 0, 1, None),
        ([-INF, -INF, -INF, -INF], 1, 0, None),
        ([NAN, 0, 0, 0], 0, 0, None),
        ([1, 0, NAN, 0], 0, 0, None),
        ([1, 0, 0, 0], -100, None, None),
        ([1, 0, 0, 0], -1, None, None),
    ],
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_token_has_one_answer(logits, label, top1, perplexity, dtype):
    summary = TokenScore.of(np.array([[logits]], dtype), np.array([[label]])).summary()
    assert summary == {"token_top1": top1, "perplexity": pytest.approx(perplexity)}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_labels_may_be_integers_of_any_type(dtype):
    labels = np.abs(LABELS % 7)
    assert TokenScore.of(LOGITS, labels.astype(dtype)) == TokenScore.of(LOGITS, labels)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("outputs", "index"),
    [
        ({"y": zeros(6, 5, 7)}, 0),
        ({"pooled": zeros(6, 5), "y": zeros(6, 5, 7), "loss": zeros()}, 1),
        ({"states": zeros(6, 5, 9), "logits": zeros(6, 5, 7)}, 1),
        ({"prediction_Logits": zeros(6, 5, 7), "states": zeros(6, 5, 9), "class_logits": zeros(6, 2)}, 0),
        ({"logits": zeros(6, 4, 7), "y": zeros(6, 5, 7), "z": zeros(6, 5, 1)}, 1),
    ],
)
def test_labels_are_of_the_output_with_logits_of_as_many_tokens(outputs, index):
    assert token_output(list(outputs), list(outputs.values()), LABELS, "the model") == index


def test_labels_that_fit_no_output_or_several_are_told():
    def told(**outputs):
        return refusal_of(token_output, list(outputs), list(outputs.values()), LABELS, "the model")

    assert told(y=zeros(6, 5), z=zeros(6, 4, 7)) == (
        "'labels' are integers [N, 5], one a token, and no output of the model has logits of as many, [N, 5, classes]: "
        "'y' [N, 5], 'z' [N, 4, 7]; give a label for each token of an output, one for each sample as integers [N], or "
        "no labels"
    )
    several = (
        "'labels' are integers [N, 5], one a token, and several outputs of the model have values of as many tokens: "
        "{}; call the one that they are of 'logits', or keep it alone (onnx.utils.extract_model)"
    )
    assert told(y=zeros(6, 5, 8), z=zeros(6, 5, 7)) == several.format("'y' and 'z'")
    pair = {"a_logits": zeros(6, 5, 8), "b_logits": zeros(6, 5, 7)}
    assert told(x=zeros(6, 5, 7), **pair) == several.format("'a_logits' and 'b_logits'")


def test_labels_that_name_no_class_are_told_with_their_place():
    labels = LABELS.copy()
    labels[4, 2] = 7
    assert refusal_of(require_classes, labels, 7, "the model", 250) == (
        "'labels' has 7 at sample 254, token 2; the model has 7 classes of tokens; "
        "number them from 0 to 6, and leave a token out by -100"
    )
    require_classes(LABELS, 7, "the model", 0)
