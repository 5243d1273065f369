"""Cosines of vectors are right, also of zeros and of what is no number, and are those of all shards together."""

from __future__ import annotations

import numpy as np
import pytest

from pconv_onnx.runtime.likeness import Likeness, divergences, same_answers

GENERATOR = np.random.default_rng(0)
INF, NAN = np.inf, np.nan


def values(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)


def cosines(likeness: Likeness) -> np.ndarray:
    return np.concatenate(likeness.cosines)


def numpy_cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    return (ours * theirs).sum(-1) / np.sqrt((ours * ours).sum(-1) * (theirs * theirs).sum(-1))


@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 3, 5), (6, 5, 1)])
def test_a_sample_is_one_vector(shape):
    ours, theirs = values(*shape), values(*shape)
    found = Likeness.of(ours, theirs, 6)
    assert (found.samples, found.vectors, found.by_token, found.agreement()) == (6, 6, False, None)
    assert cosines(found) == pytest.approx(numpy_cosines(ours.reshape(6, -1), theirs.reshape(6, -1)), abs=1e-6)
    assert found.cosine()["of"] == "samples"


def test_a_token_is_a_vector_of_three_axes():
    ours, theirs = values(6, 7, 4), values(6, 7, 4)
    found = Likeness.of(ours, theirs, 6)
    assert (found.samples, found.vectors, found.by_token) == (6, 42, True)
    expected = numpy_cosines(ours, theirs).ravel()
    assert cosines(found) == pytest.approx(expected, abs=1e-6)
    assert found.agreement() == (ours.argmax(2) == theirs.argmax(2)).mean()
    assert found.cosine() == {
        "of": "tokens",
        "count": 42,
        "not_finite": 0,
        "median": pytest.approx(np.median(expected), abs=1e-6),
        "quantile_05": pytest.approx(np.quantile(expected, 0.05), abs=1e-6),
        "mean": pytest.approx(expected.mean(), abs=1e-6),
    }


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_tokens_with_a_mask_of_zero_are_left_out(dtype):
    ours, theirs = values(6, 7, 4), values(6, 7, 4)
    mask = (np.arange(7) < np.array([7, 3, 1, 0, 5, 2])[:, np.newaxis]).astype(dtype)
    theirs[mask == 0] = NAN
    found = Likeness.of(ours, theirs, 6, mask)
    kept = mask != 0
    assert (found.samples, found.vectors) == (6, 18)
    assert cosines(found) == pytest.approx(numpy_cosines(ours[kept], theirs[kept]), abs=1e-6)
    assert found.agreement() == (ours[kept].argmax(1) == theirs[kept].argmax(1)).mean()


@pytest.mark.parametrize("shape", [(6, 8, 4), (6, 4), (6, 7, 1), (6, 7, 2, 2)])
def test_a_mask_is_not_for_outputs_of_other_shapes(shape):
    ours, theirs = values(*shape), values(*shape)
    masked, plain = (Likeness.of(ours, theirs, 6, mask) for mask in (np.zeros((6, 7), int), None))
    assert masked.vectors == plain.vectors > 0
    assert masked.cosine() == plain.cosine()


def test_a_mask_of_zeros_leaves_nothing():
    found = Likeness.of(values(6, 7, 4), values(6, 7, 4), 6, np.zeros((6, 7), int))
    assert (found.samples, found.cosine(), found.agreement()) == (6, None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "cosine"),
    [
        ([0, 0], [0, 0], 1),
        ([0, 0], [1, 2], 0),
        ([1, 2], [0, 0], 0),
        ([1, 2], [1, 2], 1),
        ([1, 2], [-2, -4], -1),
        ([1, 0], [0, 3], 0),
        ([3, 4], [4, 3], 0.96),
        ([1e38, 1e38], [3e38, 3e38], 1),
        ([1e-45, 0], [1, 1], np.sqrt(0.5)),
        ([NAN, 1], [1, 1], NAN),
        ([1, 1], [1, NAN], NAN),
        ([INF, 1], [1, 1], NAN),
        ([0, 0], [NAN, 1], NAN),
        ([NAN, NAN], [NAN, NAN], NAN),
    ],
)
def test_every_pair_of_vectors_has_one_cosine(ours, theirs, cosine):
    found = Likeness.of(np.float32([ours]), np.float32([theirs]), 1)
    assert cosines(found) == pytest.approx([cosine], abs=1e-6, nan_ok=True)
    assert (cosines(found)[0] == 1) == (cosine == 1)
    assert found.cosine()["not_finite"] == np.isnan(cosine)


def test_doubles_whose_squares_multiply_to_infinity_have_a_cosine():
    pair = np.array([[3e120, 4e120]]), np.array([[4e120, 3e120]])
    assert cosines(Likeness.of(*pair, 1)) == pytest.approx([0.96])


def of_cosines(*given: float) -> Likeness:
    return Likeness(len(given), (np.float32(given),))


def test_what_is_no_number_is_less_alike_than_any_other():
    summary = of_cosines(NAN, *np.linspace(0.5, 1, 40)).cosine()
    assert (summary["count"], summary["not_finite"], summary["mean"]) == (41, 1, None)
    # Of 41 the third from below is the quantile of 5 %.
    assert summary["quantile_05"] == pytest.approx(np.linspace(0.5, 1, 40)[1])
    assert summary["median"] == pytest.approx(np.linspace(0.5, 1, 40)[19])
    summary = of_cosines(NAN, 1, 1, 1).cosine()
    assert (summary["not_finite"], summary["median"], summary["quantile_05"]) == (1, 1, None)
    summary = of_cosines(NAN, NAN, NAN, 1).cosine()
    assert (summary["not_finite"], summary["median"], summary["quantile_05"], summary["mean"]) == (3, None, None, None)


def test_parts_together_are_the_whole():
    ours, theirs = values(60, 7, 4), values(60, 7, 4)
    whole = Likeness.of(ours, theirs, 60)
    parts = (
        Likeness.of(ours[rows], theirs[rows], rows.stop - rows.start) for rows in map(slice, (0, 1, 40), (1, 40, 60))
    )
    together = sum(parts, start=Likeness())
    assert (together.samples, together.agreement()) == (60, whole.agreement())
    assert together.cosine() == whole.cosine()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (values(1, 5, 4), values(1, 5, 4)),  # none a sample
        (values(), values()),
        (values(6), values(6)),
        (values(6, 1), values(6, 1)),
        (values(6, 0), values(6, 0)),
        (values(6, 5), values(6, 4)),
    ],
    ids=lambda array: str(array.shape),
)
def test_outputs_without_vectors_of_samples_have_no_cosines(ours, theirs):
    found = Likeness.of(ours, theirs, 6)
    assert (found, found.cosine(), found.agreement()) == (Likeness(), None, None)


def test_samples_without_tokens_have_no_cosines():
    found = Likeness.of(values(6, 0, 4), values(6, 0, 4), 6)
    assert (found.samples, found.cosine(), found.agreement()) == (6, None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([0, 2, 1], [0, 9, 8], True),
        ([2, 0, 1], [0, 9, 8], False),
        ([2, 2, 1], [9, 9, 8], True),  # of equal ones the first
        ([1, 2, 2], [1, 0, 2], False),
        ([0, INF, 1], [0, 9, -INF], True),
        ([NAN, 2, 1], [NAN, 2, 1], False),
        ([0, 2, 1], [0, 2, NAN], False),
    ],
)
def test_among_nans_no_answer_is_the_same(ours, theirs, same):
    assert same_answers(np.float32([ours]), np.float32([theirs])).tolist() == [same]


def test_divergences_are_of_logits_or_probabilities():
    generator = np.random.default_rng(0)
    ours, theirs = (generator.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
    shares = [np.exp(rows) / np.exp(rows).sum(1, keepdims=True) for rows in (ours, theirs)]
    expected = (shares[1] * np.log(shares[1] / shares[0])).sum(1)
    assert (expected > 0).all()
    np.testing.assert_allclose(divergences(ours, theirs), expected, rtol=1e-5)
    np.testing.assert_allclose(divergences(*shares), expected, rtol=1e-5)
    # Logits are known up to a number.
    np.testing.assert_allclose(divergences(ours + 100, theirs), expected, rtol=1e-3)
    assert not divergences(theirs, theirs).any()


def test_divergences_of_what_is_not_finite_are_infinite():
    theirs = np.zeros((3, 2), np.float32)
    assert (divergences(np.array([[np.nan, 0], [np.inf, 0], [np.inf, np.inf]], np.float32), theirs) == np.inf).all()
    certain = np.array([[1, 0]], np.float32)
    assert divergences(certain, certain) == 0 and 0 < divergences(1 - certain, certain)[0] < np.inf
