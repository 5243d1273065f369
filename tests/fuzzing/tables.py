"""Mutated Parquet files: is each read, or refused in one line, and with moderate memory?"""

from __future__ import annotations

import io
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from pconv_onnx.data.reading import load_samples, open_samples

from .hostile import attempt
from .mutants import of_bytes

_INPUT = SimpleNamespace(name="x", type="tensor(float)", shape=["N", 3])
_IMAGE = SimpleNamespace(name="x", type="tensor(float)", shape=["N", 3, "H", "W"])
# KiB of a process, most of which its libraries take.
_MOST_MEMORY = 2 << 20


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the file of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        path = Path(folder, "x.parquet")
        content = _file(random)
        if random.random() < 0.8:
            content = _mutated(content, random)
        path.write_bytes(content)
        as_pictures = random.random() < 0.3
        if as_pictures:
            path = Path(folder, "recipe.json")
            path.write_text('{"images": "x.parquet", "input": "x"}')
        session = SimpleNamespace(get_inputs=lambda: [_IMAGE if as_pictures else _INPUT], get_outputs=list)
        before = _memory()
        attempt(found, "samples are loaded", lambda: load_samples(path, session))
        attempt(found, "samples are counted", lambda: len(open_samples(path, session)))
        if before < _MOST_MEMORY < _memory():
            found.append(f"{_memory():,} KiB of memory are taken")
    return found


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Anywhere, or in the footer, which has what is claimed of all else."""
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    if random.random() < 0.4:
        return of_bytes(content, random, _file(random))
    footer = of_bytes(content[start:-8], random, content)
    return content[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def _file(random: np.random.Generator) -> bytes:
    columns = [_column(random), pyarrow.array(np.arange(4))]
    names = ["x", str(random.choice(["labels", "labels", "x", "other", "x.list"]))]
    rows = int(random.choice([0, 4, 4, 4]))
    table = pyarrow.Table.from_arrays([column[:rows] for column in columns], names)
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        table,
        file,
        row_group_size=int(random.choice([1, 3, 100])),
        compression=str(random.choice(["none", "snappy", "zstd", "gzip"])),
        use_dictionary=bool(random.integers(2)),
        data_page_version=str(random.choice(["1.0", "2.0"])),
        write_statistics=bool(random.integers(2)),
    )
    return file.getvalue()


def _column(random: np.random.Generator) -> Any:
    """Four rows of what an input takes, or of what it does not."""
    values = random.normal(size=(4, 3)).astype(np.float32)
    lists = pyarrow.array(values.tolist(), pyarrow.list_(pyarrow.float32()))
    kinds = [
        lambda: lists,
        lambda: lists,
        lambda: pyarrow.array(values.tolist(), pyarrow.list_(pyarrow.float32(), 3)),
        lambda: pyarrow.FixedShapeTensorArray.from_numpy_ndarray(values),
        lambda: pyarrow.array([[[1.0]], [[2.0], []], None, []]),
        lambda: pyarrow.array([None, 1, 2, 3], pyarrow.int8()),
        lambda: pyarrow.array([_png(random)] * 4),
        lambda: pyarrow.array([{"bytes": _png(random), "path": None}] * 4),
        lambda: pyarrow.array([{"a": {"b": [1]}}] * 4),
        lambda: pyarrow.array(["a", "b", "a", None]).dictionary_encode(),
        lambda: pyarrow.array(np.arange(4).astype("M8[s]")),
        lambda: pyarrow.nulls(4, pyarrow.list_(pyarrow.float32(), 1 << int(random.integers(0, 22)))),
        lambda: pyarrow.nulls(4),
        lambda: pyarrow.array([1, 2, 3, 4]).cast(pyarrow.decimal128(20)),
        lambda: pyarrow.array([[("a", 1)]] * 4, pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    ]
    return kinds[random.integers(len(kinds))]()


def _png(random: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()
