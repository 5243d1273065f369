"""Writers in processes of their own, killed or stopped at any call, and models that say whose weights theirs are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import onnx
from onnx import TensorProto, helper

from pconv_onnx.basics.errors import PconvError

# What is done before an audit event of Python, and the signal that the process is then to send itself, or none.
At = Callable[[str, tuple[Any, ...]], int | None]


def source(folder: Path, weights: bytes, *, rewritten: bool = True) -> onnx.ModelProto:
    """A model whose weights are in a file of a folder, and whose text is their digest."""
    folder.mkdir(exist_ok=True)
    location = f"{hashlib.sha256(weights).hexdigest()}.bin"
    (folder / location).write_bytes(weights)
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[len(weights)])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model = embedding(weights, rewritten=rewritten)
    model.graph.initializer[0].CopyFrom(tensor)
    return model


def embedding(weights: bytes, *, rewritten: bool = True) -> onnx.ModelProto:
    """The same in one file."""
    tensor = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[len(weights)], raw_data=weights)
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, [len(weights)])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    model = helper.make_model(graph, doc_string=hashlib.sha256(weights).hexdigest())
    if rewritten:
        model.metadata_props.add(key="pconv_onnx.mode", value="parallel")
    return model


def data_of(path: Path) -> set[str]:
    """The files beside a model that it keeps tensors in."""
    (tensor,) = onnx.load(path, load_external_data=False).graph.initializer
    return {entry.value for entry in tensor.external_data if entry.key == "location"}


def whose(path: Path) -> str:
    """The text of a model, which is the digest of the weights that it has."""
    model = onnx.load(path)
    weights = model.graph.initializer[0].raw_data
    assert hashlib.sha256(weights).hexdigest() == model.doc_string, "a model has another's weights"
    return model.doc_string


class Writer:
    """A call in a process of its own."""

    def __init__(self, call: Callable[[], object], at: At | None = None):
        """Fork; it begins with `go`.

        Args:
            call: what it does.
            at: what comes before its audit events.
        """
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._gate)
            os.read(gate, 1)
            _end(call, at)
        os.close(gate)

    def go(self) -> Writer:
        # Closed alone, it would stay open in processes that were forked since.
        os.write(self._gate, b"!")
        os.close(self._gate)
        return self

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait_for_stop(self) -> None:
        assert os.WIFSTOPPED(os.waitpid(self.pid, os.WUNTRACED)[1])

    def has_ended(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG)[0] != 0

    def status(self) -> int:
        """What it ends with: 0, 1 where it is refused, or a signal below zero."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _end(call: Callable[[], object], at: At | None) -> None:
    status = 2
    try:
        if at is not None:
            sys.addaudithook(lambda event, details: _send(at(event, details)))
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                call()
                status = 0
            except PconvError:
                status = 1
    finally:
        os._exit(status)


def _send(number: int | None) -> None:
    if number is not None:
        os.kill(os.getpid(), number)


def once(number: int, when: str, after: int = 0) -> At:
    """A signal at one event of a name, the first or one after so many."""
    left = [after]

    def at(event: str, _: tuple[Any, ...]) -> int | None:
        if event != when:
            return None
        left[0] -= 1
        return number if left[0] == -1 else None

    return at


def killed_at(count: int) -> At:
    """A kill at an event of the file system, after so many."""
    left = [count]

    def at(event: str, _: tuple[Any, ...]) -> int | None:
        if event not in _EVENTS:
            return None
        left[0] -= 1
        return signal.SIGKILL if left[0] == -1 else None

    return at


def slowly(seed: int, rest: At = lambda *_: None) -> At:
    """Pauses of random lengths before events of the file system, so that writers overtake each other."""
    random = Random(seed)

    def at(event: str, details: tuple[Any, ...]) -> int | None:
        if event in _EVENTS:
            time.sleep(random.choice([0, 0, 0.001, 0.002]))
        return rest(event, details)

    return at


_EVENTS = {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir",
           "fcntl.flock", "tempfile.mkdtemp", "tempfile.mkstemp", "shutil.rmtree", "os.chmod"}  # fmt: skip


def age(folder: Path) -> None:
    """Have the private folders of writers in a folder be so old that they count as left."""
    for private in folder.glob(".pconv-onnx-writing-*"):
        os.utime(private, (0, 0), follow_symlinks=False)


def told_of(call: Callable[[], object], folder: Path) -> Iterator[str]:
    """The names in the warnings of a call, in quotes as they are, long after others wrote into a folder."""
    age(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call()
    for warning in told:
        assert "\n" not in str(warning.message)
        yield from re.findall("'([^']+)'", str(warning.message).split(": ")[1])
