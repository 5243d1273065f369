"""Mutated archives of samples: is each read, or refused in one line?"""

from __future__ import annotations

import io
import resource
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pconv_onnx.calibration.cache import restore
from pconv_onnx.data.reading import load_samples

from .hostile import attempt
from .mutants import of_bytes

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_SIZES = (0, 1, 100, 2**20, 2**31, 2**32 - 1, 2**62)
# KiB of a process, most of which its libraries take.
_MOST_MEMORY = 2 << 20
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
        before = _memory()
        attempt(found, "samples are loaded", lambda: load_samples(path, _SESSION))
        attempt(found, "a calibration is restored", lambda: restore(path, "key", []))
        if before < _MOST_MEMORY < _memory():
            found.append(f"{_memory():,} KiB of memory are taken")
    return found


def _forge(entries: list[zipfile.ZipInfo], random: np.random.Generator) -> None:
    """Change what the directory says of the last entry: sizes, or that it is where another one is."""
    entry, other = entries[-1], entries[random.integers(len(entries))]
    kind = random.integers(4)
    if kind == 0:
        entry.file_size = int(random.choice(_SIZES))
    elif kind == 1:
        entry.compress_size = int(random.choice(_SIZES))
    elif kind == 2:
        entry.header_offset, entry.compress_size = other.header_offset, other.compress_size
    else:
        entry.flag_bits |= 1


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def archive(random: np.random.Generator) -> bytes:
    """An archive that is mostly one of samples, with headers that are not always right."""
    file = io.BytesIO()
    arrays = {"x": random.normal(size=(4, 3)).astype(np.float32), "labels": np.arange(4)}
    arrays["meta"] = np.array(random.choice(['{"key": "key"}', "[" * 3000, "5", "{", '{"key": "key", "sha256": 1}']))
    with zipfile.ZipFile(file, "w", _METHODS[random.integers(len(_METHODS))]) as entries:
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
            if random.random() < 0.05:
                content += bytes(int(2 ** random.uniform(0, 24)))
            entries.writestr(name + str(random.choice([".npy", ".npy", ".npy", ""])), content)
            if random.random() < 0.1:
                _forge(entries.infolist(), random)
    return file.getvalue()
