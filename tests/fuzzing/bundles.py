"""Mutated bundles and inputs: does a bundle's run.py run, or end with one printable line?"""

from __future__ import annotations

import copy
import functools
import importlib.util
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from networks import network, qcfs, weight

from pconv_onnx import deploy, rewrite

from . import archives, mutants
from .hostile import FOREIGN
from .workers import enter

_KEYS = ("format", "model", "library", "inputs", "outputs", "potentials", "steps", "files", "platform", "onnxruntime",
         "providers", "name", "type", "shape", "x", "N")  # fmt: skip
_TYPES = ("float16", "float64", "int8", "uint64", "bool", "bfloat16", "object", "complex64", "f4,f4", "(2,)f4", "M8[s]",
          "float32", "string", "(" * 500)  # fmt: skip
_TEXTS = ("", "\x1b[31mred", "\n", "../../x", "/etc/passwd", "no\0name", "θ" * 300, "\ud800", "a" * 100_000, ".", "out",
          "pipe", "inside", "model.onnx/x", "x" * 300, ">=1", ">=9999.9", "file", "C:x", *_TYPES)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 3, 256, 2**31, 2**63 - 1, 2**63, 10**18, 10**400)
_VALUES = (None, True, 0.5, float("nan"), float("inf"), [], {}, [[1]], {"x": []}, *_NUMBERS, *_TEXTS)
_SIZES = (0, 1, 2, 3, 8)


def faults(seed: int) -> list[str]:
    """What is wrong with how run.py takes the bundle and the inputs of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    _program()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryFile("w+b") as told:
        folder = Path(made, "bundle")
        kind = str(random.choice(["parallel", "serial"]))
        shutil.copytree(_bundles() / kind, folder, copy_function=os.link)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            arguments = _inputs(folder, random)
        changes = random.choice([_manifest, _manifest, _manifest, _files, _model, _untouched])
        enter(FOREIGN if changes is _model else "run.py runs")
        changes(folder, random)
        with _printing_to(told.fileno()):
            status = _status(folder, arguments)
        told.seek(0)
        return judged(status, told.read(), folder)


def _status(folder: Path, arguments: list[str]) -> Any:
    """What the program exits with; None where it just ends."""
    program = _program()
    program.__file__ = str(folder / "run.py")
    sys.argv = [program.__file__, *arguments]
    try:
        program.main()
    except SystemExit as error:
        return error.code
    except BaseException as error:  # whatever it is, it is a fault
        return error
    return None


def judged(status: Any, printed: bytes, folder: Path) -> list[str]:
    """What is wrong with how a program ends, what it has printed, and which files it leaves beside its bundle."""
    lines, found = printed.decode(errors="replace").splitlines(), []
    if isinstance(status, BaseException):
        trace = status.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        found.append(f"{type(status).__name__} at {place}: {str(status)[:200]!r}")
    elif status is not None and (not isinstance(status, str) or not status.startswith("run.py: ") or lines):
        found.append(f"it ends with {status!r:.200} and prints {lines!r:.300}")
    elif status is not None and (not status.isprintable() or len(status) > 1100 or "[ONNXRuntimeError]" in status):
        found.append(f"it ends with other than one printable line: {status!r:.500}")
    elif not all(line.isprintable() for line in lines):
        found.append(f"it prints {lines!r:.500}")
    written = sorted(
        path.name for path in folder.parent.iterdir() if path.name.startswith("out.npz") or ".part" in path.name
    )
    if written not in ([], ["out.npz"]) or (status is not None and written):
        found.append(f"it ends with {status!r:.200} and leaves {written}")
    return found


@contextmanager
def _printing_to(file: int):
    """Have what Python and the libraries print go into a file."""
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    sys.stdout.flush()
    try:
        for stream, _ in kept:
            os.dup2(file, stream)
        yield
    finally:
        sys.stdout.flush()
        for stream, before in kept:
            os.dup2(before, stream)
            os.close(before)


@functools.cache
def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_of_bundle", _bundles() / "parallel" / "run.py")
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


# Kept for as long as the process lives.
_PLACE = tempfile.TemporaryDirectory(prefix="bundles-")


@functools.cache
def _bundles() -> Path:
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = GlobalAveragePool (a)"
    source = network(nodes, outputs="float[N, 2, 1, 1] y", weights={"w": 4 * weight(2, 3, 3, 3)})
    for mode in ("parallel", "serial"):
        deploy(rewrite(source, mode=mode).model, Path(_PLACE.name, mode))
    return Path(_PLACE.name)


def _replace(path: Path, content: bytes) -> None:
    """Other content; the file that the link is of keeps its own."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _read(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def _untouched(folder: Path, random: np.random.Generator) -> None:
    """A bundle that is right."""


def _manifest(folder: Path, random: np.random.Generator) -> None:
    """A manifest with other values, keys, or bytes."""
    path = folder / "manifest.json"
    if random.random() < 0.3:
        content = path.read_bytes()
        _replace(path, mutants.of_bytes(content, random, content))
        return
    if random.random() < 0.05:
        whole = [b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"9" * 10_000, b"\xff\xfe", b"null", b"5",
                 b'{"format": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"format": 1, "format": 1}']  # fmt: skip
        _replace(path, whole[random.integers(len(whole))])
        return
    manifest = _read(folder)
    for _ in range(int(random.integers(1, 4))):
        _change(manifest, random)
    _replace(path, json.dumps(manifest).encode())


def _change(manifest: dict[str, Any], random: np.random.Generator) -> None:
    """Set, drop, add, repeat or rename an entry at some depth."""
    place: Any = manifest
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = keys[random.integers(len(keys))]
        if not isinstance(place[key], (dict, list)) or not place[key] or random.random() < 0.3:
            break
        place = place[key]
    value = copy.deepcopy(_VALUES[random.integers(len(_VALUES))])
    kind = random.integers(6)
    if kind < 3:
        place[key] = value
    elif kind == 3:
        del place[key]
    elif isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]) if kind == 4 else value)
    elif kind == 4:
        place[str(random.choice(_KEYS))] = place[key]
    else:
        place[_TEXTS[random.integers(len(_TEXTS))]] = place.pop(key)


def _files(folder: Path, random: np.random.Generator) -> None:
    """Any file of the bundle but the program that runs as something else, or one more named that is."""
    manifest = _read(folder)
    (folder.parent / "outside").write_bytes(b"outside")
    name = str(random.choice(["out", *sorted(set(manifest["files"]) - {"run.py"}), "manifest.json"]))
    path = folder / name
    content = path.read_bytes() if path.exists() else b"content"
    path.unlink(missing_ok=True)
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(folder.parent / "outside"),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/proc/self/mem"),
        lambda: path.write_bytes(mutants.of_bytes(content[:1000], random, content)),
        lambda: ((folder / "inside").write_bytes(content), path.symlink_to("inside")),
    ]
    kinds[random.integers(len(kinds))]()
    if name == "out":
        manifest["files"]["out"] = sha256(content).hexdigest()
    if random.random() < 0.3:
        manifest["files"][_TEXTS[random.integers(len(_TEXTS))]] = ""
    if name != "manifest.json":
        _replace(folder / "manifest.json", json.dumps(manifest).encode())


def _model(folder: Path, random: np.random.Generator) -> None:
    """Another model, or no library, with the hash of it in the manifest."""
    manifest = _read(folder)
    content = (folder / "model.onnx").read_bytes()
    changed = {"model.onnx": mutants.of_bytes(content, random, content)}
    if random.random() < 0.1:
        changed = {manifest["library"]: random.bytes(200)}
    if random.random() < 0.3:
        changed["model.onnx"] = content.replace(b"ParallelSpike", b"Parallel\x1b[1mke").replace(b"Conv", b"C\nnv")
    for name, other in changed.items():
        _replace(folder / name, other)
        manifest["files"][name] = sha256(other).hexdigest()
    _replace(folder / "manifest.json", json.dumps(manifest).encode())


def _inputs(folder: Path, random: np.random.Generator) -> list[str]:
    """Arguments: inputs that are right, nearly right, or of any bytes; and now and then an output."""
    path = folder.parent / "in\x1b[31m.npz"
    arguments = [str(path)]
    kind = random.random()
    if kind < 0.3:
        arguments = []
    elif kind < 0.5:
        content = archives.archive(random)
        path.write_bytes(mutants.of_bytes(content, random, content))
    else:
        path.write_bytes(_archive(random, {str(tensor["name"]): tensor for tensor in _read(folder)["inputs"]}))
    if random.random() < 0.3:
        arguments += ["-o", str(folder.parent / random.choice(["out.npz", "out", "none/out.npz", "bundle"]))]
    return arguments


def _archive(random: np.random.Generator, tensors: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    ways = [zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(file, "w", ways[random.integers(len(ways))]) as archive:
        for name, tensor in tensors.items():
            if name != "x" and random.random() < 0.8:
                continue
            shape = [size if isinstance(size, int) else 2 for size in tensor["shape"]]
            if random.random() < 0.3:
                shape[int(random.integers(len(shape)))] = int(random.choice(_SIZES))
            if random.random() < 0.1:
                shape = random.choice(_SIZES, int(random.integers(0, 6))).tolist()
            entry = io.BytesIO()
            np.lib.format.write_array(entry, _values(random, shape), allow_pickle=True)
            archive.writestr(str(random.choice([name, name, name, name, "z\x1b", "../x", "labels"])) + ".npy",
                             entry.getvalue())  # fmt: skip
    return file.getvalue()


def _values(random: np.random.Generator, shape: list[int]) -> np.ndarray[Any, np.dtype[Any]]:
    values = random.normal(0, 10 ** random.uniform(-3, 6), shape)
    if random.random() < 0.1:
        values = np.asarray(values / random.choice([0.0, np.nan, 1e-300]))
    dtype = str(random.choice([*["float32"] * 6, "float64", "float16", ">f4", "int64", "uint8", "?", "c8", "U5", "O",
                               "M8[s]", "f4,i4", "g"]))  # fmt: skip
    return values.astype(dtype, order=str(random.choice(["C", "F"])))
