"""Mutated archives of samples: is each read, or refused in one line?"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pconv_onnx.calibration.cache import restore
from pconv_onnx.data.reading import load_samples

from .hostile import attempt
from .mutants import of_bytes

_DTYPES = ("<f4", ">f4", "<f8", "|u1", "<i8", "|O", "<U5", "|S3", "<M8[s]", "<c8", "f4,i4", "?", "|V7", "nonsense")
_INPUT = SimpleNamespace(name="x", type="tensor(float)", shape=["N", 3])
_SESSION = SimpleNamespace(get_inputs=lambda: [_INPUT], get_outputs=list)


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the archive of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    content = archive(random)
    if random.random() < 0.7:
        content = of_bytes(content, random, archive(random))
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        path = Path(folder, "d.npz")
        path.write_bytes(content)
        attempt(found, "samples are loaded", lambda: load_samples(path, _SESSION))
        attempt(found, "a calibration is restored", lambda: restore(path, "key", []))
    return found


def archive(random: np.random.Generator) -> bytes:
    """An archive that is mostly one of samples, with headers that are not always right."""
    file = io.BytesIO()
    arrays = {"x": random.normal(size=(4, 3)).astype(np.float32), "labels": np.arange(4)}
    arrays["meta"] = np.array(random.choice(['{"key": "key"}', "[" * 3000, "5", "{", '{"key": "key", "sha256": 1}']))
    kind = zipfile.ZIP_DEFLATED if random.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as entries:
        for name, array in arrays.items():
            if random.random() < 0.15:
                continue
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, allow_pickle=False)
            content = entry.getvalue()
            if random.random() < 0.3:
                sizes = random.choice([0, 1, 3, 4, -1, 2**31, 2**62, 10**20], int(random.integers(0, 4))).tolist()
                shape = str(random.choice([str(tuple(sizes)), "3", "(1,'a')", "((4,),)", "(" * 200, "(4, 3)"]))
                text = f"{{'descr': '{random.choice(_DTYPES)}', 'fortran_order': False, 'shape': {shape}, }}"
                text += " " * int(random.integers(0, 100)) + "\n"
                version = int(random.choice([1, 1, 1, 2, 3, 9]))
                size = len(text).to_bytes(2 if version == 1 else 4, "little")
                content = b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + content[128:]
            entries.writestr(name + str(random.choice([".npy", ".npy", ".npy", ""])), content)
    return file.getvalue()
