"""The engine on Ray: a worker is an actor, with sessions of one thread each, on this machine or on a cluster.

Ray restarts a worker that dies and repeats what it was doing. Results belong to their shards, so that nothing is
counted twice; a worker with a state repeats the calls that led to it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.process import cpus
from pconv_onnx.basics.progress import track
from pconv_onnx.engine.shards import Crew, Result, merged
from pconv_onnx.runtime.side_by_side import limit_threads

# How often a worker may die before that is told.
_RETRIES = 3
# Seconds: for a connection, for an answer over it, and for workers to start.
_CONNECT, _ANSWER, _START = 5, 60, 120
# Seconds in which workers have to clean up.
_LEAVE = 5
# Of the store that a local Ray begins with; what is larger goes to its folder.
_STORE = 200 * 2**20
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


class RayEngine:
    """Run networks in Ray workers. Used as a context manager: Ray is started, or connected to, on entry, left on exit.

    If this process uses Ray already, that is used, and keeps running.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        """Set it up; nothing is started yet.

        Args:
            address: `host:port` of a running cluster; None starts Ray on this machine alone, and stops it afterwards.
            workers: the most workers; by default one for each CPU.
        """
        self._address, self._workers = address, workers
        self._left = ExitStack()

    def __enter__(self) -> RayEngine:
        """Start Ray, or connect to it.

        Raises:
            PconvError: Ray is missing or cannot be started, or nothing answers at the address.
        """
        with ExitStack() as started:
            if self._address is None:
                self._start(started)
            else:
                self._connect(self._address, started)
            self._left = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave Ray, and stop what was started."""
        self._left.close()

    def _start(self, started: ExitStack) -> None:
        # Otherwise it listens at an address of this machine that others reach.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        ray = _import_ray()
        if ray.is_initialized():
            return
        # Sockets lie in it, whose paths may have 107 letters; on macOS the usual folder takes half of them.
        short = "/tmp" if os.path.isdir("/tmp") else None
        folder = tempfile.mkdtemp(prefix="pconv-ray-", dir=short)
        started.callback(shutil.rmtree, folder, ignore_errors=True)
        started.callback(ray.shutdown)
        count = self._workers or len(cpus())
        try:
            # What a worker that is killed leaves in its temporary folder goes with Ray's. Nothing is reported to Ray's
            # makers.
            with _environment(TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0"), _own_handler():
                ray.init(
                    "local",
                    num_cpus=count,
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=_STORE,
                    _temp_dir=folder,
                    **_QUIET,
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise PconvError(f"Ray cannot be started here: {_first(error)}", "") from error

    def _connect(self, address: str, started: ExitStack) -> None:
        ray = _import_ray()
        if ray.is_initialized():
            return
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise PconvError(f"'{address}' is not the address of a Ray cluster", "give host:port of its head node")
        told, hint = f"no Ray cluster answers at {address}", "start one with ray start --head, or leave `address=` out"
        try:
            socket.create_connection((host, int(port)), _CONNECT).close()
        except (OSError, OverflowError) as error:
            raise PconvError(f"{told}: {error}", hint) from error
        # Whatever else listens there Ray waits for, deaf to interrupts, or ends the process.
        attempt = [sys.executable, "-c", f"import ray; ray.init({address!r}, log_to_driver=False)"]
        try:
            tried = subprocess.run(attempt, timeout=_ANSWER, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except subprocess.TimeoutExpired as error:
            raise PconvError(f"{told} within {_ANSWER} s", hint) from error
        if tried.returncode:
            raise PconvError(f"{told}: {(tried.stderr.strip().splitlines() or ['it fell silent'])[-1]}", hint)
        started.callback(ray.shutdown)
        try:
            with _own_handler():
                ray.init(address, **_QUIET)
        except (OSError, RuntimeError, ValueError) as error:
            raise PconvError(f"{told}: {_first(error)}", hint) from error

    def map(
        self, make: Callable[[], Callable[[slice], Result]], shards: Sequence[slice], description: str
    ) -> list[Result]:
        """What the work that `make` makes gives for each shard; a worker takes the next as soon as it is done."""
        from ray.util import ActorPool

        with _told(), self._running(_Mapper, [()] * self._count(shards)) as workers:
            shared = _shared(make)
            jobs = enumerate(shards)
            found = ActorPool(workers).map_unordered(lambda worker, job: worker.apply.remote(shared, *job), jobs)
            results = dict(track(found, description, len(shards)))
        return [results[index] for index in range(len(shards))]

    @contextmanager
    def crew(
        self, make: Callable[[Sequence[slice]], AbstractContextManager[Any]], shards: Sequence[slice]
    ) -> Iterator[Crew]:
        """Workers whose states `make` makes, each for shards that follow each other."""
        runs = [[shards[i] for i in run] for run in np.array_split(np.arange(len(shards)), self._count(shards))]
        with _told(), self._running(_Member, [(run,) for run in runs]) as workers:
            yield _RayCrew(_shared(make), list(zip(workers, map(len, runs), strict=True)))

    def _count(self, shards: Sequence[slice]) -> int:
        """Of the workers for so many shards."""
        import ray

        return max(1, min(self._workers or int(ray.cluster_resources().get("CPU", 1)), len(shards)))

    @contextmanager
    def _running(self, kind: type[_Worker], arguments: Sequence[tuple[Any, ...]]) -> Iterator[list[Any]]:
        """Actors of that kind, one for each tuple of arguments."""
        import ray

        actor = ray.remote(num_cpus=1, max_restarts=_RETRIES, max_task_retries=_RETRIES)(kind)
        workers = [actor.remote(*own) for own in arguments]
        try:
            ready, late = ray.wait(
                [worker.ready.remote() for worker in workers], num_returns=len(workers), timeout=_START
            )
            if late:
                raise PconvError(
                    f"{len(ready)} of {len(workers)} workers on Ray started within {_START} s; each takes a CPU",
                    "pass fewer as `workers=`, or wait until others have left the cluster",
                )
            yield workers
        finally:
            ray.wait([worker.leave.remote() for worker in workers], num_returns=len(workers), timeout=_LEAVE)
            for worker in workers:
                ray.kill(worker)


def _shared(value: Any) -> list[Any]:
    """A value that Ray keeps for all workers, which get it from there when they need it."""
    import ray

    # As an argument itself it would be fetched at each call.
    return [ray.put(value)]


class _Worker:
    """What actors are: they share their machine with others."""

    def __init__(self) -> None:
        self._left = ExitStack()
        limit_threads(1)

    def ready(self) -> None:
        """It is."""

    def leave(self) -> None:
        """Give back what it holds."""
        self._left.close()


class _Mapper(_Worker):
    """Work that has no state."""

    _work: Callable[[slice], Any] | None = None

    def apply(self, make: Sequence[Any], index: int, shard: slice) -> tuple[int, Any]:
        """The result of a shard, with its number."""
        import ray

        if self._work is None:
            self._work = ray.get(make[0])()
        return index, self._work(shard)


class _Member(_Worker):
    """A state of some shards, which is what all calls so far have made of it."""

    def __init__(self, shards: Sequence[slice]) -> None:
        super().__init__()
        self._shards = shards
        self._state: Any = None
        self._done = 0
        self._results: list[Any] = []

    def run(self, make: Sequence[Any], calls: Sequence[Any]) -> Any:
        """The results of the last call, one a shard. All calls are named, since a worker started anew knows of none."""
        import ray

        if self._state is None:
            self._state = self._left.enter_context(ray.get(make[0])(self._shards))
        for call in calls[self._done :]:
            method, arguments = ray.get(call)
            self._results = []
            self._results = list(getattr(self._state, method)(*arguments))
            self._done += 1
        return self._results if len(self._shards) > 1 else self._results[0]


class _RayCrew:
    def __init__(self, make: Sequence[Any], workers: Sequence[tuple[Any, int]]) -> None:
        """Of what makes states, and actors, each with the number of its shards."""
        self._make, self._workers = make, workers
        self._calls: list[Any] = []

    def call(self, method: str, *arguments: Any) -> Any:
        import ray

        self._calls += _shared((method, arguments))
        answers = [
            worker.run.options(num_returns=shards).remote(self._make, self._calls) for worker, shards in self._workers
        ]
        waiting = [one for answer in answers for one in (answer if isinstance(answer, list) else [answer])]
        # One at a time: of a wide layer each is large.
        return merged(ray.get(waiting.pop(0)) for _ in range(len(waiting)))


@contextmanager
def _told() -> Iterator[None]:
    """Faults of workers as they would be told here, and Ray's own in one line."""
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, PconvError):
            raise PconvError(error.cause.message, error.cause.hint) from error
        raise
    except RayActorError as error:
        raise PconvError(
            f"a worker on Ray died, and again each of {_RETRIES} times that it was started anew: {_first(error)}",
            "look for what ends it, such as a lack of memory",
        ) from error
    except RayError as error:
        raise PconvError(f"Ray cannot go on: {_first(error)}", "look at the cluster") from error


def _first(error: Exception) -> str:
    """The first line of a fault that may have many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keep what this program does at SIGTERM: Ray would end it at once, with a trace."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    # Without a handler, Ray's ends its own processes as well.
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise PconvError("the engine ray needs Ray", "pip install 'pconv-onnx[ray]'") from error
    return ray
