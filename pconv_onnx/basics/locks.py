"""Locks on folders, where the system has them, which it gives up with the process that holds one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

# Of a lock that others hold for some renamings: seconds until nobody waits for it any more, and between two looks.
_PATIENCE, _PAUSE = 10.0, 0.002


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool | None]:
    """Lock a folder, against others that do so: whether that is done, or None where there are no such locks."""
    descriptor, held = None, None
    try:
        import fcntl  # not on every system

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except BlockingIOError:
        held = False
    except (ImportError, OSError):
        pass
    try:
        yield held
    finally:
        if descriptor is not None:
            # For processes that were forked meanwhile as well.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other writer is at its renamings in a folder; not where there are no locks.

    Nor for ever: anyone may lock a folder for a purpose of theirs. Then it goes on as where there are none.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        with lock(folder) as held:
            if held is not False or time.monotonic() > until:
                yield
                return
        time.sleep(_PAUSE)
