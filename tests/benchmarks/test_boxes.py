"""Boxes of a detector, and which are found again."""

from __future__ import annotations

import numpy as np
import pytest
from answers import Detection, told
from boxes import Boxes, detected, found_again, intersection_over_union


def output(*anchors: tuple[float, ...]) -> np.ndarray:
    """Of a network with two classes: centre x and y, width, height, and a score a class for each anchor."""
    return np.array(anchors, np.float32).T


def boxes(*corners: tuple[float, ...], classes: tuple[int, ...]) -> Boxes:
    return Boxes(np.array(corners, np.float32).reshape(-1, 4), np.array(classes, int))


def test_boxes_that_share_a_third_of_their_union():
    some, others = np.array([[0, 0, 4, 2.0]]), np.array([[2, 0, 6, 2.0], [0, 0, 4, 2], [4, 0, 5, 2], [1, 1, 1, 1]])
    np.testing.assert_allclose(intersection_over_union(some, others), [[1 / 3, 1, 0, 0]])


def test_of_overlapping_boxes_the_best_stays_whatever_its_class():
    found = detected(output((20, 20, 20, 20, 0.3, 0.1), (21, 20, 20, 20, 0, 0.9), (60, 60, 10, 10, 0.26, 0)), 100)
    assert found.classes.tolist() == [1, 0]
    np.testing.assert_allclose(found.corners, [[11, 10, 31, 30], [55, 55, 65, 65]])


def test_a_box_below_the_threshold_is_none():
    assert len(detected(output((20, 20, 20, 20, 0.25, 0.2)), 100).classes) == 0


def test_boxes_end_with_the_picture():
    found = detected(output((5, 95, 20, 20, 1, 0)), 100)
    np.testing.assert_allclose(found.corners, [[0, 85, 20, 100]])


def test_a_box_is_found_by_one_of_its_class_and_no_box_finds_two():
    expected = boxes((0, 0, 10, 10), (0, 1, 10, 11), classes=(0, 0))
    assert found_again(expected, boxes((0, 0, 10, 10), classes=(0,))) == 1
    assert found_again(expected, boxes((0, 0, 10, 10), (0, 1, 10, 10), classes=(0, 0))) == 2
    assert found_again(expected, boxes((0, 0, 10, 10), classes=(1,))) == 0
    assert found_again(expected, boxes(classes=())) == 0
    assert found_again(boxes((0, 0, 10, 10), classes=(0,)), boxes((0, 5, 10, 15), classes=(0,))) == 0


def test_found_and_extra_boxes_are_shares_of_those_of_the_ann():
    two = boxes((0, 0, 10, 10), (50, 50, 60, 60), classes=(0, 1))
    one, none = boxes((0, 0, 10, 10), classes=(0,)), boxes(classes=())
    figures = Detection(100).figures([two, one, none], [one, one, one])
    assert (figures["ann_boxes"], figures["found"], figures["extra"]) == (3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    # By image found are 1 of 2, 1 of 1, 0 of 0: off the share by 1/3, 1/3, 0.
    assert figures["found_error"] == pytest.approx(np.sqrt(2) / 9)
    assert told(figures) == "of 3 boxes found 66.7% ± 15.7, extra 33.3% ± 41.6"


def test_pictures_without_boxes_have_no_shares():
    none = boxes(classes=())
    figures = Detection(100).figures([none], [none])
    assert figures["found"] is None and figures["extra"] is None
    assert told(figures) == "the ANN finds no boxes"
