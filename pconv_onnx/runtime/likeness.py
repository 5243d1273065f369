"""How alike two networks' outputs are: cosines of samples or tokens, answers, and what is told of classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.data.samples import Samples

# The input of Hugging Face's exports that tells which tokens are padding.
_MASK = "attention_mask"
# How far sums of probabilities are from one by rounding, and below what they are taken for zero.
_OFF_ONE, _TINY = 1e-3, float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Likeness:
    """One output of a network against that of another.

    An output `[B, tokens, D]` has a vector a token, along its last axis; any other is one vector a sample, flattened.
    Vectors have two values or more: a number has no direction.

    All cosines are kept, so that quantiles are exact wherever samples were judged. Each takes four bytes, and a network
    spends millions of operations on a token.

    Attributes:
        samples: how many were compared.
        cosines: of all vectors, float32, in pieces; NaN where one has a NaN or an infinity.
        agreeing: tokens whose largest value is at the same place in both.
        by_token: whether vectors are tokens.
    """

    samples: int = 0
    cosines: tuple[Array, ...] = ()
    agreeing: int = 0
    by_token: bool = False

    @classmethod
    def of(cls, ours: Array, theirs: Array, samples: int, mask: Array | None = None) -> Likeness:
        """That of one batch.

        Args:
            ours: an output, samples along the first axis.
            theirs: the same of the other network.
            samples: of the batch. An output without a row for each of them is not compared.
            mask: `[B, tokens]`, zero for tokens that are left out; it is for outputs of as many tokens.
        """
        if theirs.shape[:1] != (samples,) or ours.shape != theirs.shape:
            return cls()
        by_token = theirs.ndim == 3 and theirs.shape[2] > 1
        if not by_token:
            ours, theirs = (values.reshape(samples, 1, -1) for values in (ours, theirs))
        if theirs.shape[2] < 2:
            return cls()
        fits = by_token and mask is not None and mask.shape == theirs.shape[:2]
        kept = np.asarray(mask) != 0 if fits else [slice(None)] * samples
        cosines, agreeing = [], 0
        for chosen, *pair in zip(kept, ours, theirs, strict=True):
            left = [values[chosen] for values in pair]
            cosines.append(_cosines(*left))
            agreeing += int(same_answers(*left).sum()) if by_token else 0
        return cls(samples, (np.concatenate(cosines),), agreeing, by_token)

    def __add__(self, other: Likeness) -> Likeness:
        """That of the samples of both."""
        return Likeness(
            self.samples + other.samples,
            self.cosines + other.cosines,
            self.agreeing + other.agreeing,
            self.by_token or other.by_token,
        )

    @property
    def vectors(self) -> int:
        """How many were compared."""
        return sum(map(len, self.cosines))

    def cosine(self) -> dict[str, Any] | None:
        """The cosines in a few numbers; None where there are none.

        `of` is what has a cosine, `samples` or `tokens`, `count` how many of them there are and `not_finite` how many
        cosines are no numbers. These count as less alike than any other, so a `median` or a `quantile_05` that lies
        among them is None, and so is the `mean` where there are any.
        """
        if not self.vectors:
            return None
        values = np.concatenate(self.cosines)
        lost = np.isnan(values)
        values = np.where(lost, -np.inf, values).astype(np.float64)
        with np.errstate(invalid="ignore"):
            found = {
                "median": np.quantile(values, 0.5),
                "quantile_05": np.quantile(values, 0.05),
                "mean": values.mean(),
            }
        return {
            "of": "tokens" if self.by_token else "samples",
            "count": self.vectors,
            "not_finite": int(lost.sum()),
            **{name: float(value) if math.isfinite(value) else None for name, value in found.items()},
        }

    def agreement(self) -> float | None:
        """The share of tokens whose largest value is at the same place in both; None where there are none."""
        return self.agreeing / self.vectors if self.by_token and self.vectors else None


def same_answers(ours: Array, theirs: Array) -> Array:
    """Which rows of logits `[…, classes]` have their largest value at the same place; among NaNs nothing is largest."""
    return (ours.argmax(-1) == theirs.argmax(-1)) & ~(np.isnan(ours.max(-1)) | np.isnan(theirs.max(-1)))


def are_probabilities(rows: Array) -> bool:
    """Whether rows `[…, classes]` add up to one of what is not negative; otherwise they are logits."""
    return bool((rows >= 0).all() and (np.abs(rows.sum(-1) - 1) < _OFF_ONE).all())


def divergences(ours: Array, theirs: Array) -> Array:
    """What ours do not tell of the classes that theirs tell.

    It is the Kullback-Leibler divergence of the distributions over classes. It looks at all classes, where the answer
    is one of them alone, so it tells two networks apart on fewer samples.

    Args:
        ours: `[samples, classes]`, logits or, where theirs are, probabilities.
        theirs: the same of the other network.

    Returns:
        `[samples]` in nats, float64; infinite where a value is not finite.
    """
    probable = are_probabilities(theirs)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        logs = [np.log(np.maximum(rows, _TINY)) if probable else rows for rows in (ours, theirs)]
        logs = [rows.astype(np.float64) - rows.max(-1, keepdims=True) for rows in logs]
        q, p = (rows - np.log(np.exp(rows).sum(-1, keepdims=True)) for rows in logs)
        found: Array = (np.exp(p) * (p - q)).sum(-1)
    return np.where(np.isfinite(found), found, np.inf)


def mask_of(samples: Samples) -> Array | None:
    """Which tokens are no padding, `[B, tokens]`, where an input of these samples tells; for `Likeness.of`."""
    mask = samples.arrays.get(_MASK)
    return mask if mask is not None and mask.ndim == 2 and mask.dtype.kind in "biu" else None


def _cosines(ours: Array, theirs: Array) -> Array:
    """Of vectors `[vectors, D]`: 1 of two zeros, 0 of a zero and another, NaN where a value is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        first, second = np.sqrt(_products(ours, ours)), np.sqrt(_products(theirs, theirs))
        lengths = first * second
        found = _products(ours, theirs) / np.where(lengths == 0, 1, lengths)
    return np.where((first == 0) & (second == 0), 1, found).astype(np.float32)


def _products(ours: Array, theirs: Array) -> Array:
    """Inner products of vectors `[vectors, D]`, in float64, which no copy of them has to be in."""
    return np.asarray(np.einsum("ij,ij->i", ours, theirs, dtype=np.float64))
