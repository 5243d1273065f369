"""The serving example under load: throughput and latency by network and batch limit, some with workers killed.

The ANN is served from a bundle of its folded form in which it takes that network's place. Ratios are to the ANN at the
same batch limit in the same round; rounds run every candidate in turns.
Where workers are killed, a share of the requests is bad.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastapi
import numpy as np
import uvicorn
from agreement import EXAMPLES, RESNET, prepare, read_npz
from measure import machine, write

import pconv_onnx
from pconv_onnx.measure.timing import OtherWork

sys.path.append(str(EXAMPLES / "serve"))

from load_test import expected_of, load, samples_of, serving, told  # noqa: E402  # a script beside serve.py

BATCHES = (1, 8, 32)
ANN = "ANN"
# Of a load that is disturbed: workers killed, and the share of bad requests.
DISTURBED = (3, 0.1)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="rounds (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default: 2)")
    parser.add_argument("--requests", type=int, default=600, help="of each load (default: 600)")
    parser.add_argument("--concurrency", type=int, default=64, help="clients at a time (default: 64)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the raw figures there, as JSON")
    options = parser.parse_args()
    other = OtherWork()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "images.npz")
        images, _ = read_npz(EXAMPLES / "resnet20" / "cifar10-test-1000.npz")
        np.savez(inputs, image=prepare(images[:200], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW"))
        bundles = {name: bundle(name, Path(folder, name)) for name in (ANN, "folded", "parallel")}
        samples = samples_of(bundles[ANN], inputs)
        expected = {name: expected_of(path, samples) for name, path in bundles.items()}
        plans = [(name, limit, False) for limit in BATCHES for name in bundles]
        plans += [(name, 8, True) for name in ("folded", "parallel")]
        for repeat in range(options.repeats):
            for name, limit, disturbed in plans:
                with serving(bundles[name], "--workers", str(options.workers), "--max-batch", str(limit)) as url:
                    load_of = (samples, expected[name], options.requests, options.concurrency, 120)
                    row = asyncio.run(load(url, *load_of, *(DISTURBED if disturbed else ())))
                rows.append({"name": name, "max_batch": limit, "repeat": repeat, **row})
                print(f"{name:<9} limit {limit:2} {told(row)}", flush=True)
    document = {
        "benchmark": "serving",
        "machine": machine(threads=1)
        | other.summary()
        | {"fastapi": fastapi.__version__, "uvicorn": uvicorn.__version__},
        "workers": options.workers,
        "rows": rows,
        "ratios": ratios(rows),
    }
    print(json.dumps(document["ratios"], indent=1))
    write(document, options.output)


def bundle(name: str, folder: Path) -> Path:
    """The bundle of a network; the ANN's has its file in the place of the folded network's."""
    mode = "folded" if name == ANN else name
    pconv_onnx.deploy(pconv_onnx.rewrite(RESNET, mode=mode).model, folder)
    if name == ANN:
        (folder / "model.onnx").write_bytes(RESNET.read_bytes())
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["model.onnx"] = hashlib.sha256(RESNET.read_bytes()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Throughput against the ANN at the same limit, and against limit 1: medians over rounds."""
    undisturbed = {
        (row["name"], row["max_batch"], row["repeat"]): row["per_second"] for row in rows if not row["killed"]
    }

    def median(name: str, limit: int, other: str, other_limit: int) -> float:
        repeats = sorted({row["repeat"] for row in rows})
        pairs = [(undisturbed[name, limit, repeat], undisturbed[other, other_limit, repeat]) for repeat in repeats]
        return float(np.median([first / second for first, second in pairs]))

    names = sorted({name for name, _, _ in undisturbed})
    return [
        {
            "name": name,
            "max_batch": limit,
            "to_ann": median(name, limit, ANN, limit),
            "to_1": median(name, limit, name, 1),
        }
        for name in names
        for limit in BATCHES
    ]


if __name__ == "__main__":
    main()
