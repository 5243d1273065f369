"""Worker processes that answer requests in batches: who dies is replaced, and what it was working on is run again.

Inference has no side effects, so a request may be run twice; it is answered once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from worker import LENGTH, packed

WORKER = Path(__file__).with_name("worker.py")
# How many workers may die on one request before it fails.
ATTEMPTS = 3
# Seconds after which a worker counts as dead that does not open its session, or answer a batch.
START, RUN = 120, 60

log = logging.getLogger("serve")


class WorkerDied(Exception):
    """A worker ended, or does not answer."""


class RunFailed(Exception):
    """What was asked for cannot be run; `invalid`: since the network does not take its values."""

    def __init__(self, message: str, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid


@dataclass(eq=False)
class Job:
    """A request that waits for its outputs.

    Attributes:
        feed: arrays by input.
        rows: samples in them.
        outputs: will be known.
        alone: whether it runs by itself, since a batch that it was in failed.
        died: how many workers died on it.
    """

    feed: dict[str, np.ndarray]
    rows: int
    outputs: asyncio.Future[list[np.ndarray]]
    alone: bool = False
    died: int = 0

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Of a sample, by input: what jobs must share to be run together."""
        return {name: array.shape[1:] for name, array in self.feed.items()}


class Waiting:
    """Jobs in order of arrival, taken by one worker at a time as batches.

    Args:
        most: rows of a batch; None where jobs cannot be joined.
        delay: seconds that a batch waits for more jobs.
    """

    def __init__(self, most: int | None, delay: float) -> None:
        self._most, self._delay = most, delay
        self._jobs: deque[Job] = deque()
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        self._jobs.append(job)
        self._changed.set()

    def give_back(self, jobs: list[Job]) -> None:
        """Put jobs to the front, each to be run by itself."""
        for job in jobs:
            job.alone = True
        self._jobs.extendleft(reversed(jobs))
        self._changed.set()

    async def take(self) -> list[Job]:
        """The next batch. Until it is returned its jobs stay where they are, so cancelling loses none."""
        async with self._turn:
            while not self._jobs:
                await self._change()
            if self._most is not None:
                loop = asyncio.get_running_loop()
                end = loop.time() + self._delay
                timer = loop.call_at(end, self._changed.set)
                while sum(job.rows for job in self._jobs) < self._most and loop.time() < end:
                    await self._change()
                timer.cancel()
            return self._batch()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _batch(self) -> list[Job]:
        batch = [self._jobs.popleft()]
        while self._most is not None and self._jobs and not (batch[0].alone or self._jobs[0].alone):
            rows = sum(job.rows for job in batch) + self._jobs[0].rows
            if rows > self._most or self._jobs[0].sizes() != batch[0].sizes():
                break
            batch.append(self._jobs.popleft())
        return batch


class Worker:
    """A process of worker.py."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.ended = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(cls, bundle: Path, threads: int) -> Worker:
        """A worker whose session is open.

        Raises:
            WorkerDied: it does not open; worker.py has told why.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, WORKER, bundle, str(threads)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
            start_new_session=True,  # Ctrl-C in a terminal is for the server, which ends its workers in order
        )
        worker = cls(process)
        try:
            await asyncio.wait_for(worker._received(), START)
        except BaseException:
            await worker.stop()
            raise
        return worker

    async def run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs.

        Raises:
            WorkerDied: there will be none.
            RunFailed: onnxruntime cannot run this.
        """
        try:
            answer = await asyncio.wait_for(self._answer(feed), RUN)
        except (OSError, asyncio.TimeoutError) as error:
            raise WorkerDied from error
        if isinstance(answer, tuple):
            raise RunFailed(*answer)
        return answer

    async def _answer(self, feed: dict[str, np.ndarray]) -> object:
        self._process.stdin.write(packed(feed))
        await self._process.stdin.drain()
        return await self._received()

    async def _received(self) -> object:
        try:
            (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
            return pickle.loads(await self._process.stdout.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise WorkerDied from error

    async def stop(self) -> None:
        """End the process, which has nothing to save; a stopped one ends by no milder signal."""
        if self._process.returncode is None:  # else the number may be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # Process.kill would take the exit status from the loop's watcher
        self._process.stdin.close()
        await self.ended


class Pool:
    """Workers, and what waits for them.

    Args:
        bundle: the folder.
        workers: how many.
        threads: of onnxruntime in each.
        most: rows of a batch; None where requests cannot be joined.
        delay: seconds that a batch waits for more requests.
    """

    def __init__(self, bundle: Path, workers: int, threads: int, most: int | None, delay: float) -> None:
        self._bundle, self._count, self._threads = bundle, workers, threads
        self._waiting = Waiting(most, delay)
        self._workers: dict[int, Worker] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self.runs = self.rows = self.in_flight = self.deaths = self.run_again = 0

    @property
    def pids(self) -> list[int]:
        """Of the workers that can run."""
        return list(self._workers)

    @property
    def waiting(self) -> int:
        """Requests that no worker has."""
        return len(self._waiting)

    async def start(self) -> None:
        """Start the workers.

        Raises:
            WorkerDied: one does not start.
        """
        starts = (Worker.start(self._bundle, self._threads) for _ in range(self._count))
        started = await asyncio.gather(*starts, return_exceptions=True)
        workers = [worker for worker in started if isinstance(worker, Worker)]
        if len(workers) < self._count:
            await asyncio.gather(*(worker.stop() for worker in workers))
            raise WorkerDied
        self._keepers = [asyncio.ensure_future(self._keep(worker)) for worker in workers]

    async def stop(self) -> None:
        """End the workers; what still waits is not answered."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def run(self, feed: dict[str, np.ndarray], rows: int) -> list[np.ndarray]:
        """The outputs of one request of so many samples.

        Raises:
            RunFailed: onnxruntime cannot run it, or workers die on it.
        """
        job = Job(feed, rows, asyncio.get_running_loop().create_future())
        self._waiting.add(job)
        return await job.outputs

    async def _keep(self, worker: Worker | None) -> None:
        """Have one worker at any time, and give it batches."""
        while True:
            if worker is None:
                try:
                    worker = await Worker.start(self._bundle, self._threads)
                except (WorkerDied, OSError, asyncio.TimeoutError):
                    log.warning("a worker does not start; trying again")
                    await asyncio.sleep(1)
                    continue
                log.warning("worker %d was started in its place", worker.pid)
            self._workers[worker.pid] = worker
            try:
                await self._work(worker)
            finally:
                del self._workers[worker.pid]
                await worker.stop()
            self.deaths += 1
            worker = None

    async def _work(self, worker: Worker) -> None:
        """Give a worker batches until it dies."""
        while True:
            taking = asyncio.ensure_future(self._waiting.take())
            try:
                await asyncio.wait({taking, worker.ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                taken = taking.done()
                taking.cancel()
            if not taken:
                log.warning("worker %d died (exit status %d)", worker.pid, worker.ended.result())
                return
            jobs = taking.result()
            self.in_flight += len(jobs)
            try:
                feed = {name: np.concatenate([job.feed[name] for job in jobs]) for name in jobs[0].feed}
                outputs = await worker.run(feed if len(jobs) > 1 else jobs[0].feed)
            except WorkerDied:
                log.warning("worker %d died; what it was working on is run again: %d", worker.pid, len(jobs))
                self._again(jobs)
                return
            except Exception as error:  # RunFailed, and whatever else must not leave requests without an answer
                if len(jobs) > 1:  # the fault may be one request's, which must not be that of the others
                    self._waiting.give_back(jobs)
                else:
                    _fail(jobs[0], error if isinstance(error, RunFailed) else RunFailed(repr(error)))
            else:
                self._answer(jobs, outputs)
            finally:
                self.in_flight -= len(jobs)

    def _answer(self, jobs: list[Job], outputs: list[np.ndarray]) -> None:
        self.runs += 1
        start = 0
        for job in jobs:
            end = start + job.rows
            if not job.outputs.done():  # the client may have gone
                job.outputs.set_result([array[start:end] for array in outputs] if len(jobs) > 1 else outputs)
            self.rows += job.rows
            start = end

    def _again(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.died += 1
            if job.died == ATTEMPTS:
                _fail(job, RunFailed(f"{ATTEMPTS} workers died on this request"))
        again = [job for job in jobs if job.died < ATTEMPTS]
        self.run_again += len(again)
        self._waiting.give_back(again)


def _fail(job: Job, error: RunFailed) -> None:
    if not job.outputs.done():
        job.outputs.set_exception(error)
