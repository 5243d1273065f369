"""Mutated recipes and pictures: is each read, or refused in one line, and with moderate memory?"""

from __future__ import annotations

import io
import json
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from pconv_onnx.data.reading import load_samples

from .hostile import attempt
from .mutants import of_bytes

_FORMATS = ("bmp", "gif", "jpeg", "png", "tiff", "webp", "ppm", "ico", "tga")
_MODES = ("RGB", "L", "P", "RGBA", "1", "CMYK", "I;16", "F", "LA")
_VALUES = (None, True, 0, 1, -1, 5, 2**70, 10**400, 1e-45, 1e-40, 1e39, 1e300, "", "x", "NHWC", "a\0b", "\ud800", [],
           {}, [0, 0, 0], [1, 1, 1], [1e-42, 1, 1], [1, 2], [[]] * 3)  # fmt: skip
_TEXTS = ("[" * 60_000, '{"images": ".", "mean": [NaN, 0, 0]}', '{"images": ".", "std": [1e999, 1, 1]}', "9" * 5000,
          "{}", '{"images": ".", "size": ' + "9" * 4000 + "}", "\ufeff{}", "")  # fmt: skip
_INPUT = SimpleNamespace(name="image", type="tensor(float)", shape=["N", 3, "H", "W"])
_SESSION = SimpleNamespace(get_inputs=lambda: [_INPUT], get_outputs=list)
# KiB of a process, most of which its libraries take.
_MOST_MEMORY = 2 << 20


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the recipe and the pictures of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        for index in range(int(random.integers(1, 4))):
            content = _picture(random)
            if random.random() < 0.7:
                content = of_bytes(content, random, _picture(random))
            Path(folder, f"{index}.png").write_bytes(content)
        path = Path(folder, "recipe.json")
        path.write_bytes(_recipe(random))
        before = _memory()
        attempt(found, "samples are loaded", lambda: load_samples(path, _SESSION))
        if before < _MOST_MEMORY < _memory():
            found.append(f"{_memory():,} KiB of memory are taken")
    return found


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _picture(random: np.random.Generator) -> bytes:
    """One of a format and a mode that go together."""
    pixels = random.integers(0, 256, (*random.integers(1, 20, 2), 3), dtype=np.uint8)
    file = io.BytesIO()
    kind, mode = str(random.choice(_FORMATS)), str(random.choice(_MODES))
    options = {"progressive": bool(random.integers(2))} if kind == "jpeg" else {}
    picture = Image.fromarray(pixels)
    try:
        picture.convert(mode).save(file, kind, **options)
    except (OSError, ValueError, KeyError):
        picture.save(file, "png")
    return file.getvalue()


def _recipe(random: np.random.Generator) -> bytes:
    """A recipe that is mostly one."""
    if random.random() < 0.1:
        return str(random.choice(_TEXTS)).encode()
    entries: dict[str, Any] = {"images": ".", "mean": [0.5] * 3, "std": [0.2] * 3, "size": 8, "layout": "NCHW"}
    for _ in range(int(random.integers(0, 3)) if random.random() < 0.4 else 0):
        key = str(random.choice([*entries, "input", "column", "labels", "other"]))
        entries[key] = _VALUES[random.integers(len(_VALUES))]
    if random.random() < 0.5:
        entries.pop("size", None)
    content = json.dumps(entries).encode()
    return of_bytes(content, random, content) if random.random() < 0.1 else content
