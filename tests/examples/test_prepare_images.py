"""The script that turns images into --data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "prepare_images.py"
IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


def prepare(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_are_normalised(layout, tmp_path):
    np.savez(tmp_path / "in.npz", images=IMAGES, labels=[3, 1])
    options = ["--mean", "0.5", "0.4", "0.3", "--std", "0.2", "0.25", "0.5", "--layout", layout, "--input", "x"]
    assert prepare(tmp_path, "in.npz", "-o", "out.npz", *options).returncode == 0
    with np.load(tmp_path / "out.npz") as made:
        expected = (IMAGES / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]
        expected = expected.transpose(0, 3, 1, 2) if layout == "NCHW" else expected
        assert made["x"].dtype == np.float32
        np.testing.assert_allclose(made["x"], expected, rtol=1e-5)
        assert made["labels"].tolist() == [3, 1]


def test_a_folder_of_pictures_has_its_subfolders_as_classes(tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    for name, picture in (("b/1.png", IMAGES[0]), ("a/2.png", IMAGES[1])):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(picture).save(tmp_path / name)
    assert prepare(tmp_path, ".", "-o", "out.npz").returncode == 0
    with np.load(tmp_path / "out.npz") as made:
        np.testing.assert_allclose(made["image"][1] * 255, IMAGES[0].transpose(2, 0, 1), atol=1e-4)
        assert made["labels"].tolist() == [0, 1]


@pytest.mark.parametrize(
    "content, arguments, message",
    [
        (None, ["in.npz"], "there is no 'in.npz'"),
        (b"nothing", ["in.npz"], "'in.npz' is not an .npz archive\n"),
        (b"PK\3\4 cut short", ["in.npz"], "cannot read 'in.npz' as an .npz"),
        ({"pictures": IMAGES}, ["in.npz"], "has no array 'images'; it has pictures"),
        ({"images": IMAGES / 2}, ["in.npz"], "images are float64 [2, 4, 4, 3]; uint8 [N, H, W, 3] is needed"),
        ({"images": IMAGES}, ["in.npz", "-o", "nowhere/out.npz"], "cannot write 'nowhere/out.npz'"),
    ],
)
def test_faults_are_told_in_one_line(content, arguments, message, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / "in.npz").write_bytes(content)
    elif content is not None:
        np.savez(tmp_path / "in.npz", **content)
    done = prepare(tmp_path, *arguments, *([] if "-o" in arguments else ["-o", "out.npz"]))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "in.npy", IMAGES)
    done = prepare(tmp_path, "in.npy", "-o", "out.npz")
    assert (done.returncode, done.stderr) == (1, "prepare_images: 'in.npy' is not an .npz archive\n")


@pytest.mark.parametrize("first", ["0", "-1"])
def test_no_images_are_not_asked_for(first, tmp_path):
    np.savez(tmp_path / "in.npz", images=IMAGES)
    done = prepare(tmp_path, "in.npz", "-o", "out.npz", "--first", first)
    assert done.returncode == 2 and "argument --first: must be at least 1" in done.stderr
    assert not (tmp_path / "out.npz").exists()
