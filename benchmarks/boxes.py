"""Boxes of a detector of the YOLOv8 family, and which of them another network finds again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# As nudenet has them: of overlapping boxes, whatever their classes, the one with the highest score stays.
SCORE, OVERLAP = 0.25, 0.45
# From here on two boxes are of the same thing.
SAME = 0.5


class Boxes(NamedTuple):
    """Boxes of one picture: `corners` [N, 4] as left, top, right, bottom in pixels, `classes` [N]."""

    corners: np.ndarray
    classes: np.ndarray


def detected(output: np.ndarray, side: int) -> Boxes:
    """The boxes in the output [4 + classes, anchors] for one picture of so many pixels a side, best first."""
    scores, classes = output[4:].max(axis=0), output[4:].argmax(axis=0)
    chosen = np.flatnonzero(scores > SCORE)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    centre, size = output[:2, chosen].T, output[2:4, chosen].T
    corner = np.clip(centre - size / 2, 0, side)
    corners = np.concatenate([corner, corner + np.minimum(size, side - corner)], axis=1)
    kept = _best(corners)
    return Boxes(corners[kept], classes[chosen][kept])


def _best(corners: np.ndarray) -> list[int]:
    """Which of the boxes, best first, do not overlap with a better one that stays."""
    overlaps, kept = intersection_over_union(corners, corners), list[int]()
    for index in range(len(corners)):
        if np.all(overlaps[index, kept] <= OVERLAP):
            kept.append(index)
    return kept


def intersection_over_union(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each of the corners [N, 4] with each of the others [M, 4], `[N, M]`."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas, others_areas = (np.prod(corners[:, 2:] - corners[:, :2], axis=1) for corners in (some, others))
    union = areas[:, None] + others_areas[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def found_again(expected: Boxes, given: Boxes) -> int:
    """How many of the expected boxes are given: one for one, of the same class, those that overlap most first."""
    overlaps = intersection_over_union(expected.corners, given.corners)
    overlaps *= expected.classes[:, None] == given.classes[None]
    found = 0
    while overlaps.size and overlaps.max() > SAME:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row], overlaps[:, column] = 0, 0
        found += 1
    return found
