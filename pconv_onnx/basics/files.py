"""Opens files whose names come from outside, if they are ordinary files: a pipe would block, a device never end."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

# With this flag, which not every system has, opening a pipe does not wait for a writer.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open an ordinary file, or one that a link leads to, for reading.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    try:
        return open(path, "rb", opener=_ordinary)
    except ValueError as error:  # for a NUL, or characters that file names cannot be encoded with
        raise OSError(errno.EINVAL, "no file can have that name") from error


def _ordinary(path: str, flags: int) -> int:
    """A descriptor. The open file is examined, since another file may take the path between a check and the opening."""
    descriptor = os.open(path, flags | _AT_ONCE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file")
    return descriptor
