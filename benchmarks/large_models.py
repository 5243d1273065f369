"""A network whose weights fit in no single ONNX file: how much memory it takes to rewrite, to run and to verify it.

The network (QCFS, L = 8: two convolutions and ten layers of Gemm and MatMul, 2.6 GiB of random weights in external
data) is made in a temporary folder, which needs three times that room. Each task is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measure import write
from onnx import TensorProto, helper, numpy_helper

import pconv_onnx
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.measure.timing import OtherWork, machine

ANN, SNN, BUNDLE = "ann.onnx", "snn.onnx", "bundle"
STEPS, SAMPLES = 8, 4
# Operator, shape of its weights.
LAYERS = [
    ("Conv", (128, 3, 3, 3)),
    ("Conv", (512, 128, 3, 3)),
    ("Gemm", (4096, 32768)),
    ("MatMul", (4096, 16384)),
    ("Gemm", (8192, 16384)),
    ("MatMul", (8192, 16384)),
    ("Gemm", (4096, 16384)),
    ("MatMul", (4096, 8192)),
    ("Gemm", (4096, 8192)),
    ("MatMul", (4096, 8192)),
    ("MatMul", (8192, 8192)),
    ("Gemm", (1000, 8192)),
]
QCFS = [
    ("Div", "theta"), ("Mul", "count"), ("Add", "half"), ("Floor",), ("Div", "count"), ("Clip", "zero", "one"),
    ("Mul", "theta"),
]  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {"Gemm": {"transB": 1}, "Conv": {"strides": [2, 2], "pads": [1] * 4}}
MEBIBYTE = 1 << 20
BLOCK = 1 << 22


def network(folder: Path) -> int:
    """Write the ANN, its weights a few at a time; returns their bytes."""
    generator = np.random.default_rng(0)
    nodes, initializers, tensor = [], [], "image"
    with (folder / f"{ANN}.data").open("wb") as file:
        for index, (op_type, shape) in enumerate(LAYERS):
            weights = f"w{index}"
            initializers.append(reference(weights, shape, file.tell()))
            elements = int(np.prod(shape))
            gain = np.float32(2 / np.sqrt(shape[0] if op_type == "MatMul" else elements // shape[0]))
            for start in range(0, elements, BLOCK):
                block = generator.standard_normal(min(BLOCK, elements - start), dtype=np.float32)
                file.write((gain * block).tobytes())
            if op_type == "Gemm" and LAYERS[index - 1][0] == "Conv":
                nodes.append(helper.make_node("Flatten", [tensor], ["flat"], "flatten"))
                tensor = "flat"
            spelled = [(op_type, weights), *(QCFS if index < len(LAYERS) - 1 else [])]
            for part, (operator, *operands) in enumerate(spelled):
                inputs, tensor = [tensor, *operands], f"t{index}_{part}"
                nodes.append(
                    helper.make_node(operator, inputs, [tensor], f"node_{tensor}", **OPTIONS.get(operator, {}))
                )
    for name, value in {"theta": 1.0, "count": STEPS, "half": 0.5, "zero": 0.0, "one": 1.0}.items():
        initializers.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["N", LAYERS[-1][1][0]])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / ANN).write_bytes(model.SerializeToString())
    return (folder / f"{ANN}.data").stat().st_size


def reference(name: str, shape: Sequence[int], offset: int) -> TensorProto:
    """A float32 tensor whose values are in the ANN's data file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    entries = {"location": f"{ANN}.data", "offset": offset, "length": 4 * int(np.prod(shape))}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def samples() -> np.ndarray:
    """What the networks are run on."""
    return np.random.default_rng(1).standard_normal((SAMPLES, 3, 32, 32), dtype=np.float32)


def run(name: str) -> None:
    """Run a network, and write its outputs beside it."""
    np.save(f"{name}.npy", pconv_onnx.session(name).run(None, {"image": samples()})[0])


def verify() -> dict[str, Any]:
    """Verify the spiking network on a sample."""
    found = pconv_onnx.verify(ANN, SNN, {"image": samples()[:1]}).summary()
    return {key: found[key] for key in ("verdict", "passed", "samples")}


def stats() -> dict[str, Any]:
    """Count the spikes of one sample."""
    totals = pconv_onnx.stats(SNN, {"image": samples()[:1]}).summary()["totals"]
    return {"firing_rate": totals["firing_rate"]}


TASKS: dict[str, Callable[[], Any]] = {
    "import pconv_onnx": lambda: None,
    "inspect": lambda: pconv_onnx.inspect(ANN) and None,
    "rewrite": lambda: pconv_onnx.rewrite(ANN, SNN) and None,
    "run the ANN": lambda: run(ANN),
    "run the SNN": lambda: run(SNN),
    "stats": stats,
    "verify": verify,
    "deploy": lambda: pconv_onnx.deploy(SNN, BUNDLE) and None,
}


def task(name: str) -> None:
    """One task in this process, in the present folder; prints what was measured."""
    start = time.perf_counter()
    found = TASKS[name]()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_memory_mib": peak_memory(), **(found or {})}))


def in_a_process(name: str, folder: Path) -> dict[str, Any]:
    """The same in a fresh one."""
    command = [sys.executable, __file__, "--task", name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rewritings (default: 3)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    parser.add_argument("--task", choices=TASKS, help="do one task in this process, and print what was measured")
    options = parser.parse_args()
    if options.task:
        task(options.task)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, work = network(folder), OtherWork()
        print(f"{weights / MEBIBYTE:,.0f} MiB of weights")
        rows = []
        for told in TASKS:
            measured = [in_a_process(told, folder) for _ in range(options.repeats if told == "rewrite" else 1)]
            row = {"task": told, **measured[0]}
            row["seconds"] = median(entry["seconds"] for entry in measured)
            row["peak_memory_mib"] = max(entry["peak_memory_mib"] for entry in measured)
            row["peak_memory_of_weights"] = row["peak_memory_mib"] * MEBIBYTE / weights
            rows.append(row)
            print(f"  {told:<18} {row['seconds']:8.2f} s {row['peak_memory_mib']:8.0f} MiB"
                  f" {row['peak_memory_of_weights']:6.2f} × the weights")  # fmt: skip
        expected, found = (np.load(folder / f"{file}.npy") for file in (ANN, SNN))
        size = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name.startswith(SNN)}
    document = {
        "benchmark": "large models",
        "machine": machine() | work.summary(),
        "weights_bytes": weights,
        "peak_memory": "VmHWM of a fresh process: Python and files mapped into memory are in it",
        "repeats_of_rewrite": options.repeats,
        "rows": rows,
        "written_bytes": size,
        "outputs": {
            "samples": SAMPLES,
            "steps": STEPS,
            "largest": float(np.abs(expected).max()),
            "max_abs_diff": float(np.abs(expected - found).max()),
            "top1_agreement": float((expected.argmax(1) == found.argmax(1)).mean()),
        },
    }
    print(json.dumps(document["outputs"]))
    write(document, options.output)


if __name__ == "__main__":
    main()
