"""Locks on folders, on systems that have them. The system releases a lock when the process that holds it ends."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# For a lock that others hold while they rename files: seconds to wait for it at most, and between two tries.
_PATIENCE, _PAUSE = 10.0, 0.002


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool | None]:
    """Lock a folder against others that lock it: True if it is locked now, None where there are no such locks."""
    if sys.platform == "win32":
        yield None
    else:
        import fcntl

        descriptor, held = None, None
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        except OSError:
            pass
        try:
            yield held
        finally:
            if descriptor is not None:
                # Also in processes that were forked meanwhile.
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                with contextlib.suppress(OSError):
                    os.close(descriptor)


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Wait until no other writer renames files in a folder. Without locks, do not wait.

    The waiting ends after a while, since anyone may lock a folder for a purpose of their own.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        with lock(folder) as held:
            if held is not False or time.monotonic() > until:
                yield
                return
        time.sleep(_PAUSE)
