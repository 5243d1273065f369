"""ParallelSpike on the CPU: spike trains against a copy of as many bytes, temporal means against QCFS.

The copy is memmove on as many threads: the operator reads and writes as much. QCFS is the activation in standard ONNX
operators. As inside a network, threads are awake and currents as near as they fit: candidates take turns of a few runs,
and every tensor exists before the clock starts.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from measure import arguments, machine, report, rows
from onnx import helper, numpy_helper

import pconv_onnx

Array = np.ndarray[Any, np.dtype[Any]]

SHAPE = (32, 64, 32, 32)
LEVELS = 8
# A session's threads spin for a while after a run; they must be asleep when the next candidate begins.
REST_SECONDS = 0.05
WARM_UP = 3
BURST = 5


class Session:
    """A model bound to an input and to an output whose memory has been touched."""

    def __init__(self, model: bytes, x: Array, threads: int, library: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        if library is not None:
            options.register_custom_ops_library(str(library))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.output = np.ones(self._session.get_outputs()[0].shape, x.dtype)
        self._values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in (x, self.output)]
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("x", self._values[0])
        self._binding.bind_ortvalue_output("y", self._values[1])

    def __call__(self) -> None:
        self._session.run_with_iobinding(self._binding)


def make_model(nodes: list[onnx.NodeProto], x: Array, batch: int, constants: dict[str, Any]) -> bytes:
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        nodes,
        "operator",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", element, (batch, *x.shape[1:]))],
        [numpy_helper.from_array(np.asarray(value, x.dtype), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("pconv", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def parallel_spike(x: Array, input_steps: int, steps: int, channels: int, spikes: bool) -> bytes:
    """QCFS neurons in one node: one θ = 1 for the whole tensor, or one θ for each channel."""
    theta = np.linspace(0.5, 1.5, channels)[:, None] if channels > 1 else np.ones((1, 1))
    node = helper.make_node("ParallelSpike", ["x", "thresholds", "levels"], ["y"], domain="pconv")
    node.attribute.extend(
        helper.make_attribute(name, value)
        for name, value in {"input_steps": input_steps, "channel_axis": 1, "spikes": int(spikes)}.items()
    )
    constants = {"thresholds": theta * (np.arange(steps) + 0.5) / steps, "levels": theta * np.arange(steps + 1) / steps}
    return make_model([node], x, len(x) // input_steps * (steps if spikes else 1), constants)


def radix_spike(x: Array, input_steps: int, highest: int, zero: int, channels: int) -> bytes:
    """The same neurons with trains of binary digits; levels from −θ to θ about `zero` where it is not 0."""
    theta = np.linspace(0.5, 1.5, channels)[:, None] if channels > 1 else np.ones((1, 1))
    spacing = theta / max(zero, highest - zero)
    attributes = {"input_steps": input_steps, "channel_axis": 1, "spikes": 1, "coding": 1, "steps": LEVELS}
    node = helper.make_node(
        "ParallelSpike", ["x", "thresholds", "levels"], ["y"], domain="pconv", **attributes, zero=zero
    )
    constants = {
        "thresholds": spacing * (np.arange(highest) - zero + 0.5),
        "levels": spacing * (np.arange(highest + 1) - zero),
    }
    return make_model([node], x, len(x) // input_steps * LEVELS, constants)


def qcfs(x: Array) -> bytes:
    """θ·clip(⌊x·L/θ + 1/2⌋/L, 0, 1) with θ = 1."""
    nodes = [
        helper.make_node("Mul", ["x", "levels_per_theta"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Floor", ["shifted"], ["count"]),
        helper.make_node("Div", ["count", "levels"], ["fraction"]),
        helper.make_node("Clip", ["fraction", "zero", "one"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "theta"], ["y"]),
    ]
    constants = {"levels_per_theta": LEVELS, "half": 0.5, "levels": LEVELS, "zero": 0, "one": 1, "theta": 1}
    return make_model(nodes, x, len(x), constants)


def threaded_copy(source: Array, threads: int) -> Callable[[], None]:
    target = np.ones_like(source)
    pool = ThreadPoolExecutor(threads)
    shares = list(zip(*(np.array_split(array.reshape(-1), threads) for array in (target, source)), strict=True))

    def copy(share: tuple[Array, Array]) -> None:
        ctypes.memmove(share[0].ctypes.data, share[1].ctypes.data, share[0].nbytes)

    def run() -> None:
        list(pool.map(copy, shares))

    return run


def in_bursts(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call; the candidates take turns of BURST calls."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            time.sleep(REST_SECONDS)
            for call in range(WARM_UP + BURST):
                start = time.perf_counter()
                run()
                if call >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure, print, write."""
    parser = arguments(__doc__, repeats=20)
    parser.add_argument("--library", type=Path, metavar="FILE", help="default: the library of the installed package")
    options = parser.parse_args()
    library = options.library or pconv_onnx.library_path()
    x = np.random.default_rng(0).normal(0.5, 0.5, (LEVELS * SHAPE[0], *SHAPE[1:])).astype(np.float32)
    static = x[: SHAPE[0]].copy()

    def operator(current: Array, input_steps: int, steps: int, channels: int, spikes: bool) -> Session:
        model = parallel_spike(current, input_steps, steps, channels, spikes)
        return Session(model, current, options.threads, library)

    def radix(current: Array, input_steps: int, channels: int, highest: int = 255, zero: int = 0) -> Session:
        return Session(radix_spike(current, input_steps, highest, zero, channels), current, options.threads, library)

    groups: dict[str, dict[str, Callable[[], object]]] = {}
    for currents in (x, x.astype(np.float16)):
        trains = f"copy of {currents.nbytes >> 20} MiB"
        groups[trains] = {
            trains: threaded_copy(currents, options.threads),
            f"spikes, {currents.dtype}, I=8, S=8, per tensor": operator(currents, 8, 8, 1, True),
            f"spikes, {currents.dtype}, I=8, S=8, per channel": operator(currents, 8, 8, SHAPE[1], True),
            f"radix, {currents.dtype}, I=8, S=255, T=8, per tensor": radix(currents, 8, 1),
            f"radix, {currents.dtype}, I=8, S=255, T=8, per channel": radix(currents, 8, SHAPE[1]),
            f"signed radix, {currents.dtype}, I=8, S=254, T=8, per tensor": radix(currents, 8, 1, 254, 127),
            f"signed radix, {currents.dtype}, I=8, S=254, T=8, per channel": radix(currents, 8, SHAPE[1], 254, 127),
        }
        if currents.dtype == np.float32:
            groups[trains].update(
                {
                    "radix, float32, I=1, S=255, T=8, per tensor": radix(static, 1, 1),
                    "radix, float32, I=1, S=255, T=8, per channel": radix(static, 1, SHAPE[1]),
                    "mean, I=8, S=255, per tensor": operator(currents, 8, 255, 1, False),
                    "mean, I=8, S=255, per channel": operator(currents, 8, 255, SHAPE[1], False),
                }
            )
    activation = Session(qcfs(static), static, options.threads)
    means = f"QCFS, L={LEVELS}"
    groups[means] = {
        means: activation,
        "mean, I=1, S=8, per tensor": (mean := operator(static, 1, 8, 1, False)),
        "mean, I=1, S=8, per channel": operator(static, 1, 8, SHAPE[1], False),
        "mean, I=1, S=255, per tensor": operator(static, 1, 255, 1, False),
        "mean, I=1, S=255, per channel": operator(static, 1, 255, SHAPE[1], False),
    }
    activation()
    mean()
    if not np.array_equal(activation.output, mean.output):
        raise SystemExit("error: ParallelSpike and QCFS differ")

    seconds = {baseline: in_bursts(candidates, options.repeats) for baseline, candidates in groups.items()}
    document = {
        "benchmark": "parallel_spike",
        "shape": SHAPE,
        "machine": machine(options.threads),
        "rows": [row for baseline, values in seconds.items() for row in rows(values, baseline)],
        "seconds": {name: values for group in seconds.values() for name, values in group.items()},
    }
    report(f"ParallelSpike, {list(SHAPE)}, {options.threads} threads", document, options.output)


if __name__ == "__main__":
    main()
