"""Pictures as networks take them."""

from __future__ import annotations

import numpy as np
from pictures import Pictures, efficientnet_lite, nudenet, open_nsfw, squeezenet
from PIL import Image
from subjects import spread


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_efficientnet_takes_the_middle_around_zero():
    given = picture(256, 300)
    prepared = efficientnet_lite(given)
    assert prepared.shape == (3, 224, 224) and prepared.dtype == np.float32
    assert prepared[2, 0, 5] == (np.float32(given[16, 38 + 5, 2]) - 127) / 128


def test_a_picture_that_is_too_small_for_efficientnet_is_enlarged():
    prepared = efficientnet_lite(np.full((227, 300, 3), 191, np.uint8), side=240)
    assert prepared.shape == (3, 240, 240) and (prepared == 0.5).all()


def test_open_nsfw_takes_blue_first_behind_pixels():
    prepared = open_nsfw(np.full((128, 300, 3), (223, 127, 104), np.uint8))
    assert prepared.shape == (224, 224, 3) and prepared.dtype == np.float32
    assert (prepared == np.float32([0, 10, 100])).all()
    # At 256 × 256 already, only the middle is taken.
    given = picture(256, 256)
    np.testing.assert_array_equal(open_nsfw(given)[0, 5], given[16, 21, ::-1].astype(np.float32) - [104, 117, 123])


def test_squeezenet_takes_blue_first_and_the_means_off():
    given = picture(227, 227)
    prepared = squeezenet(given)
    assert prepared.shape == (3, 227, 227) and prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared[:, 3, 4], given[3, 4, ::-1].astype(np.float32) - [104, 117, 123])


def test_nudenet_sees_the_whole_picture_on_a_black_square():
    wide = nudenet(np.full((80, 160, 3), (255, 0, 51), np.uint8))
    assert wide.shape == (3, 320, 320) and wide.dtype == np.float32
    np.testing.assert_array_equal(wide[:, :158].reshape(3, -1), np.float32([[1], [0], [0.2]]) * np.ones(158 * 320))
    assert not wide[:, 162:].any()
    tall = nudenet(np.full((160, 80, 3), 255, np.uint8))
    assert tall[:, :, :158].all() and not tall[:, :, 162:].any()


def test_a_picture_that_grows_is_interpolated_between_its_pixels():
    row = nudenet(np.tile(np.uint8([[[0] * 3, [255] * 3]]), (2, 1, 1)), side=4)[0, 0]
    np.testing.assert_array_equal(row, np.float32([0, 64, 191, 255]) / 255)


def test_files_are_read_when_they_are_wanted(tmp_path):
    given = picture(230, 240)
    Image.fromarray(given).save(tmp_path / "a.png")
    pictures = Pictures([tmp_path / "a.png", tmp_path / "none.png"], squeezenet)
    assert len(pictures) == 2
    np.testing.assert_array_equal(pictures[:1], squeezenet(given)[None])


def test_files_to_calibrate_on_are_spread_over_all():
    assert spread(0, 10).tolist() == []
    assert spread(4, 10).tolist() == [0, 2, 5, 7]
    assert spread(20, 3).tolist() == [0, 1, 2]
