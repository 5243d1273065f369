"""Cases in processes that may crash, hang or want too much memory: whatever happens is told of its case."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

_STAGE_BYTES = 80
# Address space, most of which onnxruntime and its threads only reserve.
_MEMORY = 6 << 30
# So that what a library keeps of each case does not add up.
_CASES_PER_PROCESS = 2000
_SECONDS_OF_IMPORTS = 120
_stage: Any = None


class Outcome(NamedTuple):
    """What became of one case: what was found, and for a process that ended what it was at, which is then found."""

    case: Any
    found: list[Any]
    ended_at: str = ""


def enter(stage: str) -> None:
    """Note what a case is at, for the case that it ends the process."""
    if _stage is not None:
        _stage.value = stage.encode()[: _STAGE_BYTES - 1]


def outcomes(function: str, cases: Sequence[Any], processes: int, seconds: float) -> Iterator[Outcome]:
    """What a function finds of each case, a list each, in any order.

    Args:
        function: its name, behind that of its module and a full stop.
        cases: what it is called with, such as seeds.
        processes: how many run at a time.
        seconds: that one case may take; its process is then ended, as it is where it crashes.
    """
    left = iter(cases)
    workers: dict[Connection, _Worker] = {}

    def begin(worker: _Worker) -> None:
        try:
            worker.give(next(left), seconds)
        except StopIteration:
            worker.end()
            return
        workers[worker.connection] = worker

    for _ in range(min(processes, len(cases))):
        begin(_Worker(function))
    while workers:
        for connection in wait(list(workers), timeout=1):
            worker = workers.pop(connection)
            try:
                found = connection.recv()
            except EOFError:
                yield worker.ended()
                worker = _Worker(function)
            else:
                if found is None:
                    # Its imports are done, and its case begins.
                    worker.deadline = time.monotonic() + seconds
                    workers[connection] = worker
                    continue
                yield Outcome(worker.case, found)
                if worker.given >= _CASES_PER_PROCESS:
                    worker.end()
                    worker = _Worker(function)
            begin(worker)
        for connection, worker in list(workers.items()):
            if time.monotonic() > worker.deadline:
                del workers[connection]
                worker.process.kill()
                yield worker.ended(f"does not end within {seconds:g} s")
                begin(_Worker(function))


class _Worker:
    """A process, and the case that it is at."""

    def __init__(self, function: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._stage = context.RawArray("c", _STAGE_BYTES)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, theirs, self._stage), daemon=True)
        self.process.start()
        theirs.close()
        self.given, self.deadline = 0, 0.0
        self.case: Any = None

    def give(self, case: Any, seconds: float) -> None:
        self.deadline = time.monotonic() + (seconds if self.given else _SECONDS_OF_IMPORTS)
        self.case, self.given = case, self.given + 1
        self.connection.send(case)

    def ended(self, why: str = "") -> Outcome:
        self.process.join()
        stage, code = self._stage.value.decode(errors="replace"), self.process.exitcode or 0
        reason = why or f"the process ends by {signal.Signals(-code).name if code < 0 else f'status {code}'}"
        return Outcome(self.case, [f"{stage}: {reason}"], stage)

    def end(self) -> None:
        self.connection.close()
        self.process.join()


def _serve(function: str, connection: Connection, stage: Any) -> None:
    global _stage
    _stage = stage
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    module, _, name = function.rpartition(".")
    find = getattr(importlib.import_module(module), name)
    # Until the other end is closed.
    with contextlib.suppress(EOFError, BrokenPipeError):
        connection.send(None)
        while True:
            case = connection.recv()
            enter("the case begins")
            try:
                found = find(case)
            except Exception as error:  # whatever it is, it is a fault
                found = [f"{type(error).__name__}: {error}"]
            connection.send(found)
