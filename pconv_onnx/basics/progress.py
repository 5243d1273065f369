"""Progress of long functions: a bar, a line every half minute, or calls of the caller's own function."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

# The argument `progress`: True shows progress on stderr, False shows none, None does what the calling function does. A
# function is called with the description ('calibrating'), the number of parts done, and the number of all parts.
Progress = bool | Callable[[str, int, int], None] | None
# Takes a description and the number of all parts; the function that it yields is to be called after each part.
_Shown = Callable[[str, int], AbstractContextManager[Callable[[], None]]]

# Seconds between lines.
_EVERY = 30.0
_shown: ContextVar[_Shown | None] = ContextVar("shown", default=None)
_log = logging.getLogger(__name__)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items, and show how many of them are done, if progress is shown."""
    shown, begun = _shown.get(), time.monotonic()
    if not total:
        return
    if shown is None:
        yield from items
    else:
        with shown(description, total) as advance:
            for item in items:
                yield item
                advance()
    _log.debug("%s: %d done in %.1f s", description, total, time.monotonic() - begun)


@contextmanager
def showing(progress: Progress) -> Iterator[None]:
    """Show the progress of everything that is tracked in this context."""
    if progress is None:
        yield
    elif progress is True and sys.stderr is not None:
        with _bars() if sys.stderr.isatty() else _lines() as shown, _instead(shown):
            yield
    else:
        with _instead(_calls(progress) if callable(progress) else None):
            yield


def shows_progress(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Give a function's keyword argument `progress` its meaning: where the function shows its progress."""

    @wraps(function)
    def shown(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        with showing(options.get("progress")):  # type: ignore[arg-type]
            return function(*arguments, **options)

    return shown


@contextmanager
def _instead(shown: _Shown | None) -> Iterator[None]:
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def _calls(function: Callable[[str, int, int], None]) -> _Shown:
    @contextmanager
    def shown(description: str, total: int) -> Iterator[Callable[[], None]]:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            function(description, done, total)

        function(description, done, total)
        yield advance

    return shown


@contextmanager
def _bars() -> Iterator[_Shown]:
    """Bars on a terminal, with the remaining time; they leave nothing behind."""

    @contextmanager
    def shown(description: str, total: int) -> Iterator[Callable[[], None]]:
        from rich.console import Console
        from rich.progress import Progress as Bars

        with Bars(*Bars.get_default_columns(), console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(description, total=total)
            yield lambda: bars.advance(task)

    yield shown


@contextmanager
def _lines() -> Iterator[_Shown]:
    """Lines in a file, one every half minute, however long a part takes."""
    begun, ended = time.monotonic(), threading.Event()
    running: list[tuple[str, list[int]]] = []

    def beat() -> None:
        while not ended.wait(_EVERY):
            told = ", ".join(f"{description} {done} of {total}" for description, (done, total) in running)
            since = _duration(time.monotonic() - begun)
            with suppress(OSError, ValueError):  # it may be closed
                print(f"pconv-onnx: {told or 'working'}, {since}", file=sys.stderr, flush=True)

    @contextmanager
    def shown(description: str, total: int) -> Iterator[Callable[[], None]]:
        count = [0, total]

        def advance() -> None:
            count[0] += 1

        running.append((description, count))
        try:
            yield advance
        finally:
            running.remove((description, count))

    thread = threading.Thread(target=beat, name="pconv-onnx progress", daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        ended.set()
        thread.join()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
