"""Convolutions of integer weights with neurons behind them, one shape at a time.

They are measured against onnxruntime's float convolution, against themselves with trains for counts in and out, and
against oneDNN's of bytes where PyTorch is installed. A
run is of one instruction set, which bounds this library's kernels and oneDNN's alike; onnxruntime's float kernels
always take the best of the processor. What takes turns is several nodes of one graph, and the times are those of one
node: what a call of a session costs hardly counts. PyTorch adds some microseconds to each call of oneDNN, so compare
large batches with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from measure import arguments, interleaved, machine, rows, write
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.measure import timing
from pconv_onnx.operators.library import register
from pconv_onnx.runtime.opening import import_onnxruntime

# Names of oneDNN for the same instructions.
ONEDNN = {"avx512vnni": "AVX512_CORE_VNNI", "avxvnni": "AVX2_VNNI", "avx2": "AVX2"}
INTEGER, FLOAT, PEER = "IntegerSpikeConv", "float Conv and Relu, onnxruntime", "oneDNN, bytes"
CODINGS = ["rate", "radix"]
NODES = 8


def steps_of(coding: str, highest: int) -> int:
    """Time-steps of trains that carry counts up to `highest`."""
    return highest if coding == "rate" else highest.bit_length()


def in_trains(coding: str) -> str:
    return f"{INTEGER}, trains of {coding}"


@dataclass(frozen=True)
class Layer:
    """A convolution of square windows and images, padded so that a stride of 1 keeps their size."""

    network: str
    size: int
    channels: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    group: int = 1

    @property
    def output(self) -> int:
        return (self.size - 1) // self.stride + 1

    def products(self, batch: int) -> int:
        return batch * self.output**2 * self.outputs * self.channels // self.group * self.kernel**2

    def __str__(self) -> str:
        kind = f"{self.kernel}x{self.kernel}" + (" depthwise" if self.group > 1 else "")
        stride = f" / {self.stride}" if self.stride > 1 else ""
        return f"{self.network}: {self.channels} to {self.outputs}, {kind}{stride}, {self.size}x{self.size}"


LAYERS = [
    Layer("ResNet-20", 32, 3, 16),
    Layer("ResNet-20", 32, 16, 16),
    Layer("ResNet-20", 32, 16, 32, stride=2),
    Layer("ResNet-20", 16, 32, 32),
    Layer("ResNet-20", 16, 32, 64, stride=2),
    Layer("ResNet-20", 8, 64, 64),
    Layer("EfficientNet-Lite0", 224, 3, 32, stride=2),
    Layer("EfficientNet-Lite0", 112, 32, 32, group=32),
    Layer("EfficientNet-Lite0", 112, 32, 16, kernel=1),
    Layer("EfficientNet-Lite0", 112, 16, 96, kernel=1),
    Layer("EfficientNet-Lite0", 112, 96, 96, stride=2, group=96),
    Layer("EfficientNet-Lite0", 56, 144, 144, group=144),
    Layer("EfficientNet-Lite0", 56, 144, 144, kernel=5, stride=2, group=144),
    Layer("EfficientNet-Lite0", 28, 240, 240, kernel=5, group=240),
    Layer("EfficientNet-Lite0", 28, 240, 40, kernel=1),
    Layer("EfficientNet-Lite0", 14, 480, 480, group=480),
    Layer("EfficientNet-Lite0", 14, 672, 672, kernel=5, group=672),
    Layer("EfficientNet-Lite0", 14, 672, 112, kernel=1),
    Layer("EfficientNet-Lite0", 7, 1152, 192, kernel=1),
    Layer("EfficientNet-Lite0", 7, 320, 1280, kernel=1),
    Layer("SqueezeNet", 55, 64, 16, kernel=1),
    Layer("SqueezeNet", 55, 16, 64),
    Layer("SqueezeNet", 27, 32, 128),
    Layer("SqueezeNet", 13, 64, 256),
    Layer("SqueezeNet", 13, 512, 1000, kernel=1),
]


def integer_model(layer: Layer, batch: int, steps: int, coding: str | None = None) -> onnx.ModelProto:
    """Nodes of random weights and evenly spaced thresholds, a few of them in reach on either side of silence.

    Args:
        layer: what they are.
        batch: of images.
        steps: the largest spike count.
        coding: of trains in and out; none where they are counts.
    """
    draw = np.random.default_rng(0)
    window = (layer.outputs, layer.channels // layer.group, layer.kernel, layer.kernel)
    reach = 40 * steps * np.sqrt(np.prod(window[1:]))
    one = np.linspace(-reach, reach, steps)
    tables = {
        "bias": draw.integers(-100, 100, layer.outputs, np.int32),
        "factor": np.ones(layer.outputs, np.int32),
        "residual": np.zeros(1, np.uint8),
        "multiplier": np.ones(layer.outputs, np.int32),
        "thresholds": np.ceil(one + np.arange(layer.outputs)[:, None] / 7).astype(np.int32),
        "line": np.zeros((layer.outputs, 2), np.float32),
    }
    pad = layer.kernel // 2
    attributes: dict[str, Any] = {"zero": 0, "highest": steps, "residual_zero": 0, "group": layer.group}
    attributes["pads"] = [pad] * 4
    attributes |= {"strides": [layer.stride] * 2, "dilations": [1, 1]}
    rows = steps_of(coding, steps) if coding else 1
    attributes |= {"input_steps": rows, "residual_steps": 1, "steps": rows if coding else 0, "silent": 0}
    attributes |= dict.fromkeys(("input_coding", "coding"), CODINGS.index(coding) if coding else 0)
    if coding:
        attributes["highest"] = 1
    nodes = []
    for index in range(NODES):
        tables[f"weights_{index}"] = draw.integers(-60, 60, window, np.int8)
        inputs = ["input", f"weights_{index}", *list(tables)[:6]]
        nodes.append(helper.make_node(INTEGER, inputs, [f"output_{index}"], domain=DOMAIN, **attributes))
    return model(nodes, tables, TensorProto.UINT8, [rows * batch, layer.size, layer.size, layer.channels])


def float_model(layer: Layer, batch: int) -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    window = (layer.outputs, layer.channels // layer.group, layer.kernel, layer.kernel)
    tables: dict[str, np.ndarray] = {"bias": np.zeros(layer.outputs, np.float32)}
    attributes = {"group": layer.group, "pads": [layer.kernel // 2] * 4, "strides": [layer.stride] * 2}
    nodes = []
    for index in range(NODES):
        tables[f"weights_{index}"] = draw.standard_normal(window).astype(np.float32)
        nodes.append(helper.make_node("Conv", ["input", f"weights_{index}", "bias"], [f"sum_{index}"], **attributes))
        nodes.append(helper.make_node("Relu", [f"sum_{index}"], [f"relu_{index}"]))
        # The blocked layout of the sums stays as it is inside of a network: a graph output would be laid out anew.
        nodes.append(helper.make_node("GlobalMaxPool", [f"relu_{index}"], [f"output_{index}"]))
    return model(nodes, tables, TensorProto.FLOAT, [batch, layer.channels, layer.size, layer.size])


def model(nodes: list[onnx.NodeProto], tables: dict[str, Any], kind: int, shape: list[int]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info(f"output_{index}", kind, None) for index in range(NODES)],
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def in_session(one: onnx.ModelProto, values: np.ndarray, threads: int) -> Callable[[], object]:
    options = timing.session_options()
    options.intra_op_num_threads = threads
    register(options)
    providers = ["CPUExecutionProvider"]
    session = import_onnxruntime().InferenceSession(one.SerializeToString(), options, providers=providers)
    binding = session.io_binding()
    binding.bind_cpu_input("input", values)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding)


def in_onednn(layer: Layer, values: np.ndarray, threads: int) -> Callable[[], object] | None:
    """The same convolutions by oneDNN, requantised to bytes; none without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads)
    draw = np.random.default_rng(0)
    window = (layer.outputs, layer.channels // layer.group, layer.kernel, layer.kernel)
    images = torch.from_numpy(values.transpose(0, 3, 1, 2))
    scales, zeros = torch.full((layer.outputs,), 0.01), torch.zeros(layer.outputs, dtype=torch.int64)
    geometry = [layer.stride] * 2, [layer.kernel // 2] * 2, [1, 1]
    packed = []
    for _ in range(NODES):
        weights = torch.from_numpy(draw.integers(-60, 60, window, np.int8))
        packed.append(
            torch.ops.onednn.qconv_prepack(weights, scales, 1.0, 0, *geometry, layer.group, list(images.shape))
        )
    bias = torch.zeros(layer.outputs)
    to = (1.0, 0, torch.uint8, "relu", [], "")

    def run() -> None:
        for weights in packed:
            torch.ops.onednn.qconv2d_pointwise(
                images, 1.0, 0, weights, scales, zeros, bias, *geometry, layer.group, *to
            )

    return run


def entry(layer: Layer, batch: int, options: Any) -> dict[str, Any]:
    draw = np.random.default_rng(1)
    shape = (batch, layer.size, layer.size, layer.channels)
    counts = draw.integers(0, options.steps, shape, np.uint8, endpoint=True)
    floats = draw.standard_normal((batch, layer.channels, layer.size, layer.size)).astype(np.float32)
    candidates = {
        FLOAT: in_session(float_model(layer, batch), floats, options.threads),
        INTEGER: in_session(integer_model(layer, batch, options.steps), counts, options.threads),
    }
    for coding in CODINGS:
        spikes = draw.integers(0, 1, (steps_of(coding, options.steps) * batch, *shape[1:]), np.uint8, endpoint=True)
        one = integer_model(layer, batch, options.steps, coding)
        candidates[in_trains(coding)] = in_session(one, spikes, options.threads)
    peer = in_onednn(layer, counts, options.threads)
    if peer is not None:
        candidates[PEER] = peer
    seconds = {
        name: [value / NODES for value in values]
        for name, values in interleaved(candidates, options.repeats, warm_up=10).items()
    }
    table = rows(seconds, FLOAT)
    products = layer.products(batch)
    for row in table:
        row["products_per_ns"] = products / row["median_ms"] / 1e6
    ours = next(row for row in table if row["name"] == INTEGER)
    print(f"{str(layer):<62} batch {batch:<3} {ours['median_ms'] * 1e3:8.1f} us {ours['ratio']:6.2f} x float", end="")
    for coding in CODINGS:
        ratio = timing.ratio(seconds[in_trains(coding)], seconds[INTEGER])
        print(f" {ratio:6.2f} x in {steps_of(coding, options.steps)} steps of {coding}", end="")
    if peer is not None:
        print(f" {timing.ratio(seconds[INTEGER], seconds[PEER]):6.2f} x oneDNN", end="")
    print(flush=True)
    return {"layer": str(layer), "network": layer.network, "batch": batch, "rows": table}


def main() -> None:
    parser = arguments(__doc__, 100)
    parser.add_argument("--instructions", choices=list(ONEDNN), default="avx512vnni")
    parser.add_argument("--steps", type=int, default=8, help="the largest spike count (default: 8)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--network", help="layers of this one only")
    options = parser.parse_args()
    # Both are read when a kernel is made.
    os.environ["PCONV_INSTRUCTIONS"] = options.instructions
    os.environ["ONEDNN_MAX_CPU_ISA"] = ONEDNN[options.instructions]
    layers = [layer for layer in LAYERS if options.network in (None, layer.network)]
    entries = [entry(layer, batch, options) for layer in layers for batch in options.batches]
    document = {
        "title": "Convolutions of integer weights with neurons behind them",
        "instructions": options.instructions,
        "steps": options.steps,
        "machine": machine(options.threads),
        "layers": entries,
    }
    write(document, options.output)


if __name__ == "__main__":
    main()
