"""Fine-tune a pretrained ReLU network into one with QCFS activations: ResNet-20 on CIFAR-10.

    python finetune_cifar10.py --data cifar-10-batches-py --levels 8 --epochs 5 -o build/cifar10

The images come from a folder in one of CIFAR-10's layouts:

    cifar-10-batches-py    data_batch_1 … data_batch_5, test_batch: the Python version
    cifar-10-batches-bin   data_batch_1.bin … data_batch_5.bin, test_batch.bin: the binary version
    pictures               train/CLASS/*.png or .jpg, test/CLASS/*.png or .jpg

or from an .npz with `images` uint8 [N, 32, 32, 3] and `labels`; then --test names another one. An interrupted run goes
on where its last whole epoch ended. At the end the network is in FOLDER/resnet20-qcfs.onnx, ready for `pconv-onnx
rewrite`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from prepare_images import prepare, read_folder, read_npz
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pconv_onnx import PconvError
from pconv_onnx.basics.progress import showing, track
from pconv_onnx.basics.writing import write_atomically
from pconv_onnx.data.cifar import read_batch
from pconv_onnx.torch import export, replace_relu

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RELU = Path(__file__).parent / "resnet20" / "resnet20-relu.onnx"
BATCH = 128
LAYOUTS = "cifar-10-batches-py, cifar-10-batches-bin, pictures as train/CLASS/*.png or .jpg, or an .npz"

Split = tuple[np.ndarray, np.ndarray]


class Block(nn.Module):
    """Two convolutions and a shortcut without weights (option A), batch norm folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.grown = (2 if outputs > inputs else 1), (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.act2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(self.act1(self.conv1(x)))
        if self.grown:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grown, self.grown))
        return self.act2(y + x)


class ResNet20(nn.Module):
    """He et al., "Deep residual learning for image recognition" (CVPR 2016), for 32 × 32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.act = nn.ReLU()
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.act(self.conv1(image)))))
        return self.linear(F.avg_pool2d(x, 8).flatten(1))


def read_binary(path: Path) -> Split:
    """Images and labels of a batch of the binary version: records of a label and three planes."""
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not content.size or content.size % 3073:
        raise PconvError(f"'{path}' is not a CIFAR-10 batch: its records are not of 3,073 bytes", "fetch it again")
    records = content.reshape(-1, 3073)
    return _from_planes(records[:, 1:]), records[:, 0].astype(np.int64)


def _from_planes(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def read(source: Path, split: str) -> Split:
    """Images uint8 `[N, 32, 32, 3]` and labels int64 `[N]` of `train` or `test`.

    Raises:
        PconvError: there is no such data, or not all of it.
    """
    images, labels = _read(source, split)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise PconvError(f"'{source}' holds {images.dtype} {list(images.shape)}; uint8 [N, 32, 32, 3] is needed")
    if labels is None or len(labels) != len(images) or not np.isin(labels, np.arange(10)).all():
        raise PconvError(f"'{source}' does not hold one label from 0 to 9 for each image")
    return images, labels


def _read(source: Path, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    if source.is_file() and source.suffix == ".npz":
        return read_npz(source)
    if (source / split).is_dir():
        return read_folder(source / split, None)
    names = [f"data_batch_{index}" for index in range(1, 6)] if split == "train" else ["test_batch"]
    for folder, suffix, read_file in (("py", "", read_batch), ("bin", ".bin", read_binary)):
        for place in (source, source / f"cifar-10-batches-{folder}"):
            files = [place / f"{name}{suffix}" for name in names]
            missing = [file.name for file in files if not file.is_file()]
            if not missing:
                images, labels = zip(*map(read_file, files), strict=True)
                return np.concatenate(images), np.concatenate(labels)
            if len(missing) < len(files):
                raise PconvError(f"'{place}' is not whole: {', '.join(missing)} missing", "unpack it again")
    raise PconvError(f"'{source}' holds no CIFAR-10 {split} images", f"pass a folder or file like one of: {LAYOUTS}")


def load_weights(model: nn.Module, path: Path) -> None:
    """Weights of a ReLU ResNet-20: an ONNX file or a PyTorch checkpoint, with or without batch norm.

    Raises:
        PconvError: they cannot be read, or are another network's.
    """
    try:
        if path.suffix == ".onnx":
            tensors = onnx.load(path).graph.initializer
            state = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in tensors}
            state = {name.replace(".weight_bias", ".bias"): value for name, value in state.items()}
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
            state = _without_batch_norm({name.removeprefix("module."): value for name, value in state.items()})
        # An ONNX file has constants of its own beside the weights.
        model.load_state_dict({name: state[name] for name in model.state_dict()})
    except Exception as error:  # a file that is something else raises anything
        told = f"it has no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
        raise PconvError(f"'{path}' does not hold the weights of a ResNet-20: {told}", "see --weights") from error


def _without_batch_norm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    folded = dict(state)
    for name in state:
        if name.endswith(".weight") and "conv" in name and f"{_norm(name)}.running_var" in state:
            conv, norm = name.removesuffix(".weight"), _norm(name)
            mean, var, scale, shift = (
                state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
            )
            folded[name], folded[f"{conv}.bias"] = fuse_conv_bn_weights(
                state[name], state.get(f"{conv}.bias"), mean, var, 1e-5, scale, shift
            )
    return folded


def _norm(weight: str) -> str:
    return weight.removesuffix(".weight").replace("conv", "bn")


def augmented(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each image shifted by up to 4 pixels over a black border, and flipped or not."""
    count = len(images)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    rows, columns = (generator.integers(0, 9, (count, 1)) + np.arange(32) for _ in range(2))
    moved = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    flipped = generator.random(count) < 0.5
    moved[flipped] = moved[flipped, :, ::-1]
    return moved


def tensor(images: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(prepare(images, MEAN, STD, "NCHW")).to(device)


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray, device: str) -> float:
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(images), 500):
            part = slice(start, start + 500)
            correct += int((model(tensor(images[part], device)).argmax(1).cpu().numpy() == labels[part]).sum())
    return correct / len(images)


class Training:
    """A run that can be interrupted: what it has reached is in its checkpoint."""

    def __init__(self, model: nn.Module, epochs: int, rate: float, checkpoint: Path, settings: dict[str, Any]) -> None:
        self.model, self.epochs, self.checkpoint, self.settings = model, epochs, checkpoint, settings
        thresholds = [value for name, value in model.named_parameters() if name.endswith(".threshold")]
        others = [value for name, value in model.named_parameters() if not name.endswith(".threshold")]
        groups = [{"params": others, "weight_decay": 5e-4}, {"params": thresholds, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)
        self.done = 0

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one.

        Raises:
            PconvError: it is not one of this run.
        """
        if not self.checkpoint.exists():
            return
        another = PconvError(f"'{self.checkpoint}' is of another run", "delete it, or choose another folder with -o")
        try:
            state = torch.load(self.checkpoint, weights_only=True)
        except Exception as error:
            raise another from error
        if state.get("settings") != self.settings:
            raise another
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.done = state["done"]

    def save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        state |= {"done": self.done, "settings": self.settings}
        write_atomically(self.checkpoint, lambda file: torch.save(state, file))

    def epoch(self, images: np.ndarray, labels: np.ndarray, device: str) -> float:
        """One pass over the images; the mean loss."""
        # By its number, so that a run that was interrupted sees what it would have seen.
        generator = np.random.default_rng(self.done)
        order = generator.permutation(len(images))
        parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        self.model.train()
        total = 0.0
        for part in track(parts, f"epoch {self.done + 1} of {self.epochs}", len(parts)):
            self.optimizer.zero_grad()
            targets = torch.from_numpy(labels[part]).to(device)
            loss = F.cross_entropy(self.model(tensor(augmented(images[part], generator), device)), targets)
            loss.backward()
            # Without batch norm the first steps, through thresholds that are not learned yet, would go astray.
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            total += loss.item() * len(part)
        self.schedule.step()
        self.done += 1
        return total / len(images)


def finetune(
    data: Path, test: Path, weights: Path, levels: int, epochs: int, rate: float, folder: Path
) -> dict[str, Any]:
    """Everything; the figures by name.

    Raises:
        PconvError: something that it needs is not there, or not what it should be.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    relu = ResNet20().to(device)
    load_weights(relu, weights)
    train, held_out = read(data, "train"), read(test, "test")
    before = accuracy(relu, *held_out, device)
    print(f"ReLU: {before:.2%} of {len(held_out[0]):,} test images", file=sys.stderr)
    model, _ = replace_relu(relu, levels)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"levels": levels, "epochs": epochs, "rate": rate, "images": len(train[0]), "weights": str(weights)}
    training = Training(model, epochs, rate, folder / "checkpoint.pt", settings)
    training.resume()
    while training.done < epochs:
        start = time.perf_counter()
        loss = training.epoch(*train, device)
        training.save()
        found = accuracy(model, *held_out, device)
        told = f"loss {loss:.3f}, {found:.2%} of the test images, {time.perf_counter() - start:.0f} s"
        print(f"epoch {training.done} of {epochs}: {told}", file=sys.stderr)
    path = folder / "resnet20-qcfs.onnx"
    export(model, tensor(held_out[0][:1], device), path, output_names=["logits"])
    after = accuracy(model, *held_out, device)
    print(f"ReLU {before:.2%}, QCFS (L = {levels}) {after:.2%}: {path}")
    figures = {"test_images": len(held_out[0]), "relu_accuracy": before, "qcfs_accuracy": after}
    return {"levels": levels, "epochs": epochs, "rate": rate, "training_images": len(train[0]), **figures}


def main() -> None:
    """Read arguments, fine-tune; faults in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training images: a folder, or an .npz")
    parser.add_argument("--test", type=Path, help="test images (default: those of the folder)")
    parser.add_argument(
        "--weights", type=Path, default=RELU, help="ReLU network, ONNX or PyTorch (default: %(default)s)"
    )
    parser.add_argument("--levels", type=int, default=8, help="L of each activation (default: 8)")
    parser.add_argument("--epochs", type=int, default=5, help="(default: 5)")
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate at the start (default: 0.01)")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/cifar10"), metavar="FOLDER")
    options = parser.parse_args()
    if options.test is None and options.data.is_file():
        parser.error("--data is one file; name the test images with --test")
    test = options.test or options.data
    try:
        finetune(options.data, test, options.weights, options.levels, options.epochs, options.rate, options.output)
    except (PconvError, OSError) as error:
        sys.exit(f"finetune_cifar10: {error}")


if __name__ == "__main__":
    with showing(True):
        main()
