"""Do sessions that are dropped leave anything behind?

Hundreds are opened, run once and dropped, each kind of them in a fresh process, which tells as it goes its resident
memory, its open files, its threads and what is in its temporary folder. The baseline is stock onnxruntime on the ANN,
in such a process too. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from measure import machine, write
from onnx import TensorProto, helper, numpy_helper

import pconv_onnx

CHANNELS, LEVELS, LAYERS = 256, 64, 4
X = np.random.default_rng(0).normal(size=(1, CHANNELS, 2, 2)).astype(np.float32)


def ann() -> onnx.ModelProto:
    """Convolutions and QCFS whose thresholds differ from channel to channel, so that neurons have large tables."""
    generator = np.random.default_rng(0)
    shape = ["N", CHANNELS, 2, 2]
    constants = {name: np.float32(value) for name, value in (("L", LEVELS), ("half", 0.5), ("zero", 0), ("one", 1))}
    nodes, tensor = [], "x"
    for layer in range(LAYERS):
        constants[f"w{layer}"] = generator.normal(0, 0.1, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
        constants[f"theta{layer}"] = generator.uniform(1, 2, (CHANNELS, 1, 1)).astype(np.float32)
        for op_type, *others in (
            ("Conv", f"w{layer}"), ("Div", f"theta{layer}"), ("Mul", "L"), ("Add", "half"), ("Floor",), ("Div", "L"),
            ("Clip", "zero", "one"), ("Mul", f"theta{layer}"),
        ):  # fmt: skip
            nodes.append(helper.make_node(op_type, [tensor, *others], [f"t{len(nodes)}"]))
            tensor = nodes[-1].output[0]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", tensor)]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "layers", infos[:1], infos[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rewritten(mode: str) -> onnx.ModelProto:
    """Its spiking form; serial networks have one threshold a neuron, so no large tables."""
    model = pconv_onnx.rewrite(ann(), mode=mode).model
    assert model is not None  # only a dry run gives none
    return model


def stock(model: onnx.ModelProto) -> Callable[[], Any]:
    """Opens it in onnxruntime alone."""
    content = model.SerializeToString()
    return lambda: onnxruntime.InferenceSession(content)


def registered(model: onnx.ModelProto) -> Callable[[], Any]:
    """Opens it in onnxruntime with the library."""
    content = model.SerializeToString()
    return lambda: onnxruntime.InferenceSession(content, pconv_onnx.register(onnxruntime.SessionOptions()))


BASELINE = "ANN, onnxruntime alone"
KINDS: dict[str, Callable[[], Callable[[], Any]]] = {
    BASELINE: lambda: stock(ann()),
    "ANN, onnxruntime with the library": lambda: registered(ann()),
    "function body, onnxruntime alone": lambda: stock(rewritten("parallel")),
    "parallel, onnxruntime with the library": lambda: registered(rewritten("parallel")),
    "parallel, pconv_onnx.session": lambda: partial(pconv_onnx.session, rewritten("parallel")),
    "folded, pconv_onnx.session": lambda: partial(pconv_onnx.session, rewritten("folded")),
    "serial, SerialSession": lambda: partial(pconv_onnx.SerialSession, rewritten("serial")),
}


def table_bytes() -> int:
    """Thresholds and levels of the network in mode parallel."""
    return sum(
        len(t.raw_data) for t in rewritten("parallel").graph.initializer if t.name.endswith(("thresholds", "levels"))
    )


def state() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_kib": int(status["VmRSS"].split()[0]),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "temporary_files": len(os.listdir(tempfile.gettempdir())),
    }


def states(kind: str, sessions: int, warm_up: int, every: int, keep: bool) -> list[dict[str, int]]:
    """What this process holds after a warm-up and from then on, as sessions are opened, run and dropped, or kept."""
    opened = KINDS[kind]()
    kept, result = [], []
    for index in range(warm_up + sessions + 1):
        if index >= warm_up and (index - warm_up) % every == 0:
            result.append({"sessions": index - warm_up, **state()})
        runner = opened()
        runner.run(None, {"x": X})
        if keep:
            kept.append(runner)
    return result


def in_a_process(kind: str, sessions: int, warm_up: int, every: int, keep: bool = False) -> list[dict[str, int]]:
    """The same in a fresh process, with a temporary folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--child", json.dumps([kind, sessions, warm_up, every, keep])],
            env={**os.environ, "TMPDIR": folder}, stdout=subprocess.PIPE, text=True, check=True, timeout=600,
        )  # fmt: skip
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found


def growth(found: list[dict[str, int]]) -> float:
    """KiB of resident memory a session, over the second half, where allocators have settled.

    The median slope between two states: now and then an allocator hands pages back, and takes them again.
    """
    settled = found[len(found) // 2 :]
    return statistics.median(
        (later["resident_kib"] - state["resident_kib"]) / (later["sessions"] - state["sessions"])
        for state, later in combinations(settled, 2)
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=400, help="sessions of each kind (400)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(states(*options.child)))
        return
    rows = []
    for kind in KINDS:
        found = in_a_process(kind, options.sessions, warm_up=40, every=options.sessions // 20)
        rows.append({"name": kind, "growth_kib_a_session": growth(found), "states": found})
        first, last = found[0], found[-1]
        others = ", ".join(f"{key} {first[key]} → {last[key]}" for key in ("files", "threads", "temporary_files"))
        print(
            f"{kind:<40} {first['resident_kib'] / 1024:6.1f} → {last['resident_kib'] / 1024:6.1f} MiB, "
            f"{rows[-1]['growth_kib_a_session']:+.2f} KiB a session; {others}",
            flush=True,
        )
    document = {
        "benchmark": "leaks",
        "machine": machine(os.cpu_count() or 1),
        "sessions": options.sessions,
        "baseline": BASELINE,
        "tables_kib": table_bytes() / 1024,
        "rows": rows,
    }
    write(document, options.output)


if __name__ == "__main__":
    main()
