"""Several writers of one model at a time, some of them killed: is what stays one writer's, whole, and the rest told?"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from writers import At, Writer, data_of, embedding, killed_at, slowly, source, told_of, whose

from pconv_onnx.basics import locks, writing
from pconv_onnx.graph import save

_EARLIER = ("nothing", "nothing", "pair", "pair", "file", "foreign pair", "foreign data")
_SIZES = (1, 100, 5000, 1 << 20)
_NAME = "m.onnx"
_FOREIGN = f"{writing.PREFIX}foreign"
_NOTES = ("", "[1]", "[" * 200_000, '{"a\\u0000b": [1, 2, 3]}', '{"m.onnx": [1, 2, 3]}', '{"m.onnx": null}',
          '{"": [1, 2, 3], "..": 1, "/": {}}', "/dev/zero", "pipe")  # fmt: skip


def faults(seed: int) -> list[str]:
    """What is wrong with what the writers of one seed leave; empty where all is right."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as top, _system(random) as can_tell:
        folder = Path(top, "out")
        folder.mkdir()
        earlier, own = _earlier(folder, random)
        output = folder / _NAME
        if earlier is not None and random.random() < 0.2:
            output = Path(top, "link.onnx")
            output.symlink_to(folder / _NAME)
        if random.random() < 0.2:
            _leave_foreign(folder, random)
        models = [_model(folder, random) for _ in range(int(random.integers(1, 4)))]
        own |= {name: (folder / name).read_bytes() for name in os.listdir(folder) if name.endswith(".bin")}
        calls = [partial(save, model, output, folder) for model in models]
        hooks = [_hook(random) for _ in calls]
        writers = [Writer(*each).go() for each in zip(calls, hooks, strict=True)]
        if random.random() < 0.2:
            time.sleep(random.random() / 50)
            os.kill(writers[0].pid, 9)
        ends = [writer.status() for writer in writers]
        # Those that are killed may have ended their work.
        possible = {model.doc_string for model, end in zip(models, ends, strict=True) if end in (0, -9)}
        if 0 not in ends:
            possible.add(earlier)
        return list(_wrong(folder, ends, possible, own, can_tell, _model(folder, random)))


@contextlib.contextmanager
def _system(random: np.random.Generator) -> Iterator[bool]:
    """A system with locks and links, as most are, or without; yields whether it has both."""
    has_locks, links = random.random() < 0.85, random.random() < 0.85
    lock, link = locks.lock, os.link

    @contextlib.contextmanager
    def none(folder: Path) -> Iterator[None]:
        yield None

    def cannot(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    locks.lock = lock if has_locks else none
    os.link = link if links else cannot
    try:
        yield has_locks and links
    finally:
        locks.lock, os.link = lock, link


def _hook(random: np.random.Generator) -> At | None:
    hook = killed_at(int(random.integers(60))) if random.random() < 0.5 else None
    return slowly(int(random.integers(1 << 31)), *filter(None, [hook])) if random.random() < 0.7 else hook


def _weights(random: np.random.Generator) -> bytes:
    return random.bytes(int(random.choice(_SIZES)))


def _model(folder: Path, random: np.random.Generator) -> onnx.ModelProto:
    return source(folder, _weights(random)) if random.random() < 0.8 else embedding(_weights(random))


def _earlier(folder: Path, random: np.random.Generator) -> tuple[str | None, dict[str, bytes]]:
    """What is there before: whose model, and the user's own files, which stay."""
    kind = random.choice(_EARLIER)
    own = {}
    if random.random() < 0.2:
        own["m.onnx.1.data"] = b"the user's own"
    for name, content in own.items():
        (folder / name).write_bytes(content)
    if kind == "nothing":
        return None, own
    weights = _weights(random)
    if kind == "foreign data":
        (folder / "m.onnx.data").write_bytes(weights)
        return None, own | {"m.onnx.data": weights}
    model = embedding(weights) if kind == "file" else source(folder, weights, rewritten=kind == "pair")
    save(model, folder / _NAME, folder)
    if kind == "foreign pair":
        own["m.onnx.data"] = weights
    return model.doc_string, own


def _leave_foreign(folder: Path, random: np.random.Generator) -> None:
    """A folder that is called as those of writers are, from anywhere, whose notes are none."""
    foreign = folder / _FOREIGN
    foreign.mkdir()
    (foreign / str(random.choice(["result", "nothing"]))).touch()
    for name in ("made", "older"):
        note = _NOTES[int(random.integers(len(_NOTES)))]
        if note == "pipe":
            os.mkfifo(foreign / name)
        elif note.startswith("/"):
            (foreign / name).symlink_to(note)
        else:
            (foreign / name).write_text(note)


def _wrong(
    folder: Path,
    ends: list[int],
    possible: set[str | None],
    own: dict[str, bytes],
    can_tell: bool,
    last: onnx.ModelProto,
) -> Iterator[str]:
    if set(ends) - {0, -9}:
        yield f"writers end with {ends}"
    model = folder / _NAME
    found = whose(model) if model.exists() else None
    if found not in possible:
        yield f"the model is not one of those written: {found}"
    strays = _strays(folder, own)
    if strays - {_FOREIGN} and -9 not in ends and can_tell:
        yield f"nobody was killed, and there stay {sorted(strays)}"
    told = set(told_of(partial(save, last, model, folder), folder))
    if told - strays or (can_tell and told != strays):
        yield f"there stay {sorted(strays)}, and told are {sorted(told)}"
    if whose(model) != last.doc_string:
        yield "the last model is not that of the last writer"
    for name, content in own.items():
        if (folder / name).read_bytes() != content:
            yield f"the user's '{name}' has changed"
    if can_tell and _strays(folder, own) != strays:
        yield f"there stay {sorted(strays)}, and then {sorted(_strays(folder, own))}"


def _strays(folder: Path, own: dict[str, bytes]) -> set[str]:
    """The files that belong neither to the model nor to the user."""
    model = folder / _NAME
    needed = {_NAME} | data_of(model) if model.exists() else set()
    return {name for name in os.listdir(folder) if name not in needed | own.keys() and not name.endswith(".bin")}
