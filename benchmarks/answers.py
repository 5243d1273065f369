"""What networks answer, and how a spiking network's answers differ from those of its ANN to the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from boxes import OVERLAP, SAME, SCORE, Boxes, detected, found_again
from metrics import cents, edit_distance, mean, proportion, ratio


class Task(Protocol):
    """What a network is for."""

    def answers(self, output: np.ndarray) -> list[Any]:
        """One for each sample of a batch."""

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        """Of the answers of both to the same samples, from the first on.

        `_error`s are standard errors, `_interval`s Wilson's, of 95 %.
        """


@dataclass(frozen=True)
class Classification:
    """The class of an image, by its logits; `labels` has the right one."""

    labels: np.ndarray

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(np.argsort(-output, axis=1, kind="stable")[:, :5])

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        before, after = np.array(ann), np.array(spiking)
        right_before, right_after = (answers == self.labels[: len(answers), None] for answers in (before, after))
        change, error = mean(right_after[:, 0].astype(float) - right_before[:, 0])
        same = before[:, 0] == after[:, 0]
        _, agreement_error = mean(same)
        return {
            "images": len(after),
            **proportion("ann_top1", right_before[:, 0]),
            **proportion("top1", right_after[:, 0]),
            "top1_change": change,
            "top1_change_error": error,
            **proportion("ann_top5", right_before.any(axis=1)),
            **proportion("top5", right_after.any(axis=1)),
            **proportion("agreement", same),
            "agreement_error": agreement_error,
        }


@dataclass(frozen=True)
class Agreement:
    """The class of a sample that nobody has labelled; that of the ANN is to be found again."""

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(output.argmax(axis=1))

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        same = np.array(ann) == np.array(spiking)
        return {
            "samples": len(spiking),
            "ann_classes": len(set(ann)),
            **proportion("agreement", same),
            "agreement_error": mean(same)[1],
        }


@dataclass(frozen=True)
class Embedding:
    """A vector of a sample; that of the ANN is to be found in the same direction."""

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(output)

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        before, after = np.array(ann, np.float64), np.array(spiking, np.float64)
        lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosines = np.sum(before * after, axis=1) / lengths
        average, error = mean(cosines)
        return {
            "samples": len(cosines),
            "cosine_median": float(np.median(cosines)),
            "cosine_quantile_05": float(np.quantile(cosines, 0.05)),
            "cosine_mean": average,
            "cosine_mean_error": error,
        }


@dataclass(frozen=True)
class NextToken:
    """For each token of a passage the next one, by its logits; `labels` [N, tokens] has the right ones."""

    labels: np.ndarray

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(output)

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        """Tokens of one passage are not independent, so errors are those of means of whole passages."""
        before, after = (self._losses(answers) for answers in (ann, spiking))
        change, error = mean(after - before)
        same = [(one.argmax(axis=1) == other.argmax(axis=1)).mean() for one, other in zip(ann, spiking, strict=True)]
        agreement, agreement_error = mean(np.array(same))
        return {
            "samples": len(after),
            "tokens": self.labels[: len(after)].size,
            "ann_perplexity": float(np.exp(before.mean())),
            "perplexity": float(np.exp(after.mean())),
            "perplexity_ratio": float(np.exp(change)),
            "perplexity_ratio_error": float(np.exp(change) * error),
            "token_agreement": agreement,
            "token_agreement_error": agreement_error,
        }

    def _losses(self, answers: Sequence[np.ndarray]) -> np.ndarray:
        """The mean loss of each passage."""
        return np.array(
            [_loss(logits, right) for logits, right in zip(answers, self.labels[: len(answers)], strict=True)]
        )


@dataclass(frozen=True)
class Detection:
    """Boxes in pictures of `side` pixels; those of the ANN are to be found again."""

    side: int

    def answers(self, output: np.ndarray) -> list[Any]:
        return [detected(one, self.side) for one in output]

    def figures(self, ann: Sequence[Boxes], spiking: Sequence[Boxes]) -> dict[str, Any]:
        expected, given = (np.array([len(boxes.classes) for boxes in all_boxes]) for all_boxes in (ann, spiking))
        found = np.array([found_again(*pair) for pair in zip(ann, spiking, strict=True)])
        share, error = ratio(found, expected)
        extra, extra_error = ratio(given - found, expected)
        return {
            "images": len(expected),
            "score_threshold": SCORE,
            "suppressed_overlap": OVERLAP,
            "same_box_overlap": SAME,
            "ann_boxes": int(expected.sum()),
            "found": share,
            "found_error": error,
            "extra": extra,
            "extra_error": extra_error,
        }


@dataclass(frozen=True)
class Score:
    """The score of the last class, from 0 to 1, of a sample that nobody has labelled."""

    # Scores that differ by less are taken for the same; from `positive` on one says yes.
    near: float = 0.05
    positive: float = 0.5

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(output[:, -1])

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        before, after = np.array(ann, np.float64), np.array(spiking, np.float64)
        difference, error = mean(np.abs(after - before))
        return {
            "samples": len(after),
            "ann_positive": int((before >= self.positive).sum()),
            **proportion("agreement", (before >= self.positive) == (after >= self.positive)),
            "near": self.near,
            **proportion("score_near", np.abs(after - before) < self.near),
            "score_difference": difference,
            "score_difference_error": error,
        }


@dataclass(frozen=True)
class Text:
    """The text of a line in a picture, which `decode` reads out of an output; `truth` has what is written there."""

    truth: Sequence[str]
    decode: Callable[[np.ndarray], list[str]]

    def answers(self, output: np.ndarray) -> list[Any]:
        return self.decode(output)

    def figures(self, ann: Sequence[str], spiking: Sequence[str]) -> dict[str, Any]:
        """Characters of one line are not independent, so errors are those of ratios of whole lines."""
        truth = self.truth[: len(spiking)]
        before, before_error = self._error_rate(truth, ann)
        after, after_error = self._error_rate(truth, spiking)
        between, between_error = self._error_rate(ann, spiking)
        return {
            "samples": len(spiking),
            "characters": sum(map(len, truth)),
            "ann_character_error_rate": before,
            "ann_character_error_rate_error": before_error,
            "character_error_rate": after,
            "character_error_rate_error": after_error,
            "character_difference": between,
            "character_difference_error": between_error,
            **proportion("same_text", np.array([one == other for one, other in zip(ann, spiking, strict=True)])),
        }

    @staticmethod
    def _error_rate(expected: Sequence[str], given: Sequence[str]) -> tuple[float | None, float | None]:
        """Edits for each expected character."""
        edits = np.array([edit_distance(*pair) for pair in zip(expected, given, strict=True)])
        return ratio(edits, np.array([len(text) for text in expected]))


@dataclass(frozen=True)
class Pitch:
    """The pitch of a sound in Hz, which `decode` reads out of an output; `truth` [N] has the right one."""

    truth: np.ndarray
    decode: Callable[[np.ndarray], np.ndarray]
    # Half a semitone is what is taken for right (raw pitch accuracy, as melodies are evaluated).
    near: float = 50

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(self.decode(output))

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        before, after, truth = np.array(ann), np.array(spiking), self.truth[: len(spiking)]
        return {
            "samples": len(after),
            "near_cents": self.near,
            **proportion("ann_pitch_accuracy", self._near(before, truth)),
            **proportion("pitch_accuracy", self._near(after, truth)),
            **proportion("same_pitch", self._near(after, before)),
            "median_cents": float(np.median(np.abs(cents(after, before)))),
        }

    def _near(self, given: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        return np.abs(cents(given, wanted)) < self.near


def told(figures: dict[str, Any]) -> str:
    """Figures of a task, in a row of a table."""
    return next(row(figures) for own, row in _ROWS.items() if own in figures)


def _row_of_classes(figures: dict[str, Any]) -> str:
    change, error = 100 * figures["top1_change"], 100 * figures["top1_change_error"]
    return f"top-1 {figures['top1']:.1%} ({change:+.1f} ± {error:.1f}), agreement {figures['agreement']:.1%}"


def _row_of_agreement(figures: dict[str, Any]) -> str:
    return f"agreement {_percent(figures, 'agreement')}, of {figures['ann_classes']} classes"


def _row_of_embeddings(figures: dict[str, Any]) -> str:
    median, low, average = (figures[f"cosine_{key}"] for key in ("median", "quantile_05", "mean"))
    return f"cosine {median:.4f}, 5 % below {low:.4f}, mean {average:.4f}"


def _row_of_tokens(figures: dict[str, Any]) -> str:
    before, after, ratio = (figures[key] for key in ("ann_perplexity", "perplexity", "perplexity_ratio"))
    error, agreement = figures["perplexity_ratio_error"], _percent(figures, "token_agreement")
    return f"perplexity {after:.2f} of {before:.2f} ({ratio:.3f} ± {error:.3f} ×), agreement {agreement}"


def _row_of_boxes(figures: dict[str, Any]) -> str:
    if not figures["ann_boxes"]:
        return "the ANN finds no boxes"
    found, extra = (_percent(figures, key) for key in ("found", "extra"))
    return f"of {figures['ann_boxes']} boxes found {found}, extra {extra}"


def _row_of_scores(figures: dict[str, Any]) -> str:
    difference, error = figures["score_difference"], figures["score_difference_error"]
    return f"score off by {difference:.4f} ± {error:.4f}, agreement {figures['agreement']:.1%}"


def _row_of_texts(figures: dict[str, Any]) -> str:
    if figures["character_error_rate"] is None or figures["character_difference"] is None:
        return "there is no text"
    before, after = (_percent(figures, key) for key in ("ann_character_error_rate", "character_error_rate"))
    return f"character errors {after} (ANN {before}), same text {figures['same_text']:.1%}"


def _row_of_pitches(figures: dict[str, Any]) -> str:
    before, after, same = (figures[key] for key in ("ann_pitch_accuracy", "pitch_accuracy", "same_pitch"))
    return f"pitch {after:.1%} (ANN {before:.1%}), same pitch {same:.1%}"


# By a figure that no other kind of task has.
_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "top1": _row_of_classes,
    "ann_classes": _row_of_agreement,
    "cosine_median": _row_of_embeddings,
    "perplexity": _row_of_tokens,
    "ann_boxes": _row_of_boxes,
    "score_near": _row_of_scores,
    "character_error_rate": _row_of_texts,
    "pitch_accuracy": _row_of_pitches,
}


def _percent(figures: dict[str, Any], key: str) -> str:
    """A share and its standard error."""
    return f"{figures[key]:.1%} ± {100 * figures[f'{key}_error']:.1f}"


def _loss(logits: np.ndarray, right: np.ndarray) -> float:
    """The mean of −log p of the right classes `[N]`, by logits `[N, classes]`."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(below, right[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(below).sum(axis=1)) - chosen))
