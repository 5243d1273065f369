"""Sequences as networks take them: sentences and passages of Python's reference, and both ends of files.

The reference is what each Python brings as `pydoc_data`, and not the same in any two versions of it.
"""

from __future__ import annotations

import os
import pydoc_data.topics
import random
import re
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

# What magika's configuration says: bytes of each end of a file, those that are read of it, what stands for none.
_END, _READ, _NONE = 1024, 4096, 256
# Files with fewer bytes are not for the network.
_LEAST = 8
# So many suffixes, of most files each.
_KINDS = 120


def reference() -> str:
    """All topics, in order of their names."""
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))


def parts() -> tuple[np.ndarray, np.ndarray]:
    """The reference's bytes: nine tenths to train on, and the last one to test on."""
    whole = np.frombuffer(reference().encode(), np.uint8)
    return whole[: len(whole) * 9 // 10], whole[len(whole) * 9 // 10 :]


def passages(text: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts of so many bytes `[N, length]`, and for each byte the next one, likewise."""
    whole = text[: len(text) // (length + 1) * (length + 1)].reshape(-1, length + 1).astype(np.int64)
    return whole[:, :-1], whole[:, 1:]


def sentences(text: str) -> list[str]:
    """Those of 6 to 30 words, in words, marks and quotes alone; each once, in their order."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    candidates = chain.from_iterable(re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph) for paragraph in paragraphs)
    return list(dict.fromkeys(filter(_is_sentence, candidates)))


def _is_sentence(text: str) -> bool:
    return re.fullmatch(r"[A-Z][\w ,;:'()\-\"`*]+\.", text) is not None and 6 <= len(text.split()) <= 30


def files(folders: Sequence[Path]) -> Iterator[Path]:
    """Those that can be read and are long enough; none that Python writes as it runs."""
    for folder in folders:
        for directory, below, names in os.walk(folder):
            below[:] = [name for name in below if name != "__pycache__"]
            yield from filter(_is_readable, (Path(directory, name) for name in names))


def _is_readable(path: Path) -> bool:
    return not path.is_symlink() and path.is_file() and os.access(path, os.R_OK) and path.stat().st_size >= _LEAST


def varied(paths: Sequence[Path], seed: int = 0) -> list[Path]:
    """In turns one of each of the most frequent suffixes, by chance, while there are any."""
    chance, kinds = random.Random(seed), dict[str, list[Path]]()
    for path in chance.sample(sorted(paths), len(paths)):
        kinds.setdefault(path.suffix.lower(), []).append(path)
    most = sorted(kinds, key=lambda suffix: (-len(kinds[suffix]), suffix))[:_KINDS]
    return [path for turn in zip_longest(*map(kinds.get, most)) for path in turn if path is not None]


def ends(path: Path) -> np.ndarray:
    """Bytes of a file as magika takes them, int32 `[2048]`: both ends, without white space outside."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_READ).lstrip()[:_END]
        file.seek(max(size - _READ, 0))
        last = file.read(_READ).rstrip()[-_END:]
    found = np.full(2 * _END, _NONE, np.int32)
    found[: len(first)] = np.frombuffer(first, np.uint8)
    found[2 * _END - len(last) :] = np.frombuffer(last, np.uint8)
    return found
