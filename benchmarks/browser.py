"""The example network in onnxruntime-web: classes and time of an image, in headless Chromium and in Node.js.

    npm install --prefix examples/browser
    python benchmarks/browser.py -o benchmarks/results/browser.json

Both run the function bodies in WASM, one thread, and are given the same images one by one; Python's classes are those
of stock onnxruntime. Times leave the first ten images out.
"""

from __future__ import annotations

import functools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from measure import arguments, machine, write

from pconv_onnx import rewrite

ROOT = Path(__file__).parents[1]
EXAMPLE, PAGE = ROOT / "examples" / "resnet20", ROOT / "examples" / "browser"
sys.path.append(str(ROOT / "examples"))
from prepare_images import prepare, read_npz  # noqa: E402  # examples are no package

MODES: dict[str, dict[str, Any]] = {
    "parallel": {},
    "folded": {},
    "integer": {"input_bits": 8, "input_range": (-2.2, 2.8)},
}
CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
WARM_UP, SECONDS = 10, 120


class _Answers(SimpleHTTPRequestHandler):
    """The files of a folder, and a place that a page sends its answer to."""

    def do_POST(self) -> None:
        self.server.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """No line for each."""


def in_chromium(folder: Path) -> dict[str, Any]:
    """What the page in a folder says of `images.raw`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Answers, directory=folder)) as server:
        server.answer = None  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html?images=images.raw"
        command = [*CHROMIUM, f"--user-data-dir={folder}/profile", "--remote-debugging-port=0", address]
        browser = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while server.answer is None and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.1)
        browser.terminate()
        browser.wait()
        server.shutdown()
        return server.answer or {"error": "the page did not answer"}  # type: ignore[attr-defined]


def in_node(folder: Path) -> dict[str, Any]:
    """What Node.js gives of the same."""
    command = ["node", "node.mjs", "snn.onnx", "images.raw"]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    options = arguments(__doc__ or "", 100).parse_args()
    images, _ = read_npz(EXAMPLE / "cifar10-test-1000.npz")
    images = prepare(images[: options.repeats], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW")
    places = {"chromium": in_chromium, "node": in_node}
    names = {"chromium": ["chromium", "--version"], "node": ["node", "--version"]}
    versions = {
        name: subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for name, command in names.items()
    }
    package = json.loads((PAGE / "node_modules" / "onnxruntime-web" / "package.json").read_text())
    document: dict[str, Any] = {
        "title": "The example network in onnxruntime-web (WASM, one thread)",
        "machine": machine(1) | versions | {"onnxruntime-web": package["version"]},
        "images": len(images),
        "rows": [],
    }
    for mode, settings in MODES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "page")
            shutil.copytree(PAGE, folder)
            rewrite(EXAMPLE / "resnet20-qcfs8.onnx", folder / "snn.onnx", mode=mode, **settings)  # type: ignore[arg-type]
            images.tofile(folder / "images.raw")
            runner = onnxruntime.InferenceSession(folder / "snn.onnx")
            expected = np.concatenate([runner.run(None, {"image": one[np.newaxis]})[0] for one in images]).argmax(
                axis=1
            )
            for place, run in places.items():
                answer = run(folder)
                if "error" in answer:
                    raise RuntimeError(f"{mode} in {place}: {answer['error']}")
                times = answer["milliseconds"][WARM_UP:]
                row = {
                    "mode": mode,
                    "place": place,
                    "other_classes": int((np.array(answer["top1"]) != np.array(expected)).sum()),
                    "median_ms": statistics.median(times),
                    "p10_ms": float(np.percentile(times, 10)),
                    "p90_ms": float(np.percentile(times, 90)),
                }
                print(row)
                document["rows"].append(row)
    write(document, options.output)


if __name__ == "__main__":
    main()
