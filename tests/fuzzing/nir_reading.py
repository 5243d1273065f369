"""NIR files that were written, and then damaged: is each read into a network that runs, or refused in one line?

Damaged are bytes of the file, or what it says: arrays, types of nodes, edges and metadata.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import h5py
import numpy as np

from pconv_onnx import SerialSession, deploy, from_nir, rewrite

from .hostile import attempt
from .nir import Serial
from .workers import enter

Random = np.random.Generator
_NUMBERS = (0.0, -1.0, 1.0, 1e-30, 1e30, np.nan, np.inf, -np.inf)
_SIZES = (0, 1, 2, 3, 5)
_TYPES = ("IF", "LIF", "CubaLIF", "LI", "I", "Affine", "Linear", "Conv1d", "Conv2d", "AvgPool2d", "SumPool2d",
          "Flatten", "Scale", "Threshold", "Delay", "Input", "Output", "NIRGraph", "what", "")  # fmt: skip


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the file of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    found: list[str] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        enter("the file is made")
        out = Path(folder, "out")
        written = attempt(
            found,
            "deploy",
            lambda: deploy(rewrite(Serial(random).model(), mode="serial").model, out, target="nir", allow_lossy=True),
        )
        if written is None:
            return found
        file = out / "model.nir"
        enter("the file is damaged")
        if random.random() < 0.2:
            _damage_bytes(file, random)
        else:
            _damage_contents(file, random)
        reading = attempt(found, "read", lambda: from_nir(file, steps=2, dt=1.0))
        if reading is not None:
            attempt(found, "run", lambda: _run(SerialSession(reading.model)))
    return found


def _damage_bytes(file: Path, random: Random) -> None:
    content = bytearray(file.read_bytes())
    for place in random.integers(0, len(content), int(random.integers(1, 20))):
        content[place] = random.integers(0, 256)
    end = int(random.integers(0, len(content))) if random.random() < 0.3 else len(content)
    file.write_bytes(content[:end])


def _damage_contents(file: Path, random: Random) -> None:
    """Change one to three of its datasets."""
    with h5py.File(file, "r+") as store:
        names: list[str] = []
        store.visititems(lambda name, one: names.append(name) if isinstance(one, h5py.Dataset) else None)
        for name in random.choice(names, min(len(names), int(random.integers(1, 4))), replace=False):
            value = store[name][()]
            del store[name]
            if random.random() < 0.1:
                continue
            if isinstance(value, bytes):
                store[name] = str(random.choice(_TYPES))
            elif np.asarray(value).dtype.kind in "OS":
                edges = np.asarray(value)
                store[name] = edges[random.permutation(len(edges))[: random.integers(0, len(edges) + 1)]]
            else:
                store[name] = _other(np.asarray(value), random)


def _other(value: np.ndarray, random: Random) -> np.ndarray:
    """An array like it, or not."""
    kind = random.integers(0, 5)
    if kind == 0:
        return np.full(value.shape, random.choice(_NUMBERS)).astype(value.dtype)
    if kind == 1:
        return random.normal(size=random.choice(_SIZES, int(random.integers(0, 5)))).astype(np.float32)
    if kind == 2:
        return value.astype(random.choice([np.float64, np.float16, np.int32, np.uint8, bool]))
    if kind == 3:
        return -np.asarray(value) if value.dtype.kind in "fi" else value
    return np.stack([value] * 2)


def _run(session: SerialSession) -> None:
    feed = {
        info.name: np.zeros([size if isinstance(size, int) else 1 for size in info.shape], np.float32)
        for info in session.get_inputs()
    }
    session.run(None, feed)
