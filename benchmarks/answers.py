"""What networks answer, and how a spiking network's answers differ from those of its ANN to the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from boxes import OVERLAP, SAME, SCORE, Boxes, detected, found_again


class Task(Protocol):
    """What a network is for."""

    def answers(self, output: np.ndarray) -> list[Any]:
        """One for each image of a batch."""

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        """Of the answers of both to the same images, from the first on; `_error`s are standard errors."""


@dataclass(frozen=True)
class Classification:
    """The class of an image, by its logits; `labels` has the right one."""

    labels: np.ndarray

    def answers(self, output: np.ndarray) -> list[Any]:
        return list(np.argsort(-output, axis=1, kind="stable")[:, :5])

    def figures(self, ann: Sequence[Any], spiking: Sequence[Any]) -> dict[str, Any]:
        before, after = np.array(ann), np.array(spiking)
        right_before, right_after = (answers == self.labels[: len(answers), None] for answers in (before, after))
        change, error = _mean(right_after[:, 0].astype(float) - right_before[:, 0])
        agreement, agreement_error = _mean(before[:, 0] == after[:, 0])
        return {
            "images": len(after),
            "ann_top1": float(right_before[:, 0].mean()),
            "top1": float(right_after[:, 0].mean()),
            "top1_change": change,
            "top1_change_error": error,
            "ann_top5": float(right_before.any(axis=1).mean()),
            "top5": float(right_after.any(axis=1).mean()),
            "agreement": agreement,
            "agreement_error": agreement_error,
        }


@dataclass(frozen=True)
class Detection:
    """Boxes in pictures of `side` pixels; those of the ANN are to be found again."""

    side: int

    def answers(self, output: np.ndarray) -> list[Any]:
        return [detected(one, self.side) for one in output]

    def figures(self, ann: Sequence[Boxes], spiking: Sequence[Boxes]) -> dict[str, Any]:
        expected, given = (np.array([len(boxes.classes) for boxes in all_boxes]) for all_boxes in (ann, spiking))
        found = np.array([found_again(*pair) for pair in zip(ann, spiking, strict=True)])
        share, error = _share(found, expected)
        extra, extra_error = _share(given - found, expected)
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


def told(figures: dict[str, Any]) -> str:
    """Figures of a task, in a row of a table."""
    if "top1" in figures:
        change, error = 100 * figures["top1_change"], 100 * figures["top1_change_error"]
        return f"top-1 {figures['top1']:.1%} ({change:+.1f} ± {error:.1f}), agreement {figures['agreement']:.1%}"
    if not figures["ann_boxes"]:
        return "the ANN finds no boxes"
    found, extra = (f"{figures[key]:.1%} ± {100 * figures[f'{key}_error']:.1f}" for key in ("found", "extra"))
    return f"of {figures['ann_boxes']} boxes found {found}, extra {extra}"


def _mean(values: np.ndarray) -> tuple[float, float]:
    """And its standard error."""
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def _share(part: np.ndarray, whole: np.ndarray) -> tuple[float | None, float | None]:
    """Of two counts in each image the ratio of all, and its standard error: boxes of one image are not independent."""
    total = whole.sum()
    if not total:
        return None, None
    share = part.sum() / total
    return float(share), float(np.sqrt(np.sum((part - share * whole) ** 2)) / total)
