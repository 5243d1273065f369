"""What a serial network keeps when it is deployed for NIR and run by other programs, and what each loss costs.

ResNet-20 is run by nirtorch, the interpreter of NIR's own project, with neurons of three kinds: soft reset from the
charge in the metadata (all that the network is), soft reset from zero, and Norse's, which reset to zero as NIR's
equation has it. Norse's own importer runs a network without branches, a small CNN trained on scikit-learn's digits.
Spike counts and means of outputs are compared with those of a SerialSession; top-1 with the labels.

    pip install 'pconv-onnx[cpu,nir,torch]' -c constraints.txt -r benchmarks/nir_requirements.txt
    python benchmarks/nir_execution.py -o benchmarks/results/nir.json
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import measure
import nir
import nirtorch
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from norse.torch.functional.iaf import IAFParameters
from norse.torch.module.iaf import IAFCell
from norse.torch.utils.import_nir import from_nir

from pconv_onnx import SerialSession, deploy, rewrite
from pconv_onnx.basics.arrays import Array
from pconv_onnx.operators.domain import is_serial
from pconv_onnx.torch import export, replace_relu

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "resnet20"
sys.path.insert(0, str(ROOT / "examples"))
import train_digits  # noqa: E402
from prepare_images import prepare, read_npz  # noqa: E402

BATCH = 100
Found = tuple[Array, dict[str, Array]]


class Soft(torch.nn.Module):
    """Integrate-and-fire neurons of a NIR node, from which a spike takes the threshold."""

    def __init__(self, node: nir.IF, *, charged: bool) -> None:
        """Take thresholds, and the charge from the metadata."""
        super().__init__()
        self.threshold = torch.from_numpy(node.v_threshold)
        self.initial = torch.from_numpy(node.metadata["v_initial"]) * charged

    def forward(self, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        """One time-step."""
        potential = (self.initial if state is None else state) + x
        spikes = (potential >= self.threshold).to(x.dtype)
        return spikes, potential - self.threshold * spikes


def affine(node: nir.Affine) -> torch.nn.Module:
    """A matrix with its bias, which nirtorch 2.6 does not take over."""
    layer = torch.nn.Linear(*node.weight.shape[::-1])
    layer.weight.data, layer.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return layer


def by_nirtorch(neurons: Callable[[nir.IF], torch.nn.Module]) -> Callable[[nir.NIRGraph], torch.nn.Module]:
    """The interpreter with such neurons."""
    return lambda graph: nirtorch.nir_to_torch(graph, {nir.IF: neurons, nir.Affine: affine})


READERS = {
    "nirtorch, soft reset, initial charge": by_nirtorch(partial(Soft, charged=True)),
    "nirtorch, soft reset": by_nirtorch(partial(Soft, charged=False)),
    "nirtorch, Norse's neurons": by_nirtorch(lambda node: IAFCell(IAFParameters(torch.from_numpy(node.v_threshold)))),
}
# Norse's importer runs a node as soon as one of its sources has run, so branches come out wrong.
CHAIN_READERS = READERS | {"Norse": from_nir}


class Chain(train_digits.Net):
    """The digits example with average pooling."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of images `[B, 1, 8, 8]`."""
        x = F.relu(self.bn1(self.conv1(image)))
        x = F.avg_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.bn3(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


def digits(ann: Path) -> tuple[Array, Array]:
    """Train and export the chain; its test images and labels."""
    torch.manual_seed(0)
    train, train_labels, test, test_labels = train_digits.load()
    relu = Chain()
    train_digits.fit(relu, train, train_labels)
    qcfs, _ = replace_relu(relu, 8)
    train_digits.fit(qcfs, train, train_labels)
    export(qcfs, torch.from_numpy(test[:1]), ann)
    return test, test_labels


def run_reader(reader: Callable[[nir.NIRGraph], torch.nn.Module], graph: nir.NIRGraph, steps: int, x: Array) -> Found:
    """Mean outputs, and spike counts by neuron node."""
    runner, counts = reader(graph), {name: 0 for name, node in graph.nodes.items() if isinstance(node, nir.IF)}

    def count(name: str, _: torch.nn.Module, __: object, output: tuple[torch.Tensor, Any]) -> None:
        counts[name] = counts[name] + output[0]

    for name in counts:
        runner.get_submodule(name).register_forward_hook(partial(count, name))
    state, total = None, torch.zeros(())
    with torch.no_grad():
        for _ in range(steps):
            output, state = runner(torch.from_numpy(x), state)
            total = total + output
    return (total / steps).numpy(), {name: value.numpy() for name, value in counts.items()}


def run_session(snn: Path, steps: int, x: Array) -> Found:
    """The same of the serial network itself."""
    model = onnx.load(snn)
    neurons = [node for node in model.graph.node if is_serial(node)]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in neurons)
    session = SerialSession(onnx.shape_inference.infer_shapes(model))
    total, counts = np.zeros(()), [np.zeros(())] * len(neurons)
    for _ in range(steps):
        output, *spikes = session.step(None, {session.get_inputs()[0].name: x})
        total = total + output
        counts = [count + (train != 0) for count, train in zip(counts, spikes, strict=True)]
    return total / steps, {node.name.replace(".", "_"): count for node, count in zip(neurons, counts, strict=True)}


def batches(run: Callable[[Array], Found], images: Array) -> Found:
    """What it gives for all images, taken some at a time."""
    parts = [run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    counts = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
    return np.concatenate([part[0] for part in parts]), counts


def rows(ann: Path, readers: dict[str, Any], steps: int, images: Array, labels: Array) -> list[dict[str, Any]]:
    """A row for the session, and one for each reader."""
    with tempfile.TemporaryDirectory() as folder:
        snn = Path(folder, "snn.onnx")
        rewrite(ann, snn, mode="serial", steps=steps)
        deploy(snn, Path(folder, "out"), target="nir", allow_lossy=True)
        graph = nir.read(Path(folder, "out", "snn.nir"))
        expected, trains = batches(partial(run_session, snn, steps), images)
    about = {"model": ann.stem, "samples": len(images), "steps": steps}
    found = [about | {"reader": "SerialSession", "top1": float((expected.argmax(1) == labels).mean())}]
    for name, reader in readers.items():
        means, counts = batches(partial(run_reader, reader, graph, steps), images)
        row = {
            "reader": name,
            "top1": float((means.argmax(1) == labels).mean()),
            "agreement": float((means.argmax(1) == expected.argmax(1)).mean()),
            "max_abs_diff": float(abs(means - expected).max()),
            "count_mismatch_rates": {layer: float((counts[layer] != trains[layer]).mean()) for layer in trains},
        }
        found.append(about | row)
    return found


def told(row: dict[str, Any]) -> str:
    """A line of the table."""
    line = f"{row['model']:<15} T = {row['steps']:<3} {row['reader']:<37} top-1 {100 * row['top1']:5.1f} %"
    if "agreement" not in row:
        return line
    first, *_, last = row["count_mismatch_rates"].values()
    line += f", agreement {100 * row['agreement']:5.1f} %, largest difference {row['max_abs_diff']:.2g}"
    return f"{line}, other counts: first layer {100 * first:.4f} %, last {100 * last:.3f} %"


def main() -> None:
    """Measure, print a table, write the raw figures."""
    parser = measure.arguments(__doc__ or "", repeats=1)
    parser.add_argument("--samples", type=int, default=50, help="test images of CIFAR-10 (default: 50)")
    options = parser.parse_args()
    packages = ("nir", "nirtorch", "norse", "torch", "onnxruntime")
    document: dict[str, Any] = {
        "benchmark": "nir",
        "machine": measure.machine(options.threads),
        "packages": {name: version(name) for name in packages},
        "rows": [],
    }
    images, labels = read_npz(EXAMPLE / "cifar10-test-1000.npz")
    images = prepare(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW")[: options.samples]
    resnet = (EXAMPLE / "resnet20-qcfs8.onnx", READERS, (8, 16), images, labels[: options.samples])
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder, "digits-qcfs8.onnx")
        torch.set_num_threads(1)  # much faster than two beside other programs, as in the digits example
        for ann, readers, steps_of, some, those in ((chain, CHAIN_READERS, (8, 16, 32), *digits(chain)), resnet):
            for steps in steps_of:
                for row in rows(ann, readers, steps, some, those):
                    document["rows"].append(row)
                    print(told(row), flush=True)
                measure.write(document, options.output)


if __name__ == "__main__":
    main()
