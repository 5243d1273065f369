"""Files that others name: opened where they are ordinary ones, for a pipe would block and a device not end."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

# Where a system has it, opening a pipe does not wait for who writes into it.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """An ordinary file, or one that a link leads to, for reading.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    try:
        return open(path, "rb", opener=_ordinary)
    except ValueError as error:  # of a NUL, or of what no name can be encoded with
        raise OSError(errno.EINVAL, "no file can have that name") from error


def _ordinary(path: str, flags: int) -> int:
    """A descriptor; what is open is looked at, for another file can take a path between a look and an opening."""
    descriptor = os.open(path, flags | _AT_ONCE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file")
    return descriptor
