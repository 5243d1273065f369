"""Engines: they work on shards of the data, and merge results in the order of the shards.

Shards depend only on the data, never on the engine, so sums of floats are the same with every engine.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from pconv_onnx.basics.progress import track

Result = TypeVar("Result")
# Samples of a shard, as far as batches fill it.
_SHARD = 250


class Crew(Protocol):
    """Workers with a state, each of its own shards."""

    def call(self, method: str, *arguments: Any) -> Any:
        """Have each worker's state run a method, which gives a result for each of its shards; all results, merged."""


class Engine(Protocol):
    """Where work on shards is done. What makes the work, and its results, may have to be pickled."""

    def map(
        self, make: Callable[[], Callable[[slice], Result]], shards: Sequence[slice], description: str
    ) -> list[Result]:
        """What the work that `make` makes gives for each shard, in the shards' order."""

    def crew(
        self, make: Callable[[Sequence[slice]], AbstractContextManager[Any]], shards: Sequence[slice]
    ) -> AbstractContextManager[Crew]:
        """Workers whose states `make` makes, each for shards that follow each other."""


def shards_of(samples: int, batch: int) -> list[slice]:
    """Samples that belong together: whole batches, so that batches are the same as without shards."""
    size = batch * max(1, _SHARD // batch)
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def merged(results: Iterable[Any]) -> Any:
    """The sum of the results of shards, in their order; of tuples entry by entry, of None nothing."""
    return functools.reduce(_added, results)


def _added(first: Any, second: Any) -> Any:
    if isinstance(first, tuple):
        return tuple(_added(*pair) for pair in zip(first, second, strict=True))
    return None if first is None else first + second


class InProcess:
    """The default engine: this process, one shard after another."""

    def map(
        self, make: Callable[[], Callable[[slice], Result]], shards: Sequence[slice], description: str
    ) -> list[Result]:
        """As `Engine` says."""
        work = make()
        return [work(shard) for shard in track(shards, description, len(shards))]

    @contextmanager
    def crew(
        self, make: Callable[[Sequence[slice]], AbstractContextManager[Any]], shards: Sequence[slice]
    ) -> Iterator[Crew]:
        """As `Engine` says: a crew of one."""
        with make(shards) as state:
            yield _Alone(state)


class _Alone:
    def __init__(self, state: Any) -> None:
        self._state = state

    def call(self, method: str, *arguments: Any) -> Any:
        return merged(getattr(self._state, method)(*arguments))
