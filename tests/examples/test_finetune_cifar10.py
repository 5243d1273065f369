"""Fine-tuning on CIFAR-10: the layouts it reads, the weights it takes, and going on after an interruption."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import finetune_cifar10 as example
import numpy as np
import onnx
import pytest
import torch
from finetune_cifar10 import ResNet20, Training, augmented, load_weights, read
from refusals import refusal_of

import pconv_onnx
from pconv_onnx.torch import replace_relu

SCRIPT = Path(example.__file__)
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(10)


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def write_python(folder: Path) -> None:
    names = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    for name in names:
        batch = {b"batch_label": b"training", b"data": planes(IMAGES), b"labels": LABELS.tolist(), b"filenames": [b"a"]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_binary(folder: Path) -> None:
    records = np.concatenate([LABELS[:, None].astype(np.uint8), planes(IMAGES)], axis=1)
    for name in [f"data_batch_{index}.bin" for index in range(1, 6)] + ["test_batch.bin"]:
        (folder / name).write_bytes(records.tobytes())


def write_pictures(folder: Path) -> None:
    from PIL import Image

    for split in ("train", "test"):
        for label, image in zip(LABELS, IMAGES, strict=True):
            (folder / split / str(label)).mkdir(parents=True)
            Image.fromarray(image).save(folder / split / str(label) / "1.png")


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("split, copies", [("train", 5), ("test", 1)])
def test_the_python_version_is_read(split, copies, inside, tmp_path):
    (tmp_path / inside).mkdir(exist_ok=True)
    write_python(tmp_path / inside)
    images, labels = read(tmp_path, split)
    np.testing.assert_array_equal(images, np.concatenate([IMAGES] * copies))
    np.testing.assert_array_equal(labels, np.tile(LABELS, copies))


@pytest.mark.parametrize("split, copies", [("train", 5), ("test", 1)])
def test_the_binary_version_is_read(split, copies, tmp_path):
    write_binary(tmp_path)
    images, labels = read(tmp_path, split)
    np.testing.assert_array_equal(images, np.concatenate([IMAGES] * copies))
    np.testing.assert_array_equal(labels, np.tile(LABELS, copies))


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_by_class_are_read(split, tmp_path):
    write_pictures(tmp_path)
    images, labels = read(tmp_path, split)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_an_npz_is_read(tmp_path):
    np.savez(tmp_path / "images.npz", images=IMAGES, labels=LABELS)
    images, labels = read(tmp_path / "images.npz", "train")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


class Touch:
    """A pickle that would run a command where it is loaded."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Touch(), b"labels": []}, protocol=2))
    assert "test_batch' is not a batch of CIFAR in its Python version: it calls posix.system" in refusal_of(
        read, tmp_path, "test"
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "files, message",
    [
        ({}, "holds no CIFAR-10 train images; pass a folder or file like one of: cifar-10-batches-py, cifar-10-"),
        (
            {"data_batch_1": b"x"},
            "is not whole: data_batch_2, data_batch_3, data_batch_4, data_batch_5 missing; unpack",
        ),
        ({f"data_batch_{i}": b"nonsense" for i in range(1, 6)}, "data_batch_1' is not a batch of CIFAR"),
        ({f"data_batch_{i}.bin": b"short" for i in range(1, 6)}, "its records are not of 3,073 bytes; fetch it again"),
        ({f"data_batch_{i}.bin": b"\xff" * 3073 for i in range(1, 6)}, "does not hold one label from 0 to 9 for each"),
    ],
)
def test_what_is_not_cifar_10_is_told_in_one_line(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert message in refusal_of(read, tmp_path, "train")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"images": IMAGES}, "one label from 0 to 9 for each image"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "one label from 0 to 9 for each image"),
        ({"images": IMAGES / 255, "labels": LABELS}, "holds float64 [10, 32, 32, 3]; uint8 [N, 32, 32, 3] is needed"),
        ({"images": IMAGES[:, :8], "labels": LABELS}, "holds uint8 [10, 8, 32, 3]; uint8 [N, 32, 32, 3] is needed"),
    ],
)
def test_an_npz_of_something_else_is_told_in_one_line(arrays, message, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays)
    assert message in refusal_of(read, tmp_path / "images.npz", "train")


def test_the_weights_of_the_example_network_give_its_logits(relu_resnet, resnet_samples):
    model = ResNet20().eval()
    load_weights(model, relu_resnet)
    images = resnet_samples["image"][:8]
    found = model(torch.from_numpy(images)).detach().numpy()
    (expected,) = pconv_onnx.session(relu_resnet).run(None, {"image": images})
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_checkpoint_with_batch_norm_is_folded(tmp_path):
    conv, norm = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False), torch.nn.BatchNorm2d(16).eval()
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        values.uniform_(0.5, 2)
    state = ResNet20().state_dict()
    del state["conv1.bias"]
    state |= {f"conv1.{name}": value for name, value in conv.state_dict().items()}
    state |= {f"bn1.{name}": value for name, value in norm.state_dict().items()}
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pt")
    model = ResNet20()
    load_weights(model, tmp_path / "a.pt")
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(model.conv1(x), norm(conv(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps(Touch())], ids=["empty", "nonsense", "pickle"])
@pytest.mark.parametrize("name", ["a.pt", "a.onnx"])
def test_other_weights_are_told_in_one_line(name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    assert f"'{name}' does not hold the weights of a ResNet-20" in refusal_of(load_weights, ResNet20(), Path(name))
    assert os.listdir() == [name]


def test_weights_of_another_network_name_what_is_missing(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "a.pt")
    assert "it has no 'conv1.weight'" in refusal_of(load_weights, ResNet20(), tmp_path / "a.pt")


def test_augmentation_moves_by_four_pixels_at_most_over_black():
    found = augmented(IMAGES, np.random.default_rng(0))
    padded = np.pad(IMAGES, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for image, source in zip(found, padded, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(source, (32, 32, 3))[:, :, 0]
        assert any(np.array_equal(w, image) or np.array_equal(w[:, ::-1], image) for row in windows for w in row)
    assert not np.array_equal(found, IMAGES)


def small(folder: Path, epochs: int = 2, rate: float = 0.01) -> Training:
    """A run on a network of one convolution."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 4, 3, stride=8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 10)
    model, _ = replace_relu(torch.nn.Sequential(*layers), 4)
    return Training(model, epochs, rate, folder / "checkpoint.pt", {"rate": rate})


def test_an_interrupted_run_ends_as_a_whole_one(tmp_path):
    whole = small(tmp_path)
    for _ in range(2):
        whole.epoch(IMAGES, LABELS, "cpu")
    first = small(tmp_path)
    first.epoch(IMAGES, LABELS, "cpu")
    first.save()
    second = small(tmp_path)
    second.resume()
    assert second.done == 1
    second.epoch(IMAGES, LABELS, "cpu")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path, monkeypatch):
    training = small(tmp_path)
    training.epoch(IMAGES, LABELS, "cpu")
    training.save()
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def interrupted(state, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.save()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


@pytest.mark.parametrize("broken", [True, False])
def test_the_checkpoint_of_another_run_is_refused(broken, tmp_path):
    training = small(tmp_path)
    training.save()
    if broken:
        training.checkpoint.write_bytes(b"nonsense")
    assert "checkpoint.pt' is of another run; delete it" in refusal_of(small(tmp_path, rate=0.02).resume)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_ends_with_a_network_that_rewrite_converts(tmp_path):
    np.savez(tmp_path / "images.npz", images=IMAGES, labels=LABELS)
    arguments = ["--data", "images.npz", "--test", "images.npz", "--epochs", "1", "--levels", "4", "-o", "out"]
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ReLU ") and done.stdout.count("\n") == 1
    assert "epoch 1 of 1: loss " in done.stderr
    path = tmp_path / "out" / "resnet20-qcfs.onnx"
    result = pconv_onnx.rewrite(path, strict=True)
    assert len(result.plan.neurons) == 19
    assert [value.name for value in onnx.load(path).graph.input] == ["image"]
    again = run(tmp_path, *arguments)
    assert again.returncode == 0 and "epoch" not in again.stderr
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data", "."], "finetune_cifar10: '.' holds no CIFAR-10 train images; pass a folder or file like one of: "),
        (
            ["--data", "."],
            "cifar-10-batches-py, cifar-10-batches-bin, pictures as train/CLASS/*.png or .jpg, or an .npz",
        ),
        (["--data", ".", "--weights", "none.pt"], "'none.pt' does not hold the weights of a ResNet-20"),
    ],
)
def test_faults_are_told_in_one_line(arguments, message, tmp_path):
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
