"""Where samples lie: parts are read when they are needed, and Parquet and pictures give what arrays give."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow
import pyarrow.parquet
import pytest
from networks import network
from PIL import Image
from refusals import refusal_of

from pconv_onnx.data.reading import load_samples, open_samples
from pconv_onnx.data.samples import Data
from pconv_onnx.data.sources import parts_of

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(7, 2, 3)).astype(np.float32)
PICTURES = GENERATOR.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
NORMALISED = ((PICTURES / 255 - MEAN) / STD).astype(np.float32)


def session(inputs: str = "float[N, 2, 3] x", output: str = "float[N, 2, 3] y", nodes: str = "y = Identity (x)"):
    return onnxruntime.InferenceSession(network(nodes, inputs=inputs, outputs=output).SerializeToString())


def of_pictures():
    return session("float[N, 3, H, W] image", "float[N, 3, H, W] y", "y = Identity (image)")


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def recipe(folder: Path, **entries) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps({"images": "pictures", "mean": MEAN, "std": STD, **entries}))
    return path


def columns(kind: str) -> pyarrow.Array:
    if kind == "lists":
        return pyarrow.array(X.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.float32())))
    return pyarrow.FixedShapeTensorArray.from_numpy_ndarray(X)


def write(path: Path, rows: int, **arrays) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(arrays), path, row_group_size=rows)
    return path


def of_classes(folder: Path) -> Path:
    """Pictures 0 and 1, 2 and 3, 4 and 5 each in a subfolder of its class."""
    for index, picture in enumerate(PICTURES):
        path = folder / "pictures" / f"class {index // 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture))
    return recipe(folder)


@pytest.mark.parametrize("kind", ["lists", "tensors"])
def test_a_parquet_file_gives_its_columns(kind, tmp_path):
    path = write(tmp_path / "x.parquet", 3, x=columns(kind), labels=np.arange(7), other=["text"] * 7)
    samples = load_samples(path, session())
    np.testing.assert_array_equal(samples.arrays["x"], X)
    np.testing.assert_array_equal(samples.labels, np.arange(7))
    assert len(parts_of(path)) == 3


def stored(kind: str, folder: Path) -> tuple[str | Path | dict, int]:
    """The same seven samples in parts, and how many."""
    labels = np.arange(7)
    if kind == "npz":
        for start in (0, 3, 4):
            rows = slice(start, {0: 3, 3: 4, 4: 7}[start])
            np.savez(folder / f"{start}.npz", x=X[rows], labels=labels[rows])
        return folder, 3
    if kind == "parquet":
        return write(folder / "x.parquet", 2, x=columns("lists"), labels=labels), 4
    return {"x": X, "labels": labels}, 1


@pytest.mark.parametrize("kind", ["npz", "parquet", "arrays"])
def test_any_rows_of_any_parts_are_those_of_the_whole(kind, tmp_path):
    source, _ = stored(kind, tmp_path)
    samples: Data = pickle.loads(pickle.dumps(open_samples(source, session())))
    assert len(samples) == 7
    for start in range(7):
        for stop in range(start + 1, 8):
            part = samples.part(slice(start, stop))
            np.testing.assert_array_equal(part.arrays["x"], X[start:stop])
            np.testing.assert_array_equal(part.labels, np.arange(start, stop))


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_rows_need_only_the_files_that_they_lie_in(kind, tmp_path):
    if kind == "npz":
        stored(kind, tmp_path)
        last = tmp_path / "4.npz"
    else:
        for start in (0, 4):
            part = slice(start, start + 4)
            write(tmp_path / f"{start}.parquet", 4, x=columns("lists")[part], labels=np.arange(7)[part])
        last = tmp_path / "4.parquet"
    samples = open_samples(tmp_path, session())
    assert len(samples) == 7
    last.unlink()
    np.testing.assert_array_equal(samples.part(slice(1, 4)).arrays["x"], X[1:4])
    assert str(last) in refusal_of(samples.part, slice(3, 5))


@pytest.mark.parametrize("axis", [1, 2])
def test_samples_along_another_axis_are_read_part_by_part_as_well(axis, tmp_path):
    source, _ = stored("npz", tmp_path)
    runner = session("float[2, N, 3] x" if axis == 1 else "float[2, 3, N] x", "float y", "y = ReduceSum (x)")
    samples = open_samples(source, runner, axis)
    feed = samples.part(slice(2, 5)).feed(slice(0, 3))
    np.testing.assert_array_equal(feed["x"], np.moveaxis(X[2:5], 0, axis))


def test_pictures_of_a_folder_are_normalised_and_their_subfolders_are_classes(tmp_path):
    samples = load_samples(of_classes(tmp_path), of_pictures())
    np.testing.assert_allclose(samples.arrays["image"], NORMALISED.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
    assert samples.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_pictures_without_subfolders_have_no_labels(tmp_path):
    of_classes(tmp_path)
    samples = load_samples(recipe(tmp_path, images="pictures/class 1"), of_pictures())
    assert samples.labels is None
    assert len(samples) == 2


def test_pictures_of_a_parquet_file_are_normalised(tmp_path):
    """The datasets library keeps pictures as structs."""
    encoded = [{"bytes": png(picture), "path": None} for picture in PICTURES]
    write(tmp_path / "x.parquet", 4, img=encoded, fine=np.arange(6))
    runner = session("float[N, 5, 4, 3] x", "float[N, 5, 4, 3] y")
    path = recipe(tmp_path, images="x.parquet", input="x", layout="NHWC", column="img", labels="fine")
    samples = load_samples(path, runner)
    np.testing.assert_allclose(samples.arrays["x"], NORMALISED, rtol=1e-5, atol=1e-6)
    assert samples.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_pictures_are_resized(tmp_path):
    of_classes(tmp_path)
    assert load_samples(recipe(tmp_path, size=8), of_pictures()).arrays["image"].shape == (6, 3, 8, 8)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"mean": [0, 0]}, "'mean' of the recipe"),
        ({"std": [1, 0, 1]}, "'std' of the recipe"),
        ({"layout": "CHW"}, "cannot be 'CHW'"),
        ({"size": 0}, "cannot be 0"),
        ({"sizes": 8}, "is not an object with 'images'"),
        ({"images": "nowhere"}, "holds no pictures"),
    ],
)
def test_faults_of_a_recipe_are_told(entries, told, tmp_path):
    of_classes(tmp_path)
    assert told in refusal_of(load_samples, recipe(tmp_path, **entries), of_pictures())


def test_faults_of_pictures_are_told(tmp_path):
    path = of_classes(tmp_path)
    picture = tmp_path / "pictures" / "class 1" / "2.png"
    picture.write_bytes(png(PICTURES[0, :3]))
    assert "differ in size" in refusal_of(load_samples, path, of_pictures())
    picture.write_bytes(png(PICTURES[0])[:60])
    assert "2.png" in refusal_of(load_samples, path, of_pictures())
    (tmp_path / "pictures" / "0.png").write_bytes(png(PICTURES[0]))
    assert "beside subfolders" in refusal_of(load_samples, path, of_pictures())


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ([[1.0], [1.0, 2.0]], "not lists of one length"),
        ([[1.0], None], "not lists of one length"),
        ([[1.0], [None]], "has missing values"),
        ([{"a": 1.0}, {"a": 2.0}], "not lists of one length"),
    ],
)
def test_columns_that_are_no_array_are_told(column, told, tmp_path):
    path = write(tmp_path / "x.parquet", 2, x=pyarrow.array(column))
    assert told in refusal_of(load_samples, path, session("float[N, 1] x", "float[N, 1] y"))


def test_faults_of_parquet_files_are_told(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 no more")
    assert "as Parquet" in refusal_of(load_samples, path, session())
    write(path, 3, z=[1.0])
    assert "has no array 'x'" in refusal_of(load_samples, path, session())


def tensors(rows: slice) -> dict:
    numbers = np.arange(7) % 3
    return {"x": pyarrow.FixedShapeTensorArray.from_numpy_ndarray(X[rows]), "label": numbers[rows]}


def test_parquet_files_lie_in_folders_of_a_folder_too(tmp_path):
    folder = tmp_path / "a" / "data"
    folder.mkdir(parents=True)
    write(folder / "train-00001-of-00002.parquet", 4, **tensors(slice(3, 7)))
    write(folder / "train-00000-of-00002.parquet", 4, **tensors(slice(0, 3)))
    samples = load_samples(tmp_path, session())
    np.testing.assert_array_equal(samples.arrays["x"], X)
    np.testing.assert_array_equal(samples.labels, np.arange(7) % 3)


@pytest.mark.parametrize("named", ["data/{}-0.parquet", "{}/0.parquet"])
def test_of_several_splits_one_is_named(named, tmp_path):
    for split, rows in (("train", slice(0, 7)), ("test", slice(0, 2))):
        path = tmp_path / named.format(split)
        path.parent.mkdir(exist_ok=True)
        write(path, 4, **tensors(rows))
    start, one = refusal_of(load_samples, tmp_path, session()).split(" such as ")
    assert start == f"'{tmp_path}' has the splits test, train; name one of them,"
    assert len(load_samples(one.strip("'"), session())) == 2
    assert len(load_samples(str(tmp_path / named.format("train").replace("0", "*")), session())) == 7


def test_classes_are_numbered_as_torchvision_numbers_them(tmp_path):
    for place in ("dog/a/0.png", "cat/1.png", "cat/b/2.png", ".cache/3.png"):
        (tmp_path / "pictures" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURES[0]).save(tmp_path / "pictures" / place)
    (tmp_path / "pictures" / "ant").mkdir()
    samples = load_samples(recipe(tmp_path, images="pictures"), of_pictures())
    assert samples.labels.tolist() == [1, 1, 2]
