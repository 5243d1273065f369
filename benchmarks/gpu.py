"""The CUDA kernel and rewritten networks on a GPU, into benchmarks/results/<gpu>.json.

The operator is measured by the GPU's clock against copies of as many bytes; then, in onnxruntime, against the same
neuron in standard operators and in PyTorch; then whole networks, on data that lies on the GPU. What does not fit in its
memory is listed as left out, with the reason. TF32 is off unless a row says otherwise.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from cuda_device import Device, layout_of
from measure import interleaved, machine, report, rows, write
from onnx import TensorProto, helper, numpy_helper
from parallel_spike import parallel_spike

import pconv_onnx
from pconv_onnx.measure.timing import ratio, rounds
from pconv_onnx.neuron.coding import Rate
from pconv_onnx.operators.library import register
from pconv_onnx.operators.parallel_spike import functions
from pconv_onnx.runtime.cuda_graph import GraphSession
from pconv_onnx.runtime.device_memory import CUDA, dtype_of

Array = np.ndarray[Any, np.dtype[Any]]

NETWORKS = Path(__file__).parent.parent / "examples" / "resnet20"
RESULTS = Path(__file__).parent / "results"
LEVELS = 8
STEPS = (4, 8, 16, 32)
BATCHES = (1, 128)
OPERATOR_MIB = (64, 256, 1024)
# A layer of 256 MiB at T = 8: what one run costs beside the operator is then little.
NEURON_SHAPE = (32, 64, 64, 64)
RELU = "ReLU ANN"
LEAST_ROUNDS = 5


class Provider:
    """Where a network runs: an execution provider, and what onnxruntime and PyTorch call the device."""

    def __init__(self, name: str = CUDA, device: str = "cuda") -> None:
        self.name = name
        self.device = device

    def entry(self, **options: str) -> list[Any]:
        """For `providers=`; the options are CUDA's alone."""
        # Memory by need, not by powers of two: several networks share the GPU's.
        cuda = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested", **options}
        return [(self.name, cuda if self.name == CUDA else {})]


@dataclass(frozen=True)
class Train:
    """Trains that the operator makes of currents of as many steps.

    Attributes:
        name: in rows.
        highest: count of the highest level.
        coding: by its number.
    """

    name: str = "spikes"
    highest: int = LEVELS
    coding: int = Rate.number


def operator_rows(
    device: Device, sizes: Sequence[int], repeats: int, train: Train = Train()
) -> Iterator[dict[str, Any]]:
    """Trains of 8 steps from currents of 8 steps, against a copy of the same array; sizes in bytes of that array."""
    highest = train.highest
    for size in sizes:
        source, target = device.allocate(size), device.allocate(size)
        for dtype in (np.dtype(np.float32), np.dtype(np.float16)):
            inner, channels = 1024, 64
            batch = size // dtype.itemsize // (LEVELS * channels * inner)
            x = np.random.default_rng(0).normal(0.5, 0.5, (LEVELS * batch, channels, inner)).astype(dtype)
            device.upload(x, source)
            baseline = f"copy of {size >> 20} MiB, {dtype}"
            seconds: dict[str, list[float]] = {baseline: []}
            # In turns, so that a drift of the clock meets both.
            for _ in range(4):
                seconds[baseline] += device.time_copies(target, source, x.nbytes, repeats)
                for count in (1, channels):
                    theta = np.linspace(0.5, 1.5, count)[:, None] if count > 1 else np.ones((1, 1))
                    tables = [theta * (np.arange(highest) + 0.5) / highest, theta * np.arange(highest + 1) / highest]
                    tables = [table.astype(dtype) for table in tables]
                    places = [device.allocate(table.nbytes) for table in tables]
                    for table, place in zip(tables, places, strict=True):
                        device.upload(table, place)
                    how = {"coding": train.coding, "steps": LEVELS}
                    layout = layout_of(x, tables[0], input_steps=LEVELS, channel_axis=1, spikes=1, **how)
                    name = f"{train.name}, {dtype}, {size >> 20} MiB, per {'tensor' if count == 1 else 'channel'}"
                    times = device.time_launches(layout, dtype, [source, *places, target], repeats)
                    seconds.setdefault(name, []).extend(times)
                    for place in places:
                        device.release(place)
            yield from (row | {"section": "operator"} for row in rows(seconds, baseline))
        device.release(source)
        device.release(target)


def bound(model: bytes, provider: Provider, with_library: bool = True) -> GraphSession:
    """A session of fixed shapes whose inputs and outputs lie on the device."""
    options = onnxruntime.SessionOptions()
    if with_library:
        register(options)
    return GraphSession(onnxruntime.InferenceSession(model, options, providers=provider.entry()))


def neuron_rows(provider: Provider, shape: Sequence[int], repeats: int) -> Iterator[dict[str, Any]]:
    """One layer of neurons, 8 steps in and out: the kernel, its function body, and comparisons in PyTorch."""
    x = np.random.default_rng(0).normal(0.5, 0.5, (LEVELS * shape[0], *shape[1:])).astype(np.float32)
    plain = onnx.load_from_string(parallel_spike(x, LEVELS, LEVELS, 1, True))
    body = onnx.ModelProto()
    body.CopyFrom(plain)
    body.functions.extend(functions(17, x.dtype, LEVELS, 1))
    kernel = bound(plain.SerializeToString(), provider)
    standard = bound(body.SerializeToString(), provider, with_library=False)
    currents = torch.from_numpy(x).to(provider.device).reshape(LEVELS, *shape)
    steps = torch.arange(1, LEVELS + 1, device=provider.device).reshape(-1, *[1] * len(shape))
    threshold = 1.0
    weight, bias = LEVELS / steps, threshold / 2 / steps

    def in_torch() -> torch.Tensor:
        # As the paper's authors compute it: Λ has equal columns, so its product is the mean over time, weighted.
        charge = weight * currents.mean(0) + bias
        trains = (charge >= threshold).float() * threshold
        if provider.device == "cuda":
            torch.cuda.synchronize()
        return trains

    for session in (kernel, standard):
        session.inputs["x"].update_inplace(x)
        session.replay()
    expected = kernel.outputs["y"].numpy()
    if not np.array_equal(standard.outputs["y"].numpy(), expected):
        raise SystemExit("error: the kernel and its function body differ")
    # A sum in float32 moves means that lie on a threshold.
    if (in_torch().reshape(expected.shape).cpu().numpy() != expected).mean() > 1e-3:
        raise SystemExit("error: the kernel and PyTorch differ")
    candidates: dict[str, Callable[[], object]] = {
        "ParallelSpike": kernel.replay,
        "standard operators (function body)": standard.replay,
        "PyTorch, as the paper's authors compute it": in_torch,
    }
    seconds = interleaved(candidates, repeats)
    yield from (row | {"section": "neuron"} for row in rows(seconds, "ParallelSpike"))


def resnet34(activation: str, *, size: int = 224, width: int = 64, classes: int = 1000) -> onnx.ModelProto:
    """A network with the layers of ResNet-34 and random weights; `activation` is Relu or QCFS with 8 levels."""
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    initializers = [
        numpy_helper.from_array(np.float32(value), name)
        for name, value in {"theta": 4, "levels": LEVELS, "half": 0.5, "zero": 0, "one": 1}.items()
    ]

    def add(op_type: str, inputs: list[str], **attributes: Any) -> str:
        output = f"t{len(nodes)}"
        nodes.append(helper.make_node(op_type, inputs, [output], f"node_{output}", **attributes))
        return output

    def weights(*shape: int) -> str:
        name = f"w{len(initializers)}"
        values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        initializers.append(numpy_helper.from_array(values, name))
        return name

    def conv(x: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
        around = [kernel // 2] * 4
        return add("Conv", [x, weights(outputs, inputs, kernel, kernel)], pads=around, strides=[stride] * 2)

    def activate(x: str) -> str:
        if activation == "Relu":
            return add("Relu", [x])
        for op_type, *constants in (
            ("Div", "theta"), ("Mul", "levels"), ("Add", "half"), ("Floor",), ("Div", "levels"),
            ("Clip", "zero", "one"), ("Mul", "theta"),
        ):  # fmt: skip
            x = add(op_type, [x, *constants])
        return x

    x = activate(conv("x", 3, width, 7, 2))
    # Not its MaxPool, which serial neurons cannot feed.
    x = add("AveragePool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        outputs = width << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            skip = x if inputs == outputs else conv(x, inputs, outputs, 1, stride)
            x = activate(conv(x, inputs, outputs, 3, stride))
            x = activate(add("Add", [conv(x, outputs, outputs, 3, 1), skip]))
            inputs = outputs
    x = add("Flatten", [add("GlobalAveragePool", [x])])
    nodes.append(helper.make_node("MatMul", [x, weights(inputs, classes)], ["y"], "classifier"))
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", 3, size, size]), ("y", ["N", classes]))
    ]
    graph = helper.make_graph(nodes, "resnet34", infos[:1], infos[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@dataclass(frozen=True)
class Form:
    """One of the networks that are measured against each other.

    `runs` of the model are one measurement: a serial network is stepped.
    """

    mode: str
    model: onnx.ModelProto
    steps: int | None = None
    precision: str = "float32"
    tf32: str = "off"
    runs: int = 1

    @property
    def arithmetic(self) -> tuple[str, str]:
        """What its convolutions are computed in."""
        return self.precision, self.tf32

    def description(self) -> dict[str, Any]:
        """What tells it from the others, for its row."""
        return {"mode": self.mode, "steps": self.steps, "precision": self.precision, "tf32": self.tf32}


def groups(relu: onnx.ModelProto, quantised: onnx.ModelProto, steps: Sequence[int]) -> list[list[Form]]:
    """Networks that are measured in turns: those without a number of time-steps, then those of each number.

    The first of every group is the ReLU ANN.
    """
    ann = Form(RELU, relu)
    folded = pconv_onnx.rewrite(quantised, mode="folded").model
    step = pconv_onnx.rewrite(quantised, mode="serial", steps=LEVELS).model
    found = [[ann, Form("QCFS ANN", quantised), Form("folded", folded), Form("serial step", step)]]
    for count in steps:
        forms = [ann]
        for mode, runs in (("serial", count), ("parallel", 1)):
            for precision in (None, "float16"):
                made = pconv_onnx.rewrite(quantised, mode=mode, steps=count, precision=precision).model
                for tf32 in ("off",) if precision else ("off", "on"):
                    forms.append(Form(mode, made, count, precision or "float32", tf32, runs))
        found.append(forms)
    return found


def network_rows(
    provider: Provider,
    name: str,
    forms: Sequence[Form],
    batch: int,
    *,
    repeats: int,
    budget: float,
    left_out: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """The networks of a group in turns, on data that lies on the device, each run launched node by node or as a graph.

    As many rounds as fit into `budget` seconds, but 5 at least and `repeats` at most. cuDNN's algorithms are chosen in
    the way that is faster for the network. What does not run is appended to `left_out`.

    Yields:
        A row per network; `ratio` is to the ReLU ANN, `speedup` is that over the serial network of the same
        precision and TF32.
    """
    where = {"network": name, "batch": batch}
    sessions: dict[str, GraphSession] = {}
    searches: dict[str, dict[str, float]] = {}
    by_label: dict[str, Form] = {}
    for form in forms:
        label = " ".join(str(value) for value in (name, batch, *form.description().values()) if value is not None)
        try:
            sessions[label], searches[label] = _fastest(form, provider, batch)
        except Exception as error:  # onnxruntime raises its own types, without a common base
            left_out.append(where | form.description() | {"reason": str(error).splitlines()[0]})
            continue
        by_label[label] = form
    if not sessions or next(iter(by_label.values())).mode != RELU:
        return
    for captured in (False, True) if provider.name == CUDA else (False,):
        runs = {label: _replay(session, captured, by_label[label].runs) for label, session in sessions.items()}
        round_seconds = sum(list(rounds(runs, 2))[-1].values())
        seconds = interleaved(runs, min(repeats, max(LEAST_ROUNDS, int(budget / round_seconds))), warm_up=0)
        serial = {form.arithmetic: seconds[label] for label, form in by_label.items() if form.mode == "serial"}
        for row in rows(seconds, next(iter(seconds))):
            form, times = by_label[row["name"]], seconds[row["name"]]
            baseline = serial.get(form.arithmetic)
            yield {
                "section": "network",
                **row,
                **where,
                **form.description(),
                "cudnn_conv_algo_search": next(iter(searches[row["name"]])) or None,
                "search_ms": searches[row["name"]],
                "cuda_graph": captured,
                "rounds": len(times),
                "images_per_s": batch / row["median_ms"] * 1e3,
                "speedup": None if baseline is None else ratio(baseline, times),
            }


def _replay(session: GraphSession, captured: bool, times: int) -> Callable[[], None]:
    options = onnxruntime.RunOptions()
    if not captured:
        options.add_run_config_entry("gpu_graph_id", "-1")

    def replay() -> None:
        for _ in range(times):
            session.session.run_with_iobinding(session.binding, options)

    return replay


def _fastest(form: Form, provider: Provider, batch: int) -> tuple[GraphSession, dict[str, float]]:
    """A session, warm, and how it chooses cuDNN's algorithms: ms of a run by way that works, the fastest first."""
    best = None
    milliseconds: dict[str, float] = {}
    failure = None
    for search in ("EXHAUSTIVE", "HEURISTIC") if provider.name == CUDA else ("",):
        how = {"cudnn_conv_algo_search": search} if search else {}
        try:
            session = _fixed(form.model, provider, batch, use_tf32=str(int(form.tf32 == "on")), **how)
            session.replay()
            # The GPU's own time: launched as a graph, where there are graphs.
            seconds = min(interleaved({"": _replay(session, provider.name == CUDA, 1)}, 3, warm_up=1)[""])
        except Exception as error:  # onnxruntime raises its own types, without a common base
            failure = error
            continue
        if best is None or seconds * 1e3 < min(milliseconds.values()):
            best = session
        milliseconds[search] = seconds * 1e3
    if best is None:
        assert failure is not None
        raise failure
    return best, dict(sorted(milliseconds.items(), key=lambda item: item[1]))


def _fixed(model: onnx.ModelProto, provider: Provider, batch: int, **how: str) -> GraphSession:
    """A session for that batch, its input filled; on CUDA it captures a graph, and the provider has these options."""
    options = onnxruntime.SessionOptions()
    data = model.graph.input[0]
    options.add_free_dimension_override_by_name(data.type.tensor_type.shape.dim[0].dim_param, batch)
    entry = provider.entry(**how)
    if provider.name == CUDA:
        session = pconv_onnx.session(model, providers=entry, options=options, cuda_graph=True)
    else:
        session = GraphSession(pconv_onnx.session(model, providers=entry, options=options))
    for name, value in session.inputs.items():
        array = np.zeros(value.shape(), dtype_of(value.data_type()))  # of membrane potentials
        if name == data.name:
            array = np.random.default_rng(0).standard_normal(value.shape()).astype(np.float32)
        value.update_inplace(array)
    return session


class Document:
    """What is measured on this machine's GPU, written as it grows: a GPU may be rented by the minute.

    Attributes:
        options: of the command line.
        device: the GPU.
        provider: of onnxruntime.
    """

    def __init__(self, description: str | None, suffix: str) -> None:
        """Begin a document.

        Args:
            description: of the command line.
            suffix: of the file's name, behind the name of the GPU.
        """
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--repeats", type=int, default=30, help="rounds, where they fit (default: 30)")
        parser.add_argument("--seconds", type=float, default=2, help="for the rounds of networks (default: 2)")
        file = f"benchmarks/results/<gpu>{suffix}.json"
        parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"default: {file}")
        self.options = parser.parse_args()
        try:
            self.device = Device()
        except RuntimeError as error:
            raise SystemExit(f"error: {error}") from error
        onnxruntime.preload_dlls()
        self.provider = Provider()
        gpu = self.device.describe()
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        versions = {"driver": driver, "torch": torch.__version__}
        self.content: dict[str, Any] = {
            "benchmark": f"gpu{suffix}",
            "machine": machine(torch.get_num_threads()) | gpu | versions,
            "rows": [],
            "left_out": [],
        }
        name = re.sub("[^a-z0-9]+", "-", gpu["gpu"].lower()).strip("-")
        self._output = self.options.output or RESULTS / f"{name}{suffix}.json"

    def take(self, found: Iterable[dict[str, Any]]) -> None:
        """Add rows."""
        self.content["rows"].extend(found)
        write(self.content, self._output)

    def networks(self, name: str, forms: Sequence[Form], batch: int) -> Iterator[dict[str, Any]]:
        """Rows of networks that are measured in turns."""
        how = {"repeats": self.options.repeats, "budget": self.options.seconds, "left_out": self.content["left_out"]}
        return network_rows(self.provider, name, forms, batch, **how)

    def report(self) -> None:
        """Print all of it."""
        report(self.content["machine"]["gpu"], self.content, self._output)
        for entry in self.content["left_out"]:
            print(f"  left out: {entry}")


def main() -> None:
    """Measure, print, write."""
    document = Document(__doc__, "")
    options, take = document.options, document.take
    take(operator_rows(document.device, [size << 20 for size in OPERATOR_MIB], options.repeats))
    take(neuron_rows(document.provider, NEURON_SHAPE, options.repeats))
    networks = {
        "ResNet-20": tuple(onnx.load(NETWORKS / f"resnet20-{kind}.onnx") for kind in ("relu", "qcfs8")),
        "ResNet-34": tuple(resnet34(activation) for activation in ("Relu", "QCFS")),
    }
    for name, (relu, quantised) in networks.items():
        measured = groups(relu, quantised, STEPS)
        for batch in BATCHES:
            for forms in measured:
                take(document.networks(name, forms, batch))
    document.report()


if __name__ == "__main__":
    main()
