"""Batches of CIFAR in pickles: read as they are, and nothing of a hostile one is run."""

from __future__ import annotations

import json
import os
import pickle
import pickletools

import numpy as np
import onnxruntime
import pytest
from networks import network
from refusals import refusal_of

from pconv_onnx.data import pictures
from pconv_onnx.data.reading import load_samples, open_samples

DATA = np.random.default_rng(0).integers(0, 256, (5, 3072), dtype=np.uint8)
LABELS = [3, 1, 4, 1, 5]
PLANES = DATA.reshape(-1, 3, 32, 32).astype(np.float32) / 255


def session(side: int = 32):
    declared = f"float[N, 3, {side}, {side}]"
    model = network("y = Identity (image)", inputs=f"{declared} image", outputs=f"{declared} y")
    return onnxruntime.InferenceSession(model.SerializeToString())


def batch(folder, name: str = "test_batch", protocol: int = 2, **entries):
    with (folder / name).open("wb") as file:
        pickle.dump({b"data": DATA, b"labels": LABELS, b"filenames": [b"a.png"] * 5, **entries}, file, protocol)
    return folder / name


def recipe(folder, images: str, **entries):
    (folder / "recipe.json").write_text(json.dumps({"images": images, **entries}))
    return folder / "recipe.json"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_batch_gives_its_pictures_and_labels(protocol, tmp_path):
    batch(tmp_path, protocol=protocol)
    samples = load_samples(recipe(tmp_path, "test_batch"), session())
    np.testing.assert_allclose(samples.arrays["image"], PLANES, rtol=1e-6)
    assert samples.labels.tolist() == LABELS


def test_a_batch_as_python_2_wrote_it_is_read(tmp_path):
    """Bytes are its texts, and arrays name their functions in numpy.core."""
    content = pickle.dumps({"labels": LABELS}, 2)[:-2]
    array = (
        b"U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x05M\x00\x0c\x86cnumpy\n"
        b"dtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + np.uint32(DATA.nbytes).tobytes() + DATA.tobytes() + b"tb"
    )  # fmt: skip
    (tmp_path / "test_batch").write_bytes(content + b"s" + array + b"s.")
    assert pickletools.genops(content) is not None
    samples = load_samples(recipe(tmp_path, "test_batch"), session())
    np.testing.assert_allclose(samples.arrays["image"], PLANES, rtol=1e-6)
    assert samples.labels.tolist() == LABELS


def test_a_folder_gives_its_training_pictures_in_order(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in (2, 1, 3):
        batch(folder, f"data_batch_{number}", labels=[number] * 5)
    batch(folder, "test_batch", labels=[9] * 5)
    path = recipe(tmp_path, folder.name)
    assert load_samples(path, session()).labels[::5].tolist() == [1, 2, 3]
    assert open_samples(path, session()).part(slice(4, 6)).labels.tolist() == [1, 2]


def test_labels_of_cifar_100_are_fine_or_as_the_recipe_says(tmp_path):
    with (tmp_path / "train").open("wb") as file:
        pickle.dump({b"data": DATA, b"fine_labels": LABELS, b"coarse_labels": [7] * 5}, file)
    assert load_samples(recipe(tmp_path, "."), session()).labels.tolist() == LABELS
    assert load_samples(recipe(tmp_path, "train", labels="coarse_labels"), session()).labels.tolist() == [7] * 5


def test_pictures_are_resized_in_parts_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS_AT_ONCE", 2 * 64 * 64)
    batch(tmp_path)
    samples = open_samples(recipe(tmp_path, "test_batch", size=64), session(64))
    assert (len(samples), samples.part(slice(1, 4)).labels.tolist()) == (5, [1, 4, 1])
    assert samples.part(slice(0, 2)).arrays["image"].shape == (2, 3, 64, 64)


class Calls:
    """Something whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({b"data": Calls(os.system, "true")}, "it calls posix.system, which no batch does"),
        ({b"data": Calls(eval, "1")}, "it calls builtins.eval, which no batch does"),
        ({b"data": Calls(np.load, "x")}, "which no batch does"),
        ({b"data": DATA.astype(np.float32)}, "an array is of type 'f4', not u1"),
        ({b"data": DATA.astype(object)}, "an array is of type 'O8', not u1"),
        ({b"data": DATA[:, :5]}, "cannot reshape"),
        ({b"labels": LABELS[:2]}, "it has 5 pictures and 2 labels"),
        ({b"labels": ["cat"] * 5}, "invalid literal"),
        ({b"data": 5}, "'int' object has no attribute 'array'"),
    ],
)
def test_what_is_no_batch_is_told_and_nothing_is_run(entries, told, tmp_path):
    with (tmp_path / "test_batch").open("wb") as file:
        pickle.dump({b"data": DATA, b"labels": LABELS} | entries, file, 4)
    found = refusal_of(load_samples, recipe(tmp_path, "test_batch"), session())
    assert (
        found.startswith(f"'{tmp_path}/test_batch' is not a batch of CIFAR in its Python version: ") and told in found
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x80\x02}.",
        b"\x80\x02r\xff\xff\xff\xff.",  # a place in the memo that would take 64 GiB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # 2**40 bytes that are not there
        b"\x80\x02cnumpy\nndarray\n)\x81}b.",
        b"\x80\x02P1\n.",
        pickle.dumps({b"data": DATA}, 2)[:-30],
        # One text, encoded again and again.
        b"\x80\x02X" + np.uint32(1 << 20).tobytes() + b"a" * (1 << 20) + b"q\x00c_codecs\nencode\nq\x01"
        + b"h\x01h\x00U\x06latin1\x86R" * 500 + b".",
    ],
    ids=range(9),
)  # fmt: skip
def test_hostile_pickles_are_refused(content, tmp_path):
    (tmp_path / "test_batch").write_bytes(content)
    assert "is not a batch of CIFAR" in refusal_of(load_samples, recipe(tmp_path, "test_batch"), session())


def test_batches_without_a_recipe_are_told_of_it(tmp_path):
    batch(tmp_path)
    batch(tmp_path, "data_batch_1")
    for path in (tmp_path, tmp_path / "test_batch"):
        assert "for pictures, CIFAR's too, pass a recipe" in refusal_of(load_samples, path, session())
