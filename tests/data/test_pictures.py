"""Recipes of others, and folders with more than pictures in them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refusal_of

from pconv_onnx.data import pictures
from pconv_onnx.data.pictures import Recipe
from pconv_onnx.data.sources import parts_of


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def recipe(folder: Path, **entries) -> Path:
    return written(folder, json.dumps({"images": ".", **entries}))


def picture(path: Path, width: int = 2, height: int = 2) -> Path:
    Image.new("RGB", (width, height)).save(path)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # From Python 3.14 on it can be read to its end.
        ("[" * 60_000, "it is nested too deeply|Expecting value"),
        ('{"":' * 15_000, "it is nested too deeply|Expecting value"),
        ("[" * 100_000, "it is longer than 65,536 bytes"),
        (b"\xff\xfe{", "codec can't decode"),
        ('{"images": ".", "size": ' + "9" * 5000 + "}", ""),
        ('{"images": ".", "mean": [NaN, 0, 0]}', "NaN is not a number of JSON"),
        ('{"images": ".", "std": [1, -Infinity, 1]}', "-Infinity is not a number of JSON"),
        ('{"images": ".", "images": "x"}', "it has a key twice"),
        ("", "Expecting value"),
    ],
)
def test_documents_that_are_no_recipe_are_refused(text, told, tmp_path):
    assert re.search(told, refusal_of(Recipe.read, written(tmp_path, text)))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("mean", "[1e400, 0, 0]"),
        ("mean", "[-1e39, 0, 0]"),
        ("mean", "[1" + "0" * 400 + ", 0, 0]"),
        ("mean", "[true, 0, 0]"),
        ("std", "[1e-50, 1, 1]"),
        ("std", "[1e39, 1, 1]"),
        ("std", "[" + "1," * 20_000 + "1]"),
        ("size", "1000000000"),
        ("size", "13378"),
        ("size", "-8"),
        ("size", "2.0"),
        ("size", "1" + "0" * 4000),
        ("layout", "[]"),
        ("images", "[" * 90 + "]" * 90),
        ("column", "0"),
    ],
)
def test_values_that_mean_nothing_are_refused(key, text, tmp_path):
    path = written(tmp_path, f'{{"images": ".", "{key}": {text}}}'.replace('"images": ".", "images"', '"images"'))
    told = refusal_of(Recipe.read, path)
    assert told.startswith(f"'{key}' of the recipe '{path}' cannot be ")
    assert len(told) < 500


@pytest.mark.parametrize("entries", [{"std": [1e-40, 1, 1]}, {"mean": [3e38, 0, 0], "std": [0.1, 1, 1]}])
def test_values_that_would_be_infinite_are_refused_without_a_warning(entries, tmp_path, recwarn):
    assert "turn pictures into infinities" in refusal_of(Recipe.read, recipe(tmp_path, **entries))
    assert not recwarn.list


@pytest.mark.parametrize("images", ["a\0b", "\ud800", "x" * 5000, "/".join(["x"] * 5000)])
def test_folders_of_no_name_that_there_is_are_refused(images, tmp_path):
    told = refusal_of(parts_of, recipe(tmp_path, images=images))
    assert "holds no pictures" in told or told.startswith("cannot look into ")


@pytest.mark.parametrize("source", ["a\0b", "a\0b.npz", "\ud800.json", "x" * 5000, "x" * 5000 + ".parquet"])
def test_paths_of_no_name_that_there_is_are_refused(source):
    def read():
        for part in parts_of(source):
            part.lengths(["x"])

    assert refusal_of(read).startswith("cannot read ")


def test_a_pipe_for_a_recipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "recipe.json")
    assert "it is not a file" in refusal_of(parts_of, tmp_path / "recipe.json")


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("nowhere"),
    ],
)
def test_what_is_no_file_in_a_folder_of_pictures_is_refused(make, tmp_path):
    make(tmp_path / "b.png")
    path = recipe(tmp_path)
    assert "'b.png'" in refusal_of(parts_of, path)
    picture(tmp_path / "a.png")
    (part,) = parts_of(path)
    assert "'b.png'" in refusal_of(part.read, ["image"])


def test_links_to_pictures_are_followed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").symlink_to(picture(tmp_path / "x.png"))
    (part,) = parts_of(recipe(tmp_path, images="folder"))
    assert part.read(["image"])["image"].shape == (1, 3, 2, 2)


def test_parts_are_of_fewer_pictures_where_these_are_large(tmp_path, monkeypatch):
    for name in "abcde":
        picture(tmp_path / f"{name}.png", 4, 5)
    monkeypatch.setattr(pictures, "MOST_PIXELS_AT_ONCE", 40)
    assert [len(part.files) for part in parts_of(recipe(tmp_path))] == [2, 2, 1]
    assert [len(part.files) for part in parts_of(recipe(tmp_path, size=3))] == [4, 1]
    assert [len(part.read(["image"])["image"]) for part in parts_of(recipe(tmp_path))] == [2, 2, 1]


def test_a_picture_of_another_size_is_told_before_more_are_decoded(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", 3, 3)
    (tmp_path / "c.png").write_bytes(b"no picture")
    (part,) = parts_of(recipe(tmp_path))
    assert "differ in size" in refusal_of(part.read, ["image"])


def test_values_are_those_of_the_formula(tmp_path):
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).save(tmp_path / "a.png")
    (part,) = parts_of(recipe(tmp_path, mean=[0.5, 0.25, 0.125], std=[0.5, 2, 3]))
    values = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3) / np.float32(255)
    expected = (values - np.float32([0.5, 0.25, 0.125])) / np.float32([0.5, 2, 3])
    np.testing.assert_array_equal(part.read(["image"])["image"], expected.transpose(0, 3, 1, 2))
