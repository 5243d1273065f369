"""Run the spiking network of this bundle in onnxruntime, after a check of every file: python run.py --help."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

try:
    import numpy as np
except ImportError:
    sys.exit("run.py: numpy is not installed; pip install numpy onnxruntime")

PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # TF32 would round inputs of convolutions to 10 bits.
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"})],
}


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(description="Run this spiking network in onnxruntime.")
    parser.add_argument("inputs", nargs="?", help=".npz of arrays named as the inputs (default: seeded random numbers)")
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu", help="where to run (cpu)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the outputs to this .npz")
    options = parser.parse_args()
    folder = Path(__file__).resolve().parent
    manifest = checked(folder)
    if options.provider not in manifest["providers"]:
        end(f"{manifest['library']} has kernels for {', '.join(manifest['providers'])} only")
    session = open_session(folder, manifest, PROVIDERS[options.provider])
    feed = complete(manifest, read(options.inputs) if options.inputs else {})
    try:
        outputs = run(session, manifest, feed)
    except Exception as error:  # onnxruntime's exceptions have no narrower class in common
        end(f"the network does not run on these inputs: {error}")
    for name, value in outputs.items():
        told = f"{name} {value.dtype} {list(value.shape)}"
        # Logits: one row of classes a sample.
        if value.ndim == 2 and value.shape[1] > 1 and np.issubdtype(value.dtype, np.floating):
            told += f", top-1 {' '.join(map(str, value.argmax(1)))}"
        print(told)
    if options.output:
        try:
            np.savez(options.output, **outputs)
        except OSError as error:
            end(f"cannot write '{options.output}': {error.strerror}")


def end(message: str) -> NoReturn:
    """End the program, with one line."""
    sys.exit(f"run.py: {' '.join(message.split())}")


def read(path: str) -> dict[str, Any]:
    """The arrays of an .npz file."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":  # NumPy would take it for a pickle
                end(f"'{path}' is not an .npz archive")
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        end(f"'{path}' cannot be read as .npz: {error}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, which lists what it names."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        if manifest["format"] != 1:
            end(f"this is for bundles of format 1, the manifest has format {manifest['format']}")
        unlisted = {manifest["model"], manifest["library"]} - set(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        end(f"manifest.json cannot be read ({error!r}); copy the whole bundle again")
    if unlisted:
        end(f"the manifest has no hash of {', '.join(sorted(unlisted))}; copy the whole bundle again")
    return manifest


def checked(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are what it says, and that is for this machine; else the program ends."""
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            end(f"the manifest names {name}, which is outside of the bundle")
        if not path.is_file():
            end(f"{name} is missing; copy the whole bundle again")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            end(f"{name} is not the file that was deployed (its SHA-256 differs); copy the bundle again")
    here = {"system": platform.system(), "machine": platform.machine()}
    if manifest["platform"] != here:
        end(f"the library is for {manifest['platform']}, this machine is {here}; deploy it there")
    return manifest


def open_session(folder: Path, manifest: dict[str, Any], providers: list[Any], threads: int = 0) -> Any:
    """An onnxruntime session of the network, with the library; on so many threads, by default as many as cores."""
    try:
        import onnxruntime
    except ImportError as error:
        end(f"onnxruntime cannot be imported ({error}); pip install onnxruntime")
    oldest = manifest["onnxruntime"].removeprefix(">=")
    if _numbers(onnxruntime.__version__) < _numbers(oldest):
        end(f"onnxruntime {onnxruntime.__version__} is installed; {oldest} or newer is needed")
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in onnxruntime.get_available_providers():  # the session would warn, and run elsewhere
        end(f"the onnxruntime installed here has no {wanted}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        options.register_custom_ops_library(str(folder / manifest["library"]))
        session = onnxruntime.InferenceSession(folder / manifest["model"], options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no narrower class in common
        end(f"onnxruntime {onnxruntime.__version__} does not load the network or its library: {error}")
    if wanted not in session.get_providers():
        end(f"onnxruntime's {wanted} does not start on this machine")
    return session


def complete(manifest: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The given inputs, or seeded random ones where there are none, and potentials of zero."""
    sizes: dict[str, int] = {}
    for described in manifest["inputs"]:
        array = given.get(described["name"])
        if array is not None:
            sizes |= {name: size for name, size in zip(described["shape"], array.shape, strict=False) if name}
    draw = np.random.default_rng(0)
    feed = {}
    for described in manifest["inputs"]:
        name, dtype = described["name"], np.dtype(described["type"])
        shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in described["shape"]]
        if name in given:
            try:
                feed[name] = np.ascontiguousarray(given[name], dtype)
            except ValueError as error:
                end(f"the input '{name}' is no {dtype}: {error}")
        elif name in manifest["potentials"]:
            feed[name] = np.zeros(shape, dtype)
        elif given:
            end(f"the input '{name}' is missing; the arrays given are {', '.join(given)}")
        else:
            feed[name] = draw.normal(size=shape).astype(dtype)
    return feed


def run(session: Any, manifest: dict[str, Any], feed: dict[str, Any]) -> dict[str, Any]:
    """The outputs by name; of a serial network their means over T time-steps, potentials left out."""
    potentials = manifest["potentials"]
    names = [described["name"] for described in manifest["outputs"]]
    if not potentials:
        return dict(zip(names, session.run(names, feed), strict=True))
    steps = []
    for _ in range(manifest["steps"]):
        steps.append(dict(zip(names, session.run(names, feed), strict=True)))
        feed = feed | {before: steps[-1][after] for before, after in potentials.items()}
    return {name: mean([step[name] for step in steps]) for name in names if name not in potentials.values()}


def mean(steps: list[Any]) -> Any:
    """The mean of an output over time-steps; what is no float does not depend on spikes, and is the same at each."""
    dtype = steps[-1].dtype
    return np.mean(steps, axis=0, dtype=np.float64).astype(dtype) if dtype.kind == "f" else steps[-1]


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".")[:2]]


if __name__ == "__main__":
    main()
