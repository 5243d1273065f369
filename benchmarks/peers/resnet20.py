"""ResNet-20 on the CPU in this project, in PyTorch by the paper's formulas, in a serial loop, and in SpikingJelly.

Each runtime is measured in a process of its own, its candidates in turns; ratios are to the ReLU ANN of the same
runtime. PyTorch is measured a second time with an allocator that keeps its memory, since large tensors fresh from the
system cost it more than computing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]

from measure import arguments, interleaved, machine, rows, write  # noqa: E402  # scripts beside this one, not modules
from prepare_images import prepare, read_npz  # noqa: E402

from pconv_onnx.measure.timing import OtherWork  # noqa: E402

NETWORKS = ROOT / "examples" / "resnet20"
RELU, QCFS = NETWORKS / "resnet20-relu.onnx", NETWORKS / "resnet20-qcfs8.onnx"
BASELINE = "ReLU ANN"
# glibc's malloc would hand large blocks back to the system after each use.
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}

Candidates = dict[str, Callable[[], np.ndarray]]


def images(batch: int) -> np.ndarray:
    """Test images as the networks take them."""
    found, _ = read_npz(NETWORKS / "cifar10-test-1000.npz")
    return prepare(found[:batch], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW")


def in_onnxruntime(x: np.ndarray, steps: int, threads: int) -> Candidates:
    """The ANNs, and every form that this project gives the quantised one."""
    import onnxruntime

    import pconv_onnx
    from pconv_onnx.measure.timing import session_options

    def options() -> Any:
        settings = session_options()
        settings.intra_op_num_threads = threads
        return settings

    quantised = {mode: pconv_onnx.rewrite(QCFS, mode=mode, steps=steps).model for mode in ("parallel", "folded")}
    body = quantised["parallel"].SerializeToString()
    sessions = {
        BASELINE: onnxruntime.InferenceSession(RELU, options()),
        "QCFS ANN": onnxruntime.InferenceSession(QCFS, options()),
        "parallel": pconv_onnx.session(quantised["parallel"], options=options()),
        "parallel, standard operators": onnxruntime.InferenceSession(body, options()),
        "serial": pconv_onnx.SerialSession(
            pconv_onnx.rewrite(QCFS, mode="serial", steps=steps).model, options=options()
        ),
        "folded": pconv_onnx.session(quantised["folded"], options=options()),
    }
    candidates = {
        name: lambda session=session: session.run(None, {"image": x})[0] for name, session in sessions.items()
    }
    return candidates | {"serial, one step": lambda: sessions["serial"].step(None, {"image": x})[0]}


def in_pytorch(x: np.ndarray, steps: int, threads: int) -> Candidates:
    """The ReLU ANN, the paper's neurons, serial neurons, and what SpikingJelly makes of the ANN."""
    import torch
    from finetune_cifar10 import ResNet20, load_weights
    from onnx import load, numpy_helper
    from spikingjelly.activation_based import ann2snn, functional

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    image = torch.from_numpy(x)
    tensors = {tensor.name: tensor for tensor in load(QCFS).graph.initializer}

    class Parallel(torch.nn.Module):
        """The mean over time, compared at each step with that step's threshold: T × N comparisons."""

        def __init__(self, threshold: float) -> None:
            super().__init__()
            self.threshold = threshold
            self.thresholds = (threshold * (torch.arange(steps) + 0.5) / steps).reshape(-1, 1, 1, 1, 1)

        def forward(self, current: torch.Tensor) -> torch.Tensor:
            mean = current.reshape(-1, len(x), *current.shape[1:]).mean(0)
            return (self.threshold * (mean >= self.thresholds).to(mean.dtype)).flatten(0, 1)

    class Serial(torch.nn.Module):
        """Integrate and fire with soft reset; the potential begins at θ/2."""

        def __init__(self, threshold: float) -> None:
            super().__init__()
            self.threshold = threshold
            self.potential: torch.Tensor | None = None

        def forward(self, current: torch.Tensor) -> torch.Tensor:
            if self.potential is None:
                self.potential = torch.full_like(current, self.threshold / 2)
            charge = self.potential + current
            spikes = self.threshold * (charge >= self.threshold).to(charge.dtype)
            self.potential = charge - spikes
            return spikes

    def network(neuron: Callable[[float], torch.nn.Module] | None, weights: Path) -> torch.nn.Module:
        model = ResNet20().eval()
        load_weights(model, weights)
        if neuron is not None:
            names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ReLU)]
            for name in names:
                model.set_submodule(name, neuron(float(numpy_helper.to_array(tensors[f"{name}.up"])[0])))
        return model

    ann = network(None, RELU)
    if not torch.allclose(in_modules(ann)(image), ann(image), atol=1e-4):
        raise SystemExit("error: the network for SpikingJelly is another")
    parallel, serial = network(Parallel, QCFS), network(Serial, QCFS)
    neurons = [module for module in serial.modules() if isinstance(module, Serial)]
    recipe = ann2snn.RateCodingRecipe(dataloader=[(torch.from_numpy(images(100)), None)])
    spiking_jelly = ann2snn.Converter(recipe).convert(in_modules(ann)).eval()

    def stepped(model: torch.nn.Module, reset: Callable[[], object]) -> np.ndarray:
        reset()
        return (sum(model(image) for _ in range(steps)) / steps).numpy()

    def let_go() -> None:
        for neuron in neurons:
            neuron.potential = None

    return {
        BASELINE: lambda: ann(image).numpy(),
        # The first layer computes once: until the first neuron every step is the same.
        "the paper's formulas": lambda: parallel(image).reshape(steps, len(x), -1).mean(0).numpy(),
        "serial loop": lambda: stepped(serial, let_go),
        "SpikingJelly": lambda: stepped(spiking_jelly, lambda: functional.reset_net(spiking_jelly)),
    }


def in_modules(ann: Any) -> Any:
    """The same network in modules alone, as SpikingJelly wants it: shortcuts and pooling are layers."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, source: Any) -> None:
            super().__init__()
            self.conv1, self.act1, self.conv2, self.act2 = source.conv1, source.act1, source.conv2, source.act2
            self.shortcut: nn.Module = nn.Identity()
            if source.grown:
                inputs, outputs = source.conv1.in_channels, source.conv1.out_channels
                self.shortcut = nn.Conv2d(inputs, outputs, 1, source.stride, bias=False)
                kept = nn.functional.pad(torch.eye(inputs), (0, 0, source.grown, source.grown))
                self.shortcut.weight.copy_(kept[..., None, None])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act2(self.conv2(self.act1(self.conv1(x))) + self.shortcut(x))

    blocks = [Block(block) for layer in (ann.layer1, ann.layer2, ann.layer3) for block in layer]
    return nn.Sequential(ann.conv1, ann.act, *blocks, nn.AvgPool2d(8), nn.Flatten(), ann.linear).eval()


RUNTIMES = {"onnxruntime": in_onnxruntime, "PyTorch": in_pytorch, "PyTorch, memory kept": in_pytorch}


def measured(runtime: str, options: Any) -> Iterator[dict[str, Any]]:
    """The rows of one runtime, and what its candidates give on the same images, to compare."""
    for batch in options.batch:
        x = images(batch)
        for steps in options.steps:
            candidates = RUNTIMES[runtime](x, steps, options.threads)
            answers = {name: run().argmax(1).tolist() for name, run in candidates.items()}
            seconds = interleaved(candidates, options.repeats, warm_up=2)
            for row in rows(seconds, BASELINE):
                where = {"runtime": runtime, "batch": batch, "steps": steps}
                yield where | row | {"answers": answers[row["name"]], "seconds": seconds[row["name"]]}


def main() -> None:
    """Measure, compare, print, write."""
    parser = arguments(__doc__, repeats=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--runtime", choices=RUNTIMES, help="measure this alone, in this process, and print its rows")
    options = parser.parse_args()
    if options.runtime:
        print(json.dumps(list(measured(options.runtime, options))))
        return
    quiet = OtherWork()
    found = []
    for runtime in RUNTIMES:
        kept = KEEPING if runtime.endswith("kept") else {}
        command = [sys.executable, __file__, *sys.argv[1:], "--runtime", runtime]
        done = subprocess.run(command, env=os.environ | kept, stdout=subprocess.PIPE, text=True, check=True)
        found += json.loads(done.stdout.splitlines()[-1])
    check(found)
    document = {"benchmark": "peers", "machine": machine(options.threads) | versions() | quiet.summary(), "rows": found}
    for row in found:
        del row["answers"]
        where = f"batch {row['batch']}, T = {row['steps']}"
        print(f"{row['runtime']:<21} {where:<18} {row['name']:<29} {row['median_ms']:9.2f} ms  {row['ratio']:6.2f} ×")
    write(document, options.output)


def check(found: list[dict[str, Any]]) -> None:
    """Refuse figures of networks that do not compute the same: a slow baseline that is wrong proves nothing."""
    answers = {(row["runtime"], row["batch"], row["steps"], row["name"]): row["answers"] for row in found}
    for (runtime, batch, steps, name), ours in answers.items():
        twin = {"the paper's formulas": "parallel", "serial loop": "serial", BASELINE: BASELINE}.get(name)
        if twin is not None:
            theirs = answers["onnxruntime", batch, steps, twin]
            if np.mean(np.array(ours) == theirs) < 0.9:
                raise SystemExit(f"error: {name} in {runtime} does not compute what {twin} does at T = {steps}")


def versions() -> dict[str, str]:
    """Of what this benchmark adds."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "spikingjelly")}


if __name__ == "__main__":
    main()
